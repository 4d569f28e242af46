//! `seawall-lab-migrate`: guests of real KVM go from one VMM process to another, over a socket, with bad memory.
//!
//! ```text
//! cargo xtask lab --file target/lab/kernel/debian-default-1/vmlinuz:/guest/ \
//!     --file target/lab/kernel/initrd-default.cpio:/guest/initrd.cpio -- seawall-lab-migrate
//! ```
//!
//! One line for each scenario: `pass` or `FAIL`, name, seconds, what was seen. Exit code 0 if all passed.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> ExitCode {
    use std::path::Path;
    use std::time::Instant;

    use seawall_lab::migrate::{Verdict, bare_metal, destination_if_asked, linux};

    if let Some(code) = destination_if_asked() {
        return code;
    }
    let (kernel, initrd) = (Path::new("/guest/vmlinuz"), Path::new("/guest/initrd.cpio"));
    let scenarios: [(&str, &dyn Fn() -> Verdict); 3] = [
        ("migrate-bare-metal", &bare_metal),
        ("migrate-linux", &|| linux(kernel, initrd, 1)),
        ("migrate-linux-smp", &|| linux(kernel, initrd, 2)),
    ];
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mut code = ExitCode::SUCCESS;
    for (name, run) in
        scenarios.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|only| only == name))
    {
        let start = Instant::now();
        let verdict = run();
        let (word, what) = match &verdict {
            Ok(what) => ("pass", what),
            Err(what) => ("FAIL", what),
        };
        println!("{word} {name} {:.1} s: {what}", start.elapsed().as_secs_f32());
        if verdict.is_err() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> ExitCode {
    eprintln!(
        "seawall-lab-migrate: not available here: this needs /dev/kvm on aarch64 Linux; `cargo xtask lab` has one"
    );
    ExitCode::from(2)
}
