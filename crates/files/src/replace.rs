//! Replacing files: whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::kind;

/// The number of links that are followed, the same as in Linux.
const MAX_LINKS: u32 = 40;

/// The new contents of a file, which take its place once they are complete ([`Replacement::finish`]). Until
/// then, and if this is dropped, the file is unchanged.
///
/// A new file belongs to its owner alone (0600); an existing one keeps its permissions.
#[derive(Debug)]
pub struct Replacement {
    new: NamedTempFile,
    target: PathBuf,
}

impl Replacement {
    /// Starts to write new contents for the file at `path`, which may not exist yet. A symbolic link is
    /// followed.
    ///
    /// # Errors
    /// The host's; `InvalidInput` if the path leads to something other than a file.
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

    /// Puts the contents in place. When it returns, they are on the disk.
    ///
    /// # Errors
    /// The host's; the file is unchanged.
    pub fn finish(mut self) -> io::Result<()> {
        self.new.flush()?;
        self.new.as_file().sync_all()?;
        self.new.persist(&self.target).map_err(|error| error.error)?;
        // Puts the new name on the disk too. Some systems do not let a directory be opened.
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

/// Replaces a file by these bytes, as [`Replacement`] does.
///
/// # Errors
/// The host's; the file is unchanged.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Replacement::new(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Removes the leftovers of killed writers beside the file. Do not call it while another process writes the
/// file.
pub fn sweep(path: &Path) {
    let Ok(target) = target(path) else { return };
    let prefix = unfinished(&target);
    for entry in fs::read_dir(directory(&target)).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            // A leftover that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The path behind all links.
fn target(path: &Path) -> io::Result<PathBuf> {
    // The kernel's rules apply first: it does not follow another user's link in a sticky directory
    // (protected_symlinks).
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = directory(&path).join(link),
            // It is not a link, or it is missing.
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

/// The prefix of unfinished files' names.
fn unfinished(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new-");
    name
}
