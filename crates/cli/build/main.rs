//! The command's version: the crate's, with the commit of the build if it is known.
//!
//! `SEAWALL_COMMIT` names the commit for a build outside of a repository, such as a distribution's.

mod commit;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=SEAWALL_COMMIT");
    let crate_folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let checkout = commit::checkout(&Path::new(&crate_folder).join("../../.git"));
    let given = std::env::var("SEAWALL_COMMIT").ok().filter(|commit| !commit.is_empty());
    for path in checkout.iter().flat_map(|checkout| &checkout.watched) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match given.or(checkout.map(|checkout| checkout.commit)) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=SEAWALL_VERSION={version}");
}
