//! Kernel features for a VMM with several vCPUs: interrupt lines, vCPUs that wait to be turned on, kicks. On
//! real KVM: `cargo xtask lab tests`.

#![cfg(all(target_os = "linux", target_arch = "aarch64"))]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use seawall_events::Reg;
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_kvm::{Bytes as _, Gic, GuestAddress, GuestMemoryMmap, Kicker, Kvm, Vm, VmConfig};

const RAM: u64 = 0x4000_0000;
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;
/// b .
const LOOP: [u32; 1] = [0x1400_0000];
/// str wzr, [x4]; ldr w3, [x1]; str w3, [x2]: the last one is an MMIO exit.
const LOAD_AND_TELL: [u32; 3] = [0xb900_009f, 0xb940_0023, 0xb900_0043];
/// ldr w3, [x1]; movz x0, #0x8400, lsl #16; movk x0, #8; hvc #0: PSCI SYSTEM_OFF.
const LOAD_AND_OFF: [u32; 4] = [0xb940_0023, 0xd2b0_8000, 0xf280_0100, 0xd400_0002];

/// A VM with these instructions at the base of RAM; `None` without /dev/kvm.
fn vm(code: &[u32]) -> Option<Vm> {
    let kvm = Kvm::open().inspect_err(|error| println!("skipped: {error}")).ok()?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), 1 << 20)]).unwrap();
    let words: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&words, GuestAddress(RAM)).unwrap();
    let config = VmConfig { sea_to_user: false, ..VmConfig::default() };
    Some(kvm.create_vm(memory, config).unwrap())
}

#[test]
fn a_kick_ends_the_run_of_a_busy_guest() {
    let Some(vm) = vm(&LOOP) else { return };
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_reg(Reg::Pc, RAM).unwrap();
    let (send, receive) = mpsc::channel();
    let runs = thread::spawn(move || {
        send.send(Kicker::of_this_thread().unwrap()).unwrap();
        vcpu.run().unwrap()
    });
    let kicker = receive.recv().unwrap();
    thread::sleep(Duration::from_millis(50));
    kicker.kick();
    assert_eq!(runs.join().unwrap(), Exit::Intr);
    // The thread has ended: nothing happens.
    kicker.kick();
}

#[test]
fn a_kick_before_the_run_ends_that_run_and_no_other() {
    let Some(vm) = vm(&LOAD_AND_OFF) else { return };
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_reg(Reg::Pc, RAM).unwrap();
    vcpu.set_reg(Reg::X(1), RAM).unwrap();
    Kicker::of_this_thread().unwrap().kick();
    assert_eq!(vcpu.run().unwrap(), Exit::Intr);
    assert_eq!(vcpu.reg(Reg::Pc).unwrap(), RAM);
    assert_eq!(vcpu.run().unwrap(), Exit::SystemEvent(SystemEvent::Shutdown));
}

#[test]
fn a_vcpu_that_is_off_waits_and_a_kick_ends_the_wait() {
    let Some(vm) = vm(&LOAD_AND_OFF) else { return };
    let _boot = vm.create_vcpu(0).unwrap();
    let mut waits = vm.create_vcpu_off(1).unwrap();
    let (send, receive) = mpsc::channel();
    let runs = thread::spawn(move || {
        send.send(Kicker::of_this_thread().unwrap()).unwrap();
        waits.run().unwrap()
    });
    let kicker = receive.recv().unwrap();
    thread::sleep(Duration::from_millis(50));
    assert!(!runs.is_finished());
    kicker.kick();
    assert_eq!(runs.join().unwrap(), Exit::Intr);
}

/// Arm IHI 0069: GICD_ISPENDR1 bit n is SPI n; GICD_ICFGR2 of 0 makes SPIs 0 to 15 level-sensitive, which KVM's are not
/// at reset.
#[test]
fn a_line_that_is_high_is_pending_in_the_distributor_until_it_is_low() {
    const GICD_ISPENDR1: u64 = DISTRIBUTOR + 0x204;
    const GICD_ICFGR2: u64 = DISTRIBUTOR + 0xc08;
    let Some(vm) = vm(&LOAD_AND_TELL) else { return };
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let gic = vm.create_gic(DISTRIBUTOR, REDISTRIBUTORS).unwrap();
    let line = gic.line(5).unwrap().unwrap();
    assert!(gic.line(Gic::SPIS).is_none());
    for (high, pending) in [(false, 0), (true, 1 << 5), (false, 0)] {
        line.set_level(high).unwrap();
        let set =
            [(Reg::Pc, RAM), (Reg::X(1), GICD_ISPENDR1), (Reg::X(2), 0x0900_0000), (Reg::X(4), GICD_ICFGR2)];
        for (reg, value) in set {
            vcpu.set_reg(reg, value).unwrap();
        }
        let Exit::Mmio(mmio) = vcpu.run().unwrap() else { panic!("expected the store") };
        assert_eq!(u64::from_le_bytes(mmio.data), pending, "line {high}");
        vcpu.complete_mmio().unwrap();
    }
}
