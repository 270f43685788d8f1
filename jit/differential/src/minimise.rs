//! Makes a case smaller while it still fails.

use std::sync::Arc;

use alloy_primitives::U256;

use crate::asm::Item;
use crate::case::Case;

/// The smallest case found that `fails` within about `tries` tries.
pub fn minimise(case: &Case, tries: usize, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut left = tries;
    let mut attempt = |best: &mut Case, candidate: Case| {
        if left == 0 || candidate == *best {
            return false;
        }
        left -= 1;
        let better = fails(&candidate);
        if better {
            *best = candidate;
        }
        better
    };
    loop {
        let before = best.clone();
        for candidate in surroundings(&best) {
            attempt(&mut best, candidate);
        }
        // Runs of items, long ones first.
        let mut length = best.items.len().next_power_of_two();
        while length > 0 {
            let mut at = 0;
            while at < best.items.len() {
                let mut candidate = best.clone();
                candidate
                    .items
                    .drain(at..(at + length).min(best.items.len()));
                if !attempt(&mut best, candidate) {
                    at += length;
                }
            }
            length /= 2;
        }
        for at in 0..best.items.len() {
            for item in simpler(&best.items[at]) {
                let mut candidate = best.clone();
                candidate.items[at] = item;
                if attempt(&mut best, candidate) {
                    break;
                }
            }
        }
        if best == before {
            return best;
        }
    }
}

fn surroundings(case: &Case) -> Vec<Case> {
    let with = |change: &dyn Fn(&mut Case)| {
        let mut candidate = case.clone();
        change(&mut candidate);
        candidate
    };
    vec![
        with(&|case| case.other = Arc::from([])),
        with(&|case| case.calldata.clear()),
        with(&|case| case.calldata.truncate(case.calldata.len() / 2)),
        with(&|case| case.value = 0),
        with(&|case| case.delegated = false),
        with(&|case| case.fork = zvm_runtimes::evm::Fork::LATEST),
        with(&|case| case.gas = 100_000),
        with(&|case| case.gas = 1_000),
    ]
}

fn simpler(item: &Item) -> Vec<Item> {
    match item {
        Item::Push(size, word) => {
            let mut items: Vec<_> = [0u64, 1, 2, 32]
                .map(|number| Item::push(U256::from(number)))
                .to_vec();
            items.push(Item::push(*word));
            let weight = |item: &Item| matches!(item, Item::Push(s, w) if s < size || (s == size && w < word));
            items.retain(weight);
            items
        }
        Item::PushLabel(_, label) => vec![Item::target(*label)],
        Item::Raw(bytes) if bytes.len() > 1 => vec![Item::Raw(vec![bytes[0]])],
        // Anything that pops two and pushes one may do.
        Item::Op(byte @ 0x02..=0x1d) if !matches!(byte, 0x08 | 0x09 | 0x15 | 0x19) => {
            vec![Item::Op(0x01)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes_and_the_failure_stays() {
        let mut case = Case::of_code(&[0x5b; 90], 5_000);
        case.items[40] = Item::Push(4, U256::from(77));
        case.items[60] = Item::Op(0x20);
        let fails = |case: &Case| {
            case.items.contains(&Item::Op(0x20))
                && case.items.iter().any(|item| matches!(item, Item::Push(..)))
        };
        let small = minimise(&case, 10_000, fails);
        assert!(fails(&small));
        assert_eq!(small.items, [Item::push(U256::ZERO), Item::Op(0x20)]);
    }
}
