//! QEMU's software CPU (TCG), running the same flat images.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The peer's name in the table.
pub(crate) const QEMU: &str = "qemu";

/// Beyond the 128 MiB of RAM that QEMU's `virt` has unless told otherwise: a load there aborts.
pub(crate) const HOLE: u64 = 0x9000_0000;

/// Runs an image to its SYSTEM_OFF; gives the wall time of the whole process and the console.
pub(crate) fn run(image: &[u8]) -> Result<(Duration, String), String> {
    let file = Image::write(image)?;
    let start = Instant::now();
    let output = Command::new("qemu-system-aarch64")
        .args(["-M", "virt", "-cpu", "max", "-nic", "none", "-display", "none", "-monitor", "none"])
        .args(["-serial", "stdio", "-kernel"])
        .arg(&file.0)
        .stdin(Stdio::null())
        .output()
        .map_err(|_| "not installed".to_owned())?;
    let elapsed = start.elapsed();
    if !output.status.success() {
        return Err(format!("ended with {}", output.status));
    }
    Ok((elapsed, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// A file that goes when it is not needed any more.
struct Image(PathBuf);

impl Image {
    fn write(image: &[u8]) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("seawall-bench-{}.bin", std::process::id()));
        std::fs::write(&path, image).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = std::fs::remove_file(&self.0);
    }
}
