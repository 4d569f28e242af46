//! What a snapshot holds of a board.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use seawall::ContainmentState;
use seawall::ledger::Ledger;

use super::{Board, lock};
use crate::devices::disk::Written;
use crate::devices::virtio::State as Transport;
use crate::devices::{pl011, rtc};
use crate::firmware::records_at;

/// What devices, console and containment hold. The policy and the observer are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoardState {
    uart: pl011::Registers,
    /// What was written to the UART of a line that is not complete.
    uart_line: Vec<u8>,
    rtc: rtc::Registers,
    hvc: Option<Hvc>,
    disks: Vec<Vd>,
    panic: Option<String>,
    stands_still: bool,
    acpi: bool,
    containment: ContainmentState,
    /// The bad pages, as [`Ledger::to_bytes`] has them: one of the [large parts](Self::large_parts).
    #[serde(skip)]
    ledger: Vec<u8>,
}

/// The virtio console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hvc {
    transport: Transport,
    typed: Vec<u8>,
    line: Vec<u8>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vd {
    transport: Transport,
    size: u64,
    /// One of the [large parts](BoardState::large_parts).
    #[serde(skip)]
    written: Option<Written>,
}

impl BoardState {
    /// What takes as much memory as it has bytes, one after the other: the ledger, and what was written to each disk.
    pub(crate) fn large_parts(&self) -> Vec<u8> {
        // Into memory it cannot fail.
        let mut bytes = postcard::to_stdvec(&self.ledger).unwrap_or_default();
        for disk in &self.disks {
            bytes.extend(postcard::to_stdvec(&disk.written).unwrap_or_default());
        }
        bytes
    }

    /// Puts the large parts where they belong, if these are just they.
    pub(crate) fn set_large_parts(&mut self, bytes: &[u8]) -> Option<()> {
        let (ledger, mut rest) = postcard::take_from_bytes(bytes).ok()?;
        self.ledger = ledger;
        for disk in &mut self.disks {
            (disk.written, rest) = postcard::take_from_bytes(rest).ok()?;
        }
        rest.is_empty().then_some(())
    }

    /// What its board has, in words.
    pub(crate) fn shape(&self) -> String {
        shape(
            self.acpi,
            self.hvc.is_some(),
            self.disks.iter().map(|disk| (disk.size, disk.written.is_some())),
        )
    }

    /// True if the guest was started with ACPI.
    pub(crate) fn has_acpi(&self) -> bool {
        self.acpi
    }

    /// True if it has a virtio console.
    pub(crate) fn has_virtio_console(&self) -> bool {
        self.hvc.is_some()
    }
}

/// Devices that a board may have or not, in words. Of disks size, and whether they can be written to.
fn shape(acpi: bool, console: bool, disks: impl Iterator<Item = (u64, bool)>) -> String {
    let acpi = if acpi { "ACPI, " } else { "" };
    let console = if console { "a virtio console" } else { "no virtio console" };
    let disks: Vec<String> = disks
        .map(|(size, writable)| format!("{size} bytes{}", if writable { "" } else { " read-only" }))
        .collect();
    if disks.is_empty() {
        format!("{acpi}{console}, no disk")
    } else {
        format!("{acpi}{console}, disks of {}", disks.join(" and "))
    }
}

impl Board {
    /// What devices, console and containment hold.
    pub(crate) fn state(&self) -> BoardState {
        // All fields by name: whoever adds one must decide here what becomes of it.
        // Addresses in the process are the host's.
        let Self {
            bus: _,
            console,
            uart,
            rtc,
            hvc,
            disks,
            containment,
            virtio: _,
            acpi,
            // The machine says so.
            el2: _,
            ledger,
            is_repeating: _,
        } = self;
        let mut uart = lock(uart);
        let hvc = hvc.as_deref().map(|hvc| {
            let mut hvc = lock(hvc);
            let transport = hvc.state();
            let (typed, output) = hvc.device().parts();
            Hvc { transport, typed: typed.iter().copied().collect(), line: output.begun_line().to_vec() }
        });
        let disks = disks.iter().map(|disk| {
            let mut disk = lock(disk);
            let transport = disk.state();
            let disk = disk.device().disk();
            Vd { transport, size: disk.size(), written: disk.written().cloned() }
        });
        BoardState {
            uart: uart.registers().clone(),
            uart_line: uart.output().begun_line().to_vec(),
            rtc: lock(rtc).registers().clone(),
            hvc,
            disks: disks.collect(),
            panic: console.panic(),
            stands_still: console.stands_still(),
            acpi: *acpi,
            containment: lock(containment).state(),
            ledger: ledger.with(Ledger::to_bytes),
        }
    }

    /// What this board has, in words.
    pub(crate) fn shape(&self) -> String {
        let disks = self.disks.iter().map(|disk| {
            let mut disk = lock(disk);
            let disk = disk.device().disk();
            (disk.size(), disk.written().is_some())
        });
        shape(self.acpi, self.hvc.is_some(), disks)
    }

    /// True if a board of this shape can be in this state.
    pub(crate) fn can_be(&self, state: &BoardState) -> bool {
        let hvc = match (&self.hvc, &state.hvc) {
            (Some(hvc), Some(state)) => lock(hvc).can_be(&state.transport),
            (None, None) => true,
            _ => false,
        };
        let disks = self.disks.iter().zip(&state.disks).all(|(disk, state)| {
            let mut disk = lock(disk);
            let is_alike = disk.can_be(&state.transport);
            let disk = disk.device().disk();
            is_alike
                && disk.size() == state.size
                && disk.written().is_some() == state.written.is_some()
                && state.written.as_ref().is_none_or(|written| written.fits(state.size))
        });
        // What writes there checks that it is RAM.
        let records = state.containment.records().is_none_or(|ghes| {
            let base = ghes.region().base;
            base < 1 << 48 && *ghes.region() == records_at(base) && ghes.is_sound()
        });
        let ledger = Ledger::from_bytes(&state.ledger).is_ok();
        let acpi = self.acpi == state.acpi && records && ledger;
        hvc && disks && acpi && self.disks.len() == state.disks.len() && state.uart.is_sound()
    }

    /// Devices, console and containment hold this again, which [can be](Self::can_be). Interrupt lines are the
    /// caller's.
    pub(crate) fn set_state(&self, state: &BoardState) {
        let mut uart = lock(&self.uart);
        uart.set_registers(state.uart.clone());
        uart.output().set_begun_line(&state.uart_line);
        drop(uart);
        lock(&self.rtc).set_registers(state.rtc.clone());
        if let (Some(hvc), Some(state)) = (&self.hvc, &state.hvc) {
            let mut hvc = lock(hvc);
            hvc.set_state(&state.transport);
            let (typed, output) = hvc.device().parts();
            *typed = state.typed.iter().copied().collect();
            output.set_begun_line(&state.line);
        }
        for (disk, state) in self.disks.iter().zip(&state.disks) {
            let mut disk = lock(disk);
            disk.set_state(&state.transport);
            disk.device().disk().set_written(state.written.clone());
        }
        self.console.set_panic(state.panic.clone(), state.stands_still);
        lock(&self.containment).set_state(&state.containment);
        self.is_repeating.store(true, Ordering::Relaxed);
        if let Ok(ledger) = Ledger::from_bytes(&state.ledger) {
            self.ledger.replace(ledger);
        }
    }

    /// Devices as they were in `new`, this board's state before its guest ran; containment of a guest that starts anew.
    /// What the guest wrote to disks stays, and so does the ledger.
    pub(crate) fn reset(&self, new: &BoardState) {
        let now = self.state();
        let mut state = new.clone();
        for (disk, now) in state.disks.iter_mut().zip(now.disks) {
            disk.written = now.written;
        }
        state.ledger = now.ledger;
        self.set_state(&state);
        let mut containment = lock(&self.containment);
        containment.set_state(&now.containment);
        containment.reset();
    }
}
