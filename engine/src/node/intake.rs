//! From bytes to the pool: batches are decoded, checked and recovered on all cores, then take their places in one go.

use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_consensus::constants::EIP4844_TX_TYPE_ID;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::map::{AddressMap, Entry};
use alloy_primitives::{Address, B256, Bytes};
use zvm_storage::{Snapshot, StoreError};

use super::{NextBlock, Node, Notice, SubmitError};
use crate::chain::Head;
use crate::chain_spec::ChainSpec;
use crate::ingress::{on_all_cores, repeated};
use crate::pool::{Candidate, Outdated, Pooled, Refusal, SenderState};
use crate::transaction::{self, Tx};

/// Transactions that take their places under one lock of the pool, so that others get their turn.
const TOGETHER: usize = 256;

/// What a transaction must meet whatever its sender's account is.
struct Rules<'n> {
    spec: &'n ChainSpec,
    next: NextBlock,
    block_gas: u64,
    /// No block without transactions comes to lower the base fee.
    on_demand: bool,
}

impl Rules<'_> {
    fn check(&self, tx: &Tx) -> Result<(), Refusal> {
        transaction::validate(tx, self.next.fork, self.spec.chain_id)?;
        if tx.gas_limit() > self.block_gas {
            return Err(Refusal::BlockGasLimit {
                gas_limit: tx.gas_limit(),
                block: self.block_gas,
            });
        }
        if let (Some(blobs), Some(params)) = (
            tx.blob_versioned_hashes(),
            self.spec.blob_params(self.next.fork),
        ) {
            let (found, permitted) = (blobs.len() as u64, params.max);
            if found > permitted {
                return Err(Refusal::TooManyBlobs { found, permitted });
            }
        }
        if self.on_demand {
            pays_next_block(tx, &self.next)?;
        }
        Ok(())
    }
}

impl Node {
    /// Takes the EIP-2718 bytes of transactions into the pool, in this order, and answers for each: its hash, or why it
    /// was not taken.
    pub fn submit_batch(&self, transactions: &[Bytes]) -> Vec<Result<B256, SubmitError>> {
        let head = self.chain.head();
        let rules = self.rules(&head);
        // One longer than the pool takes is refused by its length.
        let limit = self.pool.limits().transaction_bytes;
        let decoded = on_all_cores(transactions, |bytes| {
            if bytes.len() > limit {
                return Err(Refusal::Oversized {
                    size: bytes.len(),
                    limit,
                }
                .into());
            }
            let tx = decode(bytes)?;
            rules.check(&tx)?;
            // Kept in the transaction: computed here, it is computed by all cores.
            tx.hash();
            Ok(tx)
        });
        self.submit_checked(decoded)
    }

    /// Takes the EIP-2718 bytes of a transaction into the pool.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit_raw(&self, bytes: &Bytes) -> Result<B256, SubmitError> {
        only(self.submit_batch(core::slice::from_ref(bytes)))
    }

    /// Takes a transaction into the pool.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit(&self, tx: Tx) -> Result<B256, SubmitError> {
        let checked = self.rules(&self.chain.head()).check(&tx);
        let checked = checked.map(|()| tx).map_err(SubmitError::from);
        only(self.submit_checked(vec![checked]))
    }

    /// Takes a transaction that this node has signed itself: its sender is known.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit_signed(&self, tx: Recovered<Tx>) -> Result<B256, SubmitError> {
        self.chain.senders().insert(*tx.inner().hash(), tx.signer());
        self.submit(tx.into_inner())
    }

    fn rules(&self, head: &Head) -> Rules<'_> {
        Rules {
            spec: self.chain.spec(),
            next: self.next_block(head),
            block_gas: head.header.gas_limit,
            on_demand: self.settings.block_time.is_none(),
        }
    }

    /// Recovers the senders that are not known yet and gives the transactions to the pool.
    fn submit_checked(
        &self,
        checked: Vec<Result<Tx, SubmitError>>,
    ) -> Vec<Result<B256, SubmitError>> {
        if let Some(reason) = self.stopped() {
            let refused = |_| Err(SubmitError::Stopped(Arc::clone(&reason)));
            return checked.into_iter().map(refused).collect();
        }
        let mut answers = Vec::with_capacity(checked.len());
        let mut asking = Vec::with_capacity(checked.len());
        for (place, result) in checked.into_iter().enumerate() {
            answers.push(result.map(|tx| {
                let hash = *tx.hash();
                asking.push((place, tx));
                hash
            }));
        }
        // What waits already, or stands earlier in the batch, is refused before its sender is recovered.
        let hashes: Vec<B256> = asking.iter().map(|(_, tx)| *tx.hash()).collect();
        let mut known = self
            .pool
            .contains(&hashes)
            .into_iter()
            .zip(repeated(&hashes));
        asking.retain(|(place, _)| {
            let known = known
                .next()
                .is_some_and(|(waits, repeated)| waits || repeated);
            if known {
                answers[*place] = Err(Refusal::Known.into());
            }
            !known
        });
        let senders = on_all_cores(&asking, |(_, tx)| self.chain.senders().sender(tx));
        let mut candidates = Vec::with_capacity(asking.len());
        for ((place, tx), sender) in asking.into_iter().zip(senders) {
            match sender {
                Ok(sender) => {
                    let recovered = Recovered::new_unchecked(tx, sender);
                    candidates.push((place, Candidate::new(recovered)));
                }
                Err(error) => answers[place] = Err(Refusal::from(error).into()),
            }
        }
        let mut candidates = candidates.into_iter();
        loop {
            let (places, together): (Vec<_>, Vec<_>) = candidates.by_ref().take(TOGETHER).unzip();
            if together.is_empty() {
                return answers;
            }
            self.pool_together(&places, together, &mut answers);
        }
    }

    fn pool_together(
        &self,
        places: &[usize],
        candidates: Vec<Candidate>,
        answers: &mut [Result<B256, SubmitError>],
    ) {
        match self.add_to_pool(candidates) {
            Ok(results) => {
                let mut taken = false;
                for (place, result) in places.iter().zip(results) {
                    match result {
                        Ok(pooled) => {
                            taken = true;
                            self.notify(&Notice::Pending(pooled));
                        }
                        Err(refusal) => answers[*place] = Err(refusal.into()),
                    }
                }
                if taken {
                    self.signal.work();
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for place in places {
                    answers[*place] = Err(SubmitError::Store(Arc::clone(&error)));
                }
            }
        }
    }

    /// Gives transactions to the pool with their senders' accounts as the head has them.
    fn add_to_pool(
        &self,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Result<Arc<Pooled>, Refusal>>, StoreError> {
        loop {
            let snapshot = self.chain.snapshot()?;
            let block = zvm_storage::head(&*snapshot)?.map_or(0, |(number, _)| number);
            let mut accounts = AddressMap::default();
            for candidate in &mut candidates {
                let account = match accounts.entry(candidate.signer()) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        *unknown.insert(read_sender(&*snapshot, &candidate.signer())?)
                    }
                };
                candidate.set_sender(account);
            }
            match self.pool.add(block, candidates) {
                Ok(results) => return Ok(results),
                Err(Outdated(again)) => candidates = again,
            }
        }
    }
}

fn only<T, E>(mut results: Vec<Result<T, E>>) -> Result<T, E> {
    results.pop().expect("one transaction gives one answer")
}

fn decode(bytes: &[u8]) -> Result<Tx, SubmitError> {
    transaction::decode(bytes).map_err(|error| match has_sidecar(bytes) {
        true => SubmitError::BlobSidecar,
        false => SubmitError::Malformed(error),
    })
}

/// Where blocks are made on demand no block comes whose base fee has fallen in the meantime: what does not pay the next
/// one would wait without end.
fn pays_next_block(tx: &Tx, next: &NextBlock) -> Result<(), Refusal> {
    let cap = tx.max_fee_per_gas();
    if cap < u128::from(next.base_fee) {
        return Err(Refusal::FeeCapTooLow {
            cap,
            base_fee: next.base_fee,
        });
    }
    match tx.max_fee_per_blob_gas() {
        Some(cap) if cap < next.blob_gas_price => Err(Refusal::BlobFeeCapTooLow {
            cap,
            price: next.blob_gas_price,
        }),
        _ => Ok(()),
    }
}

fn read_sender(snapshot: &dyn Snapshot, sender: &Address) -> Result<SenderState, StoreError> {
    let account = zvm_storage::read_account(snapshot, sender)?;
    Ok(account.map_or(
        SenderState {
            nonce: 0,
            balance: alloy_primitives::U256::ZERO,
        },
        |account| SenderState {
            nonce: account.nonce,
            balance: account.balance,
        },
    ))
}

/// Whether the bytes are a blob transaction with its sidecar: a list that begins with the transaction's own list.
fn has_sidecar(bytes: &[u8]) -> bool {
    let Some((&EIP4844_TX_TYPE_ID, mut rest)) = bytes.split_first() else {
        return false;
    };
    let mut is_list = || alloy_rlp::Header::decode(&mut rest).is_ok_and(|header| header.list);
    is_list() && is_list()
}
