//! A market of Uniswap v2, from the artifacts of its npm packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use zvm_engine::genesis::Genesis;
use zvm_engine::transaction;

use super::LoadError;
use super::contracts::balance_slot;
use super::workload::{Account, put_contract};

const PACKAGES: [&str; 2] = [
    "@uniswap/v2-core@1.0.1",
    "@uniswap/v2-periphery@1.1.0-beta.0",
];
/// Mappings of the token of `v2-core`: total supply is slot 0.
const BALANCES: u64 = 1;
const ALLOWANCES: u64 = 2;
const DEPLOY_GAS: u64 = 6_000_000;

/// Where swaps go, and what must be in blocks before.
pub(super) struct Market {
    pub(super) setup: Vec<Bytes>,
    pub(super) router: Address,
    pub(super) path: [Address; 2],
}

/// Puts two tokens that everyone has into the state, and deploys factory, router and pair by transactions of `deployer`.
pub(super) fn market(
    genesis: &mut Genesis,
    deployer: &Account,
    owners: &[Address],
) -> Result<Market, LoadError> {
    let artifacts = Artifacts::fetch()?;
    let token = artifacts.code("ERC20", "deployedBytecode")?;
    let path = [Address::repeat_byte(0xa1), Address::repeat_byte(0xb2)];
    let (factory, router) = (deployer.address.create(0), deployer.address.create(1));
    for address in path {
        let rich = U256::from(1_u128 << 100);
        let everyone = owners.iter().chain([&deployer.address]);
        let slots = everyone.flat_map(|owner| {
            [
                (balance_slot(*owner, BALANCES), rich),
                (allowance_slot(*owner, router), rich),
            ]
        });
        put_contract(genesis, address, token.clone(), slots);
    }
    let word = |address: Address| B256::left_padding_from(address.as_slice());
    let deploy_factory = [
        &artifacts.code("UniswapV2Factory", "bytecode")?[..],
        word(deployer.address).as_slice(),
    ]
    .concat();
    let deploy_router = [
        &artifacts.code("UniswapV2Router02", "bytecode")?[..],
        word(factory).as_slice(),
        word(Address::repeat_byte(0xee)).as_slice(),
    ]
    .concat();
    // Far more than all swaps move.
    let deep = B256::from(U256::from(1_u128 << 90));
    let liquidity = call(
        "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)",
        &[
            word(path[0]),
            word(path[1]),
            deep,
            deep,
            B256::ZERO,
            B256::ZERO,
            word(deployer.address),
            B256::from(U256::from(u64::MAX)),
        ],
    );
    let signed = [
        (TxKind::Create, deploy_factory.into()),
        (TxKind::Create, deploy_router.into()),
        (TxKind::Call(router), liquidity.into()),
    ];
    let setup = signed.into_iter().zip(0..).map(|((to, input), nonce)| {
        transaction::encode(&deployer.sign(nonce, to, 0, DEPLOY_GAS, input))
    });
    Ok(Market {
        setup: setup.collect(),
        router,
        path,
    })
}

/// The input of a swap of a thousand units.
pub(super) fn swap_input(path: [Address; 2], to: Address) -> Bytes {
    let word = |address: Address| B256::left_padding_from(address.as_slice());
    let number = |value: u64| B256::from(U256::from(value));
    call(
        "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)",
        &[
            number(1_000),
            B256::ZERO,
            number(5 * 32),
            word(to),
            number(u64::MAX),
            number(2),
            word(path[0]),
            word(path[1]),
        ],
    )
    .into()
}

fn call(signature: &str, words: &[B256]) -> Vec<u8> {
    let selector = &keccak256(signature)[..4];
    let words = words.iter().flat_map(|word| word.0);
    selector.iter().copied().chain(words).collect()
}

fn allowance_slot(owner: Address, spender: Address) -> U256 {
    let of_owner = balance_slot(owner, ALLOWANCES);
    let key = [
        B256::left_padding_from(spender.as_slice()),
        B256::from(of_owner),
    ];
    U256::from_be_bytes(keccak256(key.concat()).0)
}

/// The `build` folders of the packages, in a folder that goes with this.
struct Artifacts(tempfile::TempDir);

impl Artifacts {
    /// Has npm fetch the packages. Nothing of them is run.
    fn fetch() -> Result<Self, LoadError> {
        let failed = |reason: String| LoadError::Artifacts { reason };
        let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
        let output = Command::new("npm")
            .args([
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-save",
                "--prefix",
            ])
            .arg(folder.path())
            .args(PACKAGES)
            .output()
            .map_err(|error| failed(format!("npm could not be started: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("npm: {}", said.trim())));
        }
        Ok(Self(folder))
    }

    /// A code of a contract, by the name of its field in the artifact.
    fn code(&self, contract: &str, field: &str) -> Result<Bytes, LoadError> {
        let failed = |reason: String| LoadError::Artifacts {
            reason: format!("{contract}: {reason}"),
        };
        let places = ["v2-core", "v2-periphery"].map(|package| self.place(package, contract));
        let path = places
            .iter()
            .find(|path| path.is_file())
            .ok_or_else(|| failed("is in none of the packages".into()))?;
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        // Under `evm` without a prefix, or at the top with one.
        let code = json["evm"][field]["object"]
            .as_str()
            .or_else(|| json[field].as_str());
        let code = code.ok_or_else(|| failed(format!("has no {field}")))?;
        hex::decode(code)
            .map(Bytes::from)
            .map_err(|error| failed(error.to_string()))
    }

    fn place(&self, package: &str, contract: &str) -> PathBuf {
        let folder: &Path = self.0.path();
        folder
            .join("node_modules/@uniswap")
            .join(package)
            .join("build")
            .join(format!("{contract}.json"))
    }
}
