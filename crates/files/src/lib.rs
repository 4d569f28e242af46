//! Files that anybody may have made: read within limits, and replaced as a whole.
//!
//! - [`read`], [`open`]: a file by its path. A directory, a device, a socket or a FIFO is refused by its kind, before it
//!   is opened; a pipe is read where the path asks for one (`/dev/stdin`, `/dev/fd/N`)
//! - [`read_within`]: at most so many bytes of any stream. Room is made for what has come, never for what was announced
//! - [`replace`], [`Replacement`]: a file's new contents, whole or not at all
//!
//! **Symbolic links are followed**, when a file is read and when it is replaced: the link stays, and the file that it
//! leads to is replaced. A link that leads nowhere yet makes the file that it names.

#![forbid(unsafe_code)]

mod read;
mod replace;

pub use read::{ReadError, open, open_regular, read, read_within};
pub use replace::{Replacement, replace, sweep};

use std::fs::FileType;

/// What is not a regular file, in words.
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
