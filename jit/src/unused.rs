//! Words that nobody uses are not computed: most are slots that code read to move them, and wrote where they lay.

use crate::ir::{Def, Edge, Region, Statement, Terminator, Value, Write};

/// Removes the computations whose words are not used.
pub fn remove(region: &mut Region) {
    let mut used = vec![false; region.definitions.len()];
    for (_, block) in &region.blocks {
        for statement in &block.statements {
            of_statement(statement, &mut used);
        }
        if let Some(entry) = &block.entry {
            for (_, value) in entry.params.iter().chain(&entry.consts) {
                take(*value, &mut used);
            }
        }
        of_terminator(&block.terminator, &mut used);
    }
    // A word is made of those made before it.
    for index in (0..used.len()).rev() {
        if !used[index] {
            continue;
        }
        match region.definitions[index] {
            Def::Narrow(x) | Def::Unary(_, x) | Def::MLoad(x) => take(x, &mut used),
            Def::Binary(_, x, y) => {
                take(x, &mut used);
                take(y, &mut used);
            }
            Def::Const(_) | Def::Slot(_) | Def::Param | Def::Field(_) | Def::Gas => {}
        }
    }
    for (_, block) in &mut region.blocks {
        block.statements.retain(|statement| match statement {
            Statement::Let(value) => used[value.0 as usize],
            _ => true,
        });
    }
}

fn take(value: Value, used: &mut [bool]) {
    used[value.0 as usize] = true;
}

fn of_statement(statement: &Statement, used: &mut [bool]) {
    match statement {
        Statement::Write(write) => of_writes(core::slice::from_ref(write), used),
        Statement::Memory { offset, .. } | Statement::CallData { offset, .. } => {
            take(*offset, used);
        }
        Statement::MStore(offset, word) | Statement::MStore8(offset, word) => {
            take(*offset, used);
            take(*word, used);
        }
        Statement::Small {
            operands, writes, ..
        } => {
            of_writes(writes, used);
            for operand in operands {
                take(*operand, used);
            }
        }
        Statement::Let(_)
        | Statement::Gas(_)
        | Statement::Pure { .. }
        | Statement::Env { .. }
        | Statement::Call { .. } => {}
    }
}

fn of_writes(writes: &[Write], used: &mut [bool]) {
    for write in writes.iter().filter(|write| write.copy.is_none()) {
        take(write.value, used);
    }
}

fn of_edge(edge: &Edge, used: &mut [bool]) {
    of_writes(&edge.writes, used);
    of_writes(&edge.escape, used);
    for value in edge.args.iter().chain(&edge.guards) {
        take(*value, used);
    }
}

fn of_terminator(terminator: &Terminator, used: &mut [bool]) {
    match terminator {
        Terminator::Goto(edge) => of_edge(edge, used),
        Terminator::If {
            condition,
            then,
            otherwise,
        } => {
            take(*condition, used);
            of_edge(then, used);
            of_edge(otherwise, used);
        }
        Terminator::Jump {
            target,
            condition,
            writes,
            ..
        } => {
            take(*target, used);
            of_writes(writes, used);
            if let Some((condition, edge)) = condition {
                take(*condition, used);
                of_edge(edge, used);
            }
        }
        Terminator::End => {}
    }
}
