//! Embedding the kernel half in a hypervisor: `cargo run -p seawall-events --example own_vcpu`.
//!
//! The vCPU is the hypervisor's own type (`vcpu.rs`); the ioctl handler is one call.

mod vcpu;

use seawall_arm::{Esr, Pstate};
use seawall_events::kernel::{
    LastFault, SeaPolicy, VcpuConfig, VirtualSError, get_events, handle_guest_sea, set_events_bytes,
};
use seawall_events::{Abi, Layout, Reg, Registers, SeaExit};
use vcpu::Vcpu;

/// The ABI of this hypervisor's VMs: the proposal's.
const ABI: Abi = Abi::Extended(Layout::Posted);

/// The handler of `KVM_SET_VCPU_EVENTS`: 0, or a negative errno.
fn ioctl_set_vcpu_events(vcpu: &mut Vcpu, copy_from_user: impl FnOnce() -> Option<[u8; 64]>) -> i32 {
    match set_events_bytes(vcpu, ABI, copy_from_user) {
        Ok(_) => 0,
        Err(refused) => {
            println!("  refused: {refused}");
            -refused.refusal.errno().number()
        }
    }
}

/// The guest's EL1 fetched from bad memory, and the hardware trapped to the hypervisor with this report.
fn trap_from_hardware(vcpu: &mut Vcpu) -> Option<SeaExit> {
    vcpu.last_fault = LastFault { esr: Esr::from_bits(0x8200_0210), far: 0x40_1040, ipa: Some(0x8020_1000) };
    let policy = SeaPolicy { to_user: true, guest_has_ras: true };
    handle_guest_sea(vcpu, policy).ok()
}

fn main() {
    let mut vcpu = Vcpu {
        regs: [0; 52],
        config: VcpuConfig { ras: true, ..VcpuConfig::default() },
        last_fault: LastFault::default(),
        serror: VirtualSError::default(),
        mmio_waits: false,
        walk_level: None,
    };
    vcpu.set_reg(Reg::Pc, 0x40_1040);
    vcpu.set_reg(Reg::Pstate, 0); // EL0t
    vcpu.set_reg(Reg::VbarEl1, 0xffff_8000_0001_0800);

    let exit = trap_from_hardware(&mut vcpu).expect("the VM opted in");
    println!("KVM_EXIT_ARM_SEA: {}", exit.esr);

    let mut both = [0; 64];
    both[2] = 1; // ext_dabt_pending
    both[3] = 1; // ext_iabt_pending
    println!("both aborts at once: {}", ioctl_set_vcpu_events(&mut vcpu, || Some(both)));

    let mut events = [0; 64];
    events[3] = 1; // ext_iabt_pending
    events[4] = 1; // ext_abt_has_esr
    events[16..24].copy_from_slice(&0x200_u64.to_le_bytes()); // ext_abt_esr: EA
    println!("an instruction abort, EA: {}", ioctl_set_vcpu_events(&mut vcpu, || Some(events)));

    println!("  PC     {:#x}", vcpu.reg(Reg::Pc));
    println!("  PSTATE {:?}", Pstate::from_bits(vcpu.reg(Reg::Pstate)));
    println!("  ESR    {}", Esr::from_bits(vcpu.reg(Reg::EsrEl1)));
    println!("  FAR    {:#x}", vcpu.reg(Reg::FarEl1));
    println!("get_events: {:?}", get_events(&vcpu));
}
