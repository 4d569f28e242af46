//! An initramfs out of files: a cpio archive in the "newc" format.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive in the making. All is owned by root and dated 0, so the same files give the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    inode: u32,
}

/// `st_mode`: types.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Initramfs {
    /// Adds a directory. Those above it must be there.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0))
    }

    /// Adds the directories above a path.
    #[must_use]
    pub fn above(self, path: &str) -> Self {
        let path = path.trim_start_matches('/');
        path.match_indices('/').fold(self, |archive, (slash, _)| archive.directory(&path[..slash]))
    }

    /// Adds a file that may be executed.
    #[must_use]
    pub fn program(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(path, FILE | 0o755, bytes, (0, 0))
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(path, FILE | 0o644, bytes, (0, 0))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, SYMLINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// Adds a character device: the console (5, 1) that init's output goes to must be there.
    #[must_use]
    pub fn character_device(self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(path, CHARACTER_DEVICE | 0o600, &[], (major, minor))
    }

    /// The archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0)).archive
    }

    fn entry(mut self, path: &str, mode: u32, bytes: &[u8], (major, minor): (u32, u32)) -> Self {
        let path = path.trim_start_matches('/');
        self.inode += 1;
        let (links, size, name) = (1, bytes.len() as u32, path.len() as u32 + 1);
        // Inode, mode, owner, group, links, time, size, device, device behind the file, name, checksum.
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0];
        self.archive.extend(b"070701");
        for field in fields {
            self.archive.extend(format!("{field:08X}").bytes());
        }
        self.archive.extend(path.bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend(bytes);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_above_a_path_come_from_the_root_down() {
        let expected = Initramfs::default().directory("a").directory("a/b").finish();
        assert_eq!(Initramfs::default().above("/a/b/c").finish(), expected);
        assert_eq!(Initramfs::default().above("c").finish(), Initramfs::default().finish());
    }

    #[test]
    fn an_archive_is_what_cpio_writes() {
        let archive =
            Initramfs::default().directory("dev").character_device("/dev/console", 5, 1).file("a", b"hello");
        let expected = "07070100000001000041ED00000000000000000000000100000000000000000000000000000000\
             000000000000000000000004\
             00000000dev\0\0\0\
             0707010000000200002180000000000000000000000001000000000000000000000000000000000000000500000001\
             0000000C00000000dev/console\0\0\0\
             07070100000003000081A4000000000000000000000001000000000000000500000000000000000000000000000000\
             0000000200000000a\0hello\0\0\0\
             07070100000004000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B00000000TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8(archive.finish()).expect("ASCII"), expected);
    }
}
