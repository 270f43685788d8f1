//! The funded accounts of a development chain, whose keys everybody knows.

use alloy_consensus::{EthereumTypedTransaction, SignableTransaction as _, TxEip4844};
use alloy_primitives::{Address, B256, Signature, U256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::coins_bip39::English;
use alloy_signer_local::{LocalSignerError, MnemonicBuilder, PrivateKeySigner};
use zvm_engine::transaction::Tx;

/// The mnemonic development chains use everywhere.
pub const MNEMONIC: &str = "test test test test test test test test test test test junk";

/// How many accounts of the mnemonic are funded.
pub const COUNT: u32 = 10;

/// What each of them has in the genesis block: 10,000 ETH, in wei.
pub const BALANCE: U256 = U256::from_limbs([WEI as u64, (WEI >> 64) as u64, 0, 0]);
const WEI: u128 = 10_000 * 10_u128.pow(18);

/// A key could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The mnemonic gives no key.
    #[error("mnemonic: {0}")]
    Mnemonic(#[from] LocalSignerError),
    /// The signer failed.
    #[error("signer: {0}")]
    Signer(#[from] alloy_signer::Error),
    /// No key of this account is here.
    #[error("unknown account {0}: the node has no key for it")]
    Unknown(Address),
}

/// Accounts whose keys the node has.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    signers: Vec<PrivateKeySigner>,
}

impl Accounts {
    /// No accounts.
    pub fn none() -> Self {
        Self::default()
    }

    /// The accounts of [`MNEMONIC`].
    ///
    /// # Errors
    /// [`AccountError::Mnemonic`].
    pub fn development() -> Result<Self, AccountError> {
        let parent = MnemonicBuilder::<English>::default().phrase(MNEMONIC);
        let signers = (0..COUNT)
            .map(|index| parent.clone().index(index)?.build())
            .collect::<Result<_, LocalSignerError>>()?;
        Ok(Self { signers })
    }

    /// Their addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.signers.iter().map(PrivateKeySigner::address).collect()
    }

    /// Addresses with their private keys, for printing: they are no secret.
    pub fn keys(&self) -> impl Iterator<Item = (Address, B256)> {
        self.signers
            .iter()
            .map(|signer| (signer.address(), signer.to_bytes()))
    }

    fn signer(&self, address: Address) -> Result<&PrivateKeySigner, AccountError> {
        self.signers
            .iter()
            .find(|signer| signer.address() == address)
            .ok_or(AccountError::Unknown(address))
    }

    /// Signs a transaction.
    ///
    /// # Errors
    /// [`AccountError::Unknown`], [`AccountError::Signer`].
    pub fn sign_transaction(
        &self,
        from: Address,
        tx: EthereumTypedTransaction<TxEip4844>,
    ) -> Result<Tx, AccountError> {
        let signature = self.signer(from)?.sign_hash_sync(&tx.signature_hash())?;
        Ok(tx.into_envelope(signature))
    }

    /// Signs a message with the prefix of EIP-191, version 0x45.
    ///
    /// # Errors
    /// [`AccountError::Unknown`], [`AccountError::Signer`].
    pub fn sign_message(&self, from: Address, message: &[u8]) -> Result<Signature, AccountError> {
        Ok(self.signer(from)?.sign_message_sync(message)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;

    #[test]
    fn the_accounts_are_those_every_development_chain_has() {
        let addresses = Accounts::development().unwrap().addresses();
        assert_eq!(addresses.len(), 10);
        assert_eq!(
            addresses[0],
            address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
        );
        assert_eq!(
            addresses[9],
            address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720")
        );
        assert_eq!(
            BALANCE,
            U256::from(10_000) * U256::from(10).pow(U256::from(18))
        );
    }
}
