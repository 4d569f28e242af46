//! The firmware's handling of memory errors: ACPI's Hardware Error Source Table, and error injection.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// ACPI Platform Error Interfaces, as far as they stand between an error and a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Firmware {
    /// True if firmware is told of an SEA first and writes a record, which Linux checks before KVM; `None` if
    /// its table (HEST) may not be read.
    pub claims_sea: Option<bool>,
    /// True if there is an error source table.
    pub hest: bool,
    /// True if firmware can make an error (EINJ).
    pub einj: bool,
}

pub(super) fn firmware(root: &Path) -> Firmware {
    let tables = root.join("sys/firmware/acpi/tables");
    let einj = tables.join("EINJ").exists();
    let line = fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
    let is_off =
        |word: &str| matches!(word, "hest_disable" | "ghes.disable" | "ghes.disable=1" | "ghes.disable=Y");
    let (hest, claims_sea) = match fs::read(tables.join("HEST")) {
        Ok(_) if line.split_whitespace().any(is_off) => (true, Some(false)),
        Ok(table) => (true, Some(has_sea_source(&table))),
        Err(error) if error.kind() == ErrorKind::NotFound => (false, Some(false)),
        Err(_) => (true, None),
    };
    Firmware { claims_sea, hest, einj }
}

/// Returns true if a HEST has an enabled generic source that is notified by SEA. The search ends at a source
/// of unknown size.
///
/// Source: ACPI 6.5, 18.3.2 "ACPI Error Source": types 6 to 10, `Notification Structure` types.
fn has_sea_source(table: &[u8]) -> bool {
    const HEADER: usize = 40;
    const NOTIFIED_BY_SEA: u8 = 8;
    let mut rest = table.get(HEADER..).unwrap_or_default();
    while let [low, high, ..] = rest {
        let (size, is_generic) = match u16::from_le_bytes([*low, *high]) {
            6 => (48, false),
            7 => (44, false),
            8 => (56, false),
            9 => (64, true),
            10 => (92, true),
            _ => return false,
        };
        let Some((source, next)) = rest.split_at_checked(size) else { return false };
        let (enabled, notification) = (source.get(7).copied(), source.get(32).copied());
        if is_generic && enabled != Some(0) && notification == Some(NOTIFIED_BY_SEA) {
            return true;
        }
        rest = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::system::tree::Tree;
    use super::*;

    /// A source of a type and size, notified by `notification`.
    fn source(kind: u8, size: usize, enabled: u8, notification: u8) -> Vec<u8> {
        let mut bytes = vec![0; size];
        (bytes[0], bytes[7], bytes[32]) = (kind, enabled, notification);
        bytes
    }

    fn table(sources: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"HEST".to_vec();
        bytes.resize(40, 0);
        bytes.extend(sources.concat());
        bytes
    }

    #[test]
    fn a_generic_source_notified_by_sea_is_found_among_others() {
        let polled = source(9, 64, 1, 0);
        let sea = source(10, 92, 1, 8);
        assert!(has_sea_source(&table(&[source(6, 48, 1, 8), polled.clone(), sea.clone()])));
        assert!(has_sea_source(&table(&[source(9, 64, 1, 8)])));
        assert!(!has_sea_source(&table(&[source(6, 48, 1, 8), polled])));
        assert!(!has_sea_source(&table(&[source(10, 92, 0, 8)])), "it is not enabled");
        assert!(!has_sea_source(&table(&[source(10, 92, 1, 11)])), "SDEI");
    }

    #[test]
    fn a_table_that_is_cut_or_unknown_has_none() {
        let whole = table(&[source(10, 92, 1, 8)]);
        for length in 0..whole.len() {
            assert!(!has_sea_source(&whole[..length]), "{length}");
        }
        assert!(!has_sea_source(&table(&[source(0, 40, 1, 8), source(10, 92, 1, 8)])));
    }

    #[test]
    fn firmware_is_read_from_sysfs_and_the_kernel_s_command_line() {
        let path = "sys/firmware/acpi/tables/HEST";
        let hest = table(&[source(10, 92, 1, 8)]);
        let none = Tree::new(&[("proc/cmdline", "quiet")]);
        assert_eq!(firmware(none.root()), Firmware { claims_sea: Some(false), hest: false, einj: false });
        let tree = Tree::new(&[("sys/firmware/acpi/tables/EINJ", "EINJ")]);
        tree.write(path, &hest);
        assert_eq!(firmware(tree.root()), Firmware { claims_sea: Some(true), hest: true, einj: true });
        tree.write("proc/cmdline", b"quiet ghes.disable=1\n");
        assert_eq!(firmware(tree.root()).claims_sea, Some(false));
        // A table that cannot be read: a directory takes its place, because a test may run as root.
        let tree = Tree::new(&[("sys/firmware/acpi/tables/HEST/x", "")]);
        assert_eq!(firmware(tree.root()), Firmware { claims_sea: None, hest: true, einj: false });
    }
}
