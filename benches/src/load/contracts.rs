//! The contracts that the workloads call.

use alloy_primitives::{Address, B256, Bytes, U256, hex, keccak256};

/// `Transfer(address,address,uint256)`.
const TRANSFER: [u8; 32] = hex!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// `transfer(address,uint256)`.
const SELECTOR: [u8; 4] = hex!("a9059cbb");

/// A token with the `transfer` of ERC-20: balances in the mapping at slot 0, an event, `true`. As lean as it can be, so
/// that bookkeeping around it shows.
pub(super) fn token() -> Bytes {
    // Where the jumps go; asserted below.
    const OK: u8 = 0x14;
    const SHORT: u8 = 0x6d;
    let mut code = vec![0x5f, 0x35, 0x60, 0xe0, 0x1c, 0x63]; // PUSH0 CALLDATALOAD PUSH1 224 SHR PUSH4
    code.extend(SELECTOR);
    code.extend([0x14, 0x60, OK, 0x57, 0x5f, 0x5f, 0xfd]); // EQ PUSH1 JUMPI PUSH0 PUSH0 REVERT
    code.resize(usize::from(OK), 0x00);
    code.push(0x5b);
    code.extend([0x33, 0x5f, 0x52]); // mem[0] = caller
    code.extend([0x60, 0x40, 0x5f, 0x20]); // [from slot]
    code.extend([0x80, 0x54, 0x60, 0x24, 0x35]); // [amount, balance, from slot]
    code.extend([0x80, 0x82, 0x10, 0x60, SHORT, 0x57]); // balance < amount
    code.extend([0x80, 0x91, 0x03]); // [balance - amount, amount, from slot]
    code.extend([0x82, 0x55]); // [amount, from slot]
    code.extend([0x60, 0x04, 0x35, 0x80, 0x5f, 0x52]); // [to, amount, from slot], mem[0] = to
    code.extend([0x60, 0x40, 0x5f, 0x20]); // [to slot, to, amount, from slot]
    code.extend([0x80, 0x54, 0x83, 0x01, 0x90, 0x55]); // [to, amount, from slot]
    code.extend([0x90, 0x5f, 0x52]); // [to, from slot], mem[0] = amount
    code.extend([0x33, 0x7f]);
    code.extend(TRANSFER);
    code.extend([0x60, 0x20, 0x5f, 0xa3]); // LOG3
    code.extend([0x60, 0x01, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]); // return true
    assert!(code.len() <= usize::from(SHORT), "{:#x}", code.len());
    code.resize(usize::from(SHORT), 0x00);
    code.extend([0x5b, 0x5f, 0x5f, 0xfd]);
    code.into()
}

/// The slot of a balance of [`token`], or of another contract whose mapping stands at slot `mapping`.
pub(super) fn balance_slot(owner: Address, mapping: u64) -> U256 {
    let key = [
        B256::left_padding_from(owner.as_slice()),
        B256::from(U256::from(mapping)),
    ];
    U256::from_be_bytes(keccak256(key.concat()).0)
}

/// The input of a token transfer.
pub(super) fn transfer_input(to: Address, amount: u64) -> Bytes {
    let mut input = SELECTOR.to_vec();
    input.extend(B256::left_padding_from(to.as_slice()));
    input.extend(U256::from(amount).to_be_bytes::<32>());
    input.into()
}

/// A counter: every call adds one to slot 0, so that each of a block's needs the one before.
pub(super) fn counter() -> Bytes {
    Bytes::from_static(&[0x5f, 0x54, 0x60, 0x01, 0x01, 0x5f, 0x55, 0x00])
}
