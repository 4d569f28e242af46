//! What each page of a Linux guest is used for, as its kernel says it: `/proc/kpageflags` and `/proc/iomem`, printed by
//! the guest in a fork of the snapshot.
//!
//! Source of the bits: Linux, include/uapi/linux/kernel-page-flags.h and include/linux/kernel-page-flags.h.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use seawall_machine::memory::PAGE_SIZE;

/// The prefix of the guest's lines: `census begin`, `census FILE BASE64`, then `census end`.
const PREFIX: &str = "census ";
/// The largest file that a guest may print, bytes.
const LARGEST: u64 = 256 << 20;

const DIRTY: u32 = 4;
const LRU: u32 = 5;
const SLAB: u32 = 7;
const BUDDY: u32 = 10;
const MMAP: u32 = 11;
const ANON: u32 = 12;
const SWAPBACKED: u32 = 14;
const NOPAGE: u32 = 20;
const ZERO_PAGE: u32 = 24;
const PGTABLE: u32 = 26;
const RESERVED: u32 = 32;

/// The files that a guest printed.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    base64: BTreeMap<String, String>,
    has_begun: bool,
    is_whole: bool,
}

impl Printed {
    pub(crate) fn line(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix(PREFIX) else { return };
        if let Some((file, data)) = rest.split_once(' ') {
            self.base64.entry(file.to_owned()).or_default().push_str(data.trim());
        }
        self.has_begun |= rest == "begin";
        self.is_whole |= rest == "end";
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A file, unpacked.
    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        let packed = STANDARD.decode(self.base64.get(name)?).ok()?;
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// The use of each page of RAM.
#[derive(Debug, Default)]
pub(crate) struct PageUses {
    flags: Vec<u64>,
    /// From `/proc/iomem`: the kernel's image.
    image: Vec<(Range<u64>, &'static str)>,
}

impl PageUses {
    pub(crate) fn of(printed: &Printed) -> Option<Self> {
        let words = |bytes: Vec<u8>| {
            let words = bytes.chunks_exact(8).filter_map(|word| word.first_chunk().copied());
            words.map(u64::from_le_bytes).collect()
        };
        let flags = words(printed.file("kpageflags")?);
        let iomem = String::from_utf8(printed.file("iomem")?).ok()?;
        Some(Self { flags, image: iomem.lines().filter_map(image_range).collect() })
    }

    /// The use of the page at a physical address.
    pub(crate) fn of_page(&self, page: u64) -> &'static str {
        if let Some((_, name)) = self.image.iter().find(|(range, _)| range.contains(&page)) {
            return name;
        }
        match self.flags.get((page / PAGE_SIZE) as usize) {
            Some(flags) => by_flags(*flags),
            None if self.flags.is_empty() => "unknown",
            None => "not the kernel's",
        }
    }
}

/// `  40210000-4107ffff : Kernel code`
fn image_range(line: &str) -> Option<(Range<u64>, &'static str)> {
    let (range, what) = line.trim().split_once(" : ")?;
    let name = match what {
        "Kernel code" => "kernel text",
        "Kernel data" => "kernel data",
        _ => return None,
    };
    let (first, last) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(first)?..address(last)?.checked_add(1)?, name))
}

fn by_flags(flags: u64) -> &'static str {
    let has = |bit: u32| flags >> bit & 1 != 0;
    match () {
        () if has(NOPAGE) => "not the kernel's",
        () if has(PGTABLE) => "page table",
        () if has(SLAB) => "slab",
        () if has(BUDDY) => "free",
        () if has(ZERO_PAGE) => "zero page",
        () if has(ANON) => "anonymous",
        () if (has(LRU) || has(MMAP)) && has(SWAPBACKED) => "file in memory",
        () if (has(LRU) || has(MMAP)) && has(DIRTY) => "file, dirty",
        () if has(LRU) || has(MMAP) => "file, clean",
        () if has(RESERVED) => "reserved by the kernel",
        () => "kernel, other",
    }
}

/// The kernel's functions by address.
#[derive(Debug, Default)]
pub(crate) struct Symbols(Vec<(u64, String)>);

impl Symbols {
    pub(crate) fn of(printed: &Printed) -> Option<Self> {
        let text = printed.file("symbols")?;
        let text = String::from_utf8_lossy(&text);
        let symbol = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((address, words.nth(1)?.to_owned()))
        };
        let mut symbols: Vec<_> = text.lines().filter_map(symbol).collect();
        symbols.sort();
        Some(Self(symbols))
    }

    /// The function that an address of the kernel is in.
    pub(crate) fn name(&self, pc: u64) -> Option<&str> {
        let after = self.0.partition_point(|(address, _)| *address <= pc);
        self.0.get(after.checked_sub(1)?).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn printed(files: &[(&str, &[u8])]) -> Printed {
        let mut printed = Printed::default();
        for (name, bytes) in files {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(bytes).unwrap();
            let text = STANDARD.encode(packer.finish().unwrap());
            let (first, second) = text.split_at(text.len() / 2);
            printed.line(&format!("census {name} {first}"));
            printed.line("database: alive 3");
            printed.line(&format!("census {name} {second}"));
        }
        assert!(!printed.is_whole());
        printed.line("census end");
        printed
    }

    #[test]
    fn a_page_has_the_use_that_the_kernel_says() {
        let flags: Vec<u8> = [1_u64 << 10, 1 << 7, 1 << 12 | 1 << 5, 1 << 5, 1 << 5 | 1 << 4, 1 << 26, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let iomem = b"40000000-47ffffff : System RAM\n  00006000-00006fff : Kernel code\n";
        let uses = PageUses::of(&printed(&[("kpageflags", &flags), ("iomem", iomem)])).unwrap();
        let of: Vec<&str> = (0..8).map(|page| uses.of_page(page * 4096)).collect();
        assert_eq!(
            of,
            [
                "free",
                "slab",
                "anonymous",
                "file, clean",
                "file, dirty",
                "page table",
                "kernel text",
                "not the kernel's"
            ]
        );
        assert_eq!(PageUses::default().of_page(0), "unknown");
    }

    #[test]
    fn a_program_counter_has_the_name_of_the_function_around_it() {
        let text = b"ffff800080010000 T _text\nffff800080010400 t copy\n";
        let symbols = Symbols::of(&printed(&[("symbols", text)])).unwrap();
        assert_eq!(symbols.name(0xffff_8000_8001_0404), Some("copy"));
        assert_eq!(symbols.name(0xffff_8000_8001_0000), Some("_text"));
        assert_eq!(symbols.name(0x40_0000), None);
    }

    #[test]
    fn what_a_guest_prints_amiss_is_no_file() {
        let mut printed = Printed::default();
        printed.line("census kpageflags !!!");
        printed.line("census end");
        assert!(PageUses::of(&printed).is_none());
    }
}
