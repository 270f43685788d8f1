//! Assembler.
//!
//! The text is a sequence of words separated by blanks; lines do not matter, except that `;`, `#` and `//` start a
//! comment that ends with the line:
//!
//! - `ADD`: a mnemonic of the instruction set, in any case;
//! - `PUSH2 0x1f`, `PUSH2 31`, `PUSH2 @loop`: a mnemonic with its immediate in hex, in decimal, or the offset of a
//!   label; it is padded on the left to the immediate's size;
//! - `:loop`: a label, standing for the offset of what follows; it emits nothing, so a jump target reads
//!   `:loop JUMPDEST`;
//! - `.data 0x0102`: bytes as they are.

use super::{Isa, OpInfo};
use alloy_primitives::U256;
use std::collections::HashMap;

/// Why a text does not assemble, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct AssembleError {
    /// The line, from 1.
    pub line: usize,
    /// The column of the offending word in characters, from 1.
    pub column: usize,
    /// What is wrong with it.
    pub kind: AssembleErrorKind,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleErrorKind {
    /// A word that is no mnemonic of the instruction set.
    #[error("unknown mnemonic {word:?} in the {isa} instruction set")]
    UnknownMnemonic {
        /// The word.
        word: String,
        /// The instruction set.
        isa: Isa,
    },
    /// An instruction at the end of the text lacks its immediate.
    #[error("{mnemonic} needs an immediate of {size} bytes")]
    MissingImmediate {
        /// The instruction.
        mnemonic: &'static str,
        /// The immediate's size in bytes.
        size: u8,
    },
    /// A word that is neither a number nor a label reference.
    #[error("{0:?} is neither a hexadecimal (0x…) or decimal number nor a label (@name)")]
    BadNumber(String),
    /// A number that does not fit its immediate.
    #[error("{word} does not fit the {size}-byte immediate of {mnemonic}")]
    TooLarge {
        /// The number or label reference.
        word: String,
        /// The instruction.
        mnemonic: &'static str,
        /// The immediate's size in bytes.
        size: u8,
    },
    /// An immediate that the instruction forbids (EIP-8024).
    #[error("{mnemonic} forbids the immediate {word}")]
    ForbiddenImmediate {
        /// The number.
        word: String,
        /// The instruction.
        mnemonic: &'static str,
    },
    /// A label with the empty name, or one with other characters than letters, digits, `_`, `.` and `$`.
    #[error("{0:?} is no label name")]
    BadLabel(String),
    /// A label defined twice.
    #[error("label {name:?} is already defined on line {first_line}")]
    DuplicateLabel {
        /// The label.
        name: String,
        /// Where it was defined first.
        first_line: usize,
    },
    /// A label that is used but not defined.
    #[error("label {0:?} is not defined")]
    UndefinedLabel(String),
    /// `.data` without bytes.
    #[error(".data needs bytes in hexadecimal (0x…)")]
    MissingData,
    /// Data that is not an even number of hex digits.
    #[error("{0:?} is not an even number of hexadecimal digits after 0x")]
    BadData(String),
}

#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

impl Word<'_> {
    fn error(self, kind: AssembleErrorKind) -> AssembleError {
        AssembleError {
            line: self.line,
            column: self.column,
            kind,
        }
    }
}

/// A label reference whose offset is filled in once every label is known.
struct Fixup<'a> {
    word: Word<'a>,
    name: &'a str,
    info: &'static OpInfo,
    at: usize,
}

struct Assembler<'a> {
    isa: Isa,
    code: Vec<u8>,
    labels: HashMap<&'a str, (usize, usize)>,
    fixups: Vec<Fixup<'a>>,
}

/// Assembles `text` into bytecode.
///
/// # Errors
///
/// [`AssembleError`] names the first offending word; uses of undefined labels are reported after all else.
pub fn assemble(isa: Isa, text: &str) -> Result<Vec<u8>, AssembleError> {
    let mut assembler = Assembler {
        isa,
        code: Vec::new(),
        labels: HashMap::new(),
        fixups: Vec::new(),
    };
    let mut words = words(text);
    while let Some(word) = words.next() {
        if let Some(name) = word.text.strip_prefix(':') {
            assembler.define(word, name)?;
        } else if word.text.eq_ignore_ascii_case(".data") {
            assembler.data(
                words
                    .next()
                    .ok_or_else(|| word.error(AssembleErrorKind::MissingData))?,
            )?;
        } else {
            assembler.instruction(word, &mut words)?;
        }
    }
    assembler.finish()
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    text.lines().enumerate().flat_map(|(i, line)| {
        let mut offset = 0;
        let mut column = 0;
        std::iter::from_fn(move || {
            let rest = &line[offset..];
            let blanks = rest.len() - rest.trim_start().len();
            let start = &rest[blanks..];
            if start.is_empty() || is_comment(start) {
                return None;
            }
            let end = start
                .char_indices()
                .find(|&(at, c)| c.is_whitespace() || is_comment(&start[at..]))
                .map_or(start.len(), |(at, _)| at);
            let text = &start[..end];
            let word = Word {
                text,
                line: i + 1,
                column: column + rest[..blanks].chars().count() + 1,
            };
            column += rest[..blanks + end].chars().count();
            offset += blanks + end;
            Some(word)
        })
    })
}

fn is_comment(text: &str) -> bool {
    text.starts_with([';', '#']) || text.starts_with("//")
}

fn is_label(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'))
}

impl<'a> Assembler<'a> {
    fn define(&mut self, word: Word<'a>, name: &'a str) -> Result<(), AssembleError> {
        if !is_label(name) {
            return Err(word.error(AssembleErrorKind::BadLabel(name.to_owned())));
        }
        if let Some(&(_, first_line)) = self.labels.get(name) {
            return Err(word.error(AssembleErrorKind::DuplicateLabel {
                name: name.to_owned(),
                first_line,
            }));
        }
        self.labels.insert(name, (self.code.len(), word.line));
        Ok(())
    }

    fn data(&mut self, word: Word<'_>) -> Result<(), AssembleError> {
        let bytes = strip_hex(word.text)
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| alloy_primitives::hex::decode(digits).ok())
            .ok_or_else(|| word.error(AssembleErrorKind::BadData(word.text.to_owned())))?;
        self.code.extend_from_slice(&bytes);
        Ok(())
    }

    fn instruction(
        &mut self,
        word: Word<'a>,
        words: &mut impl Iterator<Item = Word<'a>>,
    ) -> Result<(), AssembleError> {
        let isa = self.isa;
        let unknown = || {
            word.error(AssembleErrorKind::UnknownMnemonic {
                word: word.text.to_owned(),
                isa,
            })
        };
        let info = isa.op_by_mnemonic(word.text).ok_or_else(unknown)?;
        self.code.push(info.byte(isa).ok_or_else(unknown)?);
        if info.immediate == 0 {
            return Ok(());
        }
        let mnemonic = info.mnemonic(isa);
        let operand = words.next().ok_or_else(|| {
            word.error(AssembleErrorKind::MissingImmediate {
                mnemonic,
                size: info.immediate,
            })
        })?;
        if let Some(name) = operand.text.strip_prefix('@') {
            if !is_label(name) {
                return Err(operand.error(AssembleErrorKind::BadLabel(name.to_owned())));
            }
            self.fixups.push(Fixup {
                word: operand,
                name,
                info,
                at: self.code.len(),
            });
            self.code
                .resize(self.code.len() + usize::from(info.immediate), 0);
            return Ok(());
        }
        let bytes = self.immediate(operand, info, number(operand)?)?;
        self.code.extend_from_slice(&bytes);
        Ok(())
    }

    fn immediate(
        &self,
        word: Word<'_>,
        info: &OpInfo,
        value: Option<U256>,
    ) -> Result<Vec<u8>, AssembleError> {
        let size = usize::from(info.immediate);
        let mnemonic = info.mnemonic(self.isa);
        let Some(value) = value.filter(|value| value.byte_len() <= size) else {
            let size = info.immediate;
            return Err(word.error(AssembleErrorKind::TooLarge {
                word: word.text.to_owned(),
                mnemonic,
                size,
            }));
        };
        let bytes = value.to_be_bytes::<32>()[32 - size..].to_vec();
        if bytes
            .first()
            .is_some_and(|&first| !info.accepts_immediate(first))
        {
            return Err(word.error(AssembleErrorKind::ForbiddenImmediate {
                word: word.text.to_owned(),
                mnemonic,
            }));
        }
        Ok(bytes)
    }

    fn finish(mut self) -> Result<Vec<u8>, AssembleError> {
        for fixup in std::mem::take(&mut self.fixups) {
            let &(offset, _) = self.labels.get(fixup.name).ok_or_else(|| {
                fixup
                    .word
                    .error(AssembleErrorKind::UndefinedLabel(fixup.name.to_owned()))
            })?;
            let bytes = self.immediate(fixup.word, fixup.info, Some(U256::from(offset)))?;
            self.code[fixup.at..fixup.at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(self.code)
    }
}

fn strip_hex(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// The value of a number, `None` if it needs more than 256 bits.
fn number(word: Word<'_>) -> Result<Option<U256>, AssembleError> {
    let (digits, radix) = match strip_hex(word.text) {
        Some(digits) => (digits, 16),
        None => (word.text, 10),
    };
    // The parser of U256 also takes what this notation does not have, such as `_`.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(word.error(AssembleErrorKind::BadNumber(word.text.to_owned())));
    }
    Ok(U256::from_str_radix(digits, radix.into()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> AssembleError {
        assemble(Isa::Evm, text).expect_err("must not assemble")
    }

    #[test]
    fn labels_stand_for_offsets_before_and_after_their_use() {
        let code = assemble(
            Isa::Evm,
            "PUSH1 @end JUMP ; skip\n:loop JUMPDEST push2 @loop jump\n:end jumpdest",
        );
        assert_eq!(
            code.expect("assembles"),
            [0x60, 8, 0x56, 0x5b, 0x61, 0, 3, 0x56, 0x5b]
        );
    }

    #[test]
    fn immediates_are_hex_or_decimal_and_padded_left() {
        let code = assemble(Isa::Evm, "PUSH2 0x1 PUSH3 256 .DATA 0xfe01 // done\n# done")
            .expect("assembles");
        assert_eq!(code, [0x61, 0, 1, 0x62, 0, 1, 0, 0xfe, 1]);
    }

    #[test]
    fn each_numbering_has_its_own_mnemonics() {
        assert_eq!(
            assemble(Isa::Zvm1, "PUSH1 1 HALT").expect("assembles"),
            [0x11, 1, 0]
        );
        assert_eq!(
            assemble(Isa::Zvm0, "PUSH1 1 DUP SWAP HALT").expect("assembles"),
            [1, 1, 6, 7, 0x63]
        );
        assert!(assemble(Isa::Zvm1, "PUSH0").is_err());
        assert_eq!(
            assemble(Isa::Zvm2, "PUSH0 SWAPN 16").expect("assembles"),
            [0x21, 0x20, 16]
        );
        assert!(assemble(Isa::Evm, "HALT").is_err());
    }

    #[test]
    fn errors_name_line_and_column_of_the_word() {
        assert_eq!(
            error("ADD\n  é FOO").to_string(),
            "line 2, column 3: unknown mnemonic \"é\" in the evm instruction set"
        );
        let at = |text| {
            let e = error(text);
            (e.line, e.column)
        };
        assert_eq!(at("ADD ADD\n\tADD  FOO;x"), (2, 7));
        assert_eq!(at("PUSH1 @nowhere"), (1, 7));
        assert_eq!(at(":a\n:b :a"), (2, 4));
    }

    #[test]
    fn every_kind_of_error_is_reported() {
        use AssembleErrorKind as E;
        let kind = |text: &str| error(text).kind;
        assert_eq!(
            kind("PUSH2"),
            E::MissingImmediate {
                mnemonic: "PUSH2",
                size: 2
            }
        );
        assert_eq!(kind("PUSH1 x"), E::BadNumber("x".into()));
        assert_eq!(kind("PUSH1 0x"), E::BadNumber("0x".into()));
        assert_eq!(kind("PUSH1 1_0"), E::BadNumber("1_0".into()));
        assert_eq!(
            kind("PUSH1 256"),
            E::TooLarge {
                word: "256".into(),
                mnemonic: "PUSH1",
                size: 1
            }
        );
        let wide = format!("0x1{}", "0".repeat(64));
        assert_eq!(
            error(&format!("PUSH32 {wide}")).kind,
            E::TooLarge {
                word: wide,
                mnemonic: "PUSH32",
                size: 32
            }
        );
        assert_eq!(
            kind("DUPN 0x5b"),
            E::ForbiddenImmediate {
                word: "0x5b".into(),
                mnemonic: "DUPN"
            }
        );
        assert_eq!(kind(":"), E::BadLabel(String::new()));
        assert_eq!(kind("PUSH1 @a-b"), E::BadLabel("a-b".into()));
        assert_eq!(
            kind(":a :a"),
            E::DuplicateLabel {
                name: "a".into(),
                first_line: 1
            }
        );
        assert_eq!(kind("PUSH1 @a"), E::UndefinedLabel("a".into()));
        assert_eq!(kind(".data"), E::MissingData);
        assert_eq!(kind(".data 0x123"), E::BadData("0x123".into()));
        assert_eq!(kind(".data 0x0x12"), E::BadData("0x0x12".into()));
        let far = format!(".data 0x{} :far PUSH1 @far", "00".repeat(256));
        assert_eq!(
            kind(&far),
            E::TooLarge {
                word: "@far".into(),
                mnemonic: "PUSH1",
                size: 1
            }
        );
    }
}
