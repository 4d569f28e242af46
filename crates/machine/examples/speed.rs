//! Millions of guest instructions per second on an ALU loop and on a load/store loop, MMU on, and how many SEAs
//! a second the guest takes, each from the load to the ERET behind it.
//!
//! `cargo run --release -p seawall-machine --example speed [MILLIONS]`
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use seawall_arm::Reg;
use seawall_events::{MmioExit, VcpuEvents};
use seawall_guest::bench::{BenchLoop, SEA_TARGET, alu_loop, load_store_loop, sea_loop};
use seawall_guest::{Image, UART};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, Vm};

fn main() -> Result<(), Box<dyn Error>> {
    let millions: u64 = std::env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    measure(&alu_loop(millions * 1_000_000 / 10))?;
    measure(&load_store_loop(millions * 1_000_000 / 12))?;
    measure(&sea_loop(millions * 1_000_000 / 80, SEA_TARGET))?;
    Ok(())
}

fn measure(image: &Image<BenchLoop>) -> Result<(), Box<dyn Error>> {
    let mut vm = Vm::new(Config::default())?;
    vm.memory_mut().store(image.load_address, &image.bytes)?;
    vm.poison(SEA_TARGET..SEA_TARGET + 1)?;
    let mut vcpu = vm.vcpu(0)?;
    vcpu.set_reg(Reg::Pc, image.entry)?;
    let (mut console, mut seas) = (String::new(), 0_u128);
    let abort = VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() };
    let start = Instant::now();
    loop {
        match vcpu.run()? {
            Exit::Sea(_) => {
                vcpu.inject(&abort)?;
                seas += 1;
            }
            Exit::Mmio(MmioExit { phys_addr: UART, data, is_write: true, .. }) => {
                console.push(char::from(data[0]));
            }
            Exit::Mmio(_) => {}
            Exit::SystemEvent(_) => break,
            exit => return Err(format!("unexpected {exit:?}, console: {console}").into()),
        }
    }
    let (micros, instructions) = (start.elapsed().as_micros().max(1), vcpu.instructions());
    print!("{console}");
    println!(
        "{}: {instructions} instructions, {} M/s; {seas} SEAs, {} thousand/s",
        image.layout.name,
        u128::from(instructions) / micros,
        seas * 1000 / micros
    );
    Ok(())
}
