//! Which runtime a code belongs to.

use crate::{
    container::{Container, ContainerError, MAGIC, Target},
    isa::Isa,
};
use alloy_primitives::Address;
use std::{fmt, str::FromStr};

/// The first bytes of a WebAssembly module: its magic and the one version of the binary format.
const WASM: [u8; 8] = *b"\0asm\x01\0\0\0";

/// The first bytes of a delegation (EIP-7702); the address follows.
const DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

/// The first byte no new code may have (EIP-3541).
const RESERVED: u8 = 0xef;

/// The runtime of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// EVM bytecode.
    Evm,
    /// Native bytecode.
    Zvm,
    /// Native bytecode in the legacy numbering "ISA 0".
    ZvmLegacy,
    /// A WebAssembly module.
    Wasm,
    /// The account runs the code of another one (EIP-7702).
    Delegation(Address),
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evm => "evm",
            Self::Zvm => "zvm",
            Self::ZvmLegacy => "zvm0",
            Self::Wasm => "wasm",
            Self::Delegation(address) => return write!(f, "delegation to {address}"),
        })
    }
}

/// The text names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {0:?}: expected evm, zvm, wasm or zvm0")]
pub struct UnknownFormat(pub String);

/// Reads the name of a format as given to `--format`.
impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "evm" => Ok(Self::Evm),
            "zvm" => Ok(Self::Zvm),
            "zvm0" => Ok(Self::ZvmLegacy),
            "wasm" => Ok(Self::Wasm),
            _ => Err(UnknownFormat(s.to_owned())),
        }
    }
}

/// Why a code belongs to no runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// The code starts with `ef` and is no delegation (EIP-3541).
    #[error("code starts with the reserved byte 0xef and is no delegation (EIP-3541)")]
    ReservedPrefix,
    /// The code starts as a container and is none.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The container is for another runtime than the one asked for.
    #[error("the container is for {found}, not for {wanted}")]
    WrongFormat {
        /// The format asked for.
        wanted: Format,
        /// The container's.
        found: Format,
    },
}

/// A code with its runtime, out of its container if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The runtime.
    pub format: Format,
    /// The bytes that runtime executes.
    pub code: &'a [u8],
    /// The container the code came in.
    pub container: Option<Container<'a>>,
}

impl Located<'_> {
    /// The numbering of the code; `None` for WebAssembly and delegations. Native code outside a container is of
    /// version 1.
    pub fn isa(&self) -> Option<Isa> {
        match (&self.container, self.format) {
            (Some(container), _) => container.isa(),
            (None, Format::Evm) => Some(Isa::Evm),
            (None, Format::Zvm) => Some(Isa::Zvm1),
            (None, Format::ZvmLegacy) => Some(Isa::Zvm0),
            (None, Format::Wasm | Format::Delegation(_)) => None,
        }
    }
}

/// The format of a deployed code, by its first bytes. A container must be valid as a whole; how large its code may
/// be is checked at deployment.
///
/// # Errors
///
/// [`DetectError::ReservedPrefix`] and [`DetectError::Container`].
pub fn detect(code: &[u8]) -> Result<Format, DetectError> {
    locate(code, None).map(|located| located.format)
}

/// The format of a code and the bytes to execute. With `named`, code outside a container is taken to be of that
/// format, and a container must be for it.
///
/// # Errors
///
/// A [`DetectError`].
pub fn locate(code: &[u8], named: Option<Format>) -> Result<Located<'_>, DetectError> {
    if code.starts_with(&MAGIC) {
        let container = Container::parse(code, None)?;
        let found = match container.target {
            Target::Native { legacy: false } => Format::Zvm,
            Target::Native { legacy: true } => Format::ZvmLegacy,
            Target::Evm => Format::Evm,
            Target::Wasm => Format::Wasm,
        };
        return match named {
            Some(wanted) if wanted != found => Err(DetectError::WrongFormat { wanted, found }),
            _ => Ok(Located {
                format: found,
                code: container.code,
                container: Some(container),
            }),
        };
    }
    let format = match named {
        // The prefix of EIP-3541 means the same whether or not the runtime was named.
        None | Some(Format::Evm) if code.first() == Some(&RESERVED) => {
            let address = code
                .strip_prefix(&DELEGATION)
                .and_then(|rest| Address::try_from(rest).ok());
            Format::Delegation(address.ok_or(DetectError::ReservedPrefix)?)
        }
        Some(named) => named,
        None if code.starts_with(&WASM) => Format::Wasm,
        None => Format::Evm,
    };
    Ok(Located {
        format,
        code,
        container: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Version;
    use proptest::prelude::*;

    fn container(target: Target) -> Vec<u8> {
        Container {
            version: Version::V2,
            target,
            code: &[0xfe, 0xed],
            abi: "",
        }
        .encode()
        .expect("encodes")
    }

    #[test]
    fn each_row_of_the_recognition_table_holds() {
        let delegation = [&DELEGATION[..], &[0x11; 20]].concat();
        assert_eq!(detect(b"\0asm\x01\0\0\0"), Ok(Format::Wasm));
        assert_eq!(
            detect(&container(Target::Native { legacy: false })),
            Ok(Format::Zvm)
        );
        assert_eq!(
            detect(&container(Target::Native { legacy: true })),
            Ok(Format::ZvmLegacy)
        );
        assert_eq!(detect(&container(Target::Evm)), Ok(Format::Evm));
        assert_eq!(detect(&container(Target::Wasm)), Ok(Format::Wasm));
        assert_eq!(
            detect(&delegation),
            Ok(Format::Delegation(Address::repeat_byte(0x11)))
        );
        assert_eq!(detect(&[0x60, 0x00]), Ok(Format::Evm));
        assert_eq!(detect(&[]), Ok(Format::Evm));
    }

    #[test]
    fn what_only_resembles_another_format_is_evm_or_rejected() {
        assert_eq!(detect(b"\0asm"), Ok(Format::Evm));
        assert_eq!(detect(b"\0asm\x02\0\0\0"), Ok(Format::Evm));
        assert_eq!(detect(b"ZVM"), Ok(Format::Evm));
        assert_eq!(
            detect(b"ZVMC"),
            Err(DetectError::Container(ContainerError::ShortHeader(4)))
        );
        assert_eq!(detect(&[0xef]), Err(DetectError::ReservedPrefix));
        assert_eq!(
            detect(&[0xef, 0x00, 0x01]),
            Err(DetectError::ReservedPrefix)
        );
        assert_eq!(
            detect(&[&DELEGATION[..], &[0; 19]].concat()),
            Err(DetectError::ReservedPrefix)
        );
        assert_eq!(
            detect(&[&DELEGATION[..], &[0; 21]].concat()),
            Err(DetectError::ReservedPrefix)
        );
    }

    #[test]
    fn a_named_format_is_taken_as_given_and_must_agree_with_a_container() {
        let raw = [0x01, 0x02];
        let located = locate(&raw, Some(Format::ZvmLegacy)).expect("is taken");
        assert_eq!(
            (located.format, located.isa()),
            (Format::ZvmLegacy, Some(Isa::Zvm0))
        );
        assert_eq!(
            locate(&raw, Some(Format::Zvm)).expect("is taken").isa(),
            Some(Isa::Zvm1)
        );
        assert_eq!(
            locate(&[0xef], Some(Format::Evm)),
            Err(DetectError::ReservedPrefix)
        );
        assert_eq!(
            locate(&[0xef], Some(Format::Zvm)).expect("is taken").format,
            Format::Zvm
        );

        let native = container(Target::Native { legacy: false });
        let located = locate(&native, Some(Format::Zvm)).expect("agrees");
        assert_eq!(
            (located.code, located.isa()),
            (&[0xfe, 0xed][..], Some(Isa::Zvm2))
        );
        assert_eq!(
            locate(&native, Some(Format::Evm)),
            Err(DetectError::WrongFormat {
                wanted: Format::Evm,
                found: Format::Zvm
            })
        );
    }

    #[test]
    fn the_names_of_formats_are_read_back() {
        for format in [Format::Evm, Format::Zvm, Format::ZvmLegacy, Format::Wasm] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("EVM".parse::<Format>(), Err(UnknownFormat("EVM".into())));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_never_panic(
            prefix in prop::sample::select(vec![&b""[..], b"ZVMC", b"\0asm", b"\xef\x01\x00", b"\xef"]),
            tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = detect(&[prefix, &tail].concat());
        }
    }
}
