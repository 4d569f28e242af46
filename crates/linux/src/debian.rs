//! Debian's own kernel for arm64, its modules that test a CPU, and its busybox: nothing is built or changed.

use std::path::{Path, PathBuf};

use seawall_vmm::kernel::Kernel;

use crate::apt::Apt;
use crate::cache::{self, State};
use crate::error::{Error, Result};
use crate::process::Note;
use crate::{Guest, files, initramfs, modules};

/// Debian 13 for the stable parts, its backports for the kernel; and the suite where newer kernels come
/// first.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const UNSTABLE: &str = "sid";
/// `KVM_EXIT_ARM_SEA` came in 6.19; all measurements were made on 7.x.
const OLDEST: [u32; 4] = [7, 0, 0, 0];
/// The prefixes of packages that contain a kernel, in the present naming scheme and in the one before.
const PREFIXES: [&str; 2] = ["linux-binary-", "linux-image-"];
/// The number of versions to skip because their package is already removed.
const TRIES: usize = 3;
const BUSYBOX: &str = "busybox-static:arm64";
/// The kernel's name in the cached folder.
const KERNEL: &str = "vmlinuz";
const MODULES: &str = "modules";
const STORAGE: &str = "storage";
const RELEASE: &str = "release";
const PACKAGES: &str = "packages";
/// Changes when this file unpacks the packages differently.
const VERSION: &str = "2";

/// A flavour of Debian's kernel for arm64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// `linux-image-cloud-arm64`: for virtual machines, with few drivers, and so quick to fetch. The default.
    #[default]
    Cloud,
    /// `linux-image-arm64`: for any machine.
    Generic,
    /// `linux-image-rt-arm64`: the same with `PREEMPT_RT`.
    Realtime,
    /// `linux-image-arm64-16k`: the same with pages of 16 KiB.
    Pages16K,
}

impl Flavour {
    /// All of Debian's flavours. There is none with pages of 64 KiB.
    pub const ALL: [Self; 4] = [Self::Cloud, Self::Generic, Self::Realtime, Self::Pages16K];

    /// The flavour with this option word: `cloud`, `default`, `rt` or `16k`.
    pub fn by_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flavour| flavour.word() == word)
    }

    /// The option word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Generic => "default",
            Self::Realtime => "rt",
            Self::Pages16K => "16k",
        }
    }

    /// The suffix of `uname -r` and of its packages' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud-arm64",
            Self::Generic => "arm64",
            Self::Realtime => "rt-arm64",
            Self::Pages16K => "arm64-16k",
        }
    }

    /// Size of a page in bytes.
    pub const fn page(self) -> u64 {
        match self {
            Self::Cloud | Self::Generic | Self::Realtime => 0x1000,
            Self::Pages16K => 0x4000,
        }
    }
}

/// A request for a guest, and the directory that keeps it.
///
/// For each flavour the directory has the folder `debian-SUITE-FLAVOUR-VERSION`, with kernel, busybox and
/// modules, and the file `initrd-SUITE-FLAVOUR.cpio`. `SUITE` is `default` if none was named; the cloud
/// kernel's names have no flavour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Everything goes below this directory; [`crate::cache_directory`] is the usual one.
    pub directory: PathBuf,
    /// A Debian suite, such as `bookworm`. `None`: the newest kernel of at least 7.0 in `trixie-backports`,
    /// or in `sid`.
    pub suite: Option<String>,
    /// The kernel's flavour.
    pub flavour: Flavour,
}

impl Fetch {
    /// The newest cloud kernel, below this directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, suite: None, flavour: Flavour::default() }
    }

    /// The guest: fetched now, or before, if each of its files still has its hash. To get a newer one, remove
    /// the directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without apt, a network or such packages, and [`Error`].
    pub fn guest(&self, note: Note<'_>) -> Result<Guest> {
        let name = self.name();
        let folder = self.directory.join(format!("debian-{name}-{VERSION}"));
        cache::alone(&self.directory, note, || {
            match cache::check(&folder)? {
                State::Good => {}
                State::Missing => cache::make(&folder, |new| self.fetch(new, note))?,
                State::Damaged => {
                    note("what was fetched before is damaged");
                    cache::make(&folder, |new| self.fetch(new, note))?;
                }
            }
            assemble(&folder, &self.directory.join(format!("initrd-{name}.cpio")))
        })
    }

    /// The name in the folder and the initramfs.
    fn name(&self) -> String {
        let suite = self.suite.as_deref().unwrap_or("default");
        match self.flavour {
            Flavour::Cloud => suite.to_owned(),
            flavour => format!("{suite}-{}", flavour.name()),
        }
    }

    fn fetch(&self, folder: &Path, note: Note<'_>) -> Result<()> {
        let suites = self.suite.as_deref().map_or(SUITES.to_vec(), |suite| vec![suite]);
        let apt = Apt::new(self.directory.join("apt"), &suites);
        let unpacked = folder.join("unpacked");
        let (package, file) = self.fetch_kernel(&apt, &unpacked, note)?;
        let mut packages = vec![file];
        let release = PREFIXES.iter().find_map(|prefix| package.strip_prefix(prefix)).unwrap_or_default();
        if package.starts_with(PREFIXES[0]) {
            packages.push(apt.unpack(&format!("linux-modules-{release}:arm64"), &unpacked, note)?);
        }
        packages.push(apt.unpack(BUSYBOX, &unpacked, note)?);

        let (new, old) = (format!("usr/lib/modules/{release}/vmlinuz"), format!("boot/vmlinuz-{release}"));
        let kernel = files::read(&one_of(&unpacked, &package, &[&new, &old])?)?;
        check_kernel(&package, &kernel)?;
        files::write(&folder.join(KERNEL), kernel)?;
        let busybox = one_of(&unpacked, "busybox-static", &["usr/bin/busybox", "bin/busybox"])?;
        files::write(&folder.join(initramfs::BUSYBOX), files::read(&busybox)?)?;
        for (place, wanted) in [(MODULES, &modules::CIPHERS[..]), (STORAGE, &modules::STORAGE)] {
            files::create_folder(&folder.join(place))?;
            for (number, (name, content)) in modules::select(&unpacked, wanted)?.iter().enumerate() {
                files::write(&folder.join(place).join(format!("{number:02}-{name}")), content)?;
            }
        }
        files::write(&folder.join(RELEASE), release)?;
        files::write(&folder.join(PACKAGES), packages.join("\n"))?;
        files::remove_folder(&unpacked)?;
        // The lists cover all of Debian, so remove them; the logs of a failure stay.
        files::remove_folder(&self.directory.join("apt"))
    }

    /// The newest available kernel: its package and the package's file.
    fn fetch_kernel(&self, apt: &Apt, unpacked: &Path, note: Note<'_>) -> Result<(String, String)> {
        let oldest = if self.suite.is_some() { [0; 4] } else { OLDEST };
        let mut failure = None;
        for with_unstable in [false, true] {
            if with_unstable {
                if self.suite.is_some() {
                    break;
                }
                apt.add(UNSTABLE);
            }
            for prefix in PREFIXES {
                for package in newest(&apt.names(prefix, note)?, self.flavour, oldest).iter().take(TRIES) {
                    match apt.unpack(&format!("{package}:arm64"), unpacked, note) {
                        Ok(file) => return Ok((package.clone(), file)),
                        Err(error) => failure = Some(error),
                    }
                }
            }
        }
        let suites = self.suite.as_deref().unwrap_or("trixie-backports or sid");
        Err(failure.unwrap_or_else(|| {
            Error::unavailable(
                format!("the mirror has no package {}*-{}", PREFIXES[0], self.flavour.name()),
                format!(
                    "{suites} must be reachable: name another --suite, or give a kernel and busybox yourself"
                ),
            )
        }))
    }
}

/// A guest from a given kernel and static busybox for arm64; its initramfs is written to a directory.
///
/// # Errors
/// [`Error::File`]; [`Error::Content`] if the kernel is not an arm64 Linux kernel.
pub fn by_hand(directory: &Path, kernel: &Path, busybox: &Path) -> Result<Guest> {
    check_kernel(&kernel.display().to_string(), &files::read(kernel)?)?;
    files::create_folder(directory)?;
    let initrd = directory.join("initrd-by-hand.cpio");
    files::replace(&initrd, initramfs::build(&files::read(busybox)?, &[]))?;
    let (kernel, busybox) = (kernel.to_owned(), busybox.to_owned());
    Ok(Guest { kernel, initrd, busybox, storage: Vec::new(), release: String::new(), packages: Vec::new() })
}

/// Writes the initramfs. It contains programs of ours, so it is not cached.
fn assemble(folder: &Path, initrd: &Path) -> Result<Guest> {
    let busybox = folder.join(initramfs::BUSYBOX);
    let modules = files::list(&folder.join(MODULES))?.into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, files::read(&path)?))
    });
    let modules: Vec<(String, Vec<u8>)> = modules.collect::<Result<_>>()?;
    files::replace(initrd, initramfs::build(&files::read(&busybox)?, &modules))?;
    let text = |name: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&files::read(&folder.join(name))?).into_owned())
    };
    let packages = text(PACKAGES)?;
    Ok(Guest {
        kernel: folder.join(KERNEL),
        initrd: initrd.to_owned(),
        busybox,
        storage: files::list(&folder.join(STORAGE))?,
        release: text(RELEASE)?,
        packages: packages.lines().map(str::to_owned).collect(),
    })
}

/// The package's file at one of the places that different suites use.
fn one_of(unpacked: &Path, package: &str, places: &[&str]) -> Result<PathBuf> {
    let found = places.iter().map(|place| unpacked.join(place)).find(|path| path.exists());
    found.ok_or_else(|| Error::Content {
        name: format!("package {package}"),
        what: format!("expected {}, and it has none of these", places.join(" or ")),
    })
}

fn check_kernel(name: &str, content: &[u8]) -> Result<()> {
    let what = match Kernel::parse(content.to_vec(), files::LARGEST) {
        Ok(Kernel::Linux(_)) => return Ok(()),
        Ok(_) => "expected an arm64 Linux kernel, got another program".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Content { name: name.to_owned(), what })
}

/// The kernels of a flavour among package names, the newest first.
fn newest(names: &[String], flavour: Flavour, oldest: [u32; 4]) -> Vec<String> {
    let with_version = names.iter().filter_map(|name| Some((version(name, flavour)?, name)));
    let mut kernels: Vec<_> = with_version.filter(|(version, _)| *version >= oldest).collect();
    kernels.sort();
    kernels.into_iter().rev().map(|(_, name)| name.clone()).collect()
}

/// The version in the name of a kernel's package, if it is of this flavour: `linux-binary-7.2.12+deb13-cloud-arm64` has
/// 7.2.12, `linux-image-6.1.0-40-cloud-arm64` 6.1.0, build 40.
fn version(name: &str, flavour: Flavour) -> Option<[u32; 4]> {
    let release = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    // One flavour's name may end in another's name.
    let ends = |flavour: Flavour| Some((release.strip_suffix(flavour.name())?.strip_suffix('-')?, flavour));
    let (release, found) = Flavour::ALL.into_iter().filter_map(ends).min_by_key(|(rest, _)| rest.len())?;
    let mut words = release.split(['+', '~']).next()?.split('-');
    let mut parts = words.next()?.split('.').map(str::parse);
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    let [major, minor, patch] = [next()?, next()?, next()?];
    let build = words.next().and_then(|build| build.parse().ok()).unwrap_or(0);
    (found == flavour).then_some([major, minor, patch, build])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_greatest_version() {
        let names = [
            "linux-binary-7.2.9+deb13-cloud-arm64",
            "linux-binary-6.19.14+deb13-cloud-arm64",
            "linux-binary-7.2.12+deb13-cloud-arm64",
            "linux-binary-7.2.12+deb13-arm64",
            "linux-binary-7.2.12+deb13-arm64-16k",
            "linux-binary-7.2.12+deb13-rt-arm64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-arm64",
            "linux-binary-7.1.13+deb13-cloud-arm64",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(
            newest(&names, Flavour::Cloud, OLDEST),
            [
                "linux-binary-7.2.12+deb13-cloud-arm64",
                "linux-binary-7.2.9+deb13-cloud-arm64",
                "linux-binary-7.1.13+deb13-cloud-arm64",
            ]
        );
        for (flavour, expected) in [
            (Flavour::Generic, "linux-binary-7.2.12+deb13-arm64"),
            (Flavour::Realtime, "linux-binary-7.2.12+deb13-rt-arm64"),
            (Flavour::Pages16K, "linux-binary-7.2.12+deb13-arm64-16k"),
        ] {
            assert_eq!(newest(&names, flavour, OLDEST), [expected]);
        }
        let old = [
            "linux-image-6.1.0-9-cloud-arm64",
            "linux-image-6.1.0-40-cloud-arm64",
            "linux-image-cloud-arm64",
        ];
        assert_eq!(
            newest(&old.map(str::to_owned), Flavour::Cloud, [0; 4]),
            ["linux-image-6.1.0-40-cloud-arm64", "linux-image-6.1.0-9-cloud-arm64"]
        );
        let old = [
            "linux-image-6.1.0-40-arm64",
            "linux-image-6.1.0-40-rt-arm64",
            "linux-image-6.12.117+deb13-arm64-16k",
            "linux-image-6.12.117+deb13-arm64-16k-unsigned",
            "linux-image-arm64",
            "linux-image-arm64-16k",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&old, Flavour::Generic, [0; 4]), ["linux-image-6.1.0-40-arm64"]);
        assert_eq!(newest(&old, Flavour::Realtime, [0; 4]), ["linux-image-6.1.0-40-rt-arm64"]);
        assert_eq!(newest(&old, Flavour::Pages16K, [0; 4]), ["linux-image-6.12.117+deb13-arm64-16k"]);
    }

    #[test]
    fn a_release_candidate_has_a_version() {
        let version = |name| version(name, Flavour::Cloud);
        assert_eq!(version("linux-binary-7.3-rc2+deb14-cloud-arm64"), Some([7, 3, 0, 0]));
        assert_eq!(version("linux-binary-7.3.4-cloud-arm64"), Some([7, 3, 4, 0]));
        assert_eq!(version("linux-binary-cloud-arm64"), None);
    }

    #[test]
    fn each_suite_and_flavour_has_a_place_of_its_own() {
        let name = |suite: Option<&str>, flavour| {
            Fetch { directory: PathBuf::new(), suite: suite.map(str::to_owned), flavour }.name()
        };
        assert_eq!(name(None, Flavour::Cloud), "default");
        assert_eq!(name(None, Flavour::Generic), "default-arm64");
        assert_eq!(name(None, Flavour::Realtime), "default-rt-arm64");
        assert_eq!(name(Some("trixie"), Flavour::Pages16K), "trixie-arm64-16k");
    }

    #[test]
    fn files_given_by_hand_are_checked() {
        let folder = std::env::temp_dir().join(format!("seawall-by-hand-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, content).expect(name);
            path
        };
        let mut image = vec![0; 64];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let (kernel, flat) = (file("Image", &image), file("flat", b"\0no kernel"));
        let busybox = file("busybox", b"\x7fELF");
        let guest = by_hand(&folder, &kernel, &busybox).expect("a kernel's header");
        assert!(std::fs::read(guest.initrd).expect("written").starts_with(b"070701"));
        let error = by_hand(&folder, &flat, &busybox).err().map(|error| error.to_string());
        let wanted = format!("{}: expected an arm64 Linux kernel, got another program", flat.display());
        assert_eq!(error, Some(wanted));
        let error = by_hand(&folder, &folder.join("none"), &busybox).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.starts_with(&folder.join("none: ").display().to_string())));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
