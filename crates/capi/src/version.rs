//! The release that the header and the library are of.

use std::ffi::{CStr, c_char};

/// The header's release, MAJOR.MINOR.PATCH: another MAJOR, or while that is 0 another MINOR, may break callers.
pub const SEAWALL_VERSION_MAJOR: u32 = 0;
/// See `SEAWALL_VERSION_MAJOR`.
pub const SEAWALL_VERSION_MINOR: u32 = 1;
/// See `SEAWALL_VERSION_MAJOR`.
pub const SEAWALL_VERSION_PATCH: u32 = 0;

const VERSION: &CStr = c"0.1.0";

/// The release of the library that is linked, as `0.1.0`. It is the header's, unless the two were installed apart. The
/// text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn seawall_version() -> *const c_char {
    VERSION.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_and_the_text_are_the_crates() {
        let numbers = [SEAWALL_VERSION_MAJOR, SEAWALL_VERSION_MINOR, SEAWALL_VERSION_PATCH];
        assert_eq!(numbers.map(|number| number.to_string()).join("."), env!("CARGO_PKG_VERSION"));
        assert_eq!(VERSION.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_file_for_pkg_config_is_of_the_same_release() {
        let file = include_str!("../seawall.pc");
        assert!(file.contains(concat!("\nVersion: ", env!("CARGO_PKG_VERSION"), "\n")), "{file}");
    }
}
