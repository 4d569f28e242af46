//! Writing: whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::kind;

/// As many links in a row are followed as Linux follows.
const MAX_LINKS: u32 = 40;

/// The new contents of a file, which are in its place once they are whole ([`Replacement::finish`]). Until then, and if
/// this is dropped, the file is what it was.
///
/// A new file is its owner's alone (0600); one that was there keeps its permissions.
#[derive(Debug)]
pub struct Replacement {
    new: NamedTempFile,
    target: PathBuf,
}

impl Replacement {
    /// Begins to write the contents of the file that is, or will be, at `path`. A symbolic link is followed.
    ///
    /// # Errors
    /// The host's; `InvalidInput` if something else than a file is there.
    pub fn new(path: &Path) -> io::Result<Self> {
        let target = target(path)?;
        let mut builder = Builder::new();
        let prefix = unfinished(&target);
        builder.prefix(&prefix);
        let there = match fs::metadata(&target) {
            Ok(there) if there.is_file() => Some(there),
            Ok(other) => {
                let message = format!("expected a file to replace, got {}", kind(other.file_type()));
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let new = builder.tempfile_in(directory(&target))?;
        if let Some(there) = there {
            new.as_file().set_permissions(there.permissions())?;
        }
        Ok(Self { new, target })
    }

    /// Puts them in place. When it has come back, they are on the disk.
    ///
    /// # Errors
    /// The host's; the file is what it was.
    pub fn finish(mut self) -> io::Result<()> {
        self.new.flush()?;
        self.new.as_file().sync_all()?;
        self.new.persist(&self.target).map_err(|error| error.error)?;
        // The new name is on the disk too. Not every system lets a directory be opened.
        if let Ok(directory) = File::open(directory(&self.target)) {
            directory.sync_all()?;
        }
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.new.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.new.flush()
    }
}

/// Puts these bytes in the place of a file, as [`Replacement`] does.
///
/// # Errors
/// The host's; the file is what it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Replacement::new(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Removes what writers that were killed have left beside the file. Not to be called while another writes it.
pub fn sweep(path: &Path) {
    let Ok(target) = target(path) else { return };
    let prefix = unfinished(&target);
    for entry in fs::read_dir(directory(&target)).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            // What cannot be removed is only in the way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The path behind all links.
fn target(path: &Path) -> io::Result<PathBuf> {
    // The kernel's rules come first: it follows no stranger's link in a sticky directory (protected_symlinks).
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = directory(&path).join(link),
            // It is no link, or it is not there.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// How the names of unfinished files begin.
fn unfinished(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new-");
    name
}
