//! A writer of cpio archives in the "newc" format, which Linux unpacks as its first file system.
//!
//! Linux: Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive under construction.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Headers and contents begin at multiples of this many bytes.
const ALIGNMENT: usize = 4;

impl Archive {
    /// An empty archive.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0 }
    }

    /// Adds a folder. Paths have no slash in front; a folder comes before what is in it.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// Adds a file and the folders above it.
    pub(crate) fn file(&mut self, path: &str, executable: bool, content: &[u8]) {
        for (slash, _) in path.match_indices('/') {
            self.folder(&path[..slash]);
        }
        self.entry(path, FILE | if executable { 0o755 } else { 0o644 }, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device by its major and minor number.
    pub(crate) fn device(&mut self, path: &str, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, number, &[]);
    }

    /// The archive with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// `070701`, then thirteen numbers of eight hexadecimal digits: inode, mode, owner, group, links, time, size,
    /// device (two), device number (two), length of the name with its zero, checksum (none).
    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = content.len() as u32;
        let name = path.len() as u32 + 1;
        let numbers = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked once against GNU cpio: `cpio -itv` lists the same.
    #[test]
    fn an_entry_is_a_header_a_name_and_the_content_each_padded() {
        let mut archive = Archive::new();
        archive.file("hi", true, b"hello");
        let bytes = archive.finish();
        let header = concat!(
            "070701",
            "00000001000081ED0000000000000000", // inode, mode, owner, group
            "00000001000000000000000500000000", // links, time, size, device
            "00000000000000000000000000000003", // device, device number, length of the name
            "00000000",
        );
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..116], b"hi\0\0\0\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[234..245], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_file_comes_behind_the_folders_above_it() {
        let mut archive = Archive::new();
        archive.file("a/b/c", false, b"");
        let text = String::from_utf8(archive.finish()).unwrap_or_default();
        let places: Vec<Option<usize>> =
            ["a\0", "a/b\0", "a/b/c\0"].iter().map(|name| text.find(name)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
    }

    #[test]
    fn a_device_has_its_number_and_a_link_its_target() {
        let mut archive = Archive::new();
        archive.device("console", (5, 1));
        let text = String::from_utf8(archive.finish()).unwrap_or_default();
        assert_eq!(&text[14..22], "00002180");
        assert_eq!(&text[78..94], "0000000500000001");
        let mut archive = Archive::new();
        archive.link("sh", "busybox");
        let text = String::from_utf8(archive.finish()).unwrap_or_default();
        assert_eq!((&text[14..22], &text[116..123]), ("0000A1FF", "busybox"));
    }
}
