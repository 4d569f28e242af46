//! What all pages of a RAM held at one moment: an image that many moments share, and the pages that
//! were different.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use crate::icache::SharedCode;
use crate::memory::PAGE_SIZE;
use crate::ram::{Image, ImageWriter, Page, Ram};

/// A page that nothing was written to.
static ZERO: Page = [0; PAGE_SIZE as usize];

/// So many pages are kept beside an image without question, 4 MiB; more of them only up to a
/// quarter of the image's.
const FEW_PAGES: usize = 1024;

/// What all pages of a RAM held at one moment.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Bytes of RAM.
    size: usize,
    /// What most pages are; without an image they are zero.
    image: Option<Arc<Image>>,
    /// The pages that are not as in the image.
    changed: BTreeMap<u32, Arc<Page>>,
    /// See [`Contents::hashes`].
    hashes: OnceLock<Vec<(u32, [u8; 32])>>,
    /// The pages' code, decoded and translated.
    code: SharedCode,
}

impl Contents {
    /// Zeros.
    pub(crate) fn zeroed(size: usize) -> Self {
        Self {
            size,
            image: None,
            changed: BTreeMap::new(),
            hashes: OnceLock::new(),
            code: SharedCode::default(),
        }
    }

    /// What an image holds.
    pub(crate) fn of(size: usize, image: Image) -> Self {
        Self { image: Some(Arc::new(image)), ..Self::zeroed(size) }
    }

    /// The code that is in these pages, decoded and translated.
    pub(crate) fn code(&self) -> &SharedCode {
        &self.code
    }

    /// A page by its number.
    pub(crate) fn page(&self, page: u32) -> &Page {
        match self.changed.get(&page) {
            Some(changed) => changed,
            None => self.image.as_ref().and_then(|image| image.page(page as usize)).unwrap_or(&ZERO),
        }
    }

    /// The numbers of the pages that may hold something else than zeros, in rising order.
    pub(crate) fn touched(&self) -> Vec<u32> {
        let image = self.image.iter().flat_map(|image| image.pages()).map(|page| page as u32);
        let mut pages: Vec<u32> = image.chain(self.changed.keys().copied()).collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// The pages that are not all zero, in rising order: number and BLAKE3. Found out once.
    pub(crate) fn hashes(&self) -> &[(u32, [u8; 32])] {
        self.hashes.get_or_init(|| {
            let touched = self.touched().into_iter();
            touched.filter_map(|page| hash_page(self.page(page)).map(|hash| (page, hash))).collect()
        })
    }

    /// RAM that holds this.
    ///
    /// # Errors
    /// The host refuses so much.
    pub(crate) fn ram(&self) -> io::Result<Ram> {
        let mut ram = match &self.image {
            Some(image) => image.ram()?,
            None => Ram::zeroed(self.size)?,
        };
        for (page, bytes) in &self.changed {
            put(&mut ram, *page, bytes);
        }
        Ok(ram)
    }

    /// The contents of a RAM that held these before its pages `written` were written to. Costs what these
    /// cost, but for now and then, when a new image is made.
    ///
    /// # Errors
    /// The host has no room for a new image.
    pub(crate) fn after(&self, ram: &[u8], written: &[u32]) -> io::Result<Self> {
        let image_pages = self.image.as_ref().map_or(0, |image| image.count());
        if self.changed.len() + written.len() > FEW_PAGES.max(image_pages / 4) {
            return self.new_image(ram, written);
        }
        let mut after =
            Self { image: self.image.clone(), changed: self.changed.clone(), ..Self::zeroed(self.size) };
        for &page in written {
            if let Some(bytes) = page_of(ram, page).filter(|bytes| *bytes != self.page(page)) {
                after.changed.insert(page, Arc::new(*bytes));
            }
        }
        Ok(after)
    }

    /// All that `ram` holds in an image of its own.
    fn new_image(&self, ram: &[u8], written: &[u32]) -> io::Result<Self> {
        let mut pages = self.touched();
        pages.extend(written);
        pages.sort_unstable();
        pages.dedup();
        pages.retain(|page| page_of(ram, *page).is_some_and(|bytes| *bytes != ZERO));
        let mut writer = ImageWriter::new(self.size)?;
        for run in pages.chunk_by(|page, next| page + 1 == *next) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
            let bytes = ram.get(start(first)..start(last) + PAGE_SIZE as usize).unwrap_or_default();
            writer.put(first as usize, bytes)?;
        }
        Ok(Self::of(self.size, writer.finish()?))
    }

    /// True if both are differences from the same image.
    pub(crate) fn shares_image_with(&self, other: &Self) -> bool {
        self.size == other.size
            && self.image.as_ref().map(Arc::as_ptr) == other.image.as_ref().map(Arc::as_ptr)
    }

    /// The pages in which the two may differ, which share their image.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> {
        let differs = |page: &u32, one: &Arc<Page>, other: &Self| {
            !other.changed.get(page).is_some_and(|other| Arc::ptr_eq(one, other))
        };
        let mine = self.changed.iter().filter(move |(page, bytes)| differs(page, bytes, other));
        let only_theirs = other.changed.iter().filter(|(page, _)| !self.changed.contains_key(page));
        mine.chain(only_theirs).map(|(page, _)| *page)
    }
}

/// BLAKE3 of a page; `None` if it is all zero.
pub(crate) fn hash_page(page: &Page) -> Option<[u8; 32]> {
    (*page != ZERO).then(|| *blake3::hash(page).as_bytes())
}

/// Offset of a page in RAM.
pub(crate) fn start(page: u32) -> usize {
    page as usize * PAGE_SIZE as usize
}

/// A page of a RAM.
pub(crate) fn page_of(ram: &[u8], page: u32) -> Option<&Page> {
    ram.get(start(page)..)?.first_chunk()
}

/// Write a page of a RAM.
pub(crate) fn put(ram: &mut [u8], page: u32, bytes: &Page) {
    if let Some(to) =
        ram.get_mut(start(page)..).and_then(|ram| ram.first_chunk_mut::<{ PAGE_SIZE as usize }>())
    {
        *to = *bytes;
    }
}
