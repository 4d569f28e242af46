//! A VMM of other people's, built from their crate as it is: `alioth`.

use std::process::{Command, Stdio};

use super::Lab;
use super::cache::Cached;
use super::cross::TARGET;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::progress::Step;

const CRATE: &str = "alioth-cli";
const VERSION: &str = "0.12.0";
const PROGRAM: &str = "alioth";
/// It is run by a software CPU: quick to build is better than quick.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];

/// Built once, with the versions of its own lock file.
pub(crate) fn prepare(lab: &Lab) -> Result<Guest> {
    let folders = &lab.folders;
    let cached = Cached::new(folders.target.join(PROGRAM), VERSION);
    folders.alone(|| {
        cached.make(|folder| {
            let step = Step::begin("a VMM from crates.io: alioth");
            let log = folders.logs.join("alioth.log");
            let error = |error: std::io::Error| Error::failed(format!("{}: {error}", log.display()));
            let output = std::fs::File::create(&log).map_err(error)?;
            let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
            let status = Command::new(&cargo)
                .args(["install", CRATE, "--version", VERSION, "--locked", "--target", TARGET, "--root"])
                .arg(folder)
                .arg("--target-dir")
                .arg(folder.join("target"))
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .envs(lab.toolchain.environment_for_shared())
                .envs(PROFILE)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(output)
                .status()
                .map_err(error)?;
            if !status.success() {
                let advice = format!("see {}", log.display());
                return Err(Error::failed(format!("cargo install {CRATE}: {status}")).advise(advice));
            }
            super::files::remove_folder(&folder.join("target"))?;
            step.done("");
            Ok(())
        })
    })?;
    Ok(Guest { host: cached.folder.join("bin").join(PROGRAM), lab: format!("bin/{PROGRAM}") })
}
