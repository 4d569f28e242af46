//! `cargo xtask kernel apply TREE`: our changes in a kernel developer's own tree.

use std::path::Path;

use seawall_anchor_edit::{Error as Refusal, Plan};

use super::changes;
use crate::lab::error::{Error, Result};
use crate::lab::files;

/// What a tree must have, and what it is for.
const NEEDED: [(&str, &str); 4] = [
    ("arch/arm64/kvm/arm.c", "KVM for arm64"),
    ("rust/kernel/lib.rs", "Rust support"),
    ("rust/zerocopy/src/lib.rs", "the crate zerocopy, which Linux has from 7.2 on"),
    ("rust/zerocopy-derive/lib.rs", "its derive macros, from 7.2 on"),
];

/// Changes the tree, or nothing.
///
/// A tree with our changes has its files of ours brought up to date.
///
/// # Errors
/// The tree is none of Linux's, lacks something, was changed before, or has an anchor not exactly once: each is named.
pub(super) fn run(tree: &Path) -> Result<()> {
    let makefile = files::read_text(&tree.join("Makefile")).map_err(|_| {
        Error::failed(format!("{}: expected Linux's source, found no Makefile", tree.display()))
    })?;
    let version = version(&makefile).ok_or_else(|| {
        Error::failed(format!("{}: expected Linux's source: its Makefile has no version", tree.display()))
    })?;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(path, _)| !tree.join(path).exists())
        .map(|(path, what)| format!("\n    {path} ({what})"))
        .collect();
    if !missing.is_empty() {
        return Err(Error::failed(format!(
            "Linux {version} lacks what the kernel half needs:{}",
            missing.concat()
        ))
        .advise("use Linux 7.2 or newer; nothing was changed"));
    }
    let ours = changes::ours()?;
    match changes::plan(tree, &ours).and_then(Plan::apply) {
        Err(Refusal::ChangedBefore { .. }) if changes::is_applied(tree) => {
            changes::refresh(tree, &ours)?;
            println!("Linux {version} in {}: has our changes; our files are up to date now", tree.display());
            return Ok(());
        }
        applied => applied.map_err(|error| Error::failed(error.to_string()))?,
    }
    println!(
        "Linux {version} in {}: {} places changed, {} files added",
        tree.display(),
        changes::EDITS.len(),
        ours.len()
    );
    println!("\nNow, in that tree:\n{NEXT}");
    Ok(())
}

const NEXT: &str = "    make ARCH=arm64 LLVM=1 rustavailable                  says what the tools lack
    scripts/config --enable RUST --enable KVM_ARM_SEAWALL
    make ARCH=arm64 LLVM=1 olddefconfig Image
Boot with kvm.seawall=on (the default), shadow or off.";

/// `7.3.4` of a Makefile.
fn version(makefile: &str) -> Option<String> {
    let number = |name: &str| -> Option<u32> {
        let value =
            makefile.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='))?;
        value.trim().parse().ok()
    };
    Some(format!("{}.{}.{}", number("VERSION")?, number("PATCHLEVEL")?, number("SUBLEVEL")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "# SPDX\nVERSION = 7\nPATCHLEVEL = 1\nSUBLEVEL = 12\n";

    #[test]
    fn a_tree_has_the_version_of_its_makefile() {
        assert_eq!(version(MAKEFILE).as_deref(), Some("7.1.12"));
        assert_eq!(version("all:\n\ttrue\n"), None);
    }

    #[test]
    fn a_tree_without_zerocopy_is_refused_by_what_it_lacks() {
        let tree = tempfile::tempdir().expect("a folder for temporary files");
        let write = |file: &str, text: &str| {
            let path = tree.path().join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        let refused = |part: &str| {
            let error = run(tree.path()).expect_err("the tree is not whole").to_string();
            assert!(error.contains(part), "{error}");
        };
        refused("found no Makefile");
        write("Makefile", "all:\n");
        refused("has no version");
        write("Makefile", MAKEFILE);
        write("arch/arm64/kvm/arm.c", "");
        write("rust/kernel/lib.rs", "");
        refused(
            "Linux 7.1.12 lacks what the kernel half needs:\n    rust/zerocopy/src/lib.rs (the crate zerocopy",
        );
    }
}
