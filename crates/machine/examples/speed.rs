//! Millions of guest instructions per second on an ALU loop and on a load/store loop, MMU on.
//!
//! `cargo run --release -p seawall-machine --example speed [MILLIONS]`
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use seawall_arm::Reg;
use seawall_events::{Exit, MmioExit, Vcpu as _};
use seawall_guest::bench::{alu_loop, load_store_loop};
use seawall_machine::{Config, Vm};

/// Where the images go.
const LOAD_ADDRESS: u64 = seawall_guest::LOAD_ADDRESS;

fn main() -> Result<(), Box<dyn Error>> {
    let millions: u64 = std::env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    let alu = alu_loop(millions * 100_000);
    let load_store = load_store_loop(millions * 1_000_000 / 12);
    measure(alu.layout.name, &alu.bytes)?;
    measure(load_store.layout.name, &load_store.bytes)?;
    Ok(())
}

fn measure(name: &str, image: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut vm = Vm::new(Config::default())?;
    vm.memory_mut().store(LOAD_ADDRESS, image)?;
    let mut vcpu = vm.vcpu(0)?;
    vcpu.set_reg(Reg::Pc, LOAD_ADDRESS)?;
    let mut console = String::new();
    let start = Instant::now();
    loop {
        match vcpu.run()? {
            Exit::Mmio(MmioExit { phys_addr: 0x0900_0000, data, is_write: true, .. }) => {
                console.push(char::from(data[0]));
            }
            Exit::Mmio(_) => {}
            Exit::SystemEvent(_) => break,
            exit => return Err(format!("unexpected {exit:?}, console: {console}").into()),
        }
    }
    let (micros, instructions) = (start.elapsed().as_micros().max(1), vcpu.instructions());
    println!("{}", console.trim());
    println!("{name}: {instructions} instructions, {} M/s", u128::from(instructions) / micros);
    Ok(())
}
