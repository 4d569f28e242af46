//! Boots a guest on real KVM and contains the memory errors that it meets. In the lab a guest may ask for bad
//! memory by a line on its console, `bad memory please: ADDRESS` (guest physical): see `victim.rs`, `victims.sh`.
//!
//! Built for aarch64 Linux (static, or with the lab's C library beside it), in the lab with Debian's kernel as the guest:
//!
//! ```text
//! cargo build --release --target aarch64-unknown-linux-gnu --package seawall-vmm --examples
//! E=target/aarch64-unknown-linux-gnu/release/examples
//! cargo xtask lab --file $E/boot --file $E/victim --file crates/vmm/examples/victims.sh \
//!     --file target/lab/kernel/debian-default-1/vmlinuz -- \
//!     'boot --kernel /bin/vmlinuz --file /bin/busybox --file /bin/victim --init /bin/victims.sh --policy full'
//! ```
//!
//! Exit code: 0 power-off, 3 reset, 4 the guest's kernel panicked, 5 any other end, 1 an error of the host.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    use clap::Parser as _;
    use seawall_vmm::End;

    match boot::boot(&boot::Args::parse()) {
        Ok(end) => {
            eprintln!("boot: the guest's end: {end}");
            ExitCode::from(match end {
                End::PowerOff => 0,
                End::Reset => 3,
                End::Panic { .. } => 4,
                _ => 5,
            })
        }
        Err(error) => {
            eprintln!("boot: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() {
    println!("not available here: this needs /dev/kvm on aarch64 Linux");
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod boot {
    use std::error::Error;
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, Instant};

    use seawall::Outcome;
    use seawall::telemetry::ErrorReport;
    use seawall_kvm::lab::{PoisonRegister, physical_address};
    use seawall_kvm::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
    use seawall_vmm::devices::disk::{Disk, Writes};
    use seawall_vmm::initramfs::Initramfs;
    use seawall_vmm::{Config, End, Guest, Keyboard, KvmMachine, Observer, policy};

    /// Bytes of a bad line.
    const LINE: u64 = 64;
    const REQUEST: &str = "bad memory please: ";

    #[derive(clap::Parser)]
    pub(crate) struct Args {
        /// arm64 Linux Image (raw, gzip, EFI zboot), ELF or flat binary
        #[arg(long)]
        kernel: PathBuf,
        /// Initramfs
        #[arg(long)]
        initrd: Option<PathBuf>,
        /// A program for an initramfs made here: /bin/NAME
        #[arg(long, conflicts_with = "initrd")]
        file: Vec<PathBuf>,
        /// The init of that initramfs, a script for busybox
        #[arg(long, conflicts_with = "initrd")]
        init: Option<PathBuf>,
        /// Kernel command line
        #[arg(long, default_value = "console=ttyAMA0 panic=-1 quiet")]
        append: String,
        /// MiB of RAM
        #[arg(long, default_value_t = 256)]
        memory: u64,
        #[arg(long, default_value_t = 1)]
        cpus: u32,
        /// serror, mainline or full
        #[arg(long, default_value = "full")]
        policy: String,
        /// Disk image, read-only: vda, vdb, ...
        #[arg(long)]
        disk: Vec<PathBuf>,
        /// Let the guest write to its disks; nothing of it is kept
        #[arg(long)]
        scratch: bool,
        /// Boot with ACPI, and give the guest a record of each memory error
        #[arg(long)]
        acpi: bool,
        /// A virtio console beside the UART: hvc0
        #[arg(long)]
        virtio_console: bool,
        /// Type standard input on the guest's console
        #[arg(long)]
        interactive: bool,
        /// Seconds
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    }

    pub(crate) fn boot(args: &Args) -> Result<End, Box<dyn Error>> {
        let mut guest = Guest::read(&args.kernel, args.initrd.as_deref(), &args.append)?;
        if let Some(init) = &args.init {
            guest.initrd = Some(initramfs(&args.file, init)?);
        }
        let mut config = Config::new(args.memory << 20);
        config.cpus = args.cpus;
        config.policy = policy(&args.policy).ok_or("expected the policy serror, mainline or full")?;
        config.acpi = args.acpi;
        config.virtio_console = args.virtio_console;
        let writes = if args.scratch { Writes::InMemory } else { Writes::Refused };
        for path in &args.disk {
            let disk = Disk::open(path, writes).map_err(|error| format!("{}: {error}", path.display()));
            config.disks.push(disk?);
        }
        let memory = Arc::new(OnceLock::new());
        let watch = Watch { memory: memory.clone(), start: Instant::now() };
        let machine = KvmMachine::new(config, &guest, Box::new(watch))?;
        let memory = memory.get_or_init(|| machine.memory().clone()).clone();
        eprintln!("boot: {:x?}", machine.placement());
        if args.interactive {
            let keyboard = machine.keyboard();
            std::thread::spawn(move || type_in(&keyboard));
        }
        let end = machine.run(Some(Duration::from_secs(args.timeout)));
        // The guest's memory goes back to the host, good.
        if let Ok(mut register) = PoisonRegister::open() {
            register.heal_all();
        }
        drop(memory);
        Ok(end?)
    }

    /// Types standard input on the guest's console, at the pace at which the guest takes it.
    fn type_in(keyboard: &Keyboard) {
        let mut buffer = [0; 32];
        while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                rest = &rest[keyboard.type_in(rest)..];
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// /bin with these programs, busybox's names for itself, and init.
    fn initramfs(files: &[PathBuf], init: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
        let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let mut archive = Initramfs::default();
        for directory in ["bin", "dev", "proc", "sys", "tmp"] {
            archive = archive.directory(directory);
        }
        archive = archive.character_device("dev/console", 5, 1).program("init", &read(init)?);
        for file in files {
            let name = file.file_name().ok_or("expected a file name")?.to_string_lossy();
            archive = archive.program(&format!("bin/{name}"), &read(file)?);
        }
        Ok(archive.link("bin/sh", "busybox").finish())
    }

    /// Prints the console and what was done about memory errors; turns memory bad if the guest asks.
    struct Watch {
        /// There is one as soon as the machine is made.
        memory: Arc<OnceLock<GuestMemoryMmap>>,
        start: Instant,
    }

    impl Watch {
        fn say(&self, what: &str) {
            println!("boot: {:7.3} {what}", self.start.elapsed().as_secs_f32());
        }

        fn poison(&self, gpa: u64) -> Result<u64, Box<dyn Error>> {
            let line = gpa & !(LINE - 1);
            let memory = self.memory.get().ok_or("there is no memory yet")?;
            let host = memory.get_host_address(GuestAddress(line))?;
            let physical = physical_address(host as u64)?;
            PoisonRegister::open()?.poison(physical, LINE)?;
            Ok(physical)
        }
    }

    impl Observer for Watch {
        fn console(&mut self, bytes: &[u8]) {
            // A console that nobody reads must not stop the guest.
            let _ = std::io::stdout().write_all(bytes);
        }

        fn line(&mut self, line: &str) {
            let Some((_, address)) = line.split_once(REQUEST) else { return };
            let gpa = u64::from_str_radix(address.trim().trim_start_matches("0x"), 16);
            match gpa.map_err(Into::into).and_then(|gpa| self.poison(gpa)) {
                Ok(physical) => self.say(&format!("the line of gpa {address} is bad now, at {physical:#x}")),
                Err(error) => self.say(&format!("{address} could not be made bad: {error}")),
            }
        }

        fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
            let microseconds = report.exit_to_injection_ns.unwrap_or_default() / 1000;
            self.say(&format!("vcpu {}: {outcome} ({microseconds} us from the exit on)", report.vcpu));
        }
    }
}
