//! Loads and stores of every kind where there is no RAM, as on hardware ([`NoSyndrome::Serve`]): the host sees the
//! accesses of the bus one by one, and registers change when all of them are done.

mod support;

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_events::{MmioExit, VcpuEvents};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, FpSimdState, NoSyndrome};
use support::sysreg::{MDSCR, OSLAR, msr};
use support::{BLOCK, CODE, DATA, EL1H, Guest, HOLE, TABLES, VECTORS};

/// An access of the bus: address, bytes, and what is written.
type Seen = (u64, u32, Option<u64>);

const fn read(pa: u64, len: u32) -> Seen {
    (pa, len, None)
}

const fn write(pa: u64, len: u32, data: u64) -> Seen {
    (pa, len, Some(data))
}

/// What the device at `pa` answers: in each byte the low byte of its address, less 0x10 in the high digit.
fn answer(pa: u64) -> [u8; 8] {
    std::array::from_fn(|n| 0xa0 | (pa as u8).wrapping_add(n as u8) & 0x3f)
}

fn seen(mmio: &MmioExit) -> Seen {
    (mmio.phys_addr, mmio.len, mmio.is_write.then(|| u64::from_le_bytes(mmio.data)))
}

/// Runs `steps` steps; a device answers whatever is asked for. Gives what it saw.
#[track_caller]
fn serve(guest: &mut Guest, steps: u64) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
    vcpu.set_budget(Some(steps));
    for _ in 0..200 {
        match vcpu.run().expect("a run that ends") {
            Exit::Intr => return all,
            Exit::Mmio(mmio) => {
                all.push(seen(&mmio));
                let mut data = [0xee; 8];
                data[..mmio.len as usize].copy_from_slice(&answer(mmio.phys_addr)[..mmio.len as usize]);
                vcpu.answer_mmio(data);
            }
            other => panic!("{other:x?}"),
        }
    }
    panic!("no end: {all:x?}")
}

/// X1 = HOLE + 0x10, X2 to X5 and V0 and V1 as below.
const X2: u64 = 0x2222_2222_1122_3344;
const X3: u64 = 0x3333_3333_5566_7788;
const V0: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
const V1: u128 = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110;

fn prepare(guest: &mut Guest) {
    guest.set(Reg::X(1), HOLE + 0x10);
    guest.set(Reg::X(2), X2);
    guest.set(Reg::X(3), X3);
    guest.set(Reg::CpacrEl1, 3 << 20);
    let mut state = FpSimdState::default();
    (state.vregs[0], state.vregs[1]) = (V0, V1);
    guest.vm.vcpu(0).expect("CPU 0").set_fp_simd(&state).expect("registers");
}

/// One instruction: what the device saw, then X1 to X4.
#[track_caller]
fn one(word: u32) -> (Vec<Seen>, [u64; 4]) {
    let mut guest = Guest::new(&[word]);
    prepare(&mut guest);
    let all = serve(&mut guest, 1);
    assert_eq!(guest.get(Reg::Pc), CODE + 4, "{word:#x}");
    assert_eq!(guest.vm.vcpu(0).expect("CPU 0").instructions(), 1, "{word:#x}");
    (all, [1, 2, 3, 4].map(|n| guest.x(n)))
}

/// One instruction of V registers: what the device saw, then X1, V0 and V1.
#[track_caller]
fn one_vector(word: u32) -> (Vec<Seen>, u64, [u128; 2]) {
    let mut guest = Guest::new(&[word]);
    prepare(&mut guest);
    let all = serve(&mut guest, 1);
    assert_eq!(guest.get(Reg::Pc), CODE + 4, "{word:#x}");
    let state = guest.vm.vcpu(0).expect("CPU 0").fp_simd().expect("registers");
    (all, guest.x(1), [state.vregs[0], state.vregs[1]])
}

const AT: u64 = HOLE + 0x10;

/// DDI 0487, C3.2: the access, and then the base register.
#[test]
fn an_access_with_writeback_is_made_and_the_base_moves_on() {
    for (word, name, expected, x1, x2) in [
        (0xb840_4422, "ldr w2, [x1], #4", read(AT, 4), AT + 4, 0xb3b2_b1b0),
        (0xf840_8c22, "ldr x2, [x1, #8]!", read(AT + 8, 8), AT + 8, 0xbfbe_bdbc_bbba_b9b8),
        (0xb800_4422, "str w2, [x1], #4", write(AT, 4, 0x1122_3344), AT + 4, X2),
    ] {
        assert_eq!(one(word), (vec![expected], [x1, x2, X3, 0]), "{name}");
    }
}

/// Two accesses in the order of their addresses, each as wide as a register.
#[test]
fn a_pair_is_two_accesses() {
    for (word, name, expected, x) in [
        (0x2940_0c22, "ldp w2, w3, [x1]", [read(AT, 4), read(AT + 4, 4)], [AT, 0xb3b2_b1b0, 0xb7b6_b5b4]),
        (
            0x6940_0c22,
            "ldpsw x2, x3, [x1]",
            [read(AT, 4), read(AT + 4, 4)],
            [AT, 0xffff_ffff_b3b2_b1b0, 0xffff_ffff_b7b6_b5b4],
        ),
        (
            0xa8c1_0c22,
            "ldp x2, x3, [x1], #16",
            [read(AT, 8), read(AT + 8, 8)],
            [AT + 16, 0xb7b6_b5b4_b3b2_b1b0, 0xbfbe_bdbc_bbba_b9b8],
        ),
        (
            0x2900_0c22,
            "stp w2, w3, [x1]",
            [write(AT, 4, 0x1122_3344), write(AT + 4, 4, 0x5566_7788)],
            [AT, X2, X3],
        ),
        (
            0xa9bf_0c22,
            "stp x2, x3, [x1, #-16]!",
            [write(HOLE, 8, X2), write(HOLE + 8, 8, X3)],
            [HOLE, X2, X3],
        ),
    ] {
        let (all, [x1, x2, x3, _]) = one(word);
        assert_eq!((all, [x1, x2, x3]), (expected.to_vec(), x), "{name}");
    }
}

/// Exclusives and atomics on Device memory are IMPLEMENTATION DEFINED (DDI 0487, B2.9.2 and C3.2.12): here they work, an
/// atomic as a read and a write. QEMU's do.
#[test]
fn exclusives_and_atomics_work_on_a_device() {
    let old = 0xb3b2_b1b0;
    for (word, name, expected, x) in [
        (0x885f_7c22, "ldxr w2, [x1]", vec![read(AT, 4)], [old, X3]),
        (
            0xc87f_0c22,
            "ldxp x2, x3, [x1]",
            vec![read(AT, 8), read(AT + 8, 8)],
            [0xb7b6_b5b4_b3b2_b1b0, 0xbfbe_bdbc_bbba_b9b8],
        ),
        (0xb822_0023, "ldadd w2, w3, [x1]", vec![read(AT, 4), write(AT, 4, 0xc4d4_e4f4)], [X2, old]),
        (0x3822_8023, "swpb w2, w3, [x1]", vec![read(AT, 1), write(AT, 1, 0x44)], [X2, 0xb0]),
        // What is there is not what was expected: nothing is written.
        (0x88a2_7c23, "cas w2, w3, [x1]", vec![read(AT, 4)], [old, X3]),
    ] {
        let (all, [x1, x2, x3, _]) = one(word);
        assert_eq!((all, x1, [x2, x3]), (expected, AT, x), "{name}");
    }
}

/// A store-exclusive goes by the monitor alone: it does not read the device to see what is there.
#[test]
fn a_store_exclusive_to_a_device_needs_a_load_exclusive_before_it() {
    // ldxr w2, [x1]; stxr w4, w3, [x1]; stxr w4, w3, [x1]
    let mut guest = Guest::new(&[0x885f_7c22, 0x8804_7c23, 0x8804_7c23]);
    prepare(&mut guest);
    guest.set(Reg::X(4), 7);
    assert_eq!(serve(&mut guest, 2), [read(AT, 4), write(AT, 4, 0x5566_7788)]);
    assert_eq!(guest.x(4), 0);
    assert_eq!(serve(&mut guest, 1), []);
    assert_eq!(guest.x(4), 1);
}

/// The monitor keeps where a mark is: the same offset from the base of RAM is not the same address.
#[test]
fn a_mark_in_ram_is_none_on_a_device() {
    // ldxr w2, [x5]; stxr w4, w3, [x1]
    let mut guest = Guest::new(&[0x885f_7ca2, 0x8804_7c23]);
    guest.set(Reg::X(5), DATA);
    guest.set(Reg::X(1), DATA - 0x4000_0000);
    assert_eq!(serve(&mut guest, 2), []);
    assert_eq!(guest.x(4), 1);
}

/// 16 bytes are two accesses of 8, structures one for each element.
#[test]
fn v_registers_are_loaded_and_stored() {
    let (low, high) = (0xb7b6_b5b4_b3b2_b1b0_u128, 0xbfbe_bdbc_bbba_b9b8_u128);
    for (word, name, expected, x1, v) in [
        (0x3dc0_0020, "ldr q0, [x1]", vec![read(AT, 8), read(AT + 8, 8)], AT, [high << 64 | low, V1]),
        (0xfd40_0020, "ldr d0, [x1]", vec![read(AT, 8)], AT, [low, V1]),
        (
            0x3c81_0420,
            "str q0, [x1], #16",
            vec![write(AT, 8, 0x0706_0504_0302_0100), write(AT + 8, 8, 0x0f0e_0d0c_0b0a_0908)],
            AT + 16,
            [V0, V1],
        ),
        (
            0x4cdf_7820,
            "ld1 {v0.4s}, [x1], #16",
            vec![read(AT, 4), read(AT + 4, 4), read(AT + 8, 4), read(AT + 12, 4)],
            AT + 16,
            [high << 64 | low, V1],
        ),
        (
            0x4d40_c820,
            "ld1r {v0.4s}, [x1]",
            vec![read(AT, 4)],
            AT,
            [0xb3b2_b1b0_b3b2_b1b0_b3b2_b1b0_b3b2_b1b0, V1],
        ),
        (
            0x4c00_7c20,
            "st1 {v0.2d}, [x1]",
            vec![write(AT, 8, 0x0706_0504_0302_0100), write(AT + 8, 8, 0x0f0e_0d0c_0b0a_0908)],
            AT,
            [V0, V1],
        ),
        (
            0xad40_0420,
            "ldp q0, q1, [x1]",
            vec![read(AT, 8), read(AT + 8, 8), read(AT + 16, 8), read(AT + 24, 8)],
            AT,
            [high << 64 | low, 0xafae_adac_abaa_a9a8_a7a6_a5a4_a3a2_a1a0],
        ),
    ] {
        assert_eq!(one_vector(word), (expected, x1, v), "{name}");
    }
}

/// One exit and a syndrome, as ever.
#[test]
fn what_a_syndrome_describes_stays_one_exit() {
    let (all, [_, x2, ..]) = one(0xf940_0022); // ldr x2, [x1]
    assert_eq!((all, x2), (vec![read(AT, 8)], 0xb7b6_b5b4_b3b2_b1b0));
    let (all, _) = one(0x889f_fc22); // stlr w2, [x1]
    assert_eq!(all, [write(AT, 4, 0x1122_3344)]);
}

/// `AArch64.MemZero`: an alignment fault on Device memory, as all memory is with the MMU off; through a mapping as
/// Normal memory the line is written.
#[test]
fn dc_zva_faults_on_device_memory_and_writes_64_bytes_through_a_normal_mapping() {
    const DC_ZVA: u32 = 0xd50b_7421;
    let mut guest = Guest::new(&[DC_ZVA]);
    prepare(&mut guest);
    assert_eq!(serve(&mut guest, 1), []);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x9600_0061, AT, CODE, EL1H]);

    let mut guest = normal(&[DC_ZVA]);
    prepare(&mut guest);
    let line: Vec<Seen> = (0..8).map(|n| write(HOLE + 8 * n, 8, 0)).collect();
    assert_eq!(serve(&mut guest, 1), line);
    assert_eq!(guest.get(Reg::Pc), CODE + 4);
}

/// The lower GiB as Normal memory.
fn normal(code: &[u32]) -> Guest {
    let mut guest = Guest::mapped(code);
    guest.write(TABLES[0], support::NORMAL | support::AF | BLOCK);
    guest
}

/// No single access of the bus is unaligned; a load that begins in RAM and ends in a device is of both.
#[test]
fn an_unaligned_access_through_a_normal_mapping_is_cut_at_its_alignment() {
    let mut guest = normal(&[0xf940_0022]); // ldr x2, [x1]
    guest.set(Reg::X(1), HOLE + 3);
    assert_eq!(
        serve(&mut guest, 1),
        [read(HOLE + 3, 1), read(HOLE + 4, 4), read(HOLE + 8, 2), read(HOLE + 10, 1)]
    );
    assert_eq!(guest.x(2), 0xaaa9_a8a7_a6a5_a4a3);

    // The page behind that of DATA is that of the hole.
    let mut guest = normal(&[0xf940_0022]);
    guest.write(TABLES[2] + 8, HOLE | support::NORMAL | support::AF | support::PAGE);
    guest.set(Reg::X(1), DATA + 0xffc);
    guest.write(DATA + 0xff8, 0x1122_3344_0000_0000);
    assert_eq!(serve(&mut guest, 1), [read(HOLE, 4)]);
    assert_eq!(guest.x(2), 0xa3a2_a1a0_1122_3344);
}

/// The instruction has not retired: neither base nor destination changed, and FAR is the access that nobody answered.
#[test]
fn an_abort_at_the_second_access_leaves_the_instruction_undone() {
    for (word, name, esr) in [
        (0xa8c1_0c22, "ldp x2, x3, [x1], #16", 0x9600_0010),
        (0xa881_0c22, "stp x2, x3, [x1], #16", 0x9600_0010),
    ] {
        let mut guest = Guest::new(&[word, word]);
        prepare(&mut guest);
        let Exit::Mmio(first) = guest.run(10) else { panic!("{name}") };
        guest.vm.vcpu(0).expect("CPU 0").answer_mmio(answer(AT));
        let Exit::Mmio(second) = guest.run(10) else { panic!("{name}") };
        assert_eq!((first.phys_addr, second.phys_addr), (AT, AT + 8), "{name}");
        let events = VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() };
        guest.vm.vcpu(0).expect("CPU 0").inject(&events).expect("accepted");
        assert_eq!(guest.taken(), [VECTORS + 0x200, esr, AT + 8, CODE, EL1H], "{name}");
        assert_eq!([1, 2, 3].map(|n| guest.x(n)), [AT, X2, X3], "{name}");
        // The handler returns: all of it is made again.
        guest.set(Reg::Pc, CODE);
        assert_eq!(serve(&mut guest, 1).len(), 2, "{name}");
        assert_eq!(guest.x(1), AT + 16, "{name}");
    }
}

/// The device is not read again when the second half of the access is bad memory, and no register changes.
#[test]
fn poison_behind_a_device_is_consumed_as_ever() {
    let mut guest = normal(&[0xa940_0c22]); // ldp x2, x3, [x1]
    guest.write(TABLES[2], HOLE | support::NORMAL | support::AF | support::PAGE);
    guest.set(Reg::X(1), DATA + 0xff8);
    guest.set(Reg::X(2), 7);
    guest.poison(DATA + 0x1000);
    let Exit::Sea(sea) = guest.run(10) else { panic!("poison is found before the device is asked") };
    assert_eq!((sea.esr.bits(), sea.gva), (0x9200_0210, DATA + 0x1000));
    assert_eq!((guest.x(2), guest.get(Reg::Pc)), (7, CODE));
}

/// An interrupt that the first of two accesses raises is taken after the instruction, which is not torn.
#[test]
fn an_interrupt_between_two_accesses_waits_for_the_instruction() {
    let mut guest = Guest::new(&[0xa881_0c22, 0xd503_201f]); // stp x2, x3, [x1], #16; nop
    support::gic::open(&mut guest, 0);
    prepare(&mut guest);
    guest.set(Reg::Pstate, EL1H & !0x80);
    let Exit::Mmio(_) = guest.run(10) else { panic!("the first half") };
    guest.vm.set_irq_line(40, true).expect("an SPI");
    let Exit::Mmio(second) = guest.run(10) else { panic!("the second half") };
    assert_eq!(second.phys_addr, AT + 8);
    guest.steps(2);
    assert_eq!(
        (guest.get(Reg::Pc), guest.get(Reg::ElrEl1), guest.x(1)),
        (VECTORS + 0x280, CODE + 4, AT + 16)
    );
}

/// DDI 0487, D2.12: one step is the whole instruction, and EX says that it was a load-exclusive.
#[test]
fn software_step_steps_over_all_accesses_of_an_instruction() {
    // ldp x2, x3, [x1]; ldxp x2, x3, [x1]
    for (word, iss) in [(0xa940_0c22, 0x0100_0022), (0xc87f_0c22, 0x0100_0062)] {
        let mut guest = Guest::new(&[word, support::LOOP]);
        support::gic::execute(&mut guest, 0, msr(OSLAR, 3), 0, 0);
        // KDE and SS; PSTATE.SS, and D clear.
        support::gic::execute(&mut guest, 0, msr(MDSCR, 3), 0x2001, 0);
        guest.set(Reg::X(1), AT);
        guest.set(Reg::Pstate, EL1H & !0x200 | 1 << 21);
        assert_eq!(serve(&mut guest, 2), [read(AT, 8), read(AT + 8, 8)]);
        let [pc, esr, _, elr, _] = guest.taken();
        assert_eq!([pc, esr, elr], [VECTORS + 0x200, 0xce00_0000 | iss, CODE + 4], "{word:#x}");
    }
}

/// The controller's registers are inside: they do not come out, whatever the instruction.
#[test]
fn a_pair_reads_two_registers_of_the_interrupt_controller() {
    let mut guest = Guest::new(&[0x2940_0c22, 0xb800_4422]); // ldp w2, w3, [x1]; str w2, [x1], #4
    guest.set(Reg::X(1), 0x0800_0004);
    assert_eq!(serve(&mut guest, 1), []);
    assert_eq!((guest.x(2), guest.x(3)), (0x0378_0008, 0x43b));
    guest.set(Reg::X(1), 0x0800_0084);
    guest.set(Reg::X(2), 0x55);
    assert_eq!(serve(&mut guest, 1), []);
    assert_eq!(guest.x(1), 0x0800_0088);
}

/// KVM with and without `KVM_CAP_ARM_NISV_TO_USER`: see `mmio.rs`.
#[test]
fn the_default_is_what_hardware_does() {
    assert_eq!(Config::default().no_syndrome, NoSyndrome::Serve);
}

proptest! {
    /// A snapshot between any two accesses of an instruction goes on as the machine that it was taken of.
    #[test]
    fn a_snapshot_between_two_accesses_goes_on_the_same(
        word in prop::sample::select(vec![
            0xa8c1_0c22_u32, 0xa9bf_0c22, 0x2940_0c22, 0xc87f_0c22, 0xb822_0023, 0x3dc0_0020, 0x4cdf_7820,
            0x4c40_7020, 0x4c00_7c20, 0xad40_0420, 0xb840_4422, 0x4822_7c24,
        ]),
        after in 1_usize..20,
    ) {
        let mut guest = Guest::new(&[word, word, 0xf940_0022, support::LOOP]);
        prepare(&mut guest);
        for _ in 0..after {
            let Exit::Mmio(mmio) = guest.run(50) else { break };
            guest.vm.vcpu(0).expect("CPU 0").answer_mmio(answer(mmio.phys_addr));
        }
        let snapshot = guest.vm.snapshot().expect("room");
        let mut file = Vec::new();
        snapshot.save(&mut file).expect("memory has room");
        let expected = (serve(&mut guest, 50), guest.vm.state_hash());

        let vm = seawall_machine::Snapshot::load(&*file).expect("whole").machine().expect("room");
        let mut other = Guest { vm };
        prop_assert_eq!((serve(&mut other, 50), other.vm.state_hash()), expected.clone());
        guest.vm.restore(&snapshot).expect("the same machine");
        prop_assert_eq!((serve(&mut guest, 50), guest.vm.state_hash()), expected);
    }
}
