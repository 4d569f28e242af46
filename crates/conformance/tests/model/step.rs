//! The minimal CPU for the scenarios' programs and handlers.

use seawall_events::kernel::{PendingSError, prepare_run};
use seawall_inject::{Exit, SigbusExit};
use seawall_model::{Access, Transfer, Vcpu};

use seawall_arm::{Esr, Pstate, Reg, Registers as _};

use crate::cpu::Cpu;

/// Runs until the VMM is needed, or for a while.
pub(crate) fn run(cpu: &mut Cpu, steps: usize) -> Exit {
    // Every bit of every register is kept, whatever the CPU supports.
    cpu.vcpu.begin_run(steps == 0, |_| ());
    for _ in 0..steps {
        if matches!(prepare_run(&mut cpu.vcpu), PendingSError::Taken(_)) {
            continue;
        }
        if let Some(exit) = step(cpu) {
            return exit;
        }
    }
    Exit::Intr
}

fn advance(vcpu: &mut Vcpu, bytes: u64) {
    let pc = vcpu.reg(Reg::Pc);
    vcpu.set_reg(Reg::Pc, pc + bytes);
}

fn step(cpu: &mut Cpu) -> Option<Exit> {
    let pc = cpu.vcpu.reg(Reg::Pc);
    if cpu.bad_lines.contains(&(pc & !63)) {
        return cpu.vcpu.sea_exit(Esr::from_bits(0x8200_0210), pc).map(Exit::Sea);
    }
    let Some(word) = cpu.word(pc) else {
        cpu.vcpu.fetch_from_hole(Esr::from_bits(0x8200_0007));
        return None;
    };
    let access = if !cpu.vcpu.pstate().is_aarch32() {
        aarch64(&mut cpu.vcpu, word)?
    } else if cpu.vcpu.pstate().has(Pstate::T) {
        assert_eq!(word & 0xffff, 0x680a, "T32: ldr r2, [r1]");
        Access { narrow: true, ..load(&cpu.vcpu, 1, 0, 4, 2) }
    } else {
        aarch32(&mut cpu.vcpu, word)?
    };
    memory(cpu, access)
}

/// The instructions of `guest/words.rs` and of the handlers. `None`: the instruction is done.
fn aarch64(vcpu: &mut Vcpu, word: u32) -> Option<Access> {
    let x = |vcpu: &Vcpu, n: u32| vcpu.reg(Reg::X(n as u8));
    let (rt, rn, offset) = (word & 31, word >> 5 & 31, u64::from(word >> 10 & 0xfff) * 8);
    let result = match word {
        0xf840_8422 | 0xf800_8422 | 0xa940_0c22 | 0xa900_0c22 | 0xf840_8c22 => {
            let address = x(vcpu, 1) + if word == 0xf840_8c22 { 8 } else { 0 };
            let is_store = matches!(word, 0xf800_8422 | 0xa900_0c22);
            // It has no syndrome.
            let access = Access { address, esr: Esr::from_bits(0x9200_0007), ..load(vcpu, 1, 0, 8, 2) };
            return Some(if is_store { store(access) } else { access });
        }
        0x3940_0022 => return Some(load(vcpu, 1, 0, 1, 2)),
        0x3900_0022 => return Some(store(load(vcpu, 1, 0, 1, 2))),
        0xb980_0022 => return Some(signed(load(vcpu, 1, 0, 4, 2))),
        _ if word & 0xffc0_0000 == 0xf940_0000 => return Some(load(vcpu, rn, offset, 8, rt)),
        _ if word & 0xffc0_0000 == 0xf900_0000 => {
            return Some(store(load(vcpu, rn, offset, 8, rt)));
        }
        0x1400_0000 => return None,
        0xd65f_0060 | 0xd61f_0060 => {
            let target = x(vcpu, 3);
            let btype = if word == 0xd61f_0060 { 0x400 } else { 0 };
            let pstate = vcpu.reg(Reg::Pstate);
            vcpu.set_reg(Reg::Pstate, pstate | btype);
            vcpu.set_reg(Reg::Pc, target);
            return None;
        }
        0xd69f_03e0 => {
            let el2 = vcpu.reg(Reg::Pstate) & 0xc == 8;
            let (elr, spsr) = if el2 { (Reg::ElrEl2, Reg::SpsrEl2) } else { (Reg::ElrEl1, Reg::SpsrEl1) };
            let (elr, spsr) = (vcpu.reg(elr), vcpu.reg(spsr));
            vcpu.set_reg(Reg::Pc, elr);
            vcpu.set_reg(Reg::Pstate, spsr);
            return None;
        }
        0xd503_44ff => {
            let pstate = vcpu.reg(Reg::Pstate);
            vcpu.set_reg(Reg::Pstate, pstate & !0x100);
            None
        }
        0xd503_201f => None,
        0x1000_000a => Some((10, vcpu.reg(Reg::Pc))),
        0xd2a1_4009 => Some((9, 0x0a00_0000)),
        0xd28c_01a2 => Some((2, 0x600d)),
        0xd538_520b => Some((11, vcpu.reg(Reg::EsrEl1))),
        0xd538_600c => Some((12, vcpu.reg(Reg::FarEl1))),
        0xd538_402d => Some((13, vcpu.reg(Reg::ElrEl1))),
        0xd538_400e => Some((14, vcpu.reg(Reg::SpsrEl1))),
        0xd53c_520b => Some((11, vcpu.reg(Reg::EsrEl2))),
        0xd53c_600c => Some((12, vcpu.reg(Reg::FarEl2))),
        0xd53c_402d => Some((13, vcpu.reg(Reg::ElrEl2))),
        0xd53c_400e => Some((14, vcpu.reg(Reg::SpsrEl2))),
        0xd53b_422f => Some((15, vcpu.reg(Reg::Pstate) & 0x3c0)),
        0xd503_221f => {
            // ESB. DISR_EL1: A, and the ISS.
            if vcpu.serror.pending && vcpu.reg(Reg::Pstate) & 0x100 != 0 {
                let disr = 1 << 31 | vcpu.serror.vsesr;
                vcpu.serror.pending = false;
                vcpu.set_reg(Reg::DisrEl1, disr);
            }
            None
        }
        0xd538_c122 => Some((2, vcpu.reg(Reg::DisrEl1))),
        _ => panic!("the model does not know {word:#x} at {:#x}", vcpu.reg(Reg::Pc)),
    };
    if let Some((register, value)) = result {
        vcpu.set_reg(Reg::X(register), value);
    }
    advance(vcpu, 4);
    None
}

/// The same for A32. In Abort mode LR is X20.
fn aarch32(vcpu: &mut Vcpu, word: u32) -> Option<Access> {
    let (far, immediate) = (vcpu.reg(Reg::FarEl1), u64::from(word & 0xfff));
    let (rt, rn) = (word >> 12 & 15, word >> 16 & 15);
    let result = match word {
        _ if word & 0xfff0_0000 == 0xe590_0000 => return Some(load(vcpu, rn, immediate, 4, rt)),
        _ if word & 0xfff0_0000 == 0xe580_0000 => {
            return Some(store(load(vcpu, rn, immediate, 4, rt)));
        }
        0xeaff_fffe => return None,
        _ if word >> 24 == 0xea => {
            advance(vcpu, 8 + 4 * u64::from(word & 0xff_ffff));
            return None;
        }
        0xe12f_ff13 => {
            let target = vcpu.reg(Reg::X(3));
            vcpu.set_reg(Reg::Pc, target);
            return None;
        }
        0xf108_0100 => {
            let pstate = vcpu.reg(Reg::Pstate);
            vcpu.set_reg(Reg::Pstate, pstate & !0x100);
            None
        }
        0xe320_f000 => None,
        0xe300_9000 => Some((9, 0)),
        0xe340_9a00 => Some((9, 0x0a00_0000)),
        _ if word & 0xffff_ff00 == 0xe3a0_a000 => Some((10, immediate)),
        0xee15_bf10 => Some((11, vcpu.reg(Reg::EsrEl1))),
        0xee15_bf30 => Some((11, vcpu.reg(Reg::Ifsr32))),
        0xee16_bf10 => Some((11, far)),
        0xee16_bf50 => Some((11, far >> 32)),
        0xe1a0_b00e => Some((11, vcpu.reg(Reg::X(20)))),
        0xe10f_b000 => Some((11, vcpu.reg(Reg::Pstate))),
        _ => panic!("the model does not know {word:#x} at {:#x}", vcpu.reg(Reg::Pc)),
    };
    if let Some((register, value)) = result {
        vcpu.set_reg(Reg::X(register), value & 0xffff_ffff);
    }
    advance(vcpu, 4);
    None
}

fn load(vcpu: &Vcpu, base: u32, offset: u64, bytes: u8, register: u32) -> Access {
    Access {
        address: vcpu.reg(Reg::X(base as u8)) + offset,
        esr: Esr::from_bits(0x9300_0007),
        bytes,
        transfer: Transfer::Load { target: Some(register as u8), signed: false, wide: true },
        narrow: false,
    }
}

/// A store of the register instead of a load.
fn store(access: Access) -> Access {
    let (Transfer::Load { target: register, .. } | Transfer::Store { source: register }) = access.transfer;
    let esr = Esr::from_bits(access.esr.bits() | 1 << 6);
    Access { esr, transfer: Transfer::Store { source: register }, ..access }
}

fn signed(access: Access) -> Access {
    let (Transfer::Load { target, .. } | Transfer::Store { source: target }) = access.transfer;
    Access { transfer: Transfer::Load { target, signed: true, wide: true }, ..access }
}

fn memory(cpu: &mut Cpu, access: Access) -> Option<Exit> {
    let Access { address, bytes, transfer, narrow, .. } = access;
    if cpu.bad_pages.contains(&(address & !0xfff)) {
        cpu.vcpu.aborted(Esr::from_bits(0x9200_0007), address);
        return Some(Exit::Sigbus(SigbusExit { address: address & !0xfff, lsb: 12, action_required: true }));
    }
    let is_store = matches!(transfer, Transfer::Store { .. });
    if cpu.bad_lines.contains(&(address & !63)) && !is_store {
        return cpu.vcpu.sea_exit(Esr::from_bits(0x9200_0210), address).map(Exit::Sea);
    }
    let (Transfer::Load { target: register, .. } | Transfer::Store { source: register }) = transfer;
    let register = Reg::X(register.unwrap_or(31));
    let (len, value) = (usize::from(bytes), cpu.vcpu.reg(register).to_le_bytes());
    let Some(ram) = cpu.bytes(address, len) else {
        return Some(cpu.vcpu.mmio_exit(&access));
    };
    if is_store {
        ram.copy_from_slice(&value[..len]);
    } else {
        let mut loaded = [0; 8];
        loaded[..len].copy_from_slice(ram);
        let value = u64::from_le_bytes(loaded);
        let unused = 64 - 8 * u32::from(bytes);
        let is_signed = matches!(transfer, Transfer::Load { signed: true, .. });
        let extended = if is_signed { ((value << unused) as i64 >> unused) as u64 } else { value };
        cpu.vcpu.set_reg(register, extended);
    }
    advance(&mut cpu.vcpu, if narrow { 2 } else { 4 });
    None
}
