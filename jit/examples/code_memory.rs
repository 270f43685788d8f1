//! What it costs to make code executable: time and memory of 10,000 units in this crate's code memory, with
//! cranelift-jit's own providers, and by a second, writable mapping. `cargo run --release -p zvm-jit --example code_memory`

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::ptr::null_mut;
use std::time::Instant;

use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITMemoryProvider, JITModule};
use cranelift_module::{Module as _, default_libcall_names};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::memory::CodeMemory;
use zvm_jit::unit::{Image, Unit};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

const UNITS: usize = 10_000;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<usize>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// Runs it for every unit, keeps what it returns to the end, and reads all code once, as running it would.
fn measure<T>(name: &str, image: &Image, mut load: impl FnMut() -> (T, *const u8)) {
    let before = resident();
    let mut kept = Vec::with_capacity(UNITS);
    let start = Instant::now();
    for _ in 0..UNITS {
        kept.push(load());
    }
    let loading = start.elapsed();
    for (_, code) in &kept {
        for at in (0..image.code().len()).step_by(64) {
            // SAFETY: the code lies there, readable, as long as it is kept.
            core::hint::black_box(unsafe { code.add(at).read_volatile() });
        }
    }
    let after = resident();
    let start = Instant::now();
    drop(kept);
    println!(
        "| {:6} | {name:42} | {:6.1} | {:6.1} | {:8.0} |",
        image.code().len(),
        loading.as_secs_f64() * 1e6 / UNITS as f64,
        start.elapsed().as_secs_f64() * 1e6 / UNITS as f64,
        after.saturating_sub(before) as f64 / UNITS as f64,
    );
}

/// A module of cranelift-jit, freed with it.
struct Module(Option<JITModule>);

impl Drop for Module {
    fn drop(&mut self) {
        if let Some(module) = self.0.take() {
            // SAFETY: nobody runs the code.
            unsafe { module.free_memory() };
        }
    }
}

fn module(provider: Option<Box<dyn JITMemoryProvider + Send>>, code: &[u8]) -> (Module, *const u8) {
    let mut flags = settings::builder();
    flags.set("is_pic", "false").expect("a known flag");
    let isa = cranelift_native::builder()
        .expect("a known processor")
        .finish(settings::Flags::new(flags))
        .expect("valid flags");
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    if let Some(provider) = provider {
        builder.memory_provider(provider);
    }
    let mut module = JITModule::new(builder);
    let signature = module.make_signature();
    let function = module
        .declare_anonymous_function(&signature)
        .expect("declared");
    module
        .define_function_bytes(function, 64, code, &[])
        .expect("defined");
    module.finalize_definitions().expect("finished");
    let address = module.get_finalized_function(function);
    (Module(Some(module)), address)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "|  bytes | way                                        | load µs| drop µs| RSS/unit |"
    );
    let compiler = Compiler::new()?;
    for instructions in [0, 4, 40] {
        // Reads and adds words of memory: so many pieces of code without a call.
        let mut code = vec![0x34, 0x50];
        code.extend([0x34, 0x51, 0x34, 0x53].repeat(instructions));
        let image = compiler.compile(&code, SpecId::OSAKA, Level::Quick)?;
        let memory = CodeMemory::new(4 << 30);
        measure("this crate (pwrite)", &image, || {
            let unit = Unit::load(image.clone(), &memory).expect("there is room");
            let address = unit.code().as_ptr();
            (unit, address)
        });
        measure("cranelift-jit, system provider", &image, || {
            module(None, image.code())
        });
        measure("cranelift-jit, arena provider", &image, || {
            let provider =
                ArenaMemoryProvider::new_with_size(image.code().len()).expect("reserved");
            module(Some(Box::new(provider)), image.code())
        });
        // The same pages twice: one view to execute, one to write, which is there only while a unit is written.
        let file = memfd_create("example", MemfdFlags::CLOEXEC)?;
        let slot = image.code().len().next_multiple_of(64);
        let length = (UNITS * slot).next_multiple_of(4096) + 4096;
        ftruncate(&file, length as u64)?;
        // SAFETY: new mappings where the system wants them, unmapped when nobody uses them.
        let view = |protection, offset: usize, length| unsafe {
            mmap(
                null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                &file,
                offset as u64,
            )
        };
        let executable = view(ProtFlags::READ | ProtFlags::EXEC, 0, length)?;
        let mut offset = 0;
        measure(
            "second mapping for writing, a unit at a time",
            &image,
            || {
                let (page, within) = (offset / 4096 * 4096, offset % 4096);
                let length = within + slot;
                let writable =
                    view(ProtFlags::READ | ProtFlags::WRITE, page, length).expect("mapped");
                // SAFETY: the mapping holds the range, and is this closure's own.
                unsafe {
                    let to = writable.cast::<u8>().add(within);
                    to.copy_from_nonoverlapping(image.code().as_ptr(), image.code().len());
                    munmap(writable, length).expect("unmapped");
                }
                let address = executable.cast::<u8>().wrapping_add(offset).cast_const();
                offset += slot;
                ((), address)
            },
        );
        // SAFETY: nobody uses it any more.
        unsafe { munmap(executable, length) }?;
        let file = File::from(memfd_create("example", MemfdFlags::CLOEXEC)?);
        let start = Instant::now();
        for number in 0..UNITS {
            file.write_all_at(image.code(), (number * slot) as u64)?;
        }
        println!(
            "|        | of which one pwrite                        | {:6.1} |",
            start.elapsed().as_secs_f64() * 1e6 / UNITS as f64
        );
    }
    Ok(())
}
