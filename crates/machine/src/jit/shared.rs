//! Translations that machines of one snapshot share.
//!
//! They are of pages that hold what the snapshot holds. A machine whose page is still the same uses the page's entries,
//! and adds to them, from any thread; a page of its own it translates for itself.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::code::Arena;
use super::enter::{Entries, no_entries};
use crate::icache::MAX_PAGES;

/// The translations of a page.
#[derive(Debug)]
pub(super) struct SharedPage {
    pub(super) entries: Box<Entries>,
    pub(super) arena: Arc<Arena>,
}

impl SharedPage {
    /// The translation at an index is here from now on. It was placed in the page's arena before; who reads the entry
    /// sees the code.
    pub(super) fn publish(&self, index: usize, address: u64) {
        if let Some(entry) = self.entries.get(index) {
            entry.publish(address);
        }
    }
}

/// The translations of a snapshot's pages.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Made when the first page is asked for; `None` if the host refuses.
    arena: OnceLock<Option<Arc<Arena>>>,
    pages: Mutex<HashMap<u32, Arc<SharedPage>>>,
}

impl Shared {
    /// Those of a page of RAM. `None`: there is no memory for code, or there are as many as are kept.
    pub(super) fn page(
        &self,
        page: u32,
        unknown: u64,
        arena: impl FnOnce() -> io::Result<Arena>,
    ) -> Option<Arc<SharedPage>> {
        let arena = self.arena.get_or_init(|| arena().ok().map(Arc::new)).as_ref()?;
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MAX_PAGES && !pages.contains_key(&page) {
            return None;
        }
        let new = || Arc::new(SharedPage { entries: no_entries(unknown), arena: arena.clone() });
        Some(pages.entry(page).or_insert_with(new).clone())
    }
}
