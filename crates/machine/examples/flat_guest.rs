//! A bare-metal guest in source, and the loop of a VMM around it: exit, decide, inject, and the guest's own handler.
//!
//! `cargo run -p seawall-machine --example flat_guest` runs it. With a file's name behind `--` it writes the guest there,
//! for `seawall run FILE --poison 0x40200000`. docs/guests.md explains it line by line.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use seawall::{Containment, Now, Rules};
use seawall_arm::Reg;
use seawall_events::{Abi, Layout};
use seawall_guest::asm::{Asm, DynasmApi, DynasmLabelApi, ELR_EL1, ESR_EL1, FAR_EL1, VBAR_EL1};
use seawall_guest::{UART, assemble};
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::{Config, Vm};

/// Where `seawall run` puts a flat image, too.
const LOAD_ADDRESS: u64 = 0x4008_0000;
/// The guest's data, which will go bad.
const DATA: u64 = 0x4020_0000;
/// Offset of the exception vectors in the image: on a boundary of 2 KiB.
const VECTORS: u64 = 0x800;
/// Offset of the vector of a synchronous exception from EL1 with SP_EL1.
const SYNCHRONOUS: u64 = 0x200;
/// PSCI (Arm DEN 0022, 5.10), called with HVC.
const SYSTEM_OFF: u64 = 0x8400_0008;

/// The guest. It is entered at its first byte, at EL1 with the MMU off.
fn guest() -> Vec<u8> {
    let mut asm = Asm::new();
    assemble!(asm ; adr x9, ->vectors ; msr VBAR_EL1, x9 ; isb);
    asm.say("guest: loading from 0x40200000\n");
    asm.constant(20, DATA);
    assemble!(asm ; ldr x21, [x20]);
    asm.say("guest: still alive\n");
    asm.constant(0, SYSTEM_OFF);
    assemble!(asm ; hvc #0);

    // The handler says what it sees, and goes on behind the instruction that aborted.
    assemble!(asm ; ->handler: ; mrs x22, ESR_EL1 ; mrs x23, FAR_EL1);
    asm.say_hex("guest: abort, ESR 0x", 22, 8);
    asm.say_hex(", FAR 0x", 23, 8);
    asm.say("\n");
    assemble!(asm ; mrs x9, ELR_EL1 ; add x9, x9, #4 ; msr ELR_EL1, x9 ; eret);

    asm.pad_to(VECTORS);
    assemble!(asm ; ->vectors:);
    asm.pad_to(VECTORS + SYNCHRONOUS);
    assemble!(asm ; b ->handler);
    asm.pad_to(VECTORS + 0x800);
    asm.console(UART);
    asm.finish(0x2000)
}

/// Runs the guest to its end: what it wrote, and what was done.
pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    // A VM whose events have words for the whole abort.
    let mut vm = Vm::new(Config { abi: Abi::Extended(Layout::Posted), ..Config::default() })?;
    vm.memory_mut().store(LOAD_ADDRESS, &guest())?;
    vm.poison(DATA..DATA + 64)?;
    let mut vcpu = vm.vcpu(0)?;
    vcpu.set_reg(Reg::Pc, LOAD_ADDRESS)?;

    let mut containment = Containment::new(Rules::default());
    let mut log = String::new();
    loop {
        match vcpu.run()? {
            Exit::Sea(sea) => {
                writeln!(log, "exit:   {}, gva {:#x}, gpa {:#x}", sea.esr, sea.gva, sea.gpa)?;
                let now = Now::new(0, Duration::from_nanos(vcpu.instructions()));
                let contained = containment.contain(&mut vcpu, &sea.into(), None, &now)?;
                writeln!(log, "inject: {contained}")?;
                if let Some(reason) = contained.stop() {
                    return Err(reason.into());
                }
            }
            Exit::Mmio(mmio) if mmio.is_write && mmio.phys_addr == UART => {
                log.push(char::from(mmio.data[0]));
            }
            // The console waits for room in the transmit FIFO: there is always some.
            Exit::Mmio(_) => vcpu.answer_mmio([0; 8]),
            Exit::SystemEvent(SystemEvent::Shutdown) => return Ok(log),
            exit => return Err(format!("the guest ended by {exit:?}, having written: {log}").into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(path) => std::fs::write(path, guest())?,
        None => print!("{}", run()?),
    }
    Ok(())
}
