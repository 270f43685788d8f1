use super::*;

use crate::transaction::TxError;

use std::collections::BTreeMap;

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_primitives::{Signature, TxKind};
use proptest::prelude::*;

use crate::builder::{Skipped, TransactionSource as _};
use crate::executor::ExecutionError;

const GAS: u64 = 21_000;

fn sender(index: u8) -> Address {
    Address::repeat_byte(index + 1)
}

/// A transaction of `sender`; the pool does not look at signatures.
fn tx(from: u8, nonce: u64, cap: u128, tip: u128) -> Recovered<Tx> {
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: GAS,
        max_fee_per_gas: cap,
        max_priority_fee_per_gas: tip,
        // Makes the hashes of the senders differ.
        to: TxKind::Call(sender(from)),
        ..TxEip1559::default()
    };
    Recovered::new_unchecked(
        tx.into_signed(Signature::test_signature()).into(),
        sender(from),
    )
}

fn rich(nonce: u64) -> SenderState {
    SenderState {
        nonce,
        balance: U256::MAX,
    }
}

fn add(pool: &Pool, tx: Recovered<Tx>, state: SenderState) -> Result<B256, Refusal> {
    let mut candidate = Candidate::new(tx);
    candidate.set_sender(state);
    let mut added = pool.add(u64::MAX, vec![candidate]).expect("up to date");
    added.pop().unwrap().map(|pooled| pooled.hash)
}

/// Takes a block's worth from the pool and tells it the nonces afterwards.
fn take_block(
    pool: &Pool,
    gas_limit: u64,
    nonces: &mut BTreeMap<Address, u64>,
) -> Vec<(Address, u64)> {
    let mut selection = pool.select(0, 0);
    let mut included = Vec::new();
    let mut left = gas_limit;
    while let Some(tx) = selection.next(left) {
        left -= tx.gas_limit();
        included.push((tx.signer(), tx.nonce()));
        nonces.insert(tx.signer(), tx.nonce() + 1);
    }
    drop(selection);
    pool.advance(
        1,
        nonces.iter().map(|(sender, nonce)| (*sender, rich(*nonce))),
    );
    included
}

proptest! {
    #[test]
    fn any_order_of_arrival_ends_with_all_included_in_nonce_order(
        counts in prop::collection::vec(1_u64..10, 1..5),
        keys in prop::collection::vec(any::<(u64, u8, bool)>(), 50),
        block in 1_u64..6,
    ) {
        let pool = Pool::new(PoolLimits::default());
        let mut waiting: Vec<_> = counts
            .iter()
            .enumerate()
            .flat_map(|(from, count)| (0..*count).map(move |nonce| (from as u8, nonce)))
            .zip(keys)
            .collect();
        waiting.sort_by_key(|(_, key)| key.0);
        let mut nonces = BTreeMap::new();
        let mut included = Vec::new();
        for ((from, nonce), (_, tip, block_now)) in &waiting {
            let state = rich(nonces.get(&sender(*from)).copied().unwrap_or_default());
            prop_assert_eq!(add(&pool, tx(*from, *nonce, 1_000, u128::from(*tip)), state).map(drop), Ok(()));
            if *block_now {
                included.extend(take_block(&pool, block * GAS, &mut nonces));
            }
        }
        while !pool.select(0, 0).is_empty() {
            included.extend(take_block(&pool, block * GAS, &mut nonces));
        }
        for (from, count) in counts.iter().enumerate() {
            let order: Vec<_> =
                included.iter().filter(|entry| entry.0 == sender(from as u8)).map(|entry| entry.1).collect();
            prop_assert_eq!(order, (0..*count).collect::<Vec<_>>());
        }
        prop_assert_eq!(pool.status(), PoolStatus::default());
        let inner = pool.inner.lock();
        prop_assert_eq!([&inner.heads, &inner.held_tails, &inner.ready_tails].map(|index| index.len()), [0; 3]);
    }
}

#[test]
fn the_best_paid_goes_first_and_equals_by_arrival() {
    let pool = Pool::new(PoolLimits::default());
    // Of sender 2 the effective tip is bounded by the cap: 15 - 10 = 5.
    for (from, cap, tip) in [(0, 100, 1), (1, 100, 7), (2, 15, 9), (3, 100, 7)] {
        add(&pool, tx(from, 0, cap, tip), rich(0)).unwrap();
    }
    let mut selection = pool.select(10, 0);
    let order: Vec<_> = core::iter::from_fn(|| selection.next(10 * GAS))
        .map(|tx| tx.signer())
        .collect();
    assert_eq!(order, [1, 3, 2, 0].map(sender));
}

#[test]
fn what_does_not_pay_the_base_fee_waits() {
    let pool = Pool::new(PoolLimits::default());
    add(&pool, tx(0, 0, 9, 1), rich(0)).unwrap();
    assert!(pool.select(10, 0).is_empty());
    assert!(!pool.select(9, 0).is_empty());
}

#[test]
fn a_nonce_gap_is_held_until_it_closes() {
    let pool = Pool::new(PoolLimits::default());
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    assert!(pool.select(0, 0).is_empty());
    assert_eq!(
        (pool.next_nonce(&sender(0)), pool.status().held),
        (Some(0), 1)
    );
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    assert_eq!(
        (pool.next_nonce(&sender(0)), pool.status().ready),
        (Some(2), 2)
    );
}

#[test]
fn a_replacement_must_pay_a_tenth_more_of_both_fees() {
    let pool = Pool::new(PoolLimits::default());
    let first = add(&pool, tx(0, 0, 100, 10), rich(0)).unwrap();
    assert_eq!(add(&pool, tx(0, 0, 100, 10), rich(0)), Err(Refusal::Known));
    for (cap, tip) in [(109, 11), (110, 10), (200, 10), (109, 20)] {
        let refusal = add(&pool, tx(0, 0, cap, tip), rich(0)).unwrap_err();
        assert!(
            refusal
                .to_string()
                .starts_with("replacement transaction underpriced"),
            "{cap} {tip}"
        );
    }
    let second = add(&pool, tx(0, 0, 110, 11), rich(0)).unwrap();
    assert!(pool.get(&first).is_none() && pool.get(&second).is_some());
    assert_eq!(pool.status().ready, 1);
}

#[test]
fn each_bound_refuses_with_its_reason() {
    let size = {
        use alloy_eips::eip2718::Encodable2718 as _;
        tx(0, 0, 10, 1).inner().encode_2718_len()
    };
    let pool = Pool::new(PoolLimits {
        transactions: 3,
        per_sender: 2,
        ..PoolLimits::default()
    });
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    assert_eq!(
        add(&pool, tx(0, 2, 10, 1), rich(0)),
        Err(Refusal::SenderFull {
            transactions: 2,
            bytes: 2 * size
        })
    );
    add(&pool, tx(1, 0, 10, 1), rich(0)).unwrap();
    assert_eq!(
        add(&pool, tx(2, 0, 10, 1), rich(0)),
        Err(Refusal::Full {
            transactions: 3,
            bytes: 3 * size
        })
    );
    // A replacement takes no place.
    add(&pool, tx(1, 0, 20, 2), rich(0)).unwrap();

    let pool = Pool::new(PoolLimits {
        bytes: size,
        ..PoolLimits::default()
    });
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    assert!(matches!(
        add(&pool, tx(1, 0, 10, 1), rich(0)),
        Err(Refusal::Full { .. })
    ));

    let pool = Pool::new(PoolLimits {
        transaction_bytes: size - 1,
        min_priority_fee: 5,
        ..PoolLimits::default()
    });
    assert_eq!(
        add(&pool, tx(0, 0, 10, 1), rich(0)),
        Err(Refusal::Oversized {
            size,
            limit: size - 1
        })
    );
    let pool = Pool::new(PoolLimits {
        min_priority_fee: 5,
        ..PoolLimits::default()
    });
    assert_eq!(
        add(&pool, tx(0, 0, 10, 1), rich(0)),
        Err(Refusal::Underpriced {
            found: 1,
            minimum: 5
        })
    );
    assert_eq!(
        add(&pool, tx(0, 0, 10, 9), rich(1)),
        Err(Refusal::NonceTooLow { next: 1, found: 0 })
    );
}

#[test]
fn all_that_a_sender_has_waiting_must_be_covered() {
    let pool = Pool::new(PoolLimits::default());
    let cost = U256::from(10 * GAS);
    let state = SenderState {
        nonce: 0,
        balance: cost + U256::from(1),
    };
    add(&pool, tx(0, 0, 10, 1), state).unwrap();
    let refusal = add(&pool, tx(0, 1, 10, 1), state).unwrap_err();
    assert!(
        refusal
            .to_string()
            .starts_with("insufficient funds for gas * price + value"),
        "{refusal}"
    );
    // What a block leaves uncovered goes, so that it cannot block the queue.
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    let dropped = pool.advance(1, [(sender(0), state)]);
    assert_eq!((dropped.len(), pool.status().ready), (1, 1));
}

#[test]
fn what_can_never_be_included_is_reported_and_its_sender_waits() {
    let pool = Pool::new(PoolLimits::default());
    let bad = add(&pool, tx(0, 0, 10, 5), rich(0)).unwrap();
    add(&pool, tx(0, 1, 10, 5), rich(0)).unwrap();
    add(&pool, tx(1, 0, 10, 1), rich(0)).unwrap();
    let mut selection = pool.select(0, 0);
    let offered = selection.next(10 * GAS).unwrap();
    let error = ExecutionError::Transaction {
        index: 0,
        source: TxError::HighS,
    };
    selection.skipped(offered, Skipped::from(error));
    assert_eq!(
        selection.next(10 * GAS).map(|tx| tx.signer()),
        Some(sender(1))
    );
    assert!(selection.next(10 * GAS).is_none());
    let rejected: Vec<_> = selection
        .into_rejected()
        .into_iter()
        .map(|entry| entry.0)
        .collect();
    assert_eq!(rejected, [bad]);
    pool.remove(&bad);
    assert_eq!((pool.status().ready, pool.status().held), (1, 1));
}

#[test]
fn a_full_pool_gives_up_held_transactions_first_and_then_those_that_pay_least() {
    let pool = Pool::new(PoolLimits {
        transactions: 4,
        ..PoolLimits::default()
    });
    let held_low = add(&pool, tx(0, 1, 100, 50), rich(0)).unwrap();
    let held_high = add(&pool, tx(0, 2, 100, 60), rich(0)).unwrap();
    let cheap = add(&pool, tx(1, 0, 100, 2), rich(0)).unwrap();
    let dear = add(&pool, tx(2, 0, 100, 9), rich(0)).unwrap();
    let waits = |hash: &B256| pool.get(hash).is_some();
    // A held one displaces no ready one and none of its own sender.
    assert!(matches!(
        add(&pool, tx(0, 3, 100, 99), rich(0)),
        Err(Refusal::Full { .. })
    ));
    // The last nonce of the sender goes first, so that no second gap opens.
    add(&pool, tx(3, 0, 100, 1), rich(0)).unwrap();
    assert!(!waits(&held_high) && waits(&held_low));
    add(&pool, tx(4, 0, 100, 5), rich(0)).unwrap();
    assert!(!waits(&held_low) && pool.status().held == 0);
    // Now only what pays more gets in: sender 3 offers least, then sender 1.
    assert!(matches!(
        add(&pool, tx(5, 0, 100, 1), rich(0)),
        Err(Refusal::Full { .. })
    ));
    add(&pool, tx(5, 0, 100, 3), rich(0)).unwrap();
    assert!(waits(&cheap));
    add(&pool, tx(6, 0, 100, 3), rich(0)).unwrap();
    assert!(!waits(&cheap) && waits(&dear));
    assert_eq!((pool.status().ready, pool.status().held), (4, 0));
}

#[test]
fn a_transaction_that_is_refused_displaces_nothing() {
    let size = {
        use alloy_eips::eip2718::Encodable2718 as _;
        tx(0, 0, 10, 1).inner().encode_2718_len()
    };
    let pool = Pool::new(PoolLimits {
        bytes: 2 * size,
        ..PoolLimits::default()
    });
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    add(&pool, tx(1, 0, 10, 5), rich(0)).unwrap();
    // It needs the room of both and is worth more than one of them only.
    let large = TxEip1559 {
        max_fee_per_gas: 10,
        max_priority_fee_per_gas: 4,
        input: vec![1; size].into(),
        ..TxEip1559::default()
    };
    let large = Recovered::new_unchecked(
        large.into_signed(Signature::test_signature()).into(),
        sender(2),
    );
    assert!(matches!(
        add(&pool, large, rich(0)),
        Err(Refusal::Full { .. })
    ));
    assert_eq!(pool.status().ready, 2);
}

#[test]
fn what_is_held_leaves_when_its_time_is_over_and_what_is_ready_stays() {
    let pool = Pool::new(PoolLimits::default());
    let lifetime = pool.limits().held_lifetime;
    let before = Instant::now();
    let ready = add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    let held = add(&pool, tx(0, 2, 10, 1), rich(0)).unwrap();
    assert!(pool.expire(before + lifetime / 2).is_empty());
    let expired: Vec<_> = pool
        .expire(Instant::now() + lifetime)
        .iter()
        .map(|pooled| pooled.hash)
        .collect();
    assert_eq!(expired, [held]);
    assert!(pool.get(&ready).is_some());
    assert_eq!((pool.status().ready, pool.status().held), (1, 0));
}

#[test]
fn what_a_block_used_counts_no_more_even_before_the_pool_is_told_of_the_block() {
    let pool = Pool::new(PoolLimits {
        per_sender: 1,
        ..PoolLimits::default()
    });
    let cost = U256::from(10 * GAS);
    let balance = |nonce| SenderState {
        nonce,
        balance: cost,
    };
    let used = add(&pool, tx(0, 0, 10, 1), balance(0)).unwrap();
    // Neither the place nor the money of the used one is counted, and the new one is ready.
    let next = add(&pool, tx(0, 1, 10, 1), balance(1)).unwrap();
    assert!(pool.get(&used).is_none() && pool.get(&next).is_some());
    assert_eq!((pool.status().ready, pool.status().held), (1, 0));
    assert!(pool.advance(1, [(sender(0), balance(1))]).is_empty());
    assert_eq!(pool.status().ready, 1);
}

#[test]
fn a_full_block_of_small_typed_transactions_is_not_larger_than_a_block_may_be() {
    let count = 40_000;
    let pool = Pool::new(PoolLimits {
        per_sender: count,
        ..PoolLimits::default()
    });
    for nonce in 0..count as u64 {
        let tx = TxEip1559 {
            nonce,
            gas_limit: GAS,
            max_fee_per_gas: 1,
            input: vec![0xff; 200].into(),
            ..TxEip1559::default()
        };
        let tx = tx.into_signed(Signature::test_signature()).into();
        add(&pool, Recovered::new_unchecked(tx, sender(0)), rich(0)).unwrap();
    }
    let mut selection = pool.select(0, 0);
    let transactions: Vec<_> = core::iter::from_fn(|| selection.next(u64::MAX))
        .map(Recovered::into_inner)
        .collect();
    assert!(transactions.len() < count);
    let block = crate::chain::TxBlock {
        header: alloy_consensus::Header::default(),
        body: alloy_consensus::BlockBody {
            transactions,
            ..alloy_consensus::BlockBody::default()
        },
    };
    assert!(alloy_rlp::encode(&block).len() <= crate::header::MAX_BLOCK_SIZE);
}

proptest! {
    #[test]
    fn the_price_index_orders_by_what_is_paid_whatever_way_the_base_fee_went(
        prices in prop::collection::vec((0_u128..40, 0_u128..40), 1..40),
        base_fees in prop::collection::vec(0_u64..45, 1..8),
        removed in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut index = super::price::PriceIndex::default();
        let pool = Pool::new(PoolLimits::default());
        let mut all: Vec<_> = prices
            .iter()
            .zip(0..)
            .map(|((cap, tip), from)| {
                let hash = add(&pool, tx(from, 0, *cap, *tip.min(cap)), rich(0)).unwrap();
                pool.get(&hash).unwrap()
            })
            .collect();
        for pooled in &all {
            index.insert(pooled);
        }
        let mut removed = removed.iter();
        for base_fee in base_fees {
            index.set_base_fee(base_fee);
            if removed.next() == Some(&true) && all.len() > 1 {
                index.remove(&all.remove(0));
            }
            let key = |pooled: &Arc<Pooled>| (pooled.tip(base_fee), std::cmp::Reverse(pooled.arrival));
            let best = all.iter().max_by_key(|pooled| key(pooled)).unwrap();
            if best.tip(base_fee).is_some() {
                prop_assert_eq!(index.best(), Some((key(best), best.tx.signer())));
            } else {
                prop_assert_eq!(index.best().map(|(rank, _)| rank.0), Some(None));
            }
            // Of those that do not pay the base fee the lowest cap goes first.
            let worst = all
                .iter()
                .min_by_key(|pooled| {
                    let (tip, arrival) = key(pooled);
                    (tip, tip.is_none().then(|| pooled.tx.max_fee_per_gas()), arrival)
                })
                .unwrap();
            prop_assert_eq!(index.worst(), Some((key(worst), worst.tx.signer())));
            prop_assert_eq!(index.len(), all.len());
        }
    }
}

#[test]
fn a_full_queue_gives_up_its_last_transaction_for_one_that_closes_its_gap() {
    let pool = Pool::new(PoolLimits {
        per_sender: 2,
        ..PoolLimits::default()
    });
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    let last = add(&pool, tx(0, 5, 10, 1), rich(0)).unwrap();
    assert!(matches!(
        add(&pool, tx(0, 6, 10, 1), rich(0)),
        Err(Refusal::SenderFull { .. })
    ));
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    assert!(pool.get(&last).is_none());
    assert_eq!((pool.status().ready, pool.status().held), (2, 0));
    assert_eq!(pool.status().displaced, 1);
}

#[test]
fn the_bytes_of_one_sender_are_bounded() {
    let size = pooled_size();
    let pool = Pool::new(PoolLimits {
        per_sender_bytes: 2 * size,
        ..PoolLimits::default()
    });
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    assert_eq!(
        add(&pool, tx(0, 2, 10, 1), rich(0)),
        Err(Refusal::SenderFull {
            transactions: 2,
            bytes: 2 * size
        })
    );
    add(&pool, tx(1, 0, 10, 1), rich(0)).unwrap();
}

#[test]
fn what_is_in_a_block_in_flight_is_offered_to_no_other_and_neither_replaced_nor_displaced() {
    let pool = Pool::new(PoolLimits {
        transactions: 2,
        ..PoolLimits::default()
    });
    let first = add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    let mut selection = pool.select(0, 0);
    assert!(selection.next(10 * GAS).is_some() && selection.next(10 * GAS).is_none());
    drop(selection);
    add(&pool, tx(0, 1, 10, 1), rich(0)).unwrap();
    assert_eq!(
        add(&pool, tx(0, 0, 100, 100), rich(0)),
        Err(Refusal::NonceTooLow { next: 1, found: 0 })
    );
    // The only one that can go is the second of sender 0.
    add(&pool, tx(1, 0, 10, 5), rich(0)).unwrap();
    assert!(pool.get(&first).is_some());
    assert!(matches!(
        add(&pool, tx(2, 0, 10, 3), rich(0)),
        Err(Refusal::Full { .. })
    ));
    let mut selection = pool.select(0, 0);
    assert_eq!(
        selection.next(10 * GAS).map(|tx| tx.signer()),
        Some(sender(1))
    );
    assert!(selection.next(10 * GAS).is_none());
}

#[test]
fn a_selection_that_is_dropped_gives_back_what_it_has_not_used() {
    let pool = Pool::new(PoolLimits::default());
    for from in 0..5 {
        for nonce in 0..3 {
            add(&pool, tx(from, nonce, 10, 1), rich(0)).unwrap();
        }
    }
    let mut selection = pool.select(0, 0);
    for _ in 0..4 {
        selection.next(100 * GAS).unwrap();
    }
    // The last one offered may not have been executed.
    drop(selection);
    let mut selection = pool.select(0, 0);
    let rest = core::iter::from_fn(|| selection.next(100 * GAS)).count();
    assert_eq!(rest, 15 - 3);
}

#[test]
fn a_pool_full_of_others_is_as_it_was_when_a_large_transaction_finds_too_little_room() {
    let size = pooled_size();
    let pool = Pool::new(PoolLimits {
        bytes: 100 * size,
        displaced: 3,
        ..PoolLimits::default()
    });
    for from in 0..100 {
        // Every second one is held.
        add(&pool, tx(from, u64::from(from % 2), 10, 1), rich(0)).unwrap();
    }
    let before = pool.status();
    let large = TxEip1559 {
        max_fee_per_gas: 100,
        max_priority_fee_per_gas: 100,
        input: vec![1; 4 * size].into(),
        ..TxEip1559::default()
    };
    let large = Recovered::new_unchecked(
        large.into_signed(Signature::test_signature()).into(),
        sender(200),
    );
    assert!(matches!(
        add(&pool, large, rich(0)),
        Err(Refusal::Full { .. })
    ));
    assert_eq!(pool.status(), before);
    let (ready, held) = pool.content();
    assert_eq!((ready.len(), held.len()), (50, 50));
}

fn pooled_size() -> usize {
    use alloy_eips::eip2718::Encodable2718 as _;
    tx(0, 0, 10, 1).inner().encode_2718_len()
}

#[test]
fn an_earlier_block_told_of_late_does_not_offer_again_what_is_in_flight() {
    let pool = Pool::new(PoolLimits::default());
    add(&pool, tx(0, 0, 10, 1), rich(0)).unwrap();
    // The submitter has seen the block with nonce 0 before the pool is told of any.
    add(&pool, tx(0, 1, 10, 1), rich(1)).unwrap();
    let mut selection = pool.select(0, 0);
    assert!(selection.next(10 * GAS).is_some() && selection.next(10 * GAS).is_none());
    drop(selection);
    pool.advance(1, [(sender(0), rich(0))]);
    pool.advance(2, [(sender(0), rich(1))]);
    assert!(!pool.has_next());
    assert_eq!(pool.status().ready, 1);
}
