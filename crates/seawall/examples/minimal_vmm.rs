//! A complete VMM, from `KVM_CREATE_VM` to memory errors contained and healed: steps 1 to 9 of
//! docs/embedding.md, with `kvm-ioctls` and `vm-memory`. Its guest loads from a bad line, then calls a
//! function in another one, and lives.
//!
//! It runs in the lab, whose machine can turn memory bad:
//!
//! ```text
//! cargo build --release --target aarch64-unknown-linux-gnu --package seawall --example minimal_vmm
//! cargo xtask lab --file target/aarch64-unknown-linux-gnu/release/examples/minimal_vmm -- minimal_vmm
//! ```

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    vmm::run()
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() {
    println!("not available here: this needs /dev/kvm on aarch64 Linux");
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code, reason = "memory is given to KVM, and healed")]
mod vmm {
    use std::error::Error;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use kvm_bindings::{KVM_ARM_VCPU_PSCI_0_2, kvm_enable_cap, kvm_userspace_memory_region, kvm_vcpu_init};
    use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
    use seawall::apei::ghes::{Ghes, GhesRegion};
    use seawall::ledger::Keeper;
    use seawall::{AddressMap, Containment, LinuxHost, MemoryRegion, Now, Rules, Source};
    use seawall_events::Reg;
    use seawall_events::wire::{KVM_CAP_ARM_SEA_TO_USER, KVM_EXIT_ARM_SEA, one_reg_id};
    use seawall_host::{Backing, sigbus};
    use seawall_inject::{Exited, Injector, Last};
    use seawall_kvm::sea_exit;
    use seawall_lab_machine::{PoisonRegister, physical_address};
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

    const RAM: u64 = 0x4000_0000;
    const RAM_SIZE: u64 = 1 << 20;
    const VECTORS: u64 = RAM + 0x1000;
    const CODE: u64 = RAM + 0x2000;
    /// The lines that go bad: data, and code.
    const BAD_DATA: u64 = RAM + 0x3040;
    const BAD_CODE: u64 = RAM + 0x4040;
    /// The place of error records. A guest that boots by ACPI learns it from the HEST.
    const RECORDS: GhesRegion = GhesRegion { base: RAM + 0x8_0000, sea: 2, polled: 1, poll_interval: 1000 };
    /// An address without memory: the guest writes here what its handler reads.
    const CONSOLE: u64 = 0x0900_0000;

    /// adr x30, .+8; ldr x3, [x4]: bad data; blr x6: bad code; mov x0, #0x8400_0008: PSCI SYSTEM_OFF; hvc #0
    const PROGRAM: [u32; 6] = [0x1000_005e, 0xf940_0083, 0xd63f_00c0, 0xd2b0_8000, 0xf280_0100, 0xd400_0002];
    /// Reports ESR and FAR, and goes on at X30: mrs x0, esr_el1; mrs x1, far_el1; str x0, [x2]; str x1, [x2,
    /// #8]; msr elr_el1, x30; eret
    const HANDLER: [u32; 6] = [0xd538_5200, 0xd538_6001, 0xf900_0040, 0xf900_0441, 0xd518_403e, 0xd69f_03e0];

    pub(super) fn run() -> Result<(), Box<dyn Error>> {
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_SIZE as usize)])?;
        memory.write_slice(&HANDLER.map(u32::to_le_bytes).concat(), GuestAddress(VECTORS + 0x200))?;
        memory.write_slice(&PROGRAM.map(u32::to_le_bytes).concat(), GuestAddress(CODE))?;
        let host = memory.get_host_address(GuestAddress(RAM))? as u64;

        let (kvm, map) = (Kvm::new()?, AddressMap::new([MemoryRegion { guest: RAM, host, size: RAM_SIZE }])?);
        let vm = create_vm(&kvm, host)?;
        let mut vcpu = create_vcpu(&vm)?;
        let keeper = Arc::new(Keeper::open(&std::env::temp_dir().join("minimal_vmm.ledger"))?);
        let mut containment = Containment::new(Rules::default())
            .with_addresses(map.clone())
            .with_ledger(keeper.clone())
            .with_host(LinuxHost);
        let mut ghes = Ghes::new(RECORDS);
        ghes.reset(&memory)?;
        containment.set_records(Some(ghes));
        containment.set_patience(Duration::ZERO); // this guest reads no records
        let (injector, started) = (Injector::probe(&vcpu)?, Instant::now());
        let mut errors = Errors { containment, injector, memory: memory.clone(), started };
        sigbus::install()?;

        // Memory goes bad; elsewhere a cosmic ray does this.
        let mut register = PoisonRegister::open()?;
        for gpa in [BAD_DATA, BAD_CODE] {
            memory.write_slice(&[0; 64], GuestAddress(gpa))?; // the host has no page for it before the first write
            register.poison(physical_address(host + (gpa - RAM))?, 64)?;
        }
        let ended = run_vcpu(&mut vcpu, &mut errors);
        for bad in keeper.with(|ledger| ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>()) {
            for host in map.host_ranges(bad.clone()) {
                // SAFETY: this is the memory's mapping, and its guest has ended: all of it may go.
                unsafe { seawall_host::heal(host, Backing::ANONYMOUS) }?;
            }
            println!("vmm: {} pages from {:#x} on are healed", keeper.remove(bad.clone()), bad.start);
        }
        register.heal_all();
        ended
    }

    /// The loop that every VMM has.
    fn run_vcpu(vcpu: &mut VcpuFd, errors: &mut Errors) -> Result<(), Box<dyn Error>> {
        loop {
            // Contain the SIGBUS of the last run before the next one.
            while let Some(signal) = sigbus::take() {
                errors.contain(vcpu, Last::Any, &signal.into())?;
            }
            let exit = match sigbus::recording(|| vcpu.run()) {
                Err(error) if error.errno() == libc::EINTR => continue,
                exit => exit?,
            };
            match exit {
                VcpuExit::MmioWrite(address, data) => {
                    let name = if address == CONSOLE { "ESR" } else { "FAR" };
                    let value = data.try_into().map_or(0, u64::from_le_bytes);
                    println!("guest: its handler read {name} {value:#x}");
                }
                VcpuExit::Unsupported(KVM_EXIT_ARM_SEA) => {
                    let sea = sea_exit(vcpu.get_kvm_run()).ok_or("expected a SEA exit in kvm_run")?;
                    errors.contain(vcpu, Last::NoWalk, &sea.into())?;
                }
                VcpuExit::SystemEvent(..) => {
                    println!("guest: power-off");
                    return Ok(());
                }
                other => return Err(format!("expected no such exit: {other:?}").into()),
            }
        }
    }

    /// Everything that a VMM adds to contain memory errors.
    struct Errors {
        containment: Containment,
        injector: Injector,
        memory: GuestMemoryMmap,
        started: Instant,
    }

    impl Errors {
        /// Two cases lead here. The hardware gave the error to the guest's CPU, and KVM passed it on; or the
        /// host's kernel knew the bad page and kept the guest from it.
        fn contain(&mut self, vcpu: &VcpuFd, last: Last, source: &Source) -> Result<(), Box<dyn Error>> {
            let mut vcpu = Exited::new(vcpu, self.injector, last);
            let now = Now::new(0, self.started.elapsed());
            let contained = self.containment.contain(&mut vcpu, source, Some(&self.memory), &now)?;
            println!("vmm: {contained}");
            contained.stop().map_or(Ok(()), |reason| Err(reason.into()))
        }
    }

    fn create_vm(kvm: &Kvm, host: u64) -> Result<VmFd, Box<dyn Error>> {
        let vm = kvm.create_vm_with_ipa_size(40)?;
        vm.enable_cap(&kvm_enable_cap { cap: KVM_CAP_ARM_SEA_TO_USER, ..Default::default() })
            .map_err(|error| format!("KVM_CAP_ARM_SEA_TO_USER: {error}; expected Linux 6.19 or newer"))?;
        let ram = kvm_userspace_memory_region {
            guest_phys_addr: RAM,
            memory_size: RAM_SIZE,
            userspace_addr: host,
            ..Default::default()
        };
        // SAFETY: `memory` in `run` has this mapping, and outlives the VM.
        unsafe {
            vm.set_user_memory_region(ram)?;
        }
        Ok(vm)
    }

    fn create_vcpu(vm: &VmFd) -> Result<VcpuFd, Box<dyn Error>> {
        let (vcpu, mut init) = (vm.create_vcpu(0)?, kvm_vcpu_init::default());
        vm.get_preferred_target(&mut init)?;
        init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        vcpu.vcpu_init(&init)?;
        for (reg, value) in [
            (Reg::Pc, CODE),
            (Reg::VbarEl1, VECTORS),
            (Reg::X(2), CONSOLE),
            (Reg::X(4), BAD_DATA),
            (Reg::X(6), BAD_CODE),
        ] {
            vcpu.set_one_reg(one_reg_id(reg).ok_or("expected a register of KVM's")?, &value.to_le_bytes())?;
        }
        Ok(vcpu)
    }
}
