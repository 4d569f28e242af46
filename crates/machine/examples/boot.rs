//! Boots an arm64 Linux `Image` on the board: the console on stdout, how it ended and how fast it was on stderr.
//!
//! `cargo run --release -p seawall-machine --example boot -- IMAGE [INITRD|-] [CPUS] [MIB] [LIMIT] [BOOTARGS]`
//!
//! LIMIT is in millions of instructions, 0 for none.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write as _;
use std::time::Instant;

use seawall_arm::Reg;
use seawall_events::{Exit, Vcpu as _};
use seawall_machine::Config;
use seawall_machine::board::{Board, Guest};

/// Instructions between two looks at the console.
const SLICE: u64 = 10_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |n: usize| arguments.get(n).map(String::as_str).filter(|text| *text != "-");
    let number = |n: usize, default: u64| argument(n).map_or(Ok(default), str::parse::<u64>);
    let image =
        std::fs::read(argument(0).ok_or("expected IMAGE [INITRD|-] [CPUS] [MIB] [LIMIT] [BOOTARGS]")?)?;
    let initrd = argument(1).map(std::fs::read).transpose()?;
    let (cpus, mib, limit) = (number(2, 1)?, number(3, 512)?, number(4, 0)? * 1_000_000);
    let bootargs = Some(argument(5).unwrap_or("console=ttyAMA0 panic=-1"));

    let mut board = Board::new(Config { cpus: cpus as usize, memory_size: mib << 20, ..Config::default() })?;
    board.start(&Guest { image: &image, address: None, bootargs, initrd: initrd.as_deref() })?;
    let (start, mut stdout) = (Instant::now(), std::io::stdout());
    let end = loop {
        board.set_budget(Some(SLICE));
        let exit = board.run()?;
        stdout.write_all(&board.take_console())?;
        stdout.flush()?;
        let is_at_limit = limit != 0 && board.instructions() >= limit;
        if exit != Exit::Intr || is_at_limit {
            break exit;
        }
    };
    let (micros, instructions) = (start.elapsed().as_micros().max(1), board.instructions());
    let time = board.vm().time();
    eprintln!("{end:x?} on CPU {}", board.vcpu()?.index());
    for cpu in 0..board.vm().cpu_count() {
        let vcpu = board.vm_mut().vcpu(cpu)?;
        let (pc, steps) = (vcpu.reg(Reg::Pc)?, vcpu.instructions());
        eprintln!("CPU {cpu}: PC {pc:#x}, {steps} instructions");
    }
    let undefined = board.vm().undefined();
    let last: Vec<String> = undefined.last().map(|word| format!("{word:08x}")).collect();
    eprintln!("{} undefined, the last {}", undefined.count(), last.join(" "));
    eprintln!(
        "{instructions} instructions in {} ms: {} M/s; guest time {} ms",
        micros / 1000,
        u128::from(instructions) / micros,
        time / 1_000_000
    );
    Ok(())
}
