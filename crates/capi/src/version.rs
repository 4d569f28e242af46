//! The releases of the header and of the library.

use std::ffi::{CStr, c_char};

/// The header's release, MAJOR.MINOR.PATCH: another MAJOR may break callers, and so may another MINOR while
/// MAJOR is 0.
pub const SEAWALL_VERSION_MAJOR: u32 = 0;
/// See `SEAWALL_VERSION_MAJOR`.
pub const SEAWALL_VERSION_MINOR: u32 = 1;
/// See `SEAWALL_VERSION_MAJOR`.
pub const SEAWALL_VERSION_PATCH: u32 = 0;

const VERSION: &CStr = c"0.1.0";

/// The release of the linked library, such as `0.1.0`. It equals the header's, unless the two were installed
/// separately. The text lives as long as the program.
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
