//! What a revert says in Solidity's encoding.

use alloy_primitives::U256;

/// Selector of `Error(string)`.
const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
/// Selector of `Panic(uint256)`.
const PANIC: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

/// The reason in the output of a revert, if it is Solidity's `Error(string)` or `Panic(uint256)`.
pub fn revert_reason(output: &[u8]) -> Option<String> {
    let (selector, body) = output.split_first_chunk::<4>()?;
    match *selector {
        ERROR => {
            let offset = word_as_length(body, 0)?;
            let length = word_as_length(body, offset)?;
            let start = offset.checked_add(32)?;
            let text = body.get(start..start.checked_add(length)?)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        PANIC => {
            let code = U256::from_be_slice(body.get(..32)?);
            Some(match u64::try_from(code) {
                Ok(0x00) => "generic panic".to_owned(),
                Ok(0x01) => "assert(false)".to_owned(),
                Ok(0x11) => "arithmetic underflow or overflow".to_owned(),
                Ok(0x12) => "division or modulo by zero".to_owned(),
                Ok(0x21) => "enum overflow".to_owned(),
                Ok(0x22) => "invalid encoded storage byte array accessed".to_owned(),
                Ok(0x31) => "out-of-bounds array access; popping on an empty array".to_owned(),
                Ok(0x32) => "out-of-bounds access of an array or bytesN".to_owned(),
                Ok(0x41) => "out of memory".to_owned(),
                Ok(0x51) => "uninitialized function".to_owned(),
                _ => format!("unknown panic code: {code:#x}"),
            })
        }
        _ => None,
    }
}

fn word_as_length(body: &[u8], at: usize) -> Option<usize> {
    let word = body.get(at..at.checked_add(32)?)?;
    usize::try_from(U256::from_be_slice(word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn reasons_are_read_and_nothing_else_is_taken_for_one() {
        let error = hex!(
            "08c379a0 0000000000000000000000000000000000000000000000000000000000000020
             0000000000000000000000000000000000000000000000000000000000000003
             6162630000000000000000000000000000000000000000000000000000000000"
        );
        assert_eq!(revert_reason(&error).as_deref(), Some("abc"));
        // A length past the end.
        let mut cut = error;
        cut[4 + 63] = 200;
        assert_eq!(revert_reason(&cut), None);
        assert_eq!(revert_reason(&[0xff; 36]), None);
        assert_eq!(revert_reason(&[]), None);
        let mut panic = [0; 36];
        panic[..4].copy_from_slice(&PANIC);
        panic[35] = 0x11;
        assert_eq!(
            revert_reason(&panic).as_deref(),
            Some("arithmetic underflow or overflow")
        );
    }
}
