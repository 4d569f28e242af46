//! The ACPI tables of the board: what the device tree says, and where records of memory errors appear.
//!
//! Source: ACPI 6.5, 5.2 and 18.3.2; Arm BBR 2.1, 8.4 (which tables); SPCR 4; for the devices' names Linux,
//! arch/arm64/acpi_object_usage.rst.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    Arg, Device, Interrupt, Memory32Fixed, Method, Name, Path, ResourceTemplate, Return, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{
    EnabledStatus, GicVersion, Gicc, Gicd, Gicr, LocalInterruptController, MADT, Trigger,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use seawall::apei::ghes::Region;
use seawall::apei::hest;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::fdt::Platform;
use crate::layout;

const OEM: [u8; 6] = *b"SEAWLL";
const OEM_TABLE: [u8; 8] = *b"SEAWALL ";
const OEM_REVISION: u32 = 1;
/// Bytes of a table's header.
const HEADER: u32 = 36;
/// Tables begin at multiples of this.
const ALIGN: usize = 64;
/// GSI of SPI 0.
const FIRST_SPI: u32 = 32;
/// GSIs of the secure, physical, virtual and hypervisor timers.
const TIMERS: [u32; 4] = [29, 30, 27, 26];
/// GSI of the PMU.
const PMU: u32 = 23;
/// Level-sensitive, active high, and it goes on while the CPU sleeps.
const TIMER_FLAGS: u32 = 1 << 2;
/// Of the FADT: there is PSCI, and one calls it by HVC.
const PSCI_BY_HVC: u16 = 1 | 1 << 1;
/// There is no register.
const NO_REGISTER: u64 = u64::MAX;

/// ACPI 6.5, 5.2.25: what follows the header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Gtdt {
    counter_control: U64,
    reserved: U32,
    /// GSI and flags, of [`TIMERS`].
    timers: [[U32; 2]; 4],
    counter_read: U64,
    platform_timers: U32,
    platform_timer_offset: U32,
    virtual_el2: [U32; 2],
}

/// SPCR 2: what follows the header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Spcr {
    interface: u8,
    reserved: [u8; 3],
    address_space: [u8; 4],
    address: U64,
    interrupt_type: u8,
    irq: u8,
    gsi: U32,
    baud_rate: u8,
    parity: u8,
    stop_bits: u8,
    flow_control: u8,
    terminal: u8,
    language: u8,
    pci_ids: [U16; 2],
    pci_place: [u8; 3],
    pci_flags: U32,
    pci_segment: u8,
    reserved_end: U32,
}

const _: () = assert!(size_of::<Gtdt>() == 104 - 36 && size_of::<Spcr>() == 80 - 36);

/// The tables, one behind the other from `base` on, and the address of the RSDP among them.
pub fn tables(base: u64, platform: &Platform<'_>, records: &Region) -> (Vec<u8>, u64) {
    let mut tables = Tables { base, bytes: Vec::new() };
    let dsdt = tables.put(dsdt(platform).as_slice());
    let fadt = tables.put(&fadt(dsdt));
    let others = [madt(platform), gtdt(), spcr(), hest::table(&records.sources())];
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    for table in others {
        xsdt.add_entry(tables.put(&table));
    }
    let xsdt = tables.put(&bytes(&xsdt));
    let rsdp = tables.put(&bytes(&Rsdp::new(OEM, xsdt)));
    (tables.bytes, rsdp)
}

struct Tables {
    base: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Puts a table behind the others; gives its address.
    fn put(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        address
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn with_header(signature: [u8; 4], revision: u8, rest: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(rest);
    table.as_slice().to_vec()
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION).dsdt_64(dsdt).flag(Flags::HwReducedAcpi);
    fadt.arm_boot_arch = PSCI_BY_HVC.into();
    bytes(&fadt.finalize())
}

fn madt(platform: &Platform<'_>) -> Vec<u8> {
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(0));
    madt.add_structure(Gicd::new(0, layout::GIC_DISTRIBUTOR.start, GicVersion::GICv3));
    for cpu in 0..platform.cpus {
        let gicc = Gicc::new(EnabledStatus::Enabled);
        let gicc = gicc.cpu_interface_number(cpu).acpi_processor_uid(cpu);
        let gicc = gicc.mpidr(layout::affinity(cpu).into());
        let with_pmu = gicc.performance_interrupt(PMU, Trigger::Level);
        madt.add_structure(if platform.pmu { with_pmu } else { gicc });
    }
    let length = layout::GIC_REDISTRIBUTOR_SIZE * u64::from(platform.cpus);
    madt.add_structure(Gicr::new(layout::GIC_REDISTRIBUTORS.start, length as u32));
    bytes(&madt)
}

fn gtdt() -> Vec<u8> {
    let gtdt = Gtdt {
        counter_control: NO_REGISTER.into(),
        reserved: 0.into(),
        timers: TIMERS.map(|gsi| [gsi.into(), TIMER_FLAGS.into()]),
        counter_read: NO_REGISTER.into(),
        platform_timers: 0.into(),
        platform_timer_offset: 0.into(),
        virtual_el2: [0.into(); 2],
    };
    with_header(*b"GTDT", 3, gtdt.as_bytes())
}

fn spcr() -> Vec<u8> {
    let spcr = Spcr {
        interface: 3, // PL011
        reserved: [0; 3],
        address_space: [0, 32, 0, 3],
        address: layout::UART.start.into(),
        interrupt_type: 1 << 3, // GIC
        irq: 0,
        gsi: (FIRST_SPI + layout::UART_SPI).into(),
        baud_rate: 0, // as it is
        parity: 0,
        stop_bits: 1,
        flow_control: 0,
        terminal: 3, // ANSI
        language: 0,
        pci_ids: [0xffff.into(); 2],
        pci_place: [0; 3],
        pci_flags: 0.into(),
        pci_segment: 0,
        reserved_end: 0.into(),
    };
    with_header(*b"SPCR", 2, spcr.as_bytes())
}

/// CPUs, UART and virtio transports; `_OSC`.
fn dsdt(platform: &Platform<'_>) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, 2, OEM, OEM_TABLE, OEM_REVISION);
    let uart = device("COM0", "ARMH0011", 0, Some((&layout::UART, layout::UART_SPI)));
    let cpus = (0..platform.cpus).map(|cpu| device(&format!("C{cpu:03X}"), "ACPI0007", cpu, None));
    let virtio = (0..layout::VIRTIO_TRANSPORTS).map(|number| {
        let spi = layout::VIRTIO_SPI + number;
        device(&format!("VR{number:02X}"), "LNRO0005", number, Some((&layout::virtio(number), spi)))
    });
    let devices: Vec<Raw> = cpus.chain([uart]).chain(virtio).collect();
    // Whatever the guest asks to be in control of, it is: Linux wants to hear that of APEI.
    let capabilities = Return::new(&Arg(3));
    let granted = Method::new("_OSC".into(), 4, false, vec![&capabilities]);
    let devices = devices.iter().map(|device| device as &dyn Aml);
    let children = std::iter::once(&granted as &dyn Aml).chain(devices).collect();
    dsdt.append_slice(&bytes(&Scope::new(Path::new("\\_SB_"), children)));
    dsdt
}

/// AML that is made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn device(name: &str, hid: &'static str, uid: u32, resources: Option<(&Range<u64>, u32)>) -> Raw {
    let hid = Name::new("_HID".into(), &hid);
    let uid = Name::new("_UID".into(), &uid);
    let Some((registers, spi)) = resources else {
        return Raw(bytes(&Device::new(name.into(), vec![&hid, &uid])));
    };
    let size = (registers.end - registers.start) as u32;
    let memory = Memory32Fixed::new(true, registers.start as u32, size);
    let interrupt = Interrupt::new(true, false, false, false, FIRST_SPI + spi);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &interrupt]));
    // What it reads and writes is coherent with the CPUs' caches.
    let coherent = Name::new("_CCA".into(), &1_u8);
    Raw(bytes(&Device::new(name.into(), vec![&hid, &uid, &coherent, &resources])))
}
