//! Writes the seeds of one target into a folder: `write_seeds TARGET FOLDER`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, folder] = &arguments[..] else {
        eprintln!("usage: write_seeds TARGET FOLDER");
        return ExitCode::FAILURE;
    };
    let seeds = zvm_fuzz::seeds::of(target);
    if seeds.is_empty() {
        eprintln!("{target} has no seeds: is it the name of a target?");
        return ExitCode::FAILURE;
    }
    for (index, seed) in seeds.iter().enumerate() {
        let path = Path::new(folder).join(format!("seed-{index:02}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{} seeds in {folder}", seeds.len());
    ExitCode::SUCCESS
}
