//! Requests of the execution layer to the consensus layer (EIP-7685): deposits, withdrawals, consolidations.

use alloy_eips::eip7685::Requests;
use alloy_primitives::{Address, B256, Bytes, Log, address, b256};

/// Beacon block roots (EIP-4788).
pub const BEACON_ROOTS: Address = address!("000f3df6d732807ef1319fb7b8bb8522d0beac02");
/// Block hashes in the state (EIP-2935).
pub const HISTORY_STORAGE: Address = address!("0000f90827f1c53a10cb7a02335b175320002935");
/// Withdrawal requests (EIP-7002).
pub const WITHDRAWAL_REQUESTS: Address = address!("00000961ef480eb55e80d19ad83579a64c007002");
/// Consolidation requests (EIP-7251).
pub const CONSOLIDATION_REQUESTS: Address = address!("0000bbddc7ce488642fb579f8b00f3a590007251");

/// EIP-7685 type of deposits (EIP-6110).
pub const DEPOSIT_TYPE: u8 = 0;
/// The contracts asked at the end of every block from Prague on, and the type of what they answer.
pub const REQUEST_CONTRACTS: [(u8, Address); 2] =
    [(1, WITHDRAWAL_REQUESTS), (2, CONSOLIDATION_REQUESTS)];

/// keccak256 of `DepositEvent(bytes,bytes,bytes,bytes,bytes)`.
const DEPOSIT_EVENT: B256 =
    b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");
/// Offsets and sizes of public key, withdrawal credentials, amount, signature, index in the event's data.
const DEPOSIT_FIELDS: [(usize, usize); 5] = [(160, 48), (256, 32), (320, 8), (384, 96), (512, 8)];
/// Bytes of the event's data.
const DEPOSIT_DATA: usize = 576;

/// A log of the deposit contract is not laid out as EIP-6110 says, which makes the block invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deposit event is not laid out as EIP-6110 requires")]
pub struct InvalidDepositEvent;

/// Appends the request of each deposit among `logs` to `out`.
pub fn collect_deposits(
    contract: Address,
    logs: &[Log],
    out: &mut Vec<u8>,
) -> Result<(), InvalidDepositEvent> {
    for log in logs {
        if log.address == contract && log.topics().first() == Some(&DEPOSIT_EVENT) {
            push_deposit(&log.data.data, out).ok_or(InvalidDepositEvent)?;
        }
    }
    Ok(())
}

fn push_deposit(data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if data.len() != DEPOSIT_DATA {
        return None;
    }
    let word = |at: usize| {
        let word = &data[at..at + 32];
        word[..24]
            .iter()
            .all(|byte| *byte == 0)
            .then(|| u64::from_be_bytes(word[24..].try_into().unwrap_or_default()))
    };
    for (index, (offset, _)) in DEPOSIT_FIELDS.iter().enumerate() {
        if word(32 * index)? != *offset as u64 {
            return None;
        }
    }
    for (offset, size) in DEPOSIT_FIELDS {
        if word(offset)? != size as u64 {
            return None;
        }
    }
    for (offset, size) in DEPOSIT_FIELDS {
        out.extend_from_slice(&data[offset + 32..offset + 32 + size]);
    }
    Some(())
}

/// Adds the requests of one type. A type without requests is left out (EIP-7685).
pub fn push_requests(requests: &mut Requests, ty: u8, data: &[u8]) {
    if !data.is_empty() {
        let mut bytes = Vec::with_capacity(1 + data.len());
        bytes.push(ty);
        bytes.extend_from_slice(data);
        requests.push_request(Bytes::from(bytes));
    }
}
