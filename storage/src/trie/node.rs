//! One node: its record in the store and its RLP in the trie.

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Encodable, Header};
use alloy_trie::Nibbles;
use alloy_trie::nodes::{ExtensionNodeRef, LeafNodeRef, RlpNode};

/// A node at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// The end of one key.
    Leaf {
        /// Nibbles of the key after the path.
        suffix: Nibbles,
        /// The value, as RLP.
        value: Vec<u8>,
    },
    /// Where keys part.
    Branch(Box<Branch>),
}

/// A branch, with the extension above it folded in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// Nibbles between the path and the branch; the extension's, or empty if there is none.
    pub prefix: Nibbles,
    /// References of the children by nibble, as in the branch's RLP; empty where there is none.
    pub children: [RlpNode; 16],
}

const LEAF: u8 = 0;
const BRANCH: u8 = 1;

impl Node {
    /// The node as seen from `above` nibbles further up: they are put before its suffix or prefix.
    pub(crate) fn lifted(self, above: &Nibbles) -> Self {
        match self {
            Self::Leaf { suffix, value } => Self::Leaf {
                suffix: above.join(&suffix),
                value,
            },
            Self::Branch(mut branch) => {
                branch.prefix = above.join(&branch.prefix);
                Self::Branch(branch)
            }
        }
    }

    /// The record. A leaf: 0x00, nibble count, nibbles two a byte (high first, the last low half zero), value.
    /// A branch: 0x01, nibble count and nibbles of the prefix, mask of the children (2 bytes, big-endian, bit n for
    /// nibble n), mask of those that are hashes (2), then each child: 32 bytes of hash, or a length byte and RLP.
    pub(crate) fn record(&self) -> Vec<u8> {
        match self {
            Self::Leaf { suffix, value } => {
                let mut out = Vec::with_capacity(2 + 32 + value.len());
                push_nibbles(&mut out, LEAF, suffix);
                out.extend_from_slice(value);
                out
            }
            Self::Branch(branch) => {
                // No more than is needed: the records of a block are held until it is committed.
                let prefix = branch.prefix.len().div_ceil(2);
                let children: usize = branch.children.iter().map(|child| child.len()).sum();
                let mut out = Vec::with_capacity(2 + prefix + 4 + children + 16);
                push_nibbles(&mut out, BRANCH, &branch.prefix);
                let mask = |wanted: &dyn Fn(&RlpNode) -> bool| {
                    let bits = branch.children.iter().rev();
                    bits.fold(0_u16, |mask, child| mask << 1 | u16::from(wanted(child)))
                };
                out.extend(mask(&|child| !child.is_empty()).to_be_bytes());
                out.extend(mask(&RlpNode::is_hash).to_be_bytes());
                for child in branch.children.iter().filter(|child| !child.is_empty()) {
                    if child.is_hash() {
                        out.extend_from_slice(&child[1..]);
                    } else {
                        out.push(child.len() as u8);
                        out.extend_from_slice(child);
                    }
                }
                out
            }
        }
    }

    /// Reads a record; `Err` says what is wrong with it.
    pub(crate) fn from_record(record: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "ends inside a field";
        let (&[kind, count], rest) = record.split_first_chunk::<2>().ok_or(SHORT)?;
        let count = usize::from(count);
        if count > 64 {
            return Err("more than 64 nibbles");
        }
        let (packed, mut rest) = rest.split_at_checked(count.div_ceil(2)).ok_or(SHORT)?;
        let mut nibbles = Nibbles::unpack(packed);
        nibbles.truncate(count);
        match kind {
            LEAF => Ok(Self::Leaf {
                suffix: nibbles,
                value: rest.to_vec(),
            }),
            BRANCH => {
                let mut take = |length: usize| {
                    let (field, after) = rest.split_at_checked(length).ok_or(SHORT)?;
                    rest = after;
                    Ok::<_, &'static str>(field)
                };
                let masks = take(4)?;
                let present = u16::from_be_bytes([masks[0], masks[1]]);
                let hashes = u16::from_be_bytes([masks[2], masks[3]]);
                if present.count_ones() < 2 || hashes & !present != 0 {
                    return Err("masks of no branch");
                }
                let mut children: [RlpNode; 16] = Default::default();
                for (nibble, child) in children.iter_mut().enumerate() {
                    if present >> nibble & 1 == 0 {
                        continue;
                    }
                    *child = if hashes >> nibble & 1 == 1 {
                        RlpNode::word_rlp(&B256::from_slice(take(32)?))
                    } else {
                        let length = usize::from(take(1)?[0]);
                        if length == 0 || length >= 32 {
                            return Err("a child inside its parent has 1 to 31 bytes");
                        }
                        RlpNode::from_raw(take(length)?).ok_or(SHORT)?
                    };
                }
                if !rest.is_empty() {
                    return Err("bytes after the last child");
                }
                Ok(Self::Branch(Box::new(Branch {
                    prefix: nibbles,
                    children,
                })))
            }
            _ => Err("unknown kind of node"),
        }
    }

    /// The reference a parent holds: the RLP itself below 32 bytes, else its hash. `buffer` is overwritten.
    pub(crate) fn reference(&self, buffer: &mut Vec<u8>) -> RlpNode {
        self.rlp(buffer);
        RlpNode::from_rlp(buffer)
    }

    /// The hash of the node as the root of its trie. `buffer` is overwritten.
    pub(crate) fn root_hash(&self, buffer: &mut Vec<u8>) -> B256 {
        self.rlp(buffer);
        keccak256(buffer)
    }

    /// RLP of the nodes of the trie that this is, from the top: a leaf, a branch, or an extension and its branch.
    pub(crate) fn layers(&self) -> Vec<Vec<u8>> {
        let mut top = Vec::new();
        self.rlp(&mut top);
        let mut layers = vec![top];
        if let Self::Branch(branch) = self
            && !branch.prefix.is_empty()
        {
            let mut below = Vec::new();
            branch.rlp(&mut below);
            layers.push(below);
        }
        layers
    }

    /// Writes the RLP of the leaf, or of the branch or the extension above it.
    fn rlp(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        match self {
            Self::Leaf { suffix, value } => LeafNodeRef::new(suffix, value).encode(buffer),
            Self::Branch(branch) => {
                branch.rlp(buffer);
                if !branch.prefix.is_empty() {
                    let child = RlpNode::from_rlp(buffer);
                    buffer.clear();
                    ExtensionNodeRef::new(&branch.prefix, &child).encode(buffer);
                }
            }
        }
    }
}

impl Branch {
    /// Appends the RLP of the branch alone.
    fn rlp(&self, buffer: &mut Vec<u8>) {
        let children = self.children.iter().map(|child| child.len().max(1));
        Header {
            list: true,
            // The 17th item is the value of a key that ends here: none does, all keys have one length.
            payload_length: children.sum::<usize>() + 1,
        }
        .encode(buffer);
        for child in &self.children {
            if child.is_empty() {
                buffer.push(alloy_rlp::EMPTY_STRING_CODE);
            } else {
                buffer.extend_from_slice(child);
            }
        }
        buffer.push(alloy_rlp::EMPTY_STRING_CODE);
    }
}

fn push_nibbles(out: &mut Vec<u8>, kind: u8, nibbles: &Nibbles) {
    out.extend([kind, nibbles.len() as u8]);
    out.extend_from_slice(&nibbles.pack());
}
