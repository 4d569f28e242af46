//! Accesses where there is no RAM, as KVM has them: MMIO exits with a syndrome, NISV exits without, and what KVM does itself.
//! What hardware does is in `device_access.rs`.

mod support;

use seawall_arm::Reg;
use seawall_events::{MmioExit, NisvExit, VcpuEvents};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, Error, NoSyndrome};
use support::{CODE, DATA, EL1H, Guest, HOLE, VECTORS};

fn answer(guest: &mut Guest, data: u64) {
    guest.vm.vcpu(0).expect("CPU 0").answer_mmio(data.to_le_bytes());
}

/// The exit of one instruction with X1 = HOLE, and what a load then leaves in X2.
fn access(word: u32, data: u64) -> (MmioExit, u64) {
    let mut guest = Guest::new(&[word]);
    guest.set(Reg::X(1), HOLE);
    guest.set(Reg::X(2), 0x1122_3344_5566_7788);
    let Exit::Mmio(exit) = guest.run(10) else { panic!("expected an MMIO exit") };
    assert_eq!(guest.get(Reg::Pc), CODE);
    answer(&mut guest, data);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CODE + 4);
    (exit, guest.x(2))
}

fn read(len: u32) -> MmioExit {
    MmioExit { phys_addr: HOLE, data: [0; 8], len, is_write: false }
}

#[test]
fn a_load_is_completed_with_the_devices_answer_at_the_registers_width() {
    // ldr x2; ldr w2; ldrh w2; ldrb w2; ldrsb x2; ldrsb w2; ldrsw x2; ldar w2, all [x1]
    for (word, len, value) in [
        (0xf940_0022, 8, 0x8182_8384_8586_8788),
        (0xb940_0022, 4, 0x8586_8788),
        (0x7940_0022, 2, 0x8788),
        (0x3940_0022, 1, 0x88),
        (0x3980_0022, 1, 0xffff_ffff_ffff_ff88),
        (0x39c0_0022, 1, 0xffff_ff88),
        (0xb980_0022, 4, 0xffff_ffff_8586_8788),
        (0x88df_fc22, 4, 0x8586_8788),
    ] {
        assert_eq!(access(word, 0x8182_8384_8586_8788), (read(len), value), "{word:#x}");
    }
}

#[test]
fn a_store_carries_as_many_bytes_as_it_has() {
    // strh w2, [x1]; str xzr, [x1]
    let (exit, _) = access(0x7900_0022, 0);
    let data = [0x88, 0x77, 0, 0, 0, 0, 0, 0];
    assert_eq!(exit, MmioExit { phys_addr: HOLE, data, len: 2, is_write: true });
    let (exit, _) = access(0xf900_003f, 0);
    assert_eq!(exit, MmioExit { phys_addr: HOLE, data: [0; 8], len: 8, is_write: true });
}

#[test]
fn an_injected_abort_drops_the_waiting_access() {
    // ldr x2, [x1]
    let mut guest = Guest::new(&[0xf940_0022]);
    guest.set(Reg::X(1), HOLE + 8);
    guest.set(Reg::X(2), 7);
    assert!(matches!(guest.run(10), Exit::Mmio(_)));
    let events = VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() };
    guest.vm.vcpu(0).expect("CPU 0").inject(&events).expect("accepted");
    answer(&mut guest, 0x55);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, HOLE + 8, CODE, EL1H]);
    guest.steps(1);
    assert_eq!(guest.x(2), 7);
}

#[test]
fn accesses_that_no_syndrome_describes_are_nisv_exits() {
    for (word, name, iss) in [
        (0xf840_8420, "ldr x0, [x1], #8", 0x07),
        (0xa940_0c22, "ldp x2, x3, [x1]", 0x07),
        (0xa900_0c22, "stp x2, x3, [x1]", 0x47),
        (0xc85f_7c22, "ldxr x2, [x1]", 0x07),
        (0xf822_0023, "ldadd x2, x3, [x1]", 0x07),
    ] {
        let config = Config { no_syndrome: NoSyndrome::Exit, ..Config::default() };
        let mut guest = Guest::with(&[word], config);
        guest.set(Reg::X(1), HOLE + 0x10);
        let nisv = NisvExit { esr_iss: iss, fault_ipa: HOLE + 0x10 };
        assert_eq!(guest.run(10), Exit::Nisv(nisv), "{name}");
        assert_eq!((guest.get(Reg::Pc), guest.x(1)), (CODE, HOLE + 0x10), "{name}");
    }
}

#[test]
fn without_the_nisv_exit_the_run_fails_with_enosys() {
    let config = Config { no_syndrome: NoSyndrome::Fail, ..Config::default() };
    let mut guest = Guest::with(&[0xa940_0c22], config);
    guest.set(Reg::X(1), HOLE);
    let result = guest.vm.vcpu(0).expect("CPU 0").run();
    assert_eq!(result, Err(Error::NoSyndrome { pc: CODE, ipa: HOLE }));
}

#[test]
fn cache_maintenance_outside_ram_is_skipped() {
    // dc civac, x1
    let mut guest = Guest::mapped(&[0xd50b_7e21]);
    guest.set(Reg::X(1), HOLE);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CODE + 4);
}

#[test]
fn an_mmio_access_counts_as_one_step_when_it_completes() {
    // ldr x2, [x1]; nop
    let mut guest = Guest::new(&[0xf940_0022, 0xd503_201f]);
    guest.set(Reg::X(1), HOLE);
    assert!(matches!(guest.run(2), Exit::Mmio(_)));
    assert_eq!(guest.vm.vcpu(0).expect("CPU 0").run(), Ok(Exit::Intr));
    assert_eq!(guest.vm.vcpu(0).expect("CPU 0").instructions(), 2);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
}

#[test]
fn psci_off_and_reset_reach_the_host() {
    // hvc #0
    for (function, event) in [
        (0x8400_0008, seawall_inject::SystemEvent::Shutdown),
        (0x8400_0009, seawall_inject::SystemEvent::Reset),
    ] {
        let mut guest = Guest::new(&[0xd400_0002]);
        guest.set(Reg::X(0), function);
        assert_eq!(guest.run(10), Exit::SystemEvent(event));
    }
    let mut guest = Guest::new(&[0xd400_0002]);
    guest.set(Reg::X(0), 0x8400_0000);
    guest.steps(1);
    assert_eq!(guest.x(0), 0x1_0001);
}

#[test]
fn wfi_with_nothing_to_wake_it_is_idle() {
    // wfi; nop
    let mut guest = Guest::new(&[0xd503_207f, 0xd503_201f]);
    assert_eq!(guest.run(10), Exit::Idle);
    assert_eq!(guest.get(Reg::Pc), CODE + 4);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
}
