//! `KVM_SET_VCPU_EVENTS` by raw ioctls alone, as a program written to mainline or to the proposal would call
//! it, for runs with and without `libseawall_preload.so`:
//!
//! ```sh
//! seawall-lab-raw-ioctls
//! LD_PRELOAD=/lib/libseawall_preload.so seawall-lab-raw-ioctls
//! LD_PRELOAD=/lib/libseawall_preload.so SEAWALL_LAYOUT=trailing seawall-lab-raw-ioctls
//! ```
//!
//! These variables tell it which results to expect. For a kernel that speaks the proposal's ABI itself an argument does:
//!
//! ```sh
//! seawall-lab-raw-ioctls native-posted        # or native-trailing
//! ```
//!
//! It ends with `N passed, N failed, N skipped`. `seawall-lab-raw-ioctls cost` prints the cost of the two ioctls instead.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod bytes;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod calls;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod cost;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod guests;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod injections;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod raw;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod report;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod threads;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod vcpu;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("cost") {
        return cost::print();
    }
    let abi = match bytes::Abi::expected(argument.as_deref()) {
        Ok(abi) => abi,
        Err(wrong) => {
            eprintln!("seawall-lab-raw-ioctls: {wrong}");
            return std::process::ExitCode::from(2);
        }
    };
    println!("expecting {abi}");
    let mut report = report::Report::default();
    calls::cases(abi, &mut report);
    injections::cases(abi, &mut report);
    guests::cases(abi, &mut report);
    threads::cases(abi, &mut report);
    raw::measure();
    report.end()
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("seawall-lab-raw-ioctls: not available here: expected a program built for aarch64 Linux");
    std::process::ExitCode::from(2)
}
