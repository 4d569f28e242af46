//! The board with a vCPU that only remembers.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use seawall::UnansweredOutcome;
use seawall::telemetry::AccessReport;
use seawall_events::{Abi, MmioExit, NisvExit, Reg, VcpuEvents};
use seawall_inject::{Delivery, GuestKind, SigbusExit, VcpuTraits};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::devices::rtc::GuestClock;
use crate::interrupt::Probe;

/// Remembers what it was answered.
#[derive(Default)]
struct Idle {
    answer: Option<[u8; 8]>,
}

impl Inject for Idle {
    type Error = Infallible;

    fn traits(&self) -> VcpuTraits {
        VcpuTraits { guest: GuestKind::Aarch64, ras: true, abi: Abi::Mainline }
    }

    fn inject(&mut self, _: &VcpuEvents) -> Result<Delivery, Infallible> {
        Ok(Delivery::NotDelivered)
    }

    fn reg(&self, _: Reg) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn set_reg(&mut self, _: Reg, _: u64) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Vcpu for Idle {
    fn run(&mut self) -> Result<Exit, Infallible> {
        Ok(Exit::Intr)
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.answer = Some(data);
    }
}

fn board() -> Board {
    board_with(Box::new(()))
}

fn board_with(observer: Box<dyn Observer>) -> Board {
    let line = |_| Ok::<Arc<dyn InterruptLine>, Infallible>(Arc::new(Probe::default()));
    let containment = Containment::new(seawall::Rules::FULL);
    let clock = Box::new(GuestClock::default());
    Board::new(line, clock, observer, containment, Arc::default()).expect("lines cannot fail")
}

const NOW: Now = Now { vcpu: 0, running: Duration::ZERO, time: SystemTime::UNIX_EPOCH, exited: None };

fn serve(board: &Board, exit: &Exit) -> (Option<End>, Option<[u8; 8]>) {
    let mut vcpu = Idle::default();
    match board.serve(&mut vcpu, exit, &NOW).expect("the vCPU does not fail") {
        Served::Done => (None, vcpu.answer),
        Served::End(end) => (Some(end), vcpu.answer),
        Served::MemoryError(source) => {
            let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("a page");
            (board.contain(&mut vcpu, &source, &memory, &NOW).expect("the vCPU does not fail"), vcpu.answer)
        }
    }
}

fn read(phys_addr: u64, len: u32) -> Exit {
    Exit::Mmio(MmioExit { phys_addr, data: [0; 8], len, is_write: false })
}

fn write(board: &Board, text: &str) -> Option<End> {
    let bytes = text.bytes();
    let mut ends = bytes.map(|byte| {
        let data = [byte, 0, 0, 0, 0, 0, 0, 0];
        serve(board, &Exit::Mmio(MmioExit { phys_addr: 0x0900_0000, data, len: 1, is_write: true })).0
    });
    ends.find_map(|end| end)
}

#[test]
fn a_read_is_answered_by_the_device_at_the_address() {
    // UARTFR after reset: transmit FIFO empty, receive FIFO empty.
    assert_eq!(serve(&board(), &read(0x0900_0018, 4)), (None, Some([0x90, 0, 0, 0, 0, 0, 0, 0])));
    // PL031's identification.
    assert_eq!(serve(&board(), &read(0x0901_0ff0, 4)), (None, Some([0x0d, 0, 0, 0, 0, 0, 0, 0])));
}

/// Keeps the texts of accesses that nobody answers.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<Vec<String>>>);

impl Observer for Texts {
    fn unanswered_access(&mut self, _: &AccessReport, outcome: &UnansweredOutcome) {
        lock(&self.0).push(outcome.access.to_string());
    }
}

/// The text of an access that nobody answers.
fn unanswered(exit: &Exit) -> String {
    let texts = Texts::default();
    assert_eq!(serve(&board_with(Box::new(texts.clone())), exit), (None, None));
    lock(&texts.0).concat()
}

/// Where a text says that there is no device, there is none.
#[test]
fn an_access_that_nobody_answers_says_where_and_who_is_there() {
    for (exit, expected) in [
        (read(0x2000_0000, 4), "read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device"),
        (read(0x0a00_4000, 4), "read of 4 bytes at gpa 0xa004000, where there is neither RAM nor a device"),
        (read(0x0900_0ffc, 8), "read of 8 bytes at gpa 0x9000ffc, past the end of the device there"),
        (
            read(u64::MAX, 1),
            "read of 1 bytes at gpa 0xffffffffffffffff, where there is neither RAM nor a device",
        ),
        (
            Exit::Nisv(NisvExit { esr_iss: 0x47, fault_ipa: 0x0900_0000 }),
            "write to gpa 0x9000000, a device, by an instruction whose syndrome does not say what it does",
        ),
        (
            Exit::Nisv(NisvExit { esr_iss: 0x07, fault_ipa: 0x0800_0004 }),
            "read of gpa 0x8000004, a device, by an instruction whose syndrome does not say what it does",
        ),
        (
            Exit::Nisv(NisvExit { esr_iss: 0x07, fault_ipa: 0x2000_0000 }),
            "read of gpa 0x20000000, where there is neither RAM nor a device",
        ),
    ] {
        assert_eq!(unanswered(&exit), expected);
    }
}

#[test]
fn power_off_reset_and_panic_are_distinct_ends() {
    let shutdown = Exit::SystemEvent(SystemEvent::Shutdown);
    let reset = Exit::SystemEvent(SystemEvent::Reset);
    assert_eq!(serve(&board(), &shutdown).0, Some(End::PowerOff));
    assert_eq!(serve(&board(), &reset).0, Some(End::Reset));

    let message = "Kernel panic - not syncing: Asynchronous SError Interrupt".to_owned();
    let panicked = board();
    assert_eq!(write(&panicked, &format!("{message}\n")), None);
    assert_eq!(serve(&panicked, &reset).0, Some(End::Panic { message: message.clone() }));

    let stands_still = board();
    let end = write(&stands_still, &format!("{message}\n---[ end {message} ]---\n"));
    assert_eq!(end, Some(End::Panic { message }));
}

#[test]
fn an_early_warning_of_the_host_does_not_end_the_run() {
    let sigbus = |action_required| Exit::Sigbus(SigbusExit { address: 0x7000, lsb: 12, action_required });
    assert_eq!(serve(&board(), &sigbus(false)).0, None);
    assert!(matches!(serve(&board(), &sigbus(true)).0, Some(End::HostMemory(_))));
}

#[test]
fn the_ranges_of_the_layout_do_not_overlap() {
    let virtio = layout::VIRTIO..layout::virtio(layout::VIRTIO_TRANSPORTS).start;
    let ram = layout::RAM..u64::MAX;
    let ranges =
        [layout::GIC_DISTRIBUTOR, layout::GIC_REDISTRIBUTORS, layout::UART, layout::RTC, virtio, ram];
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:x?}");
    const { assert!(layout::VIRTIO_SPI + layout::VIRTIO_TRANSPORTS <= layout::SPIS) };
}
