//! Fresh memory in place of bad memory.
//!
//! Source: madvise(2); Linux `mm/madvise.c`, `mm/memory.c` (`zap_pte_range`), `mm/hugetlb.c`.

use std::ops::Range;

use crate::tell::is_there;
use crate::{Error, HostKnows, advise, keep, page_size, tell, widened};

/// The way in which memory is mapped. The VMM knows it, because it made the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    is_shared: bool,
    /// Size of a huge page in bytes.
    huge: Option<u64>,
}

impl Backing {
    /// `MAP_PRIVATE | MAP_ANONYMOUS`, including transparent huge pages.
    pub const ANONYMOUS: Self = Self { is_shared: false, huge: None };
    /// `MAP_SHARED`, of a memfd, a file (of tmpfs or of a disk; writable, and on a file system that can punch
    /// holes) or anonymous memory. The healed part becomes zeroes in the file, too.
    pub const SHARED: Self = Self { is_shared: true, huge: None };

    /// The same for hugetlb (`MAP_HUGETLB`, `MFD_HUGETLB`, a file of hugetlbfs), with pages of `size` bytes,
    /// a power of two.
    #[must_use]
    pub const fn with_huge_pages(self, size: u64) -> Self {
        Self { huge: Some(size), ..self }
    }
}

/// Replaces these pages by fresh zeroed memory. A hugetlb page is replaced as a whole. Bad memory is healed,
/// and its content is lost. The mapping stays, with its attributes. The host is [told](tell) first. If it
/// neither knows of the page nor is kept from reusing it, the page is not healed: it would be given to
/// another owner, perhaps here.
///
/// For shared memory other processes that map it (vhost-user) must call `madvise(MADV_DONTNEED)` themselves
/// if they have met the bad page.
///
/// Returns how the host was told.
///
/// # Errors
/// [`Error::NotKept`], [`Error::StillThere`], and [`Error::Call`] if nothing was healed: the memory is as bad
/// as before.
/// [`Error::NoHugePage`]: the bad page is gone and nothing has replaced it. In either case the guest must not
/// have it.
///
/// # Safety
/// The range must be mapped as `backing` says, nothing may rely on its content, and nobody may use it
/// meanwhile.
pub unsafe fn heal(range: Range<u64>, backing: Backing) -> Result<HostKnows, Error> {
    let page = page_size();
    let knows = tell(range.clone());
    if knows == HostKnows::Unknown {
        return Err(Error::NotKept { address: range.start });
    }
    let pages = widened(&range, backing.huge.unwrap_or(page));
    // SAFETY: the range is mapped as `backing` says, and nothing relies on its content.
    unsafe { drop_pages(&pages, backing)? };
    let old = pages.clone().step_by(page as usize).find(|start| is_there(&(*start..start + page)));
    if let Some(address) = old {
        return Err(Error::StillThere { address, backing });
    }
    keep::replaced(pages.clone());
    if let Some(size) = backing.huge {
        for address in pages.step_by(size as usize) {
            populate(address, size)?;
        }
    }
    Ok(knows)
}

/// # Safety
/// As [`heal`].
unsafe fn drop_pages(pages: &Range<u64>, backing: Backing) -> Result<(), Error> {
    if pages.is_empty() {
        return Ok(());
    }
    if backing.is_shared {
        // A hole in the file. The mark of a bad page in this process's tables outlives it. SAFETY: nothing
        // relies on that part of the file.
        unsafe { advise(pages, "madvise(MADV_REMOVE)", libc::MADV_REMOVE)? };
    }
    // SAFETY: nothing relies on the pages' content; they read as zeros afterwards.
    match unsafe { advise(pages, "madvise(MADV_DONTNEED)", libc::MADV_DONTNEED) } {
        // Locked memory.
        Err(Error::Call { errno: libc::EINVAL, .. }) => {
            // SAFETY: the same advice, for locked pages.
            unsafe { advise(pages, "madvise(MADV_DONTNEED_LOCKED)", libc::MADV_DONTNEED_LOCKED) }
        }
        done => done,
    }
}

/// Takes a huge page from the pool now, when a lack of pages can be reported, and not when the guest needs
/// it.
fn populate(address: u64, size: u64) -> Result<(), Error> {
    let page = address..address.saturating_add(size);
    // SAFETY: the page's content is gone, and zeroes replace it.
    match unsafe { advise(&page, "madvise(MADV_POPULATE_WRITE)", libc::MADV_POPULATE_WRITE) } {
        Err(Error::Call { errno: libc::ENOMEM | libc::EFAULT, .. }) => {
            Err(Error::NoHugePage { address, size })
        }
        // Before Linux 5.14.
        Err(Error::Call { errno: libc::EINVAL, .. }) => Ok(()),
        done => done,
    }
}
