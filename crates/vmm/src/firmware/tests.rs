//! What a guest finds, read as it reads it: from the system table on.

use super::*;

/// 16 MiB of RAM.
const RAM: Range<u64> = 0x4000_0000..0x4100_0000;

fn firmware(cpus: u32) -> Firmware {
    firmware_in(&Ram::new(RAM), cpus)
}

fn firmware_in(memory: &Ram, cpus: u32) -> Firmware {
    let platform = Platform { memory, cpus, command_line: "", initrd: None, pmu: true, el2: false };
    Firmware::new(&platform).expect("it fits")
}

/// The firmware in memory: its bytes by guest physical address.
struct InMemory {
    base: u64,
    bytes: Vec<u8>,
}

impl InMemory {
    fn new(cpus: u32) -> Self {
        let firmware = firmware(cpus);
        let mut bytes = vec![0; SIZE as usize];
        for (address, part) in firmware.parts() {
            let at = (address - firmware.range.start) as usize;
            bytes[at..at + part.len()].copy_from_slice(part);
        }
        Self { base: firmware.range.start, bytes }
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.bytes[(address - self.base) as usize..]
    }

    fn word(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.at(address)[..4].try_into().unwrap())
    }

    fn long(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.at(address)[..8].try_into().unwrap())
    }

    /// A table with its length and checksum right.
    fn table(&self, address: u64) -> &[u8] {
        let table = &self.at(address)[..self.word(address + 4) as usize];
        assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{address:#x}");
        table
    }

    /// The RSDP by the system table's configuration table.
    fn rsdp(&self) -> u64 {
        let system_table = 0x40ff_e000;
        self.long(self.long(system_table + 112) + 16)
    }

    /// The tables that the XSDT lists.
    fn listed(&self) -> Vec<&[u8]> {
        let xsdt = self.long(self.rsdp() + 24);
        let entries = (self.table(xsdt).len() as u64 - 36) / 8;
        (0..entries).map(|entry| self.table(self.long(xsdt + 36 + entry * 8))).collect()
    }

    fn named(&self, signature: &[u8]) -> &[u8] {
        self.listed().into_iter().find(|table| table.starts_with(signature)).expect("it is listed")
    }
}

/// By UEFI's system table and configuration table.
#[test]
fn the_system_table_leads_to_an_rsdp_with_its_checksums_right() {
    let memory = InMemory::new(1);
    let rsdp = &memory.at(memory.rsdp())[..36];
    assert_eq!(rsdp[..8], *b"RSD PTR ");
    assert_eq!(rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(rsdp[..20].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

/// UEFI 2.10, 7.2.3: type, address, pages, write-back.
#[test]
fn the_memory_map_has_all_of_ram_and_keeps_the_firmware_from_the_guest() {
    let firmware = firmware(1);
    let memory = InMemory::new(1);
    let handover = firmware.handover;
    assert_eq!((handover.mmap_size, handover.mmap_desc_size, handover.mmap_desc_ver), (160, 40, 1));
    let descriptors: Vec<_> = (0..4)
        .map(|number| handover.mmap_start + number * 40)
        .map(|at| (memory.word(at), memory.long(at + 8), memory.long(at + 24), memory.long(at + 32)))
        .collect();
    assert_eq!(
        descriptors,
        [
            (7, 0x4000_0000, 0xfe0, 8),
            (10, 0x40fe_0000, 0x8, 8),
            (9, 0x40fe_8000, 0x16, 8),
            (0, 0x40ff_e000, 0x2, 8),
        ]
    );
}

/// Arm BBR 2.1, 8.4, and the HEST.
#[test]
fn the_tables_that_linux_needs_are_listed() {
    let memory = InMemory::new(2);
    let names: Vec<_> = memory.listed().iter().map(|table| table[..4].escape_ascii().to_string()).collect();
    assert_eq!(names, ["FACP", "APIC", "GTDT", "SPCR", "HEST"]);
}

/// ACPI 6.5, 5.2.9: HW_REDUCED_ACPI, PSCI by HVC, the DSDT at X_DSDT.
#[test]
fn the_fadt_says_that_there_is_psci_by_hvc() {
    let memory = InMemory::new(1);
    let fadt = memory.named(b"FACP");
    assert_eq!((fadt[8], fadt.len()), (6, 276));
    assert_eq!(fadt[112..116], [0, 0, 0x10, 0]);
    assert_eq!(fadt[129..131], [3, 0]);
    let dsdt = u64::from_le_bytes(fadt[140..148].try_into().unwrap());
    assert_eq!(memory.table(dsdt)[..4], *b"DSDT");
}

/// LNRO0005 is a virtio-mmio transport to Linux; all 32 are there, as in the device tree.
#[test]
fn the_dsdt_has_all_virtio_transports() {
    let memory = InMemory::new(1);
    let dsdt =
        u64::from_le_bytes(memory.named(b"FACP").get(140..148).unwrap_or_default().try_into().unwrap());
    let dsdt = memory.table(dsdt);
    let count = |name: &[u8]| dsdt.windows(name.len()).filter(|part| *part == name).count();
    assert_eq!((count(b"LNRO0005"), count(b"VR00"), count(b"VR1F")), (32, 1, 1));
}

/// ACPI 6.5, 5.2.12.14 to 5.2.12.17: GICD, a GICC for each CPU, GICR.
#[test]
fn the_madt_has_each_cpu_by_its_affinity_and_the_gic_where_the_layout_has_it() {
    let memory = InMemory::new(17);
    let madt = memory.named(b"APIC");
    let (mut at, mut found) = (44, Vec::new());
    while at < madt.len() {
        found.push(&madt[at..at + usize::from(madt[at + 1])]);
        at += usize::from(madt[at + 1]);
    }
    let kinds: Vec<_> = found.iter().map(|entry| entry[0]).collect();
    assert_eq!(kinds, [&[12][..], &[11; 17], &[14]].concat());
    assert_eq!(found[0][8..21], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let cpu =
        |number: usize| (found[number + 1][8], found[number + 1][12], found[number + 1][68..71].to_vec());
    assert_eq!(cpu(0), (0, 1, vec![0, 0, 0]));
    assert_eq!(cpu(16), (16, 1, vec![0, 1, 0]));
    assert_eq!((found[1][5 + 15], found[1][12] & 2), (23, 0));
    assert_eq!(found[18][4..16], [0, 0, 0x0a, 0x08, 0, 0, 0, 0, 0, 0, 0x22, 0]);
}

/// ACPI 6.5, 5.2.25: GSIs 29, 30, 27, 26, level-sensitive, active high, always on; no memory-mapped timer.
#[test]
fn the_gtdt_has_the_four_timers() {
    let memory = InMemory::new(1);
    let gtdt = memory.named(b"GTDT");
    assert_eq!(gtdt.len(), 104);
    assert_eq!(gtdt[36..44], [0xff; 8]);
    let timers: Vec<_> = (0..4).map(|timer| (gtdt[48 + timer * 8], gtdt[52 + timer * 8])).collect();
    assert_eq!(timers, [(29, 4), (30, 4), (27, 4), (26, 4)]);
    assert_eq!(gtdt[80..88], [0xff; 8]);
}

#[test]
fn the_console_is_the_pl011() {
    let memory = InMemory::new(1);
    let spcr = memory.named(b"SPCR");
    assert_eq!((spcr.len(), spcr[36]), (80, 3));
    assert_eq!(spcr[40..52], [0, 32, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0]);
    assert_eq!(spcr[52..58], [8, 0, 33, 0, 0, 0]);
}

/// 32 sources by SEA, 8 polled, the first one's registers at the beginning of the firmware.
#[test]
fn the_hest_points_into_memory_that_the_guest_does_not_use() {
    let memory = InMemory::new(1);
    let hest = memory.named(b"HEST");
    assert_eq!(hest[36..40], [40, 0, 0, 0]);
    assert_eq!(hest[40 + 24..40 + 32], [0, 0, 0xfe, 0x40, 0, 0, 0, 0]);
    let notifications: Vec<_> = (0..40).map(|source| hest[40 + source * 92 + 32]).collect();
    assert_eq!(notifications, [[8; 32].as_slice(), &[0; 8]].concat());
}

#[test]
fn the_records_end_before_the_tables_begin() {
    let firmware = firmware(1);
    assert_eq!((firmware.records.base, firmware.records.size()), (0x40fe_0000, 0x5000));
    assert_eq!(firmware.parts()[0].0, 0x40fe_8000);
}

#[test]
fn the_most_cpus_fit() {
    let firmware = firmware(crate::layout::MAX_CPUS);
    assert!((firmware.tables.len() as u64) < 0x1_6000);
    let memory = InMemory::new(crate::layout::MAX_CPUS);
    assert_eq!(memory.named(b"APIC").len(), 44 + 24 + 123 * 82 + 16);
}

/// UEFI 2.10, 7.2.3: EfiUnusableMemory.
#[test]
fn memory_that_could_not_be_healed_is_unusable_in_the_map_and_the_firmware_lies_elsewhere() {
    let ram = Ram::without(RAM, [0x4080_0000..0x4080_1000, 0x40ff_f000..0x4100_0000]);
    let firmware = firmware_in(&ram, 1);
    assert_eq!(firmware.range, 0x40fd_f000..0x40ff_f000);
    let map: Vec<_> =
        map(&ram, &firmware.range).into_iter().map(|memory| (memory.range, memory.kind)).collect();
    assert_eq!(
        map,
        [
            (0x4000_0000..0x4080_0000, MemoryType::CONVENTIONAL),
            (0x4080_0000..0x4080_1000, MemoryType::UNUSABLE),
            (0x4080_1000..0x40fd_f000, MemoryType::CONVENTIONAL),
            (0x40fd_f000..0x40fe_7000, MemoryType::ACPI_NVS),
            (0x40fe_7000..0x40ff_d000, MemoryType::ACPI_RECLAIM),
            (0x40ff_d000..0x40ff_f000, MemoryType::RESERVED),
            (0x40ff_f000..0x4100_0000, MemoryType::UNUSABLE),
        ]
    );
}
