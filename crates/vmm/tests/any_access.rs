//! Whatever a guest does to the devices, they answer: no panic, no end that is not one of a guest's making.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;
use seawall::Now;
use seawall_events::{Abi, MmioExit, Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit, GuestKind, Inject, Vcpu, VcpuTraits};
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::devices::rtc::GuestClock;
use seawall_vmm::interrupt::{InterruptLine, Probe};
use seawall_vmm::{Board, Config, End, Served, layout};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

/// A vCPU that nobody looks at.
struct Nobody;

impl Inject for Nobody {
    type Error = Infallible;

    fn traits(&self) -> VcpuTraits {
        VcpuTraits { guest: GuestKind::Aarch64, ras: true, abi: Abi::Mainline }
    }

    fn reg(&self, _: Reg) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn set_reg(&mut self, _: Reg, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn inject(&mut self, _: &VcpuEvents) -> Result<Delivery, Infallible> {
        Ok(Delivery::NotDelivered)
    }
}

impl Vcpu for Nobody {
    fn run(&mut self) -> Result<Exit, Infallible> {
        Ok(Exit::Intr)
    }

    fn answer_mmio(&mut self, _: [u8; 8]) {}
}

/// UART, RTC, a virtio console and a disk, and random bytes where the queues may be.
fn board(bytes: &[u8]) -> (Board, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(layout::RAM), 2 << 20)]).unwrap();
    memory.write_slice(bytes, GuestAddress(layout::RAM)).unwrap();
    let mut config = Config::new(2 << 20);
    config.virtio_console = true;
    // Any file will do: this one.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 4096]).unwrap();
    config.disks.push(Disk::open(file.path(), Writes::InMemory).unwrap());
    let line = |_| Ok(Arc::new(Probe::default()) as Arc<dyn InterruptLine>);
    (
        config.board(line, Box::new(GuestClock::default()), Box::new(()), |containment| containment).unwrap(),
        memory,
    )
}

fn access(phys_addr: u64, value: u64, len: u32, is_write: bool) -> MmioExit {
    MmioExit { phys_addr, data: value.to_le_bytes(), len, is_write }
}

/// Registers of all devices, at any offset, in any size.
fn any_access() -> impl Strategy<Value = MmioExit> {
    let device = prop_oneof![
        Just(layout::UART.start),
        Just(layout::RTC.start),
        Just(layout::virtio(0).start),
        Just(layout::virtio(30).start),
        Just(layout::virtio(31).start),
    ];
    let value = prop_oneof![any::<u64>(), 0_u64..4];
    let length = prop_oneof![Just(1_u32), Just(2), Just(4), Just(8)];
    (device, 0_u64..0x200, value, length, any::<bool>())
        .prop_map(|(device, offset, value, len, is_write)| access(device + offset, value, len, is_write))
}

fn serve((board, memory): &(Board, GuestMemoryMmap), mmio: MmioExit) -> Option<End> {
    let now = Now { vcpu: 0, running: Duration::ZERO, time: SystemTime::UNIX_EPOCH, exited: None };
    let served = board.serve(&mut Nobody, &Exit::Mmio(mmio), &now).unwrap();
    board.process(memory);
    match served {
        // Over the end of a device's registers there is nothing: the guest takes an abort.
        Served::Done => None,
        Served::End(end) => Some(end),
        other @ Served::MemoryError(_) => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn any_sequence_of_accesses_is_answered(accesses in vec(any_access(), 1..200)) {
        let board = board(&[]);
        for mmio in accesses {
            prop_assert_eq!(serve(&board, mmio), None, "{:x?}", mmio);
        }
    }

    /// A driver that is ready, with random descriptors and rings.
    #[test]
    fn any_bytes_in_the_queues_are_survived(
        memory in vec(any::<u8>(), 0x400..0x401),
        device in 0_u32..2,
        queue in 0_u64..2,
        size in prop_oneof![Just(1_u64), Just(4), Just(16)],
        flags in vec(0_u8..8, 16),
    ) {
        let mut memory = memory;
        // Descriptors at 0: addresses in RAM for most of them, and flags that are known.
        for (n, flags) in flags.iter().enumerate() {
            let at = n * 16;
            memory[at + 2..at + 8].copy_from_slice(&[0, 0x40, 0, 0, 0, 0]);
            memory[at + 10..at + 12].fill(0);
            memory[at + 12..at + 14].copy_from_slice(&[*flags, 0]);
            let next = memory[at + 14] % 17;
            memory[at + 14..at + 16].copy_from_slice(&[next, 0]);
        }
        // The driver's ring at 0x200: not more than the queue holds.
        memory[0x202..0x204].copy_from_slice(&[size as u8, 0]);
        for n in 0..16 {
            memory[0x204 + 2 * n..0x206 + 2 * n].copy_from_slice(&[n as u8, 0]);
        }
        let board = board(&memory);
        let base = layout::virtio(layout::transport(device)).start;
        let setup = [
            (0x070, 3), (0x024, 1), (0x020, 1), (0x070, 0xb), (0x030, queue), (0x038, size),
            (0x080, layout::RAM), (0x090, layout::RAM + 0x200), (0x0a0, layout::RAM + 0x10_0000), (0x044, 1),
            (0x070, 0xf), (0x050, queue),
        ];
        for (register, value) in setup {
            prop_assert_eq!(serve(&board, access(base + register, value, 4, true)), None);
        }
        board.0.type_in(b"typed");
        board.0.process(&board.1);
    }
}
