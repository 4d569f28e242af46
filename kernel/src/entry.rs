//! The functions that C calls.

use seawall_arm::Esr;
use seawall_events::kernel::{get_events, set_events};
use seawall_events::wire::ArmSea;
use seawall_events::{Abi, Layout, Refused, SeaExit, VcpuEvents, Words};
use zerocopy::transmute;

use crate::c::{Base, Fault, KvmVcpu, NO_IPA, Registers, Sea, seawall_load, seawall_store};
use crate::copy::Copy;

/// `enum seawall_abi`.
const fn abi(number: u32) -> Abi {
    match number {
        0 => Abi::Mainline,
        2 => Abi::Extended(Layout::Trailing),
        _ => Abi::Extended(Layout::Posted),
    }
}

/// `KVM_SET_VCPU_EVENTS` of an initialised vCPU: 0 or a negative errno.
#[allow(unsafe_code)]
// SAFETY: no other symbol of Linux begins with `seawall_rust_`.
#[unsafe(no_mangle)]
pub extern "C" fn seawall_rust_set_events(
    vcpu: &KvmVcpu,
    base: &mut Base,
    abi_number: u32,
    events: &Words,
) -> i32 {
    let abi = abi(abi_number);
    let events = match VcpuEvents::from_words(abi, events) {
        Ok(events) => events,
        Err(refusal) => return -refusal.errno().number(),
    };
    // Events that ask for nothing are checked, and look at no register.
    if !events.injects() {
        return apply(vcpu, base, None, abi, &events);
    }
    let mut registers = Registers::default();
    seawall_load(vcpu, &mut registers);
    let result = apply(vcpu, base, Some(&mut registers), abi, &events);
    // Mainline refuses an SError after it delivered the abort of the same call.
    if registers.written != 0 {
        seawall_store(vcpu, base, &registers);
    }
    result
}

/// The same on copies that C loaded: what the call would return, and what it would leave.
#[allow(unsafe_code)]
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn seawall_rust_predict_events(
    vcpu: &KvmVcpu,
    base: &mut Base,
    registers: &mut Registers,
    abi_number: u32,
    events: &Words,
) -> i32 {
    let abi = abi(abi_number);
    match VcpuEvents::from_words(abi, events) {
        Ok(events) => apply(vcpu, base, Some(registers), abi, &events),
        Err(refusal) => -refusal.errno().number(),
    }
}

fn apply(
    vcpu: &KvmVcpu,
    base: &mut Base,
    registers: Option<&mut Registers>,
    abi: Abi,
    events: &VcpuEvents,
) -> i32 {
    match set_events(&mut Copy { kvm: vcpu, base, registers }, abi, events) {
        Ok(_) => 0,
        Err(Refused { refusal, .. }) => -refusal.errno().number(),
    }
}

/// `KVM_GET_VCPU_EVENTS` of an initialised vCPU: 0 or a negative errno.
#[allow(unsafe_code)]
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn seawall_rust_get_events(
    vcpu: &KvmVcpu,
    base: &mut Base,
    abi_number: u32,
    events: &mut Words,
) -> i32 {
    match get_events(&Copy { kvm: vcpu, base, registers: None })
        .and_then(|events| events.to_words(abi(abi_number)))
    {
        Ok(words) => {
            *events = words;
            0
        }
        Err(refusal) => -refusal.errno().number(),
    }
}

/// The content of `kvm_run.arm_sea` for an abort that goes to user space.
#[allow(unsafe_code)]
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn seawall_rust_sea_exit(fault: &Fault, guest_has_ras: bool, sea: &mut Sea) {
    let ipa = (fault.ipa != NO_IPA).then_some(fault.ipa);
    let exit = SeaExit::from_hardware(Esr::from_bits(fault.esr), fault.far, ipa, guest_has_ras);
    *sea = transmute!(ArmSea::from(exit));
}
