//! A guest whose code page goes bad, on real KVM in the lab: SEA exit, instruction abort, the guest's handler.
//!
//! ```text
//! cargo xtask lab --example sea
//! ```

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use seawall_events::{Reg, VcpuEvents};
    use seawall_inject::{Exit, Inject as _, Vcpu as _};
    use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap, Kvm, VmConfig};
    use seawall_lab_machine::{PoisonRegister, physical_address};

    const RAM: u64 = 0x4000_0000;
    const VECTORS: u64 = RAM + 0x1000;
    const CODE: u64 = RAM + 0x2000;
    /// mrs x0, esr_el1; mrs x1, far_el1; str x0, [x2]: the last one is an MMIO exit.
    const HANDLER: [u32; 3] = [0xd538_5200, 0xd538_6001, 0xf900_0040];
    /// movz x0, #0x8400, lsl #16; movk x0, #8; hvc #0: PSCI SYSTEM_OFF.
    const OFF: [u32; 3] = [0xd2b0_8000, 0xf280_0100, 0xd400_0002];

    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), 1 << 20)])?;
    let kvm = Kvm::open()?;
    println!("extended ABI: {:?}", kvm.way()?);
    let vm = kvm.create_vm(memory, VmConfig::default())?;
    vm.memory().write_slice(&HANDLER.map(u32::to_le_bytes).concat(), GuestAddress(VECTORS + 0x200))?;
    vm.memory().write_slice(&OFF.map(u32::to_le_bytes).concat(), GuestAddress(CODE))?;
    let mut vcpu = vm.create_vcpu(0)?;
    for (reg, value) in [(Reg::Pc, CODE), (Reg::VbarEl1, VECTORS), (Reg::X(2), 0x900_0000)] {
        vcpu.set_reg(reg, value)?;
    }

    // 1. The line under the guest's PC goes bad: a SEA exit, and the guest gets its instruction abort.
    let mut register = PoisonRegister::open()?;
    let line = physical_address(vm.host_address(CODE, 4)? as u64)?;
    register.poison(line, 64)?;
    let exit = vcpu.run()?;
    println!("{exit:x?}");
    let Exit::Sea(sea) = exit else { return Err("expected a SEA exit".into()) };
    let abort = VcpuEvents {
        ext_iabt_pending: sea.is_fetch(),
        ext_dabt_pending: !sea.is_fetch(),
        ext_abt_has_esr: true,
        ext_abt_esr: sea.esr.iss().into(),
        ..VcpuEvents::default()
    };
    println!("{:?}", vcpu.inject(&abort)?);
    println!("{:x?}", vcpu.run()?);
    println!("the guest's handler read ESR {:#x}, FAR {:#x}", vcpu.reg(Reg::X(0))?, vcpu.reg(Reg::X(1))?);
    vcpu.complete_mmio()?;
    register.heal(line);

    // 2. The host takes the page for bad: SIGBUS, the same abort, and a fresh page heals it.
    vm.hwpoison(CODE, 0x1000)?;
    vcpu.set_reg(Reg::Pc, CODE)?;
    println!("{:x?}", vcpu.run()?);
    println!("{:?}", vcpu.inject(&abort)?);
    println!("{:x?}", vcpu.run()?);
    println!("the guest's handler read ESR {:#x}, FAR {:#x}", vcpu.reg(Reg::X(0))?, vcpu.reg(Reg::X(1))?);
    vcpu.complete_mmio()?;
    println!("healed; the host of the bad page: {:?}", vm.heal(CODE, 0x1000)?);
    vm.memory().write_slice(&OFF.map(u32::to_le_bytes).concat(), GuestAddress(CODE))?;
    vcpu.set_reg(Reg::Pc, CODE)?;
    println!("{:x?}", vcpu.run()?);
    Ok(())
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() {
    println!("not available here: this needs /dev/kvm on aarch64 Linux");
}
