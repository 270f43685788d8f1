//! Each step of the compiler on small programs, line by line.
//!
//! A file `*.golden` beside this one holds a program in assembler text, then for each step it is about a line
//! `---- STEP LEVEL` and what that step makes of it. `ZVM_GOLDEN=update cargo test -p zvm-jit --test golden` writes what
//! the compiler makes now; what changed is then read in the difference.

use std::fs;
use std::path::Path;

use zvm_jit::compiler::{Compiler, Level, Options};
use zvm_jit::explain::Step;
use zvm_runtimes::evm::Fork;
use zvm_runtimes::isa::{Isa, assemble};

fn expected_and_found(compiler: &Compiler, text: &str) -> (String, String) {
    let mut parts = text.split("\n---- ");
    let program = parts.next().unwrap_or_default();
    let source: String = program
        .lines()
        .filter(|line| !line.starts_with(';'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let code = assemble(Isa::Evm, &source).expect("the program assembles");
    let mut found = format!("{}\n", program.trim_end());
    for part in parts {
        let heading = part.lines().next().unwrap_or_default();
        let (step, level) = heading.split_once(' ').expect("a step and a level");
        let level = match level {
            "quick" => Level::Quick,
            "full" => Level::Full,
            other => panic!("no level is called {other}"),
        };
        let step: Step = step.parse().expect("a step");
        let explained = compiler
            .explain(&code, Fork::Osaka.spec_id(), Options::of(level))
            .expect("the program is compiled");
        found.push_str(&format!(
            "---- {heading}\n{}\n",
            explained.step(step).trim_end()
        ));
    }
    (format!("{}\n", text.trim_end()), found)
}

#[test]
fn every_step_makes_of_small_programs_what_is_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var("ZVM_GOLDEN").is_ok_and(|value| value == "update");
    let compiler = Compiler::new().expect("a known processor");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of this test")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "golden")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} files", files.len());
    let mut differences = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a text");
        let (expected, found) = expected_and_found(&compiler, &text);
        if expected == found {
            continue;
        }
        if update {
            fs::write(path, &found).expect("written");
            continue;
        }
        let line = expected
            .lines()
            .zip(found.lines())
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| expected.lines().count().min(found.lines().count()));
        let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
        differences.push(format!(
            "{}:{}\n  expected {}\n  found    {}",
            path.display(),
            line + 1,
            at(&expected),
            at(&found)
        ));
    }
    println!("{} programs", files.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
