//! Programs cut out of contracts and changed.

use std::path::{Path, PathBuf};

use alloy_primitives::{U256, hex};

use crate::asm::{Item, assemble, lift};
use crate::case::Case;
use crate::choices::Choices;
use zvm_runtimes::evm::Fork;

/// Contracts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodesError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// A file is not of the format.
    #[error("{0}: {1}")]
    Format(PathBuf, String),
}

/// Codes of contracts, taken apart.
#[derive(Debug, Clone, Default)]
pub struct Codes(Vec<Vec<Item>>);

impl Codes {
    /// Every code in the files of `folder`: `*.json` of the corpus with a field `bytecode`, and `codes.json.zst`, a map
    /// from hash to code.
    ///
    /// # Errors
    /// A file cannot be read or is of another format.
    pub fn read(folder: &Path) -> Result<Self, CodesError> {
        let io = |path: &Path, error| CodesError::Io(path.to_owned(), error);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(|error| io(folder, error))?;
        paths.sort();
        let mut codes = Vec::new();
        for path in &paths {
            let name = path.file_name().and_then(|name| name.to_str());
            let format =
                |reason: &dyn ToString| CodesError::Format(path.clone(), reason.to_string());
            let texts: Vec<String> = match name {
                Some("codes.json.zst") => {
                    let file = std::fs::File::open(path).map_err(|error| io(path, error))?;
                    let bytes = zstd::decode_all(file).map_err(|error| io(path, error))?;
                    let map: std::collections::BTreeMap<String, String> =
                        serde_json::from_slice(&bytes).map_err(|error| format(&error))?;
                    map.into_values().collect()
                }
                Some(name) if name.ends_with(".json") && name != "manifest.json" => {
                    let bytes = std::fs::read(path).map_err(|error| io(path, error))?;
                    let value: serde_json::Value =
                        serde_json::from_slice(&bytes).map_err(|error| format(&error))?;
                    let text = value["bytecode"].as_str();
                    vec![text.ok_or_else(|| format(&"no bytecode"))?.to_owned()]
                }
                _ => continue,
            };
            for text in texts {
                let code = hex::decode(text).map_err(|error| format(&error))?;
                if !code.is_empty() {
                    codes.push(lift(&code));
                }
            }
        }
        Ok(Self(codes))
    }

    /// Codes taken apart.
    pub fn new(codes: Vec<Vec<Item>>) -> Self {
        Self(codes)
    }

    /// Adds those of another.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are at most so many bytes long.
    pub fn up_to(&self, bytes: usize) -> Self {
        let short = |items: &&Vec<Item>| assemble(items).len() <= bytes;
        Self(self.0.iter().filter(short).cloned().collect())
    }

    /// A whole contract with changes in it, called with a selector that occurs in it.
    pub fn whole(&self, choices: &mut Choices<'_>, index: usize) -> Case {
        let mut items = match self.0.get(index % self.0.len().max(1)) {
            Some(items) => items.clone(),
            None => Vec::new(),
        };
        let selectors: Vec<U256> = items
            .iter()
            .filter_map(|item| match item {
                Item::Push(4, word) => Some(*word),
                _ => None,
            })
            .collect();
        for _ in 0..choices.weighted(&[3, 3, 2, 1]) {
            mutate(choices, &mut items);
        }
        let mut case = Case::around(choices, items, Fork::LATEST);
        case.gas = choices.between(1_000, 200_000);
        if !selectors.is_empty() {
            let selector = choices.pick(&selectors).to_be_bytes::<32>();
            case.calldata = selector[28..].to_vec();
            for _ in 0..choices.below(5) {
                case.calldata.extend(choices.word().to_be_bytes::<32>());
            }
        }
        case
    }

    /// A part of a contract with words below it and changes in it.
    pub fn case(&self, choices: &mut Choices<'_>) -> Case {
        let none = Vec::new();
        let chosen = choices.below(self.0.len() as u64) as usize;
        let code = self.0.get(chosen).unwrap_or(&none);
        let most = choices.pick(&[24, 50, 50, 120]);
        let length = choices.between(8, most) as usize;
        let start = choices.below(code.len() as u64 + 1) as usize;
        let window = &code[start..(start + length).min(code.len())];
        let mut items: Vec<Item> = (0..choices.below(14))
            .map(|_| Item::push(choices.word()))
            .collect();
        items.extend_from_slice(window);
        meet(choices, &mut items);
        for _ in 0..choices.weighted(&[2, 3, 2, 2, 1, 1]) {
            mutate(choices, &mut items);
        }
        // What is left in memory counts.
        items.extend([
            Item::Op(0x59),
            Item::Push(1, Default::default()),
            Item::Op(0xf3),
        ]);
        Case::around(choices, items, Fork::LATEST)
    }
}

/// Points labels that lie outside to one that lies inside.
fn meet(choices: &mut Choices<'_>, items: &mut [Item]) {
    let inside: Vec<u16> = items
        .iter()
        .filter_map(|item| match item {
            Item::Label(label) => Some(*label),
            _ => None,
        })
        .collect();
    if inside.is_empty() {
        return;
    }
    for item in items {
        if let Item::PushLabel(_, label) = item
            && !inside.contains(label)
            && !choices.chance(1, 12)
        {
            *label = choices.pick(&inside);
        }
    }
}

fn mutate(choices: &mut Choices<'_>, items: &mut Vec<Item>) {
    if items.is_empty() {
        return;
    }
    let at = choices.below(items.len() as u64) as usize;
    match choices.below(7) {
        0 => {
            items.remove(at);
        }
        1 => items.insert(at, Item::push(choices.word())),
        2 => items[at] = Item::Op(choices.below(256) as u8),
        3 => {
            let item = items[at].clone();
            items.insert(at, item);
        }
        4 => {
            let other = choices.below(items.len() as u64) as usize;
            items.swap(at, other);
        }
        5 => {
            // A part of it twice.
            let end = (at + choices.between(1, 12) as usize).min(items.len());
            let part = items[at..end].to_vec();
            let to = choices.below(items.len() as u64) as usize;
            items.splice(to..to, part);
        }
        _ => {
            let word = choices.word();
            if let Some(Item::Push(size, literal)) = items[at..]
                .iter_mut()
                .find(|item| matches!(item, Item::Push(..)))
            {
                *size = word.byte_len() as u8;
                *literal = word;
            }
        }
    }
}
