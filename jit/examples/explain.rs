//! scratch
use zvm_jit::compiler::{Compiler, Level};
use zvm_runtimes::revm::primitives::hardfork::SpecId;
fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap();
    let level = args.next().unwrap();
    let step = args.next().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let code = alloy_primitives::hex::decode(text.trim()).unwrap();
    let level = if level == "quick" { Level::Quick } else { Level::Full };
    let s = Compiler::new().unwrap().explain(&code, SpecId::OSAKA, level).unwrap();
    let all = [("blocks", s.blocks), ("flow", s.flow), ("words", s.words), ("clif", s.clif), ("native", s.native)];
    for (name, text) in all { if step == name { println!("{text}"); } }
    println!("size {}", s.size);
    let image = Compiler::new().unwrap().compile(&code, SpecId::OSAKA, level).unwrap();
    std::fs::write("/tmp/code.bin", image.code()).unwrap();
    println!("clif {}", image.clif());
}
