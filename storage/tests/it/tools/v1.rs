//! Writes a chain with the calls that schema version 1 had already.

use alloy_consensus::{BlockBody, Header, SignableTransaction, TxLegacy, proofs};
use alloy_primitives::{Address, B256, Bytes, Log, Signature, TxKind, U256, keccak256};
use std::collections::BTreeMap;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, BlockRecord, BlockTransaction, StateDiff, Store,
    StoredReceipt, apply_state, put_block,
};

pub const BLOCKS: u64 = 25;
pub const TRANSACTIONS: u64 = 4;
pub const SENDER: Address = Address::repeat_byte(0x11);
pub const EMITTER: Address = Address::repeat_byte(0x22);
pub const CONTRACT: Address = Address::repeat_byte(0x33);

/// Writes blocks 0 to `BLOCKS - 1`; block 1 creates a contract.
pub fn write(store: &dyn Store) {
    let mut parent_hash = B256::ZERO;
    for number in 0..BLOCKS {
        let mut batch = Batch::new();
        let diff = diff(number);
        let state_root =
            apply_state(store.snapshot().unwrap().as_ref(), &diff, &mut batch).unwrap();
        let count = if number == 0 { 0 } else { TRANSACTIONS };
        let transactions: Vec<_> = (0..count).map(|index| transaction(number, index)).collect();
        let body = BlockBody {
            transactions,
            ommers: Vec::new(),
            withdrawals: None,
        };
        let header = Header {
            number,
            parent_hash,
            state_root,
            transactions_root: proofs::calculate_transaction_root(&body.transactions),
            ..Header::default()
        };
        let receipts: Vec<_> = (0..count).map(|index| receipt(number, index)).collect();
        let record = BlockRecord {
            header: &header,
            hash: header.hash_slow(),
            body: &body,
            receipts: &receipts,
            senders: &vec![SENDER; count as usize],
        };
        put_block(&mut batch, &record).unwrap();
        store.commit(&batch).unwrap();
        parent_hash = record.hash;
    }
}

fn diff(number: u64) -> StateDiff {
    let code = Bytes::from_static(b"\0asm\x01\0\0\0");
    let account = |nonce: u64, code_hash: Option<B256>| AccountInfo {
        nonce,
        balance: U256::from(nonce) << 70,
        code_hash: code_hash.unwrap_or(AccountInfo::default().code_hash),
    };
    let change = |info, slots| AccountChange {
        info: Some(info),
        wipe_storage: false,
        slots,
    };
    let mut accounts = BTreeMap::new();
    accounts.insert(SENDER, change(account(number + 1, None), BTreeMap::new()));
    for byte in 0..4 {
        let address = Address::repeat_byte(number as u8 ^ byte << 5);
        accounts.insert(address, change(account(number + 9, None), BTreeMap::new()));
    }
    if number > 0 {
        let slots = (0..6).map(|slot| (U256::from(number * 3 + slot), U256::from(number % 5)));
        let info = account(1, Some(keccak256(&code)));
        accounts.insert(CONTRACT, change(info, slots.collect()));
    }
    StateDiff {
        accounts,
        codes: BTreeMap::from([(keccak256(&code), code)]),
    }
}

fn transaction(number: u64, index: u64) -> BlockTransaction {
    let creates = (number, index) == (1, 0);
    let transaction = TxLegacy {
        nonce: number * TRANSACTIONS + index,
        to: match creates {
            true => TxKind::Create,
            false => TxKind::Call(EMITTER),
        },
        ..TxLegacy::default()
    };
    let signature = Signature::new(U256::from(1), U256::from(2), true);
    BlockTransaction::Legacy(transaction.into_signed(signature))
}

fn receipt(number: u64, index: u64) -> StoredReceipt {
    let topics = vec![B256::repeat_byte(7), B256::with_last_byte(index as u8)];
    StoredReceipt {
        success: true,
        cumulative_gas_used: 21_000 * (index + 1),
        logs: vec![Log::new_unchecked(EMITTER, topics, Bytes::new())],
        contract_address: ((number, index) == (1, 0)).then_some(CONTRACT),
        ..StoredReceipt::default()
    }
}
