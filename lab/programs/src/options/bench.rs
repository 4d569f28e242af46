//! The options of `seawall-lab-bench`.

use std::path::PathBuf;

/// Cost of an injection on real KVM, and of the whole path to the guest's handler, beside QEMU's. Runs in the lab
#[derive(Debug, clap::Parser)]
#[command(name = "seawall-lab-bench", version)]
pub struct Bench {
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Number of batches; the median counts
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    pub batches: u32,
    /// Number of timings of each case in a batch; the median counts
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Measure QEMU as well: this qemu-system-aarch64, or /bin's; `cargo xtask lab bench --peer` brings it in
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, default_missing_value = "/bin/qemu-system-aarch64")]
    pub peer: Option<PathBuf>,
    /// Reason why QEMU cannot be measured, to print in its place
    #[arg(long, value_name = "WHY", conflicts_with = "peer")]
    pub no_peer: Option<String>,
}
