//! The MMIO transport, version 2 (virtio 1.2, 4.2.2).

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::{Device, DeviceMemory, Work};
use crate::interrupt::InterruptLine;

// Register offsets, bytes (virtio 1.2, table 4.1).
pub(super) const MAGIC_VALUE: u64 = 0x000;
pub(super) const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
pub(super) const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
/// Length and address of a shared memory region: all ones, there is none.
const SHM: std::ops::RangeInclusive<u64> = 0x0b0..=0x0bc;
const CONFIG: u64 = 0x100;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Not the legacy interface.
pub(super) const VERSION_2: u32 = 2;
/// "SWAL": any number will do.
pub(super) const VENDOR: u32 = u32::from_le_bytes(*b"SWAL");
/// InterruptStatus: a buffer was used; the configuration changed, or the device needs a reset.
const USED_BUFFER: u32 = 1;
const CONFIGURATION: u32 = 2;

/// A virtio device with its registers.
#[derive(Debug)]
pub struct VirtioMmio<D, L> {
    device: D,
    line: L,
    queues: Vec<Queue>,
    registers: Registers,
}

/// What the driver wrote, and what it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Registers {
    status: u32,
    interrupts: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    /// The queues, a bit each, that the driver notified of and that were not looked at since.
    notified: u64,
    /// Bytes of a queue's first chain that are done: one queue of a device has chains that it does in parts.
    done: u64,
}

/// What a snapshot holds of the transport.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct State {
    registers: Registers,
    queues: Vec<SavedQueue>,
}

/// [`QueueState`] less the size that the device gives it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct SavedQueue {
    next_avail: u16,
    next_used: u16,
    event_idx_enabled: bool,
    size: u16,
    ready: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
}

impl SavedQueue {
    fn of(queue: &Queue) -> Self {
        let QueueState {
            max_size: _,
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        } = queue.state();
        Self { next_avail, next_used, event_idx_enabled, size, ready, desc_table, avail_ring, used_ring }
    }

    fn queue(&self, max_size: u16) -> Option<Queue> {
        let &Self {
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        } = self;
        let state = QueueState {
            max_size,
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        };
        Queue::try_from(state).ok()
    }
}

impl State {
    /// The queues of a device of this kind in this state, if it can be.
    fn queues(&self, sizes: &[u16]) -> Option<Vec<Queue>> {
        let queues = self.queues.iter().zip(sizes).map(|(ring, size)| ring.queue(*size));
        if self.queues.len() == sizes.len() { queues.collect() } else { None }
    }
}

impl<D: Device, L: InterruptLine> VirtioMmio<D, L> {
    /// What a snapshot holds of the transport.
    pub(crate) fn state(&self) -> State {
        State { registers: self.registers.clone(), queues: self.queues.iter().map(SavedQueue::of).collect() }
    }

    /// Whether a device of this kind can be in this state.
    pub(crate) fn can_be(&self, state: &State) -> bool {
        state.queues(self.device.queues()).is_some()
    }

    /// It is again as it was; nothing, if it cannot be. The interrupt line is the caller's.
    pub(crate) fn set_state(&mut self, state: &State) {
        if let Some(queues) = state.queues(self.device.queues()) {
            self.queues = queues;
            self.registers = state.registers.clone();
        }
    }

    /// The device after reset.
    pub fn new(device: D, line: L) -> Self {
        // A size that is no power of two would leave the queue out, and then the driver does not find it.
        let queues = device.queues().iter().filter_map(|size| Queue::new(*size).ok()).collect();
        Self { device, line, queues, registers: Registers::default() }
    }

    /// The device behind the registers.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// A driver said that it is ready.
    pub fn is_driven(&self) -> bool {
        self.registers.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
    }

    /// The driver said that something is in a queue, and nobody has looked since.
    pub fn is_notified(&self) -> bool {
        self.registers.notified != 0
    }

    /// The host has something for queue `index`: it is looked at as if the driver had said so.
    pub fn notify(&mut self, index: usize) {
        if index < self.queues.len() {
            self.registers.notified |= 1 << index;
        }
    }

    /// Does what is in the queues that there was notice of, up to the work that the device does at once: if there is
    /// more, the queue [stays notified](Self::is_notified). It is not done at the notice itself: on the software
    /// machine memory is not at hand while a vCPU is served.
    pub fn process<M: DeviceMemory>(&mut self, memory: &M) {
        let notified = std::mem::take(&mut self.registers.notified);
        for index in (0..self.queues.len()).filter(|index| notified >> index & 1 != 0) {
            self.process_queue(index, memory);
        }
    }

    fn process_queue<M: DeviceMemory>(&mut self, index: usize, memory: &M) {
        let status = self.registers.status;
        let Some(queue) = self.queues.get_mut(index) else { return };
        // Before DRIVER_OK the device must not touch the queues (virtio 1.2, 3.1.1), nor if it needs a reset.
        let is_ready = status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
        if is_ready != VIRTIO_CONFIG_S_DRIVER_OK || !queue.is_valid(memory) {
            return;
        }
        let mut work = Work::new(self.device.bytes_at_once(), self.registers.done);
        let done = self.device.process(index, queue, memory, &mut work);
        self.registers.done = work.done;
        if work.is_over() && done.is_ok() {
            self.registers.notified |= 1 << index;
        }
        match done {
            Ok(false) => return,
            Ok(true) if !queue.needs_notification(memory).unwrap_or(true) => return,
            Ok(true) => self.registers.interrupts |= USED_BUFFER,
            // virtio 1.2, 2.1.1 and 2.1.2: a device that cannot go on says so.
            Err(super::BadQueue) => {
                self.registers.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
                self.registers.interrupts |= USED_BUFFER | CONFIGURATION;
            }
        }
        self.line.set(true);
    }

    fn features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    fn read(&self, register: u64) -> u32 {
        let queue = self.queues.get(self.registers.queue_sel as usize);
        match register {
            MAGIC_VALUE => MAGIC,
            VERSION => VERSION_2,
            DEVICE_ID => self.device.id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.features(), self.registers.device_features_sel),
            QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            QUEUE_READY => queue.is_some_and(QueueT::ready).into(),
            INTERRUPT_STATUS => self.registers.interrupts,
            STATUS => self.registers.status,
            _ if SHM.contains(&register) => u32::MAX,
            // ConfigGeneration among them: the configuration never changes.
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        match register {
            DEVICE_FEATURES_SEL => self.registers.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.registers.driver_features_sel = value,
            DRIVER_FEATURES if self.registers.driver_features_sel < 2 => {
                let features = &mut self.registers.driver_features;
                let shift = 32 * self.registers.driver_features_sel;
                *features = *features & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            QUEUE_SEL => self.registers.queue_sel = value,
            QUEUE_NOTIFY => self.notify(value as usize),
            INTERRUPT_ACK => {
                self.registers.interrupts &= !value;
                self.line.set(self.registers.interrupts != 0);
            }
            STATUS => self.set_status(value),
            _ => self.write_queue(register, value),
        }
    }

    /// Registers of the queue that is selected. What they hold is checked when the queue is used.
    fn write_queue(&mut self, register: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.registers.queue_sel as usize) else { return };
        match register {
            QUEUE_NUM => queue.set_size(value as u16),
            QUEUE_READY => queue.set_ready(value & 1 != 0),
            QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Writing 0 resets the device; FEATURES_OK is kept only if the driver asks for nothing that was not offered.
    fn set_status(&mut self, status: u32) {
        if status == 0 {
            self.queues.iter_mut().for_each(QueueT::reset);
            self.registers = Registers::default();
            self.line.set(false);
            return;
        }
        let is_offered = self.registers.driver_features & !self.features() == 0;
        let status = if is_offered { status } else { status & !VIRTIO_CONFIG_S_FEATURES_OK };
        self.registers.status = status | self.registers.status & VIRTIO_CONFIG_S_NEEDS_RESET;
    }
}

/// Half `number` of the feature bits; there are two.
fn half(features: u64, number: u32) -> u32 {
    match number {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Registers are 32 bits wide; the configuration space takes any access.
impl<D: Device, L: InterruptLine> MutDeviceMmio for VirtioMmio<D, L> {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            let config = self.device.config().get(at as usize..).unwrap_or_default();
            data.iter_mut().zip(config).for_each(|(to, from)| *to = *from);
            return;
        }
        let value = self.read(offset & !3).to_le_bytes();
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        // The devices here have nothing to configure.
        if offset >= CONFIG {
            return;
        }
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        self.write(offset & !3, u32::from_le_bytes(value));
    }
}

#[cfg(test)]
pub(super) mod tests;
