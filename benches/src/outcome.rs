//! What an execution led to, in the form the corpus records.

use core::fmt::Debug;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, U256, keccak256};
use zvm_runtimes::evm::BlockState;
use zvm_runtimes::revm::context::result::ExecutionResult;
use zvm_runtimes::revm::state::EvmState;

/// Status, gas, output, logs and storage of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Stop`, `Return`, `SelfDestruct`, `Revert` or a reason to halt. Expected as `success`: any of the first three.
    pub status: String,
    /// Gas of the transaction after the refund.
    pub gas_used: u64,
    /// Gas before the refund.
    pub gas_spent: u64,
    /// The refund.
    pub gas_refunded: u64,
    /// Bytes of output.
    pub output_len: usize,
    /// keccak256 of the output.
    pub output_hash: B256,
    /// Logs.
    pub logs: usize,
    /// keccak256 of address, topics and data of every log.
    pub logs_hash: B256,
    /// Slots whose value changed.
    pub storage_changed: usize,
    /// keccak256 of address, slot and value of every changed slot in order.
    pub storage_hash: B256,
}

impl Outcome {
    /// Of nothing.
    pub const fn nothing() -> Self {
        Self {
            status: String::new(),
            gas_used: 0,
            gas_spent: 0,
            gas_refunded: 0,
            output_len: 0,
            output_hash: KECCAK256_EMPTY,
            logs: 0,
            logs_hash: KECCAK256_EMPTY,
            storage_changed: 0,
            storage_hash: KECCAK256_EMPTY,
        }
    }

    /// Of a transaction by plain revm.
    pub fn of_plain(result: &ExecutionResult, state: &EvmState) -> Self {
        let slots = state.iter().flat_map(|(address, account)| {
            let changed = account.storage.iter().filter(|slot| slot.1.is_changed());
            changed.map(move |(key, slot)| (*address, *key, slot.present_value))
        });
        Self::new(result, slots.collect())
    }

    /// Of the only transaction of a block by this engine.
    pub fn of_block(result: &ExecutionResult, state: &BlockState<'_>) -> Self {
        let slots = state.accounts().iter().flat_map(|(address, account)| {
            let changed = account
                .storage
                .iter()
                .filter(|(_, slot)| slot.written && slot.present() != slot.original);
            changed.map(move |(key, slot)| (*address, *key, slot.present()))
        });
        Self::new(result, slots.collect())
    }

    fn new(result: &ExecutionResult, mut slots: Vec<(Address, U256, U256)>) -> Self {
        let status = match result {
            ExecutionResult::Success { reason, .. } => format!("{reason:?}"),
            ExecutionResult::Revert { .. } => "Revert".to_owned(),
            ExecutionResult::Halt { reason, .. } => format!("{reason:?}"),
        };
        let output: &Bytes = match result.output() {
            Some(output) => output,
            None => &Bytes::new(),
        };
        slots.sort_unstable();
        let mut storage = Vec::new();
        for (address, key, value) in &slots {
            storage.extend_from_slice(address.as_slice());
            storage.extend_from_slice(&key.to_be_bytes::<32>());
            storage.extend_from_slice(&value.to_be_bytes::<32>());
        }
        let gas = result.gas();
        Self {
            status,
            gas_used: gas.tx_gas_used(),
            gas_spent: gas.total_gas_spent(),
            gas_refunded: gas.inner_refunded(),
            output_len: output.len(),
            output_hash: keccak256(output),
            logs: result.logs().len(),
            logs_hash: logs_hash(result.logs()),
            storage_changed: slots.len(),
            storage_hash: keccak256(storage),
        }
    }

    /// The first field in which this differs from what was expected.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        fn field<T: PartialEq + Debug>(name: &str, found: &T, expected: &T) -> Option<String> {
            (found != expected).then(|| format!("{name}: {found:?}, expected {expected:?}"))
        }
        let succeeded = ["Stop", "Return", "SelfDestruct"].contains(&self.status.as_str());
        let status = if expected.status == "success" && succeeded {
            None
        } else {
            field("status", &self.status, &expected.status)
        };
        status
            .or_else(|| field("gas used", &self.gas_used, &expected.gas_used))
            .or_else(|| {
                field(
                    "gas before the refund",
                    &self.gas_spent,
                    &expected.gas_spent,
                )
            })
            .or_else(|| field("refund", &self.gas_refunded, &expected.gas_refunded))
            .or_else(|| {
                field(
                    "length of the output",
                    &self.output_len,
                    &expected.output_len,
                )
            })
            .or_else(|| {
                field(
                    "hash of the output",
                    &self.output_hash,
                    &expected.output_hash,
                )
            })
            .or_else(|| field("logs", &self.logs, &expected.logs))
            .or_else(|| field("hash of the logs", &self.logs_hash, &expected.logs_hash))
            .or_else(|| {
                field(
                    "changed slots",
                    &self.storage_changed,
                    &expected.storage_changed,
                )
            })
            .or_else(|| {
                field(
                    "hash of the changed slots",
                    &self.storage_hash,
                    &expected.storage_hash,
                )
            })
    }
}

fn logs_hash(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    for log in logs {
        bytes.extend_from_slice(log.address.as_slice());
        for topic in log.topics() {
            bytes.extend_from_slice(topic.as_slice());
        }
        bytes.extend_from_slice(&log.data.data);
    }
    keccak256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_compared() {
        let outcome = Outcome {
            status: "Return".into(),
            gas_used: 1,
            gas_spent: 2,
            gas_refunded: 3,
            output_len: 4,
            logs: 5,
            storage_changed: 6,
            ..Outcome::nothing()
        };
        assert_eq!(outcome.difference(&outcome), None);
        let success = Outcome {
            status: "success".into(),
            ..outcome.clone()
        };
        assert_eq!(outcome.difference(&success), None);
        let other = B256::repeat_byte(1);
        type Change = fn(&mut Outcome, B256);
        let changes: [(&str, Change); 10] = [
            ("status", |o, _| o.status = "Stop".into()),
            ("gas used", |o, _| o.gas_used += 1),
            ("gas before the refund", |o, _| o.gas_spent += 1),
            ("refund", |o, _| o.gas_refunded += 1),
            ("length of the output", |o, _| o.output_len += 1),
            ("hash of the output", |o, hash| o.output_hash = hash),
            ("logs", |o, _| o.logs += 1),
            ("hash of the logs", |o, hash| o.logs_hash = hash),
            ("changed slots", |o, _| o.storage_changed += 1),
            ("hash of the changed slots", |o, hash| o.storage_hash = hash),
        ];
        for (name, change) in changes {
            let mut found = outcome.clone();
            change(&mut found, other);
            let difference = found.difference(&outcome).expect(name);
            assert!(difference.starts_with(&format!("{name}: ")), "{difference}");
        }
    }
}
