//! How many blocks are kept of something.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Blocks before the head that are kept; none: all of them, `archive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stated", into = "Stated")]
pub struct Kept(pub Option<u64>);

impl From<Option<u64>> for Kept {
    fn from(blocks: Option<u64>) -> Self {
        Self(blocks)
    }
}

impl core::fmt::Display for Kept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(blocks) => blocks.fmt(f),
            None => f.write_str("archive"),
        }
    }
}

/// The text is neither a number nor `archive`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of blocks nor archive")]
pub struct KeptError(String);

impl FromStr for Kept {
    type Err = KeptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "archive" => Ok(Self(None)),
            number => number
                .parse()
                .map(|blocks| Self(Some(blocks)))
                .map_err(|_| KeptError(text.to_owned())),
        }
    }
}

/// What a file may say: a number, or a text as the flag takes it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stated {
    Blocks(u64),
    Text(String),
}

impl TryFrom<Stated> for Kept {
    type Error = KeptError;

    fn try_from(stated: Stated) -> Result<Self, Self::Error> {
        match stated {
            Stated::Blocks(blocks) => Ok(Self(Some(blocks))),
            Stated::Text(text) => text.parse(),
        }
    }
}

impl From<Kept> for Stated {
    fn from(kept: Kept) -> Self {
        kept.0
            .map_or_else(|| Self::Text("archive".to_owned()), Self::Blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_or_archive() {
        assert_eq!("archive".parse(), Ok(Kept(None)));
        assert_eq!("90000".parse(), Ok(Kept(Some(90_000))));
        for kept in [Kept(None), Kept(Some(7))] {
            assert_eq!(kept.to_string().parse(), Ok(kept));
        }
        assert!("all".parse::<Kept>().is_err() && "-1".parse::<Kept>().is_err());
    }
}
