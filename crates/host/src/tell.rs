//! The host's kernel learns that memory is bad.
//!
//! Source: madvise(2), `MADV_HWPOISON` and `MADV_POPULATE_READ`; Linux `mm/memory-failure.c`.

use std::ops::Range;

use crate::keep::keep;
use crate::unread::Unread;
use crate::{Error, advise, page_size, sigbus, widened};

const HWPOISON: &str = "madvise(MADV_HWPOISON)";

/// How the host was told that memory is bad, the best answer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostKnows {
    /// The kernel knows. It gives the page to nobody.
    Told,
    /// The kernel does not know. It gives the page to nobody as long as this process lives, and to the next owner then.
    Kept,
    /// The kernel does not know, and may give the page to somebody else as soon as this process has it no more.
    Unknown,
}

/// Tells the host's kernel that this memory is bad: after a SEA exit it does not know. For several pages the worst answer.
///
/// Where the process may (`CAP_SYS_ADMIN`, CONFIG_MEMORY_FAILURE) it is `madvise(MADV_HWPOISON)`: from then on an access to
/// the page, by the guest or by this process, is a SIGBUS. Elsewhere the page is kept out of circulation, by a reference to
/// it that survives [`heal`](crate::heal), and stays where it is. It can be told again.
///
/// The memory is not read. Give what is bad and no more, as a whole page is lost of each page that the range touches. The
/// calling thread gets SIGBUS by it, which is swallowed: [`sigbus::install`] is called first. A page that is not there, as
/// it was never written, is nobody's: nothing is told.
///
/// Clean pages of a file on disk are read from it again, as the kernel sees fit; what was written to dirty ones is lost.
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

/// Whether there is a page of memory behind this page of addresses, or the mark of a bad one. Where nobody can say, there
/// is.
pub(crate) fn is_there(page: &Range<u64>) -> bool {
    let mut resident = 1_u8;
    let size = (page.end - page.start) as usize;
    // SAFETY: it is asked for one page, and there is room for the answer of one.
    let answered = unsafe { libc::mincore(page.start as *mut libc::c_void, size, &raw mut resident) };
    answered != 0 || resident & 1 == 1
}

/// The kernel takes the page for bad already: it cannot be had, and not for the reason that it is not there.
fn is_known(page: &Range<u64>) -> bool {
    // SAFETY: pages of this process that it could have by reading them come in; none changes.
    let populated = unsafe { advise(page, "madvise(MADV_POPULATE_READ)", libc::MADV_POPULATE_READ) };
    matches!(populated, Err(Error::Call { errno: libc::EHWPOISON, .. }))
}

/// `madvise(MADV_HWPOISON)`: from now on the host takes these pages for bad. Needs `CAP_SYS_ADMIN` and
/// CONFIG_MEMORY_FAILURE. The calling thread gets SIGBUS at once, which is swallowed: [`sigbus::install`] is called first,
/// and SIGBUS is unblocked meanwhile. The rest of a transparent huge page is not read.
///
/// An empty range asks whether the kernel can.
///
/// # Errors
/// [`Error::Call`]: EPERM without the privilege, EINVAL without the configuration, EFAULT for pages that are bad already.
pub fn hwpoison(range: Range<u64>) -> Result<(), Error> {
    let page = page_size();
    // Nothing is there: whoever may learns just that. It costs less to be refused now.
    // SAFETY: nothing is there.
    let nothing = unsafe { advise(&(0..page), HWPOISON, libc::MADV_HWPOISON) };
    if let Err(error @ Error::Call { errno: libc::EPERM | libc::EINVAL, .. }) = nothing {
        return Err(error);
    }
    let pages = widened(&range, page);
    sigbus::install()?;
    let _unread = Unread::new(&pages);
    sigbus::ignoring(|| {
        // SAFETY: nothing that is in memory changes; it cannot be accessed any more. What is in a file may be older.
        unsafe { advise(&pages, HWPOISON, libc::MADV_HWPOISON) }
    })
}
