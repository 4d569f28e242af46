//! The comparison without a kernel: a model against a model, correct or with a fault.

use std::sync::Arc;

use seawall_arm::{Pstate, Reg, Registers as _, sctlr};
use seawall_events::kernel::VirtualSError;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, Layout, MmioExit};
use seawall_inject::{Exit, SystemEvent};
use seawall_model::{Transfer, Waiting};

use super::{
    Code, Cpu, Guest, Model, Only, Ran, Sequence, Set, Step, Subject, Unpredictable, play, sequence, shrink,
};

const EXTENDED: Abi = Abi::Extended(Layout::Posted);
const GUESTS: [Guest; 3] = [Guest::Aarch64, Guest::Aarch32, Guest::Nested];

fn model(guest: Guest, abi: Abi) -> Model {
    Model::new(Arc::new(Cpu::perfect(guest)), Arc::new(Code::new(guest)), abi)
}

/// A possible mistake of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Exception entry does not change PSTATE.PAN, whatever SCTLR.SPAN is.
    Pan,
    /// An abort does not drop the waiting access.
    Mmio,
    /// A pad byte that is not 0 is EFAULT.
    Pad,
    /// A run forgets a waiting SError.
    Forgotten,
    /// An instruction abort is a data abort.
    Data,
    /// None: where the guest is after a call is not said.
    Silent,
}

struct Faulty {
    sound: Model,
    fault: Fault,
}

impl Subject for Faulty {
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String> {
        self.sound.begin(fresh, scratch)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        Subject::set_reg(&mut self.sound, reg, value)
    }

    fn reg(&self, reg: Reg) -> Result<u64, String> {
        Subject::reg(&self.sound, reg)
    }

    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        let before = self.sound.clone();
        let mut set = self.sound.set(bytes);
        let taken = self.sound.vcpu.pstate() != before.vcpu.pstate();
        match self.fault {
            Fault::Pan if taken => {
                let pan = 1 << 22;
                let pstate = self.sound.vcpu.pstate().bits() & !pan | before.vcpu.pstate().bits() & pan;
                self.sound.vcpu.set_reg(Reg::Pstate, pstate);
            }
            Fault::Mmio => self.sound.vcpu.waiting = before.vcpu.waiting,
            Fault::Silent => set.delivery = None,
            Fault::Pad if bytes[7] != 0 && set.errno == 22 => set.errno = 14,
            Fault::Data if bytes[3] != 0 && taken => {
                let esr = self.sound.vcpu.reg(Reg::EsrEl1) | 1 << 28;
                self.sound.vcpu.set_reg(Reg::EsrEl1, esr);
            }
            _ => {}
        }
        set
    }

    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String> {
        self.sound.events()
    }

    fn answer(&mut self, data: [u8; 8]) {
        Subject::answer(&mut self.sound, data);
    }

    fn run(&mut self, immediate: bool) -> Result<Exit, String> {
        if self.fault == Fault::Forgotten {
            self.sound.vcpu.serror = VirtualSError::default();
        }
        self.sound.run(immediate)
    }

    fn reset(&mut self) -> Result<(), String> {
        self.sound.reset()
    }
}

/// The first of many sequences that shows the fault, made as small as possible.
fn found(fault: Fault, abi: Abi) -> (Sequence, Vec<String>) {
    let sound = model(Guest::Aarch64, abi);
    let (cpu, code) = (Arc::clone(&sound.cpu), Arc::clone(&sound.code));
    let mut faulty = Faulty { sound, fault };
    let mut difference =
        |candidate: &Sequence| play(&cpu, &code, candidate, &mut faulty, false).unwrap().difference;
    let differs = (0..3000)
        .map(|index| sequence(&cpu, &code, abi, Only::All, 7, index))
        .find(|candidate| difference(candidate).is_some())
        .unwrap_or_else(|| panic!("{fault:?} does not show"));
    let smallest = shrink(&differs, 2000, |candidate| difference(candidate).is_some());
    let what = difference(&smallest).unwrap().what;
    (smallest, what)
}

#[test]
fn sound_models_never_differ_and_most_runs_are_predicted() {
    for guest in GUESTS {
        for abi in [Abi::Mainline, EXTENDED] {
            let mut other = model(guest, abi);
            let (cpu, code) = (Arc::clone(&other.cpu), Arc::clone(&other.code));
            let (mut runs, mut left_out) = (0, 0);
            for index in 0..500 {
                let sequence = sequence(&cpu, &code, abi, Only::All, 1, index);
                let played = play(&cpu, &code, &sequence, &mut other, true).unwrap();
                assert_eq!(played.difference, None, "{sequence}");
                runs += played.runs;
                left_out += played.left_out;
            }
            assert!(runs > 400 && runs > left_out / 2, "{guest:?}: {runs} runs, {left_out} left out");
        }
    }
}

#[test]
fn a_missing_pan_is_found_and_one_step_is_left() {
    let (smallest, what) = found(Fault::Pan, Abi::Mainline);
    assert_eq!(smallest.steps.len(), 1, "{smallest}");
    assert_eq!(what.len(), 1);
    assert!(what[0].starts_with("model Pstate") && what[0].contains("PAN"), "{what:?}");
}

#[test]
fn an_access_that_is_not_dropped_is_found_by_a_run_after_it() {
    let (smallest, _) = found(Fault::Mmio, EXTENDED);
    let runs = smallest.steps.iter().filter(|step| matches!(step, Step::Run | Step::RunImmediate)).count();
    let events = smallest.steps.iter().filter(|step| matches!(step, Step::Events(_))).count();
    assert_eq!((runs, events), (2, 1), "{smallest}");
}

#[test]
fn a_wrong_errno_is_found_and_all_other_bytes_are_0() {
    let (smallest, what) = found(Fault::Pad, EXTENDED);
    let [Step::Events(bytes)] = smallest.steps[..] else { panic!("{smallest}") };
    assert_ne!(bytes[7], 0);
    assert!(bytes.iter().enumerate().all(|(n, byte)| n == 7 || *byte == 0), "{bytes:x?}");
    assert_eq!(what, ["errno: model 22, kernel 14"]);
}

#[test]
fn an_serror_that_a_run_forgets_is_found() {
    let (smallest, _) = found(Fault::Forgotten, Abi::Mainline);
    assert!(smallest.steps.len() <= 4, "{smallest}");
}

#[test]
fn a_data_abort_for_an_instruction_abort_is_found_by_its_esr() {
    let (smallest, what) = found(Fault::Data, EXTENDED);
    assert_eq!(smallest.steps.len(), 1);
    assert_eq!(what.len(), 1);
    assert!(what[0].starts_with("model EsrEl1 0x8"), "{what:?}");
}

#[test]
fn sequences_follow_from_seed_and_number_alone() {
    let sound = model(Guest::Nested, EXTENDED);
    let make = |seed, index| sequence(&sound.cpu, &sound.code, EXTENDED, Only::All, seed, index);
    assert_eq!(make(3, 1000), make(3, 1000));
    assert_ne!(make(3, 1000), make(3, 1001));
    assert_ne!(make(3, 1000), make(4, 1000));
}

#[test]
fn only_aborts_and_only_serrors_and_only_events_are_just_that() {
    let sound = model(Guest::Aarch64, EXTENDED);
    for index in 0..200 {
        let steps = |only| sequence(&sound.cpu, &sound.code, Abi::Mainline, only, 5, index).steps;
        for step in steps(Only::Events) {
            assert!(matches!(step, Step::Events(_) | Step::Write(..)), "{step}");
        }
        // One byte in a dozen may be anything, but not both flags.
        let both = |step: &Step| matches!(step, Step::Events(bytes) if bytes[0] != 0 && bytes[2] != 0);
        assert!(steps(Only::Aborts).iter().filter(|step| both(step)).count() <= 1);
        assert!(steps(Only::SErrors).iter().filter(|step| both(step)).count() <= 1);
    }
}

#[test]
fn code_is_in_memory_as_it_is_interpreted() {
    let memory: std::collections::HashMap<_, _> = Code::new(Guest::Aarch64).memory().collect();
    // ldr x1, [x28]; b .-4
    assert_eq!(memory[&0x4001_0000], [0x81, 0x03, 0x40, 0xf9]);
    assert_eq!(memory[&0x4001_0004], [0xff, 0xff, 0xff, 0x17]);
    let memory: std::collections::HashMap<_, _> = Code::new(Guest::Aarch32).memory().collect();
    // ldr r1, [r7]; b .-4
    assert_eq!(memory[&0x4001_0000], [0x00, 0x10, 0x97, 0xe5]);
    assert_eq!(memory[&0x4001_0004], [0xfd, 0xff, 0xff, 0xea]);
    // T32: str.w r2, [r7]
    assert_eq!(memory[&0x4000_1800], [0xc7, 0xf8, 0x00, 0x20]);
}

/// A guest at the program of this text, its MMIO register at 0x0900_0000.
fn at(guest: Guest, text: &str, pstate: u64) -> Model {
    let mut model = model(guest, Abi::Mainline);
    let start = model.code.programs().iter().find(|program| program.text == text).unwrap().start;
    let table = model.code.tables()[0];
    for (reg, value) in [
        (Reg::X(7), 0x0900_0000),
        (Reg::X(28), 0x0900_0000),
        (Reg::SctlrEl1, sctlr::SPAN),
        (Reg::VbarEl1, table),
        (Reg::Pc, start),
        (Reg::Pstate, pstate),
    ] {
        model.write(reg, value);
    }
    model
}

fn load(bytes: u32) -> Ran {
    Ran::Exit(Exit::Mmio(MmioExit { phys_addr: 0x0900_0000, data: [0; 8], len: bytes, is_write: false }))
}

#[test]
fn a_load_waits_for_its_answer_and_the_next_run_extends_its_sign() {
    for (text, bytes, loaded) in [
        ("ldrsb x1, [x28]", 1, 0xffff_ffff_ffff_ff80),
        ("ldrsb w1, [x28]", 1, 0xffff_ff80),
        ("ldrsh x1, [x28]", 2, 0xffff_ffff_ffff_8180),
        ("ldrsw x1, [x28]", 4, 0xffff_ffff_8382_8180),
        ("ldr w1, [x28]", 4, 0x8382_8180),
        ("ldr x1, [x28]", 8, 0x8786_8584_8382_8180),
    ] {
        let mut model = at(Guest::Aarch64, text, 0x3c5);
        let pc = model.vcpu.reg(Reg::Pc);
        assert_eq!(model.go(false), load(bytes), "{text}");
        Subject::answer(&mut model, [0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87]);
        assert_eq!(model.go(true), Ran::Exit(Exit::Intr));
        assert_eq!(model.vcpu.reg(Reg::X(1)), loaded, "{text}");
        assert_eq!(model.vcpu.reg(Reg::Pc), pc + 4);
    }
}

#[test]
fn a_big_endian_guest_has_its_bytes_the_other_way_round() {
    let mut model = at(Guest::Aarch64, "str w2, [x28]", 0x3c5);
    model.write(Reg::SctlrEl1, sctlr::SPAN | 1 << 25);
    model.write(Reg::X(2), 0x1122_3344);
    let Ran::Exit(Exit::Mmio(store)) = model.go(false) else { panic!("no store") };
    assert_eq!((store.len, store.data), (4, [0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0]));
}

#[test]
fn an_it_block_goes_on_behind_a_load_of_t32() {
    let mut model = at(Guest::Aarch32, "ldr.n r1, [r7]", 0x1d3 | 1 << 5);
    assert_eq!(model.go(false), load(4));
    let pc = model.vcpu.reg(Reg::Pc);
    // IT 0b1110_1100: two more instructions of the block.
    model.write(Reg::Pstate, 0x1d3 | 1 << 5 | 0xec00);
    assert_eq!(model.go(true), Ran::Exit(Exit::Intr));
    assert_eq!(model.vcpu.reg(Reg::Pc), pc + 2);
    assert_eq!(model.vcpu.reg(Reg::Pstate), 0x1d3 | 1 << 5 | 0xf800);
}

/// DDI 0487, `AArch64.ExceptionReturn`: a return to A32 state drops bits `[1:0]` of the address. `LR_abt` is 8 bytes ahead.
#[test]
fn an_serror_at_a_pc_that_a32_cannot_have_returns_to_the_word_below() {
    for (thumb, returns_to) in [(0, 0x4001_0488), (Pstate::T, 0x4001_048a)] {
        let mut model = at(Guest::Aarch32, "ldr.n r1, [r7]", 0x10 | thumb);
        model.write(Reg::Pc, 0x4001_0482);
        model.vcpu.serror = VirtualSError { pending: true, ..VirtualSError::default() };
        assert!(matches!(model.go(false), Ran::Exit(Exit::Mmio(_))));
        assert_eq!(model.vcpu.reg(Reg::X(20)), returns_to, "T {thumb:#x}");
    }
}

/// Seen on Linux 7.3.4. The flag of a held SError is no part of HCR_EL2, which `KVM_ARM_VCPU_INIT` resets before the first run.
#[test]
fn before_the_first_run_vcpu_init_forgets_a_pending_serror_and_keeps_a_held_one() {
    let mut model = model(Guest::Nested, Abi::Mainline);
    model.vcpu.serror = VirtualSError { pending: true, held_for_el2: true, vsesr: 0x11 };
    model.reset().unwrap();
    let kept = VirtualSError { pending: false, held_for_el2: true, vsesr: 0x11 };
    assert_eq!(model.vcpu.serror, kept);
}

/// By mainline's ABI the kernel is called by itself, and says no position.
#[test]
fn a_kernel_that_says_no_position_is_compared_by_its_registers() {
    for (abi, differs) in [(Abi::Mainline, false), (EXTENDED, true)] {
        let sound = model(Guest::Aarch64, abi);
        let (cpu, code) = (Arc::clone(&sound.cpu), Arc::clone(&sound.code));
        let mut silent = Faulty { sound, fault: Fault::Silent };
        let is_different = |index| {
            let sequence = sequence(&cpu, &code, abi, Only::Events, 1, index);
            play(&cpu, &code, &sequence, &mut silent, false).unwrap().difference.is_some()
        };
        assert_eq!((0..50).any(is_different), differs, "{abi:?}");
    }
}

#[test]
fn system_off_by_hvc_is_an_exit_and_there_is_no_run_after_it() {
    let mut model = at(Guest::Aarch64, "mov w0, #0x84000000; movk w0, #8; hvc #0x80", 0x3c5);
    assert_eq!(model.go(false), Ran::Exit(Exit::SystemEvent(SystemEvent::Shutdown)));
    assert_eq!(model.go(false), Ran::Unpredictable(Unpredictable::PoweredOff));
    // S1PTW, by the immediate.
    assert_eq!(model.vcpu.last_fault.esr.bits(), 0x5a00_0080);
}

#[test]
fn an_access_that_waits_survives_a_write_of_registers_but_no_reset() {
    let mut model = at(Guest::Aarch64, "ldr x1, [x28]", 0x3c5);
    model.go(false);
    model.write(Reg::Pc, 0x4001_0040);
    let transfer = Transfer::Load { target: Some(1), signed: false, wide: true };
    let waiting = Waiting { bytes: 8, transfer, narrow: false, answer: [0; 8] };
    assert_eq!(model.vcpu.waiting, Some(waiting));
    model.reset().unwrap();
    assert_eq!(model.vcpu.waiting, None);
}

/// DDI 0487, `AArch64.TakeException`: ALLINT is set unless SCTLR_EL1.SPINTMASK. KVM's own entry knows neither.
#[test]
fn the_cpus_own_entry_sets_allint_unless_spintmask() {
    for (spintmask, allint) in [(0, Pstate::ALLINT), (sctlr::SPINTMASK, 0)] {
        let mut cpu = Cpu::perfect(Guest::Aarch64);
        cpu.pstate |= Pstate::ALLINT;
        cpu.entry_sets = Pstate::ALLINT;
        let mut model = at(Guest::Aarch64, "ldr x1, [x28]", Pstate::IL | 5);
        model.cpu = Arc::new(cpu);
        model.write(Reg::SctlrEl1, sctlr::SPAN | spintmask);
        model.go(false);
        assert_eq!(model.vcpu.pstate().masked(Pstate::ALLINT), allint);
    }
}
