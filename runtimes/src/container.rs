//! The `ZVMC` container: native bytecode, or another runtime's, with its ABI.
//!
//! A 16-byte header (magic, version, target, flags, padding, code size, ABI size; integers little-endian), then the
//! code, then the ABI as JSON. The code hash of an account is the hash of the whole container.

mod abi;

pub use abi::{Abi, Function, Parameter, Selector, selector};

use crate::isa::Isa;
use revm::primitives::{eip170, eip7954, hardfork::SpecId};

/// The first four bytes of a container.
pub const MAGIC: [u8; 4] = *b"ZVMC";

/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 16;

const VERSION: usize = 4;
const TARGET: usize = 5;
const FLAGS: usize = 6;
const PADDING: usize = 7;
const CODE_SIZE: usize = 8;
const ABI_SIZE: usize = 12;

const FLAG_LEGACY: u8 = 1;

/// The version of the container, which is that of the native instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 1.
    V1 = 1,
    /// Version 2: adds the opcodes marked v2.
    V2 = 2,
}

/// The runtime a container's code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Native bytecode; `legacy` is set for the numbering "ISA 0".
    Native {
        /// Whether the code uses the legacy numbering.
        legacy: bool,
    },
    /// EVM bytecode.
    Evm,
    /// A WebAssembly module.
    Wasm,
}

impl Target {
    const fn byte(self) -> u8 {
        match self {
            Self::Native { .. } => 0,
            Self::Evm => 1,
            Self::Wasm => 2,
        }
    }

    const fn flags(self) -> u8 {
        match self {
            Self::Native { legacy: true } => FLAG_LEGACY,
            _ => 0,
        }
    }
}

/// A container that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// The version.
    pub version: Version,
    /// The runtime.
    pub target: Target,
    /// The code, never empty.
    pub code: &'a [u8],
    /// The ABI: JSON, or empty.
    pub abi: &'a str,
}

/// Why bytes are no container, or a container cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Fewer bytes than the header has.
    #[error("container header needs {HEADER_SIZE} bytes, only {0} are there")]
    ShortHeader(usize),
    /// The bytes do not start with [`MAGIC`].
    #[error("wrong container magic {0:02x?}")]
    WrongMagic([u8; 4]),
    /// A version other than 1 and 2.
    #[error("unknown container version {0}")]
    UnknownVersion(u8),
    /// A target other than 0, 1 and 2.
    #[error("unknown container target {0}")]
    UnknownTarget(u8),
    /// A flag that is not defined for the target.
    #[error("unknown container flags {flags:#04x} for target {target}")]
    UnknownFlags {
        /// The flags.
        flags: u8,
        /// The target they are not defined for.
        target: u8,
    },
    /// The padding byte is not 0.
    #[error("container padding is {0}, not 0")]
    NonZeroPadding(u8),
    /// Header, code and ABI together exceed 32 bits.
    #[error("container sizes overflow: {code} bytes of code, {abi} of ABI")]
    SizeOverflow {
        /// Size of the code in bytes.
        code: u64,
        /// Size of the ABI in bytes.
        abi: u64,
    },
    /// The sizes in the header do not add up to the bytes there are.
    #[error("container sizes add up to {declared} bytes, {actual} are there")]
    SizeMismatch {
        /// Header, code and ABI as the header says, in bytes.
        declared: usize,
        /// The bytes there are.
        actual: usize,
    },
    /// No code.
    #[error("container without code")]
    EmptyCode,
    /// More code than the fork allows.
    #[error("container has {size} bytes of code, the limit is {limit}")]
    CodeTooLarge {
        /// Size of the code in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The ABI is not UTF-8.
    #[error("container ABI is not UTF-8 from byte {0} on")]
    AbiNotUtf8(usize),
    /// The ABI is not JSON.
    #[error("container ABI is not JSON: {0}")]
    AbiNotJson(String),
}

/// The largest code that may be deployed in `spec`, in bytes: none before EIP-170, raised by EIP-7954.
pub const fn code_size_limit(spec: SpecId) -> Option<usize> {
    if spec.is_enabled_in(SpecId::AMSTERDAM) {
        Some(eip7954::MAX_CODE_SIZE)
    } else if spec.is_enabled_in(SpecId::SPURIOUS_DRAGON) {
        Some(eip170::MAX_CODE_SIZE)
    } else {
        None
    }
}

impl<'a> Container<'a> {
    /// Reads a container and checks all of it except the code's own validity.
    ///
    /// `code_limit` is the largest code allowed in bytes ([`code_size_limit`]), `None` for no limit. The order of
    /// the checks is that of [`ContainerError`]'s variants.
    ///
    /// # Errors
    ///
    /// A [`ContainerError`] for the first rule that is broken.
    pub fn parse(bytes: &'a [u8], code_limit: Option<usize>) -> Result<Self, ContainerError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Err(ContainerError::ShortHeader(bytes.len()));
        };
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        if word(0) != MAGIC {
            return Err(ContainerError::WrongMagic(word(0)));
        }
        let version = match header[VERSION] {
            1 => Version::V1,
            2 => Version::V2,
            other => return Err(ContainerError::UnknownVersion(other)),
        };
        let target = match (header[TARGET], header[FLAGS]) {
            (0, 0) => Target::Native { legacy: false },
            (0, FLAG_LEGACY) => Target::Native { legacy: true },
            (1, 0) => Target::Evm,
            (2, 0) => Target::Wasm,
            (target @ 0..=2, flags) => return Err(ContainerError::UnknownFlags { flags, target }),
            (other, _) => return Err(ContainerError::UnknownTarget(other)),
        };
        if header[PADDING] != 0 {
            return Err(ContainerError::NonZeroPadding(header[PADDING]));
        }
        let code_size = u32::from_le_bytes(word(CODE_SIZE));
        let abi_size = u32::from_le_bytes(word(ABI_SIZE));
        let (code_size, declared) = sizes(code_size.into(), abi_size.into())?;
        if declared != bytes.len() {
            return Err(ContainerError::SizeMismatch {
                declared,
                actual: bytes.len(),
            });
        }
        let (code, abi) = body.split_at(code_size);
        check_code(code, code_limit)?;
        let abi = std::str::from_utf8(abi)
            .map_err(|error| ContainerError::AbiNotUtf8(error.valid_up_to()))?;
        check_abi(abi)?;
        Ok(Self {
            version,
            target,
            code,
            abi,
        })
    }

    /// Writes the container.
    ///
    /// # Errors
    ///
    /// What [`Container::parse`] would reject: empty code, an ABI that is not JSON, sizes over 32 bits.
    pub fn encode(&self) -> Result<Vec<u8>, ContainerError> {
        let (_, total) = sizes(self.code.len() as u64, self.abi.len() as u64)?;
        check_code(self.code, None)?;
        check_abi(self.abi)?;
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[
            self.version as u8,
            self.target.byte(),
            self.target.flags(),
            0,
        ]);
        // `sizes` has checked that both fit 32 bits.
        bytes.extend_from_slice(&(self.code.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.abi.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.code);
        bytes.extend_from_slice(self.abi.as_bytes());
        Ok(bytes)
    }

    /// The numbering of the code, `None` for WebAssembly.
    pub const fn isa(&self) -> Option<Isa> {
        match (self.target, self.version) {
            (Target::Native { legacy: true }, _) => Some(Isa::Zvm0),
            (Target::Native { legacy: false }, Version::V1) => Some(Isa::Zvm1),
            (Target::Native { legacy: false }, Version::V2) => Some(Isa::Zvm2),
            (Target::Evm, _) => Some(Isa::Evm),
            (Target::Wasm, _) => None,
        }
    }

    /// The ABI, `None` if the container has none.
    ///
    /// # Errors
    ///
    /// The ABI is JSON of another shape: [`Container::parse`] asks only for JSON.
    pub fn abi(&self) -> Result<Option<Abi>, serde_json::Error> {
        if self.abi.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(self.abi).map(Some)
    }
}

/// The code's size and that of the whole container, in bytes.
fn sizes(code: u64, abi: u64) -> Result<(usize, usize), ContainerError> {
    let overflow = ContainerError::SizeOverflow { code, abi };
    let Some(total) = code
        .checked_add(abi)
        .and_then(|body| body.checked_add(HEADER_SIZE as u64))
    else {
        return Err(overflow);
    };
    if total > u32::MAX.into() {
        return Err(overflow);
    }
    match (usize::try_from(code), usize::try_from(total)) {
        (Ok(code), Ok(total)) => Ok((code, total)),
        _ => Err(overflow),
    }
}

fn check_code(code: &[u8], limit: Option<usize>) -> Result<(), ContainerError> {
    if code.is_empty() {
        return Err(ContainerError::EmptyCode);
    }
    match limit {
        Some(limit) if code.len() > limit => Err(ContainerError::CodeTooLarge {
            size: code.len(),
            limit,
        }),
        _ => Ok(()),
    }
}

fn check_abi(abi: &str) -> Result<(), ContainerError> {
    if abi.is_empty() {
        return Ok(());
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(abi) {
        Ok(_) => Ok(()),
        Err(error) => Err(ContainerError::AbiNotJson(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(target: Target) -> Container<'static> {
        Container {
            version: Version::V1,
            target,
            code: &[1, 2, 3],
            abi: "{}",
        }
    }

    #[test]
    fn the_header_has_the_specified_layout() {
        let container = Container {
            version: Version::V2,
            target: Target::Native { legacy: true },
            code: &[0xaa; 0x0102],
            abi: "[1]",
        };
        let bytes = container.encode().expect("encodes");
        assert_eq!(
            bytes[..16],
            *b"ZVMC\x02\x00\x01\x00\x02\x01\x00\x00\x03\x00\x00\x00"
        );
        assert_eq!(bytes[16..][..0x0102], [0xaa; 0x0102]);
        assert_eq!(bytes[16 + 0x0102..], *b"[1]");
        assert_eq!(container.isa(), Some(Isa::Zvm0));
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        use ContainerError as E;
        let good = sample(Target::Evm).encode().expect("encodes");
        let error = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Container::parse(&bytes, Some(8)).expect_err("must be rejected")
        };
        assert_eq!(error(&|b| b.truncate(15)), E::ShortHeader(15));
        assert_eq!(error(&|b| b[0] = b'z'), E::WrongMagic(*b"zVMC"));
        assert_eq!(error(&|b| b[4] = 3), E::UnknownVersion(3));
        assert_eq!(error(&|b| b[5] = 3), E::UnknownTarget(3));
        assert_eq!(
            error(&|b| b[6] = 1),
            E::UnknownFlags {
                flags: 1,
                target: 1
            }
        );
        assert_eq!(error(&|b| b[7] = 9), E::NonZeroPadding(9));
        assert_eq!(
            error(&|b| b[8..16].fill(0xff)),
            E::SizeOverflow {
                code: 0xffff_ffff,
                abi: 0xffff_ffff
            }
        );
        assert_eq!(
            error(&|b| b.push(0)),
            E::SizeMismatch {
                declared: 21,
                actual: 22
            }
        );
        assert_eq!(
            error(&|b| {
                b[8] = 0;
                b[12] = 5;
            }),
            E::EmptyCode
        );
        assert_eq!(
            error(&|b| {
                b[8] = 9;
                b.extend([0; 6]);
            }),
            E::CodeTooLarge { size: 9, limit: 8 }
        );
        assert_eq!(error(&|b| b[20] = 0xff), E::AbiNotUtf8(1));
        assert!(matches!(error(&|b| b[20] = b'{'), E::AbiNotJson(_)));
    }

    /// What a change of one header byte of a good container must lead to.
    fn oracle(
        good: &Container<'_>,
        bytes: &[u8],
        at: usize,
    ) -> Result<(Version, Target), &'static str> {
        let (value, target) = (bytes[at], good.target.byte());
        let as_target = |byte, flags| match (byte, flags) {
            (0, flags @ 0..=1) => Ok((good.version, Target::Native { legacy: flags == 1 })),
            (1, 0) => Ok((good.version, Target::Evm)),
            (2, 0) => Ok((good.version, Target::Wasm)),
            (0..=2, _) => Err("flags"),
            _ => Err("target"),
        };
        match at {
            0..=3 => Err("magic"),
            4 if value == 1 || value == 2 => Ok((
                if value == 1 { Version::V1 } else { Version::V2 },
                good.target,
            )),
            4 => Err("version"),
            5 => as_target(value, good.target.flags()),
            6 => as_target(target, value),
            7 => Err("padding"),
            // The largest byte makes one size 0xff00_0000 at most, which still fits 32 bits with the other.
            _ => Err("mismatch"),
        }
    }

    #[test]
    fn every_change_of_one_header_byte_is_rejected_for_its_reason_or_means_what_the_page_says() {
        for target in [
            Target::Native { legacy: false },
            Target::Native { legacy: true },
            Target::Evm,
            Target::Wasm,
        ] {
            let good = sample(target);
            let original = good.encode().expect("encodes");
            for at in 0..HEADER_SIZE {
                for value in 0..=u8::MAX {
                    if value == original[at] {
                        continue;
                    }
                    let mut bytes = original.clone();
                    bytes[at] = value;
                    let outcome = match Container::parse(&bytes, None) {
                        Ok(container) => {
                            assert_eq!((container.code, container.abi), (good.code, good.abi));
                            Ok((container.version, container.target))
                        }
                        Err(ContainerError::WrongMagic(_)) => Err("magic"),
                        Err(ContainerError::UnknownVersion(_)) => Err("version"),
                        Err(ContainerError::UnknownTarget(_)) => Err("target"),
                        Err(ContainerError::UnknownFlags { .. }) => Err("flags"),
                        Err(ContainerError::NonZeroPadding(_)) => Err("padding"),
                        Err(ContainerError::SizeMismatch { .. }) => Err("mismatch"),
                        Err(other) => panic!("byte {at} = {value:#04x}: {other}"),
                    };
                    assert_eq!(
                        outcome,
                        oracle(&good, &bytes, at),
                        "byte {at} = {value:#04x} of {target:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_code_limit_is_that_of_the_fork() {
        assert_eq!(code_size_limit(SpecId::HOMESTEAD), None);
        assert_eq!(code_size_limit(SpecId::SPURIOUS_DRAGON), Some(24576));
        assert_eq!(code_size_limit(SpecId::OSAKA), Some(24576));
        assert_eq!(code_size_limit(SpecId::AMSTERDAM), Some(65536));
    }

    #[test]
    fn the_abi_is_read_if_there_is_one() {
        let container = sample(Target::Evm);
        assert_eq!(container.abi().expect("reads"), Some(Abi::default()));
        let without = Container {
            abi: "",
            ..container
        };
        assert_eq!(without.abi().expect("reads"), None);
        assert!(
            Container {
                abi: "3",
                ..container
            }
            .abi()
            .is_err()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_encoded_is_parsed_back(
            second in any::<bool>(),
            target in 0..4,
            code in prop::collection::vec(any::<u8>(), 1..200),
            name in prop::option::of("\\PC{0,20}"),
        ) {
            let abi = name.map_or(String::new(), |name| serde_json::json!({ "contract": name }).to_string());
            let container = Container {
                version: if second { Version::V2 } else { Version::V1 },
                target: match target {
                    0 => Target::Native { legacy: false },
                    1 => Target::Native { legacy: true },
                    2 => Target::Evm,
                    _ => Target::Wasm,
                },
                code: &code,
                abi: &abi,
            };
            let bytes = container.encode().expect("encodes");
            prop_assert_eq!(Container::parse(&bytes, Some(code.len())), Ok(container));
        }

        #[test]
        fn whatever_parses_is_exactly_what_it_encodes_to(
            header in prop::collection::vec(0u8..4, 4),
            sizes in (0u8..12, 0u8..6),
            body in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'1')], 0..16),
        ) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(header);
            bytes.extend([sizes.0, 0, 0, 0, sizes.1, 0, 0, 0]);
            bytes.extend(body);
            if let Ok(container) = Container::parse(&bytes, None) {
                prop_assert_eq!(container.encode(), Ok(bytes.clone()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Container::parse(&bytes, None);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let _ = Container::parse(&with_magic, Some(4));
        }
    }
}
