//! File operations whose error names the file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The largest kernel, busybox or module in bytes, packed or not.
pub(crate) const LARGEST: u64 = 1 << 30;

/// A regular file of at most [`LARGEST`] bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    seawall_files::read(path, LARGEST).map_err(|error| Error::file(path, error.into()))
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).map_err(|error| Error::file(path, error))
}

/// Replaces a file so that either the old or the new one is there at any time, whole.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    seawall_files::replace(path, content.as_ref()).map_err(|error| Error::file(path, error))
}

pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::file(path, error))
}

/// Removes a folder with its content, if it exists.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// The entries of a folder, sorted; none if it is missing.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::file(folder, error))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// All files below a folder, sorted. Symbolic links are not followed.
pub(crate) fn tree(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in list(folder)? {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(tree(&path)?),
            Ok(metadata) if metadata.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(found)
}
