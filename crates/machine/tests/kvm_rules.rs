//! Rules of KVM that only a running machine can show; `crates/events/AUDIT.md` names them.

mod support;

use seawall_arm::Reg;
use seawall_events::VcpuEvents;
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use support::{CODE, DATA, EL1H, Guest, HOLE, VECTORS};

/// `ldr x2, [x1]`
const LDR: u32 = 0xf940_0022;
const NOP: u32 = 0xd503_201f;

fn data_abort(guest: &mut Guest) {
    let events = VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() };
    guest.vm.vcpu(0).expect("CPU 0").inject(&events).expect("accepted");
}

#[test]
fn a_run_that_is_to_exit_at_once_completes_the_waiting_access_first() {
    let mut guest = Guest::new(&[LDR, NOP]);
    guest.set(Reg::X(1), HOLE);
    assert!(matches!(guest.run(10), Exit::Mmio(_)));
    assert_eq!(guest.get(Reg::Pc), CODE, "not before the run");
    guest.vm.vcpu(0).expect("CPU 0").answer_mmio(0x1122_3344_5566_7788_u64.to_le_bytes());
    // No budget is to the machine what immediate_exit is to KVM.
    assert_eq!(guest.run(0), Exit::Intr);
    assert_eq!((guest.get(Reg::Pc), guest.x(2)), (CODE + 4, 0x1122_3344_5566_7788));
}

#[test]
fn a_dropped_access_is_not_completed_by_a_run_that_is_to_exit_at_once() {
    let mut guest = Guest::new(&[LDR, NOP]);
    guest.set(Reg::X(1), HOLE);
    guest.set(Reg::X(2), 7);
    assert!(matches!(guest.run(10), Exit::Mmio(_)));
    data_abort(&mut guest);
    guest.vm.vcpu(0).expect("CPU 0").answer_mmio([0x55; 8]);
    assert_eq!(guest.run(0), Exit::Intr);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, HOLE, CODE, EL1H]);
    assert_eq!(guest.x(2), 7);
}

#[test]
fn after_an_exit_that_was_no_abort_the_address_is_the_stale_one() {
    let mut guest = Guest::new(&[LDR, NOP, NOP, support::LOOP]);
    guest.set(Reg::X(1), DATA + 8);
    guest.poison(DATA);
    assert!(matches!(guest.run(10), Exit::Sea(_)));
    guest.vm.heal(DATA..DATA + 1).expect("in RAM");
    guest.steps(3);
    data_abort(&mut guest);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, DATA + 8, CODE + 12, EL1H]);
}

/// KVM goes by bit 7 of the last exit's ESR, whatever its class, and by the page of the last abort. Measured on
/// Linux 7.2.12, which also warns in its log.
#[test]
fn after_an_hvc_whose_immediate_has_bit_7_the_abort_is_one_on_a_walk() {
    for (hvc, esr) in [(0xd400_1002, 0x96000014), (0xd400_0fe2, 0x96000010)] {
        // hvc #0x80, hvc #0x7f
        let mut guest = Guest::new(&[LDR, hvc, NOP]);
        guest.set(Reg::X(1), HOLE);
        assert!(matches!(guest.run(10), Exit::Mmio(_)));
        guest.set(Reg::X(0), 0x8400_0008); // PSCI SYSTEM_OFF
        assert_eq!(guest.run(10), Exit::SystemEvent(SystemEvent::Shutdown));
        data_abort(&mut guest);
        assert_eq!(guest.taken(), [VECTORS + 0x200, esr, HOLE, CODE + 8, EL1H]);
    }
}

#[test]
fn on_a_fresh_vcpu_the_address_is_zero() {
    let mut guest = Guest::new(&[NOP]);
    guest.set(Reg::FarEl1, 0x1234);
    data_abort(&mut guest);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x96000010, 0, CODE, EL1H]);
}

#[test]
fn a_masked_serror_leaves_the_waiting_access_to_complete() {
    let mut guest = Guest::new(&[LDR, NOP]);
    guest.set(Reg::X(1), HOLE);
    assert!(matches!(guest.run(10), Exit::Mmio(_)));
    let serror = VcpuEvents { serror_pending: true, ..VcpuEvents::default() };
    guest.vm.vcpu(0).expect("CPU 0").inject(&serror).expect("accepted");
    guest.vm.vcpu(0).expect("CPU 0").answer_mmio(9_u64.to_le_bytes());
    guest.steps(2);
    assert_eq!((guest.get(Reg::Pc), guest.x(2)), (CODE + 8, 9));
    assert!(guest.vm.vcpu(0).expect("CPU 0").events().expect("always").serror_pending);
}
