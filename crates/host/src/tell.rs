//! Telling the host's kernel that memory is bad.
//!
//! Source: madvise(2), `MADV_HWPOISON` and `MADV_POPULATE_READ`; Linux `mm/memory-failure.c`.

use std::ops::Range;

use crate::keep::keep;
use crate::unread::Unread;
use crate::{Error, advise, page_size, sigbus, widened};

const HWPOISON: &str = "madvise(MADV_HWPOISON)";

/// The host's knowledge of bad memory, the best case first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostKnows {
    /// The kernel knows. It gives the page to nobody.
    Told,
    /// The kernel does not know. It gives the page to nobody as long as this process lives, and to the next
    /// owner after that.
    Kept,
    /// The kernel does not know, and may give the page to another owner as soon as this process releases it.
    Unknown,
}

/// Tells the host's kernel that this memory is bad: after a SEA exit it does not know. For several pages it
/// returns the worst answer.
///
/// If the process has the right (`CAP_SYS_ADMIN`, CONFIG_MEMORY_FAILURE), it calls `madvise(MADV_HWPOISON)`:
/// from then on an access to the page, by the guest or by this process, is a SIGBUS. Otherwise it keeps the
/// page out of circulation, by a reference that survives [`heal`](crate::heal); the page stays in its place.
/// You can tell it again.
///
/// The memory is not read. Pass only the bad range, because each page that it touches is lost as a whole. The
/// call sends SIGBUS to the calling thread, which is swallowed: [`sigbus::install`] is called first. A page
/// that is not present, because it was never written, belongs to nobody: nothing is told.
///
/// Clean pages of a file on disk are read from it again when the kernel chooses; the content of dirty ones is
/// lost.
pub fn tell(range: Range<u64>) -> HostKnows {
    let page = page_size();
    let pages = widened(&range, page);
    let each = pages.step_by(page as usize).map(|start| tell_page(&(start..start + page)));
    each.max().unwrap_or(HostKnows::Told)
}

fn tell_page(page: &Range<u64>) -> HostKnows {
    if !is_there(page) || hwpoison(page.clone()).is_ok() || is_known(page) {
        HostKnows::Told
    } else if keep(page.start) {
        HostKnows::Kept
    } else {
        HostKnows::Unknown
    }
}

/// Returns true if this page of addresses has a page of memory behind it, or the mark of a bad one, or if
/// this cannot be found out.
pub(crate) fn is_there(page: &Range<u64>) -> bool {
    let mut resident = 1_u8;
    let size = (page.end - page.start) as usize;
    // SAFETY: the request is for one page, and there is room for the answer.
    let answered = unsafe { libc::mincore(page.start as *mut libc::c_void, size, &raw mut resident) };
    answered != 0 || resident & 1 == 1
}

/// Returns true if the kernel already takes the page for bad: it cannot be populated, for another reason than
/// being absent.
fn is_known(page: &Range<u64>) -> bool {
    // SAFETY: it brings in pages of this process that a read would also bring in; none changes.
    let populated = unsafe { advise(page, "madvise(MADV_POPULATE_READ)", libc::MADV_POPULATE_READ) };
    matches!(populated, Err(Error::Call { errno: libc::EHWPOISON, .. }))
}

/// `madvise(MADV_HWPOISON)`: from now on the host takes these pages for bad. It needs `CAP_SYS_ADMIN` and
/// CONFIG_MEMORY_FAILURE. The calling thread gets SIGBUS at once, which is swallowed: [`sigbus::install`] is
/// called first, and SIGBUS is unblocked meanwhile. The rest of a transparent huge page is not read.
///
/// An empty range asks if the kernel supports it.
///
/// # Errors
/// [`Error::Call`]: EPERM without the privilege, EINVAL without the configuration, EFAULT for pages that are
/// bad already.
pub fn hwpoison(range: Range<u64>) -> Result<(), Error> {
    let page = page_size();
    // Nothing is mapped there, so a permitted caller only learns that, and a refusal costs less now. SAFETY:
    // nothing is mapped there.
    let nothing = unsafe { advise(&(0..page), HWPOISON, libc::MADV_HWPOISON) };
    if let Err(error @ Error::Call { errno: libc::EPERM | libc::EINVAL, .. }) = nothing {
        return Err(error);
    }
    let pages = widened(&range, page);
    sigbus::install()?;
    let _unread = Unread::new(&pages);
    sigbus::ignoring(|| {
        // SAFETY: memory does not change; it only becomes inaccessible. A file may then have older content.
        unsafe { advise(&pages, HWPOISON, libc::MADV_HWPOISON) }
    })
}
