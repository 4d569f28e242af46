//! A guest goes from one VMM process to another, over a socket, with bad memory.
//!
//! Each scenario gives one line that says what was seen, or what was not as it must be. The second process is this program
//! again: its `main` begins with [`destination_if_asked`].

mod bare_metal;
mod destination;
mod linux;
mod source;

pub use bare_metal::bare_metal;
pub use destination::destination_if_asked;
pub use linux::linux;

/// What a scenario comes to: what was seen, or what is wrong.
pub type Verdict = Result<String, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// That something is as it must be.
fn expect<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:x?}, got {got:x?}")) }
}
