//! Writes a built-in guest to a file, for QEMU or a disassembler: `write-image FILE [WHAT]`, where WHAT is `demo`
//! (the default), `text`, `data`, `tables` or `kernel` for the demo with a hole under task 1's or the kernel's memory, or
//! one of the bench loops, `alu`, `load-store` or `sea`, with 10 million iterations, or `interrupts`.

use seawall_guest::{DemoOptions, Hole, HoleUnder, bench, demo_with, interrupts};

const ITERATIONS: u64 = 10_000_000;
/// An address beyond the 128 MiB of RAM that QEMU's virt has by default.
const HOLE: u64 = 0x9000_0000;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "demo.bin".to_owned());
    let bytes = match args.next().as_deref() {
        Some("alu") => bench::alu_loop(ITERATIONS).bytes,
        Some("load-store") => bench::load_store_loop(ITERATIONS).bytes,
        Some("sea") => bench::sea_loop(ITERATIONS, HOLE).bytes,
        Some("interrupts") => interrupts().bytes,
        Some("text") => demo_over(HoleUnder::Text(1)),
        Some("data") => demo_over(HoleUnder::Data(1)),
        Some("tables") => demo_over(HoleUnder::Tables(1)),
        Some("kernel") => demo_over(HoleUnder::KernelData),
        _ => demo_with(&DemoOptions::default()).bytes,
    };
    std::fs::write(path, bytes)
}

fn demo_over(under: HoleUnder) -> Vec<u8> {
    let hole = Some(Hole { pa: HOLE, under });
    demo_with(&DemoOptions { hole, ..DemoOptions::default() }).bytes
}
