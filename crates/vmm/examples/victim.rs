//! A program for the guest: it asks for bad memory under itself, by the guest physical address of a part of it,
//! and goes on using that part. For `boot.rs`; it needs root, for /proc/self/pagemap.
//!
//! `victim data` uses a table on its heap, `victim text` a table in its own file, `victim code` a function;
//! `victim witness` uses the same and asks for nothing.
//!
//! It meets the bad line twice: Rust's runtime has a SIGBUS handler of its own, for stack overflows, which puts
//! the default back and returns.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const ENTRIES: usize = 4 * PAGE / 8;
static TABLE: [u64; ENTRIES] = [0x5ea_3a11; ENTRIES];

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let heap = vec![7_u64; ENTRIES];
    println!("{name}: sum {}", work(&heap).wrapping_add(work(&TABLE)));
    // In the middle, so that the line is nobody else's.
    let address = match name.as_str() {
        "data" => &raw const heap[ENTRIES / 2] as usize,
        "text" => &raw const TABLE[ENTRIES / 2] as usize,
        "code" => work as *const () as usize,
        _ => 0,
    };
    if address != 0 {
        println!("{name}: bad memory please: {:#x}", physical(address)?);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        black_box(work(black_box(&heap)).wrapping_add(work(black_box(&TABLE))));
    }
    println!("{name}: nothing happened to me");
    Ok(())
}

#[inline(never)]
fn work(table: &[u64]) -> u64 {
    table.iter().fold(0, |sum, entry| black_box(sum.wrapping_add(*entry).rotate_left(1)))
}

/// The physical address behind an address of this process.
fn physical(address: usize) -> Result<u64, Box<dyn Error>> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let mut pagemap = File::open("/proc/self/pagemap")?;
    pagemap.seek(SeekFrom::Start((address / PAGE * 8) as u64))?;
    let mut entry = [0; 8];
    pagemap.read_exact(&mut entry)?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 || entry & FRAME == 0 {
        return Err(format!("no page is known behind {address:#x}: expected root").into());
    }
    Ok((entry & FRAME) * PAGE as u64 + (address % PAGE) as u64)
}
