//! The tables: the one place that says what each is called and what its keys and values are.

use std::fmt;

/// A table of the store. The number of a variant is its place in a sorted batch.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Facts about the store itself: schema version, chain head, what the node keeps by name.
    Meta = 0,
    /// Accounts by address.
    Accounts = 1,
    /// Storage slots by address and slot.
    Storage = 2,
    /// Contract code by its hash.
    Codes = 3,
    /// Nodes of the state trie by path.
    AccountTrie = 4,
    /// Nodes of the storage tries by address and path.
    StorageTrie = 5,
    /// Headers by block number.
    Headers = 6,
    /// Senders and bodies by block number.
    Bodies = 7,
    /// Receipts by block number.
    Receipts = 8,
    /// Block numbers by block hash.
    BlockNumbers = 9,
    /// Places of transactions by transaction hash.
    Transactions = 10,
    /// Accounts before the blocks that changed them, by address and block number.
    AccountHistory = 11,
    /// Slots before the blocks that changed them, by address, slot and block number.
    StorageHistory = 12,
    /// What a block changed: the keys of its history entries, by block number and part.
    Changes = 13,
    /// Transactions by sender and by recipient.
    AddressTransactions = 14,
    /// Where logs are, by address or topic and block number.
    LogPostings = 15,
    /// Deployments of contracts, by address, the latest first.
    Contracts = 16,
    /// ABIs by code hash.
    Abis = 17,
}

/// What a table is called and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// The table.
    pub table: Table,
    /// Its name in the store.
    pub name: &'static str,
    /// What a key is.
    pub key: &'static str,
    /// What a value is.
    pub value: &'static str,
}

const fn facts(
    table: Table,
    name: &'static str,
    key: &'static str,
    value: &'static str,
) -> TableFacts {
    TableFacts {
        table,
        name,
        key,
        value,
    }
}

/// Every table, at the index of its number.
pub const TABLES: [TableFacts; Table::COUNT] = [
    facts(Table::Meta, "meta", "name", "bytes of that name's layout"),
    facts(
        Table::Accounts,
        "accounts",
        "address (20)",
        "account record",
    ),
    facts(
        Table::Storage,
        "storage",
        "address (20), slot (32, big-endian)",
        "value (1 to 32, big-endian, no leading zero)",
    ),
    facts(Table::Codes, "codes", "code hash (32)", "code"),
    facts(
        Table::AccountTrie,
        "account_trie",
        "0x00, one byte a nibble of the path",
        "trie node record",
    ),
    facts(
        Table::StorageTrie,
        "storage_trie",
        "address (20), one byte a nibble of the path",
        "trie node record",
    ),
    facts(
        Table::Headers,
        "headers",
        "block number (8, big-endian)",
        "block hash (32), RLP of the header",
    ),
    facts(
        Table::Bodies,
        "bodies",
        "block number (8, big-endian)",
        "sender count (4, big-endian), senders (20 each), RLP of the body",
    ),
    facts(
        Table::Receipts,
        "receipts",
        "block number (8, big-endian)",
        "RLP list of stored receipts",
    ),
    facts(
        Table::BlockNumbers,
        "block_numbers",
        "block hash (32)",
        "block number (8, big-endian)",
    ),
    facts(
        Table::Transactions,
        "transactions",
        "transaction hash (32)",
        "block number (8, big-endian), index (4, big-endian)",
    ),
    facts(
        Table::AccountHistory,
        "account_history",
        "address (20), block number (8, big-endian)",
        "account record before the block, empty if there was no account",
    ),
    facts(
        Table::StorageHistory,
        "storage_history",
        "address (20), slot (32, big-endian), block number (8, big-endian)",
        "value before the block (0 to 32, big-endian, no leading zero)",
    ),
    facts(
        Table::Changes,
        "changes",
        "block number (8, big-endian), part (4, big-endian)",
        "changed keys",
    ),
    facts(
        Table::AddressTransactions,
        "address_transactions",
        "role (1), address (20), block number (8, big-endian), index (4, big-endian)",
        "nothing",
    ),
    facts(
        Table::LogPostings,
        "log_postings",
        "kind (1), address (20) or topic (32), block number (8, big-endian)",
        "positions of the logs in the block (differences, LEB128)",
    ),
    facts(
        Table::Contracts,
        "contracts",
        "address (20), complement of the block number (8, big-endian)",
        "deployment record",
    ),
    facts(Table::Abis, "abis", "code hash (32)", "ABI (JSON)"),
];

impl Table {
    /// How many tables there are.
    pub const COUNT: usize = 18;

    /// All tables in the order of their numbers.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLES.iter().map(|facts| facts.table)
    }

    /// The table's number, which is also its index in [`TABLES`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the table holds accounts, slots or trie nodes.
    pub(crate) const fn is_state(self) -> bool {
        self.is_trie() || matches!(self, Self::Accounts | Self::Storage)
    }

    /// Whether the table holds trie nodes.
    pub(crate) const fn is_trie(self) -> bool {
        matches!(self, Self::AccountTrie | Self::StorageTrie)
    }

    /// The table with this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        TABLES.get(usize::from(number)).map(|facts| facts.table)
    }

    /// The table's name in the store.
    pub const fn name(self) -> &'static str {
        TABLES[self.index()].name
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_stands_at_its_own_number_with_its_own_name() {
        for (index, facts) in TABLES.iter().enumerate() {
            assert_eq!(facts.table.index(), index);
            let same = TABLES.iter().filter(|other| other.name == facts.name);
            assert_eq!(same.count(), 1);
        }
    }
}
