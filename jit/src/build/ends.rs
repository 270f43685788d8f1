//! How a block ends, and what its condition says about the words it compares.

use alloy_primitives::U256;

use super::Builder;
use crate::abi::Leave;
use crate::ir::{Binary, Def, Edge, Target, Terminator, Unary, Value};
use crate::state::State;

impl Builder<'_> {
    pub(super) fn jump(&mut self, target: Option<usize>) -> Terminator {
        let word = self.pop();
        let state = core::mem::take(&mut self.state);
        match self.resolve(target, word, state) {
            Ok(edge) => Terminator::Goto(edge),
            Err(state) => Terminator::Jump {
                target: word,
                condition: None,
                writes: state.writes(&self.region),
                height: state.height,
            },
        }
    }

    pub(super) fn jump_if(&mut self, target: Option<usize>, index: usize) -> Terminator {
        let word = self.pop();
        let condition = self.pop();
        let state = core::mem::take(&mut self.state);
        if let Some(known) = self.region.constant(condition) {
            if known.is_zero() {
                return Terminator::Goto(self.edge(index + 1, state, false));
            }
            return match self.resolve(target, word, state) {
                Ok(edge) => Terminator::Goto(edge),
                Err(state) => Terminator::Jump {
                    target: word,
                    condition: None,
                    writes: state.writes(&self.region),
                    height: state.height,
                },
            };
        }
        let (mut taken, mut passed) = (state.clone(), state);
        self.refine(condition, true, &mut taken);
        self.refine(condition, false, &mut passed);
        match self.resolve(target, word, taken) {
            Ok(then) => {
                let otherwise = self.edge(index + 1, passed, true);
                Terminator::If {
                    condition,
                    then,
                    otherwise,
                }
            }
            Err(taken) => {
                let otherwise = self.edge(index + 1, passed, true);
                Terminator::Jump {
                    target: word,
                    condition: Some((condition, otherwise)),
                    writes: taken.writes(&self.region),
                    height: taken.height,
                }
            }
        }
    }

    /// The edge of a jump, if its target is known; the state back if not.
    pub(super) fn resolve(
        &mut self,
        target: Option<usize>,
        word: Value,
        state: State,
    ) -> Result<Edge, State> {
        if let Some(target) = target {
            return Ok(self.edge(target, state, false));
        }
        let Some(known) = self.region.constant(word) else {
            return Err(state);
        };
        let jumpdest = usize::try_from(known)
            .ok()
            .filter(|pc| self.code.jumpdests.binary_search(pc).is_ok());
        Ok(match jumpdest {
            None => self.plain(Target::InvalidJump, &state),
            Some(pc) => match self.code.at(pc) {
                Some(block) => self.outside(block, &state),
                None => self.outward(Target::Leave(pc, Leave::Jump), &state),
            },
        })
    }

    /// What a condition says about the words it compares.
    pub(super) fn refine(&mut self, condition: Value, holds: bool, state: &mut State) {
        match self.region.definition(condition) {
            Def::Unary(Unary::IsZero, x) => {
                if self.region.bits(x) == 1 {
                    self.refine(x, !holds, state);
                } else if holds {
                    let zero = self.fold().constant(U256::ZERO);
                    state.replace(x, zero);
                }
            }
            Def::Binary(Binary::Lt, a, b) => self.bound(a, b, holds, state),
            Def::Binary(Binary::Gt, a, b) => self.bound(b, a, holds, state),
            Def::Binary(Binary::Eq, a, b) if holds => {
                self.narrow(a, self.region.bits(b), state);
                self.narrow(b, self.region.bits(a), state);
            }
            _ => {}
        }
    }

    /// a < b, or not.
    pub(super) fn bound(&mut self, a: Value, b: Value, less: bool, state: &mut State) {
        let (small, large) = if less { (a, b) } else { (b, a) };
        self.narrow(small, self.region.bits(large), state);
    }

    pub(super) fn narrow(&mut self, value: Value, bits: usize, state: &mut State) {
        if bits <= 64 && bits < self.region.bits(value) && self.region.constant(value).is_none() {
            let narrow = self.region.push(Def::Narrow(value), bits);
            state.replace(value, narrow);
        }
    }
}
