//! The state root of a block, by the size of the state; prints one JSON object.
//!
//! `cargo run --release -p zvm-benches --example root -- FOLDER [ACCOUNTS…]`

use zvm_benches::storage::root::{self, Options};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> eyre::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or_else(|| eyre::eyre!("the folder for the stores is missing"))?;
    let mut options = Options::default();
    let accounts = arguments
        .map(|count| count.parse())
        .collect::<Result<Vec<u64>, _>>()?;
    if !accounts.is_empty() {
        options.accounts = accounts;
    }
    let figures = root::run(folder.as_ref(), &options)?;
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}
