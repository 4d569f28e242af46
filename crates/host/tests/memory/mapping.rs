//! Memory as VMMs map it, and a thread without privileges.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::{fs, io, ptr};

use libc::c_int;
use seawall_host::{Backing, page_size};

pub(crate) const HUGE: u64 = 2 << 20;

/// A number of pages, each with its number, from 1, in its first byte.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    /// Size of a page in bytes, or of a huge page.
    pub(crate) page: u64,
    pages: u64,
    pub(crate) backing: Backing,
    /// The file behind the mapping, if it is shared.
    pub(crate) file: Option<OwnedFd>,
}

impl Mapping {
    pub(crate) fn anonymous(pages: u64) -> Self {
        Self::private(pages, page_size(), 0).expect("memory")
    }

    /// One transparent huge page; `None` if the host has none.
    pub(crate) fn transparent() -> Option<Self> {
        let mut memory = Self::map(2, HUGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None).ok()?;
        // The first byte of its first page was written: that page is given back.
        let start = memory.start.next_multiple_of(HUGE);
        // SAFETY: it is ours, and nobody has a reference to it.
        let advised = unsafe {
            let all = (memory.start as *mut libc::c_void, 2 * HUGE as usize);
            libc::madvise(all.0, all.1, libc::MADV_DONTNEED);
            libc::madvise(start as *mut libc::c_void, HUGE as usize, libc::MADV_HUGEPAGE)
        };
        if advised != 0 {
            println!("skipped: no transparent huge pages: {}", io::Error::last_os_error());
            return None;
        }
        let end = memory.start + 2 * HUGE;
        // SAFETY: the memory before and after it is ours.
        unsafe {
            libc::munmap(memory.start as *mut libc::c_void, (start - memory.start) as usize);
            libc::munmap((start + HUGE) as *mut libc::c_void, (end - start - HUGE) as usize);
        }
        (memory.start, memory.pages, memory.backing) = (start, 1, Backing::ANONYMOUS);
        memory.set(0, 1);
        Some(memory)
    }

    /// `None` without huge pages.
    pub(crate) fn anonymous_huge(pages: u64) -> Option<Self> {
        reserve();
        let mapping = Self::private(pages, HUGE, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB);
        mapping.inspect_err(|error| println!("skipped: no free huge pages: {error}")).ok()
    }

    pub(crate) fn shared(pages: u64) -> Self {
        Self::of_memfd(pages, page_size(), c"seawall", 0).expect("memory")
    }

    /// `None` without huge pages.
    pub(crate) fn shared_huge(pages: u64) -> Option<Self> {
        reserve();
        let mapping = Self::of_memfd(pages, HUGE, c"seawall huge", libc::MFD_HUGETLB | libc::MFD_HUGE_2MB);
        mapping.inspect_err(|error| println!("skipped: no free huge pages: {error}")).ok()
    }

    fn private(pages: u64, page: u64, flags: c_int) -> io::Result<Self> {
        Self::map(pages, page, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, None)
    }

    fn of_memfd(pages: u64, page: u64, name: &CStr, flags: libc::c_uint) -> io::Result<Self> {
        // SAFETY: the name is a string; the returned descriptor is ours.
        let file = unsafe {
            let fd = libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let file = fs::File::from(file);
        file.set_len(pages * page)?;
        Self::map(pages, page, libc::MAP_SHARED, Some(file.into()))
    }

    fn map(pages: u64, page: u64, flags: c_int, file: Option<OwnedFd>) -> io::Result<Self> {
        let (size, access) = ((pages * page) as usize, libc::PROT_READ | libc::PROT_WRITE);
        let fd = file.as_ref().map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
        // SAFETY: new memory at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let backing = if file.is_some() { Backing::SHARED } else { Backing::ANONYMOUS };
        let backing = if page == page_size() { backing } else { backing.with_huge_pages(page) };
        let mapping = Self { start: start as u64, page, pages, backing, file };
        for number in 0..pages {
            mapping.set(number, (number as u8).wrapping_add(1));
        }
        Ok(mapping)
    }

    /// The addresses of one page.
    pub(crate) fn at(&self, number: u64) -> Range<u64> {
        assert!(number < self.pages);
        let start = self.start + number * self.page;
        start..start + self.page
    }

    pub(crate) fn end(&self) -> u64 {
        self.at(self.pages - 1).end
    }

    pub(crate) fn set(&self, number: u64, byte: u8) {
        // SAFETY: it is mapped, and nobody has a reference to it.
        unsafe { (self.at(number).start as *mut u8).write_volatile(byte) }
    }

    /// The pages' first bytes. None of them may be bad.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: it is mapped, and nobody has a reference to it.
        (0..self.pages)
            .map(|number| unsafe { (self.at(number).start as *const u8).read_volatile() })
            .collect()
    }

    pub(crate) fn is_good(&self, number: u64) -> bool {
        let mut bytes = [0; 64];
        // SAFETY: it is mapped.
        unsafe { seawall_host::read(self.at(number).start as *const u8, &mut bytes) }.is_ok()
    }

    /// Heals the page at these addresses.
    pub(crate) fn heal(&self, range: Range<u64>) -> Result<seawall_host::HostKnows, seawall_host::Error> {
        // SAFETY: it has this backing, and nobody has a reference to it.
        unsafe { seawall_host::heal(range, self.backing) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: we mapped it, and nobody uses it any more.
        unsafe { libc::munmap(self.start as *mut libc::c_void, (self.pages * self.page) as usize) };
    }
}

/// Takes huge pages for the tests in the lab, whose memory may be used up.
fn reserve() {
    if seawall_lab_machine::is_lab() {
        let _ = fs::write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8");
    }
}

/// `effective`, `permitted`, `inheritable` of 32 capabilities each.
type Sets = [[u32; 3]; 2];

/// Takes CAP_SYS_ADMIN from this thread: no test takes memory of a developer's host out of use.
pub(crate) fn give_up_privilege() {
    const CAP_SYS_ADMIN: u32 = 21;
    // `_LINUX_CAPABILITY_VERSION_3`, for this thread.
    let mut header = [0x2008_0522_u32, 0];
    let mut sets = Sets::default();
    // SAFETY: both structures have the size for this version.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()), 0);
        sets[0][0] &= !(1 << CAP_SYS_ADMIN);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()), 0);
    }
}
