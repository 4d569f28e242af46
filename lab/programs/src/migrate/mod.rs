//! A guest migrates from one VMM process to another, over a socket, with bad memory.
//!
//! Each scenario prints one line with the finding or the wrong result. The second process is this program
//! again: its `main` begins with [`destination_if_asked`].

mod bare_metal;
mod destination;
mod linux;
mod source;

pub use bare_metal::bare_metal;
pub use destination::destination_if_asked;
pub use linux::linux;

/// The result of a scenario: the finding, or the mistake.
pub type Verdict = Result<String, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Checks that two values are equal.
fn expect<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:x?}, got {got:x?}")) }
}
