//! Untrusted files: read within limits, and replaced as a whole.
//!
//! - [`read`], [`open`]: a file by its path. A directory, a device, a socket or a FIFO is refused by its
//!   kind, before it is opened; a pipe is read if the path asks for one (`/dev/stdin`, `/dev/fd/N`)
//! - [`read_within`]: at most a given number of bytes of any stream. Memory is allocated for received data,
//!   never for an announced size
//! - [`replace`], [`Replacement`]: new contents of a file, whole or not at all
//!
//! **Symbolic links are followed**, both for reading and for replacing: the link stays, and its target is
//! replaced. A link to a missing file creates that file.

#![forbid(unsafe_code)]

mod read;
mod replace;

pub use read::{ReadError, open, open_regular, read, read_within};
pub use replace::{Replacement, replace, sweep};

use std::fs::FileType;

/// The kind of a file that is not regular, in words.
fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        for (is_it, name) in [
            (kind.is_fifo(), "a FIFO"),
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
            (kind.is_socket(), "a socket"),
        ] {
            if is_it {
                return name;
            }
        }
    }
    if kind.is_dir() { "a directory" } else { "something else" }
}

#[cfg(test)]
mod tests;
