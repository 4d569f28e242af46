//! What a program needs to run with libseawall_preload.so: the library, and the C library and its loader.

use super::binaries;
use super::cache::Cached;
use super::error::Result;
use super::initramfs::Guest;
use super::progress::Step;
use super::{Lab, host};

/// A shared library takes a linker that knows glibc's symbol versions.
const PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
/// Of Debian 13.
const LIBRARY_PACKAGES: [&str; 2] = ["libc6:arm64", "libgcc-s1:arm64"];
/// Where these packages have what is wanted of them, and that.
const FOLDER: &str = "usr/lib/aarch64-linux-gnu";
const LIBRARIES: [&str; 6] =
    ["ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0"];
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// Everything, our library and the programs that are run with it built anew; libraries go to /lib, the program to /bin.
///
/// # Errors
/// The cross compiler is missing and cannot be installed: unavailable.
pub(crate) fn prepare(lab: &Lab) -> Result<Vec<Guest>> {
    let of_libc = libraries(lab)?;
    let built = binaries::build_preload(&lab.folders, &lab.toolchain)?.into_iter().map(|built| {
        let folder = if built.name.starts_with("lib") { "lib" } else { "bin" };
        Guest { host: built.path, lab: format!("{folder}/{}", built.name) }
    });
    Ok(of_libc.into_iter().chain(built).collect())
}

/// The C library and its loader alone, for programs that others built.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn libraries(lab: &Lab) -> Result<Vec<Guest>> {
    let folders = &lab.folders;
    let libc = Cached::new(folders.target.join("libc"), KEY);
    folders.alone(|| {
        host::need(
            &PACKAGES,
            "linking shared libraries for arm64",
            &folders.logs.join("preload-packages.log"),
        )?;
        libc.make(|folder| {
            let step = Step::begin("the C library for arm64");
            LIBRARY_PACKAGES.iter().try_for_each(|package| lab.apt.unpack(&step, package, folder))?;
            step.done("");
            Ok(())
        })
    })?;
    let library =
        |name: &&str| Guest { host: libc.folder.join(FOLDER).join(name), lab: format!("lib/{name}") };
    Ok(LIBRARIES.iter().map(library).collect())
}
