//! The guest that both VMMs run: it measures its own path from a load to its handler.
//!
//! It is bare metal at EL1 with the MMU off and without devices: it polls its [`mailbox`] for a command,
//! carries it out and reports that. It runs from address 0, the place of the firmware in QEMU's `virt`:
//! without firmware QEMU has no place for error records.
#![allow(
    clippy::unnecessary_semicolon,
    clippy::used_underscore_binding,
    clippy::useless_conversion,
    reason = "in what dynasm! makes"
)]

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};

/// Where the image is, and runs from its first byte on.
pub const FIRMWARE: u64 = 0;
/// Bytes of memory there; the image is shorter.
pub const FIRMWARE_SIZE: usize = 0x1_0000;
/// RAM of QEMU's `virt`. QEMU writes a device tree to its first MiB.
pub const RAM: u64 = 0x4000_0000;
/// Bytes of it.
pub const RAM_SIZE: usize = 64 << 20;
/// Where the host speaks with the guest.
pub const MAILBOX: u64 = RAM + (16 << 20);
/// One source of errors: the address of its block, its read-ack register, its block.
pub const ERRORS: u64 = MAILBOX + 0x1000;
/// What the host and QEMU's fw_cfg exchange.
pub const EXCHANGE: u64 = MAILBOX + 0x2000;
/// An entry for each page that the guest loaded from.
pub const RESULTS: u64 = MAILBOX + 0x1_0000;
/// The pages that it loads from.
pub const PAGES: u64 = RAM + (32 << 20);
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Offsets in the mailbox, 64-bit words.
pub mod mailbox {
    /// What to do, one of [`command`](super::command); 0 once the guest has seen it.
    pub const COMMAND: u64 = 0;
    /// What to do it with: two words.
    pub const ARGUMENTS: u64 = 8;
    /// 1 when it is done.
    pub const DONE: u64 = 24;
    /// `CNTFRQ_EL0`, from the guest's start on.
    pub const FREQUENCY: u64 = 32;
}

/// What the guest can do.
pub mod command {
    /// Stores the second argument at the address that is the first: 64 bits.
    pub const STORE: u64 = 1;
    /// Loads from so many pages (the second argument), from this address on (the first).
    pub const LOAD: u64 = 2;
    /// PSCI SYSTEM_OFF.
    pub const OFF: u64 = 3;
}

/// Offsets in a result, 64-bit words.
pub mod result {
    /// `CNTVCT_EL0` right before the load.
    pub const BEFORE: u64 = 0;
    /// `CNTVCT_EL0` as the handler's first instruction read it; 0 if the load loaded.
    pub const IN_HANDLER: u64 = 8;
    /// `ESR_EL1` in the handler.
    pub const ESR: u64 = 16;
    /// Bytes.
    pub const SIZE: u64 = 24;
}

/// Offset of the vectors; a multiple of 2048. Source: DDI 0487, `VBAR_EL1`.
const VECTORS: usize = 0x800;
/// The synchronous exceptions of the current EL with SP_ELx.
const SYNCHRONOUS: usize = 0x200;
/// The end of the 16 vectors.
const VECTORS_END: usize = 0x800;

/// System registers as MRS and MSR name them: `o0:op1:CRn:CRm:op2`.
const VBAR_EL1: u32 = 0x4600;
const ESR_EL1: u32 = 0x4290;
const ELR_EL1: u32 = 0x4201;
const CNTVCT_EL0: u32 = 0x5f02;
const CNTFRQ_EL0: u32 = 0x5f00;

/// The image, to be at [`FIRMWARE`].
///
/// # Errors
/// The assembler's.
pub fn image() -> Result<Vec<u8>, DynasmError> {
    let mut ops: VecAssembler<Aarch64Relocation> = VecAssembler::new(FIRMWARE as usize);
    start(&mut ops);
    consume(&mut ops);
    vectors(&mut ops);
    ops.finalize()
}

/// x20: the mailbox, x21: the results, x22: the read-ack register.
fn start(ops: &mut VecAssembler<Aarch64Relocation>) {
    let constant = |ops: &mut VecAssembler<Aarch64Relocation>, register: u8, value: u64| {
        let halves = [value, value >> 16].map(|half| half as u32 & 0xffff);
        dynasm!(ops ; .arch aarch64 ; movz X(register), halves[0] ; movk X(register), halves[1], lsl 16);
    };
    dynasm!(ops ; .arch aarch64 ; adr x0, ->vectors ; msr VBAR_EL1, x0);
    constant(ops, 20, MAILBOX);
    constant(ops, 21, RESULTS);
    constant(ops, 22, ERRORS + 8);
    dynasm!(ops
        ; .arch aarch64
        ; mrs x0, CNTFRQ_EL0
        ; str x0, [x20, mailbox::FREQUENCY as u32]
        ; ->idle:
        ; ldr x0, [x20, mailbox::COMMAND as u32]
        ; cbz x0, ->idle
        ; dmb sy
        ; ldr x1, [x20, mailbox::ARGUMENTS as u32]
        ; ldr x2, [x20, mailbox::ARGUMENTS as u32 + 8]
        ; str xzr, [x20, mailbox::COMMAND as u32]
        ; cmp x0, command::STORE as u32
        ; b.eq ->store
        ; cmp x0, command::LOAD as u32
        ; b.eq ->consume
        // PSCI SYSTEM_OFF by HVC (DEN 0022, 5.1).
        ; movz x0, 0x8400, lsl 16
        ; movk x0, 8
        ; hvc 0
        ; ->store:
        ; str x2, [x1]
        ; ->done:
        ; dsb sy
        ; movz x0, 1
        ; str x0, [x20, mailbox::DONE as u32]
        ; b ->idle
    );
}

/// x1: the page, x2: the number of pages.
fn consume(ops: &mut VecAssembler<Aarch64Relocation>) {
    dynasm!(ops
        ; .arch aarch64
        ; ->consume:
        ; mov x3, x21
        ; ->next:
        ; mov x9, xzr
        ; mov x10, xzr
        ; isb
        ; mrs x8, CNTVCT_EL0
        ; ldr x5, [x1]
        ; str x8, [x3, result::BEFORE as u32]
        ; str x9, [x3, result::IN_HANDLER as u32]
        ; str x10, [x3, result::ESR as u32]
        ; add x3, x3, result::SIZE as u32
        ; movz x0, 1
        ; str x0, [x22]
        ; add x1, x1, (PAGE >> 12) as u32, lsl 12
        ; subs x2, x2, 1
        ; b.ne ->next
        ; b ->done
    );
}

/// The handler continues after the load; any other exception loops.
fn vectors(ops: &mut VecAssembler<Aarch64Relocation>) {
    while ops.offset().0 < VECTORS {
        dynasm!(ops ; .arch aarch64 ; udf 0);
    }
    dynasm!(ops ; .arch aarch64 ; ->vectors:);
    while ops.offset().0 < VECTORS + SYNCHRONOUS {
        dynasm!(ops ; .arch aarch64 ; stays: ; b <stays);
    }
    dynasm!(ops
        ; .arch aarch64
        ; mrs x9, CNTVCT_EL0
        ; mrs x10, ESR_EL1
        ; mrs x11, ELR_EL1
        ; add x11, x11, 4
        ; msr ELR_EL1, x11
        ; eret
    );
    while ops.offset().0 < VECTORS + VECTORS_END {
        dynasm!(ops ; .arch aarch64 ; stays: ; b <stays);
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use seawall::{Containment, Now, Rules};
    use seawall_events::Reg;
    use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
    use seawall_machine::{Config, Vm};

    use super::*;

    /// An address other than the usual one: the code depends on none.
    const BASE: u64 = RAM + (1 << 20);

    fn word(vm: &Vm, address: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(vm.memory().load(address, &mut bytes).is_ok());
        u64::from_le_bytes(bytes)
    }

    /// Runs the image with a command in its mailbox; returns the exit.
    fn run(vm: &mut Vm, command: u64, arguments: [u64; 2]) -> Result<Exit, Box<dyn Error>> {
        let words = [(0, command), (8, arguments[0]), (16, arguments[1]), (24, 0)];
        for (offset, value) in words {
            vm.memory_mut().store(MAILBOX + offset, &u64::to_le_bytes(value))?;
        }
        vm.vcpu(0)?.set_budget(Some(1000));
        Ok(vm.vcpu(0)?.run()?)
    }

    fn machine() -> Result<Vm, Box<dyn Error>> {
        let mut vm = Vm::new(Config { memory_size: RAM_SIZE as u64, ..Config::default() })?;
        vm.memory_mut().store(BASE, &image()?)?;
        vm.vcpu(0)?.set_reg(Reg::Pc, BASE)?;
        Ok(vm)
    }

    #[test]
    fn the_guest_notes_when_it_loaded_and_when_its_handler_began() -> Result<(), Box<dyn Error>> {
        let mut vm = machine()?;
        vm.poison(PAGES + 0x1000..PAGES + 0x1040)?;
        // Until the counter is beyond 0.
        assert_eq!(run(&mut vm, 0, [0, 0])?, Exit::Intr);
        let Exit::Sea(sea) = run(&mut vm, command::LOAD, [PAGES, 3])? else { panic!("no SEA exit") };
        let now = Now::new(0, std::time::Duration::ZERO);
        let _ = Containment::new(Rules::FULL).contain(&mut vm.vcpu(0)?, &sea.into(), None, &now)?;
        assert_eq!(vm.vcpu(0)?.run()?, Exit::Intr);
        assert_eq!(word(&vm, MAILBOX + mailbox::DONE), 1);
        assert_ne!(word(&vm, MAILBOX + mailbox::FREQUENCY), 0);
        let seen: Vec<(bool, u64)> = (0..3)
            .map(|page| {
                let entry = RESULTS + page * result::SIZE;
                let (before, then) = (word(&vm, entry), word(&vm, entry + result::IN_HANDLER));
                (before > 0 && then >= before, word(&vm, entry + result::ESR))
            })
            .collect();
        assert_eq!(seen, [(false, 0), (true, 0x9600_0210), (false, 0)]);
        assert_eq!(word(&vm, ERRORS + 8), 1, "acknowledged");
        Ok(())
    }

    #[test]
    fn the_guest_stores_to_a_device_and_powers_off_as_it_is_told() -> Result<(), Box<dyn Error>> {
        let mut vm = machine()?;
        let exit = run(&mut vm, command::STORE, [0x0902_0010, 0x1234])?;
        assert!(matches!(exit, Exit::Mmio(mmio) if mmio.is_write
            && (mmio.phys_addr, mmio.len, mmio.data) == (0x0902_0010, 8, 0x1234_u64.to_le_bytes())));
        assert_eq!(run(&mut vm, command::OFF, [0, 0])?, Exit::SystemEvent(SystemEvent::Shutdown));
        Ok(())
    }
}
