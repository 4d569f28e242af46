//! Just as much of a CPU as the scenarios' programs and handlers ask for.

use seawall_arm::Esr;
use seawall_events::kernel::{
    LastFault, PendingSError, SeaPolicy, handle_guest_sea, inject_fetch_from_hole, prepare_run,
};
use seawall_events::{MmioExit, NisvExit, Reg, Registers as _};
use seawall_inject::{Exit, SigbusExit};

use crate::cpu::{Cpu, Waiting};

/// What an instruction does to memory.
#[derive(Clone, Copy)]
struct Access {
    address: u64,
    /// Bytes.
    len: usize,
    register: u8,
    is_store: bool,
    /// Sign extended.
    signed: bool,
    /// The syndrome describes it: ISV.
    isv: bool,
}

/// Runs until the VMM is needed, or for a while.
pub(crate) fn run(cpu: &mut Cpu, steps: usize) -> Exit {
    complete(cpu);
    for _ in 0..steps {
        if matches!(prepare_run(cpu), PendingSError::Taken(_)) {
            continue;
        }
        if let Some(exit) = step(cpu) {
            return exit;
        }
    }
    Exit::Intr
}

/// `KVM_RUN` first completes what waits.
fn complete(cpu: &mut Cpu) {
    cpu.has_run = true;
    let Some(waiting) = cpu.waiting.take() else { return };
    if let Some(register) = waiting.load {
        cpu.set_reg(Reg::X(register), u64::from_le_bytes(waiting.data));
    }
    advance(cpu, waiting.insn);
}

fn advance(cpu: &mut Cpu, bytes: u64) {
    let pc = cpu.reg(Reg::Pc);
    cpu.set_reg(Reg::Pc, pc + bytes);
}

fn step(cpu: &mut Cpu) -> Option<Exit> {
    let pc = cpu.reg(Reg::Pc);
    if cpu.bad_lines.contains(&(pc & !63)) {
        return sea(cpu, 0x8200_0210, pc);
    }
    let Some(word) = cpu.word(pc) else {
        let esr = Esr::from_bits(0x8200_0007);
        cpu.last_fault = LastFault { esr, far: pc, ipa: Some(pc & !0xfff) };
        inject_fetch_from_hole(cpu);
        return None;
    };
    let (access, insn) = if !cpu.is_aarch32() {
        (aarch64(cpu, word)?, 4)
    } else if cpu.reg(Reg::Pstate) & 0x20 == 0 {
        (aarch32(cpu, word)?, 4)
    } else {
        assert_eq!(word & 0xffff, 0x680a, "T32: ldr r2, [r1]");
        (load(cpu, 1, 0, 4, 2), 2)
    };
    memory(cpu, access, insn)
}

/// The instructions of `guest/words.rs` and of the handlers. `None`: it is done.
fn aarch64(cpu: &mut Cpu, word: u32) -> Option<Access> {
    let x = |cpu: &Cpu, n: u32| cpu.reg(Reg::X(n as u8));
    let (rt, rn, offset) = (word & 31, word >> 5 & 31, u64::from(word >> 10 & 0xfff) * 8);
    let result = match word {
        0xf840_8422 | 0xf800_8422 | 0xa940_0c22 | 0xa900_0c22 | 0xf840_8c22 => {
            let address = x(cpu, 1) + if word == 0xf840_8c22 { 8 } else { 0 };
            let is_store = matches!(word, 0xf800_8422 | 0xa900_0c22);
            return Some(Access { address, len: 8, register: 2, is_store, signed: false, isv: false });
        }
        0x3940_0022 => return Some(load(cpu, 1, 0, 1, 2)),
        0x3900_0022 => return Some(Access { is_store: true, ..load(cpu, 1, 0, 1, 2) }),
        0xb980_0022 => return Some(Access { signed: true, ..load(cpu, 1, 0, 4, 2) }),
        _ if word & 0xffc0_0000 == 0xf940_0000 => return Some(load(cpu, rn, offset, 8, rt)),
        _ if word & 0xffc0_0000 == 0xf900_0000 => {
            return Some(Access { is_store: true, ..load(cpu, rn, offset, 8, rt) });
        }
        0x1400_0000 => return None,
        0xd65f_0060 | 0xd61f_0060 => {
            let target = x(cpu, 3);
            let btype = if word == 0xd61f_0060 { 0x400 } else { 0 };
            let pstate = cpu.reg(Reg::Pstate);
            cpu.set_reg(Reg::Pstate, pstate | btype);
            cpu.set_reg(Reg::Pc, target);
            return None;
        }
        0xd69f_03e0 => {
            let el2 = cpu.reg(Reg::Pstate) & 0xc == 8;
            let (elr, spsr) = if el2 { (Reg::ElrEl2, Reg::SpsrEl2) } else { (Reg::ElrEl1, Reg::SpsrEl1) };
            let (elr, spsr) = (cpu.reg(elr), cpu.reg(spsr));
            cpu.set_reg(Reg::Pc, elr);
            cpu.set_reg(Reg::Pstate, spsr);
            return None;
        }
        0xd503_44ff => {
            let pstate = cpu.reg(Reg::Pstate);
            cpu.set_reg(Reg::Pstate, pstate & !0x100);
            None
        }
        0xd503_201f => None,
        0x1000_000a => Some((10, cpu.reg(Reg::Pc))),
        0xd2a1_4009 => Some((9, 0x0a00_0000)),
        0xd28c_01a2 => Some((2, 0x600d)),
        0xd538_520b => Some((11, cpu.reg(Reg::EsrEl1))),
        0xd538_600c => Some((12, cpu.reg(Reg::FarEl1))),
        0xd538_402d => Some((13, cpu.reg(Reg::ElrEl1))),
        0xd538_400e => Some((14, cpu.reg(Reg::SpsrEl1))),
        0xd53c_520b => Some((11, cpu.reg(Reg::EsrEl2))),
        0xd53c_600c => Some((12, cpu.reg(Reg::FarEl2))),
        0xd53c_402d => Some((13, cpu.reg(Reg::ElrEl2))),
        0xd53c_400e => Some((14, cpu.reg(Reg::SpsrEl2))),
        0xd53b_422f => Some((15, cpu.reg(Reg::Pstate) & 0x3c0)),
        0xd503_221f => {
            // ESB. DISR_EL1: A, and the ISS.
            if cpu.serror.pending && cpu.reg(Reg::Pstate) & 0x100 != 0 {
                let disr = 1 << 31 | cpu.serror.vsesr;
                cpu.serror.pending = false;
                cpu.set_reg(Reg::DisrEl1, disr);
            }
            None
        }
        0xd538_c122 => Some((2, cpu.reg(Reg::DisrEl1))),
        _ => panic!("the model does not know {word:#x} at {:#x}", cpu.reg(Reg::Pc)),
    };
    if let Some((register, value)) = result {
        cpu.set_reg(Reg::X(register), value);
    }
    advance(cpu, 4);
    None
}

/// The same for A32. In Abort mode LR is X20.
fn aarch32(cpu: &mut Cpu, word: u32) -> Option<Access> {
    let (far, immediate) = (cpu.reg(Reg::FarEl1), u64::from(word & 0xfff));
    let (rt, rn) = (word >> 12 & 15, word >> 16 & 15);
    let result = match word {
        _ if word & 0xfff0_0000 == 0xe590_0000 => return Some(load(cpu, rn, immediate, 4, rt)),
        _ if word & 0xfff0_0000 == 0xe580_0000 => {
            return Some(Access { is_store: true, ..load(cpu, rn, immediate, 4, rt) });
        }
        0xeaff_fffe => return None,
        _ if word >> 24 == 0xea => {
            advance(cpu, 8 + 4 * u64::from(word & 0xff_ffff));
            return None;
        }
        0xe12f_ff13 => {
            let target = cpu.reg(Reg::X(3));
            cpu.set_reg(Reg::Pc, target);
            return None;
        }
        0xf108_0100 => {
            let pstate = cpu.reg(Reg::Pstate);
            cpu.set_reg(Reg::Pstate, pstate & !0x100);
            None
        }
        0xe320_f000 => None,
        0xe300_9000 => Some((9, 0)),
        0xe340_9a00 => Some((9, 0x0a00_0000)),
        _ if word & 0xffff_ff00 == 0xe3a0_a000 => Some((10, immediate)),
        0xee15_bf10 => Some((11, cpu.reg(Reg::EsrEl1))),
        0xee15_bf30 => Some((11, cpu.reg(Reg::Ifsr32))),
        0xee16_bf10 => Some((11, far)),
        0xee16_bf50 => Some((11, far >> 32)),
        0xe1a0_b00e => Some((11, cpu.reg(Reg::X(20)))),
        0xe10f_b000 => Some((11, cpu.reg(Reg::Pstate))),
        _ => panic!("the model does not know {word:#x} at {:#x}", cpu.reg(Reg::Pc)),
    };
    if let Some((register, value)) = result {
        cpu.set_reg(Reg::X(register), value & 0xffff_ffff);
    }
    advance(cpu, 4);
    None
}

fn load(cpu: &Cpu, base: u32, offset: u64, len: usize, register: u32) -> Access {
    let address = cpu.reg(Reg::X(base as u8)) + offset;
    Access { address, len, register: register as u8, is_store: false, signed: false, isv: true }
}

fn memory(cpu: &mut Cpu, access: Access, insn: u64) -> Option<Exit> {
    let Access { address, len, register, is_store, signed, isv } = access;
    if cpu.bad_pages.contains(&(address & !0xfff)) {
        let esr = Esr::from_bits(0x9200_0007);
        cpu.last_fault = LastFault { esr, far: address, ipa: Some(address & !0xfff) };
        return Some(Exit::Sigbus(SigbusExit { address: address & !0xfff, lsb: 12, action_required: true }));
    }
    if cpu.bad_lines.contains(&(address & !63)) && !is_store {
        return sea(cpu, 0x9200_0210, address);
    }
    let value = cpu.reg(Reg::X(register)).to_le_bytes();
    if let Some(bytes) = cpu.bytes(address, len) {
        if is_store {
            bytes.copy_from_slice(&value[..len]);
        } else {
            let mut loaded = [0; 8];
            loaded[..len].copy_from_slice(bytes);
            cpu.set_reg(Reg::X(register), extend(loaded, len, signed));
        }
        advance(cpu, insn);
        return None;
    }
    let iss = if is_store { 0x47 } else { 0x07 };
    let esr = Esr::from_bits(0x9200_0000 | u64::from(isv) << 24 | iss);
    cpu.last_fault = LastFault { esr, far: address, ipa: Some(address & !0xfff) };
    if !isv {
        return Some(Exit::Nisv(NisvExit { esr_iss: iss, fault_ipa: address }));
    }
    let mut data = [0; 8];
    if is_store {
        data[..len].copy_from_slice(&value[..len]);
    }
    cpu.waiting = Some(Waiting { load: (!is_store).then_some(register), data: [0; 8], insn });
    Some(Exit::Mmio(MmioExit { phys_addr: address, data, len: len as u32, is_write: is_store }))
}

fn extend(bytes: [u8; 8], len: usize, signed: bool) -> u64 {
    let value = u64::from_le_bytes(bytes);
    let shift = 64 - 8 * len as u32;
    if signed { ((value << shift) as i64 >> shift) as u64 } else { value }
}

/// Bad memory: to the host, which is the model's `handle_guest_sea`.
fn sea(cpu: &mut Cpu, esr: u64, address: u64) -> Option<Exit> {
    cpu.last_fault = LastFault { esr: Esr::from_bits(esr), far: address, ipa: Some(address & !0xfff) };
    let policy = SeaPolicy { to_user: true, guest_has_ras: cpu.config.ras };
    handle_guest_sea(cpu, policy).ok().map(Exit::Sea)
}
