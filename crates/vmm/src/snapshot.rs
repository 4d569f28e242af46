//! Snapshots of a guest with its devices.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use seawall_machine::{SnapshotLimits, StateHash};

use crate::board::BoardState;
use crate::load::Placement;
use crate::server;
use crate::{Config, Error};

/// A [`SoftwareMachine`](crate::SoftwareMachine) at one moment: CPUs, memory, devices, what was typed, and what
/// containment remembers. A clone is the same snapshot and costs nothing.
///
/// Not in it are what is the host's: the policy, the observer, and the files of disks, of which a snapshot holds what
/// the guest wrote.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) machine: seawall_machine::Snapshot,
    pub(crate) devices: Arc<Devices>,
}

/// What is around the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Devices {
    pub(crate) placement: Placement,
    pub(crate) board: BoardState,
    /// The levels of the SPIs as the devices drive them, and as the interrupt controller knows them.
    pub(crate) levels: u64,
    pub(crate) known: u64,
    /// The vCPU that the last run ended on.
    pub(crate) current: u32,
    /// When devices go on with what was too much for them at once.
    pub(crate) continues_at: Option<u64>,
    /// What is typed and was not yet taken.
    pub(crate) typed: Vec<u8>,
    pub(crate) types_to_driver: bool,
    /// Of a machine with EL2, behind the rest.
    #[serde(skip)]
    pub(crate) server: Option<server::State>,
}

/// Bytes of all but the large parts. Lists may take fourteen times as much memory as they have bytes; no board comes to a
/// third of this, most of it records that wait for a guest.
const SMALL_PARTS: usize = 1 << 20;

impl Devices {
    /// All but the large parts, and behind that the [large parts](BoardState::large_parts).
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Into memory it cannot fail.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        if let Some(server) = &self.server {
            bytes.extend(postcard::to_stdvec(server).unwrap_or_default());
            bytes.extend(postcard::to_stdvec(&server.ranges()).unwrap_or_default());
        }
        bytes.extend(self.board.large_parts());
        bytes
    }

    fn decode(bytes: &[u8], el2: bool) -> Option<Self> {
        let head = bytes.get(..bytes.len().min(SMALL_PARTS))?;
        let (mut devices, rest) = postcard::take_from_bytes::<Self>(head).ok()?;
        if !el2 {
            devices.board.set_large_parts(bytes.get(head.len() - rest.len()..)?)?;
            return Some(devices);
        }
        let (mut server, rest) = postcard::take_from_bytes::<server::State>(rest).ok()?;
        let (ranges, rest) =
            postcard::take_from_bytes::<&[u8]>(bytes.get(head.len() - rest.len()..)?).ok()?;
        server.set_ranges(ranges)?;
        devices.board.set_large_parts(rest)?;
        devices.server = Some(server).filter(server::State::is_sound);
        devices.server.is_some().then_some(devices)
    }
}

/// The largest attachment of a snapshot with disks, in bytes: it holds the sectors that the guest wrote.
const WITH_DISKS: u64 = 1 << 30;

impl Snapshot {
    /// Limits for the file of a machine with so many bytes of RAM: the default ones, or more. With disks the file holds what
    /// the guest wrote to them, up to 1 GiB.
    pub fn limits(memory: u64, has_disks: bool) -> SnapshotLimits {
        let default = SnapshotLimits::default();
        SnapshotLimits {
            memory: default.memory.max(memory),
            attachment: if has_disks { WITH_DISKS } else { default.attachment },
        }
    }

    /// Writes the snapshot as a file: the machine's (see [`seawall_machine::Snapshot::save`]) with the devices attached.
    ///
    /// # Errors
    /// [`Error::Snapshot`].
    pub fn save(&self, to: impl Write) -> Result<(), Error> {
        Ok(self.machine.save_with(to, &self.devices.encode())?)
    }

    /// Reads a snapshot from a file, to its end, within the default [`SnapshotLimits`].
    ///
    /// # Errors
    /// As [`Snapshot::load_within`].
    pub fn load(from: impl Read) -> Result<Self, Error> {
        Self::load_within(from, &SnapshotLimits::default())
    }

    /// Reads a snapshot from a file, to its end.
    ///
    /// # Errors
    /// [`Error::Snapshot`] unless it is a whole and undamaged snapshot, [`Error::NoDevices`].
    pub fn load_within(from: impl Read, limits: &SnapshotLimits) -> Result<Self, Error> {
        let (machine, attachment) = seawall_machine::Snapshot::load_with(from, limits)?;
        let devices = Devices::decode(&attachment, machine.config().el2).ok_or(Error::NoDevices)?;
        Ok(Self { machine, devices: Arc::new(devices) })
    }

    /// What a machine must have to go on from here, but for its disks: a disk for each that it had then.
    pub fn config(&self) -> Config {
        let machine = self.machine.config();
        let mut config = Config::new(machine.memory_size);
        config.cpus = machine.cpus as u32;
        config.el2 = machine.el2;
        config.acpi = self.devices.board.has_acpi();
        config.virtio_console = self.devices.board.has_virtio_console();
        config
    }

    /// The machine's time, nanoseconds.
    pub fn time(&self) -> u64 {
        self.machine.time()
    }

    /// The machine without its devices.
    pub fn machine(&self) -> &seawall_machine::Snapshot {
        &self.machine
    }
}

/// The hash of a machine's state and that of its devices.
pub(crate) fn state_hash(machine: StateHash, devices: &Devices) -> StateHash {
    machine.with(&devices.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::{Guest, SoftwareMachine};

    fn devices() -> Devices {
        let guest = Guest {
            kernel: Kernel::Flat(vec![0; 4]),
            address: None,
            initrd: None,
            command_line: String::new(),
        };
        let mut machine =
            SoftwareMachine::new(Config::new(2 << 20), &guest, Box::new(())).expect("a machine");
        Devices::clone(&machine.snapshot().expect("room").devices)
    }

    #[test]
    fn lists_that_no_board_has_are_given_up_after_a_mebibyte() {
        let mut devices = devices();
        for (typed, is_taken) in [(1 << 19, true), (1 << 20, false), (15 << 20, false)] {
            devices.typed = vec![7; typed];
            let decoded = Devices::decode(&devices.encode(), false);
            assert_eq!(decoded, is_taken.then(|| devices.clone()), "{typed} bytes");
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_no_board() {
        let mut bytes = devices().encode();
        for length in 0..bytes.len() {
            assert_eq!(Devices::decode(&bytes[..length], false), None, "{length}");
        }
        bytes.push(0);
        assert_eq!(Devices::decode(&bytes, false), None);
    }
}
