//! `cargo xtask kernel-fit`, or `cargo run -p seawall-kernel-fit`: a check that `seawall-events` and
//! `seawall-arm` can be linked into a kernel.
//!
//! It reads the built objects. `crates/events/examples/embed_object.rs` instantiates every entry point for a
//! vCPU of its own; its object and those of the two crates may
//!
//! - refer to no symbol that leads to a panic, with overflow checked as Linux checks it,
//! - refer to no allocator and no floating point, and leave nothing undefined but `memcpy` and its like, and
//!   `core::fmt` for `Display`,
//! - not recurse, and need at most [`STACK_LIMIT`] bytes of stack from an entry point down.
//!
//! In addition no source file of the two crates may name a float.
//!
//! With objects on the command line it reads those instead: those that Linux's kbuild made of the crates (`cargo xtask kernel
//! test`). Their entry points are the functions that C calls.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod build;
mod calls;
mod code;
mod frames;
mod names;
mod sources;
#[cfg(test)]
mod tests;

use calls::{Calls, Chain, Unbounded};
use code::Code;

/// The deepest stack that an entry point may need, in bytes. Linux on arm64 has 16 KiB in all.
const STACK_LIMIT: u64 = 1024;

/// The entry points: every function of the example; what Linux's C calls.
const ENTRY_POINTS: &str = "embed_object::";
const LINUX_ENTRY_POINTS: &str = "seawall_rust_";

fn main() -> ExitCode {
    let objects: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let checked = if objects.is_empty() { check(&root()) } else { check_objects(&objects) };
    match checked {
        Ok(offences) if offences.is_empty() => ExitCode::SUCCESS,
        Ok(offences) => {
            for offence in offences {
                println!("  NOT FIT: {offence}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: kernel-fit: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

fn check(root: &Path) -> Result<Vec<String>, String> {
    let built = build::build(root)?;
    let mut codes = Vec::new();
    println!("objects, built with overflow checks, no LTO:");
    for archive in &built {
        let data =
            std::fs::read(&archive.path).map_err(|error| format!("{}: {error}", archive.path.display()))?;
        let found = code::read_archive(&data)?;
        let functions: usize = found.iter().map(|code| code.functions.len()).sum();
        println!("  {:<15} {functions:>3} functions", archive.name);
        codes.extend(found);
    }
    let mut offences = names_of(&codes);
    if cfg!(target_arch = "x86_64") {
        stack(&codes, ENTRY_POINTS, &mut offences);
    } else {
        println!("  stack           not measured: frames are read from x86-64 unwind tables");
    }
    let before = offences.len();
    let files = floats(root, &mut offences)?;
    println!(
        "  sources         {}",
        verdict(offences.len() == before, &format!("no float in {files} files"))
    );
    Ok(offences)
}

/// The same for objects that another build made.
fn check_objects(paths: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut codes = Vec::new();
    println!("objects of Linux:");
    for path in paths {
        let data = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let code = code::read_object(&name, &data)?;
        println!("  {name:<15} {:>3} functions", code.functions.len());
        codes.push(code);
    }
    let mut offences = names_of(&codes);
    stack(&codes, LINUX_ENTRY_POINTS, &mut offences);
    Ok(offences)
}

fn verdict(good: bool, text: &str) -> &str {
    if good { text } else { "see below" }
}

/// The offences among the names that the objects define or leave undefined.
fn names_of(codes: &[Code]) -> Vec<String> {
    let defined: std::collections::BTreeSet<&str> = codes
        .iter()
        .flat_map(|code| code.functions.iter())
        .filter_map(|function| match &function.key {
            code::Key::Global(name) => Some(name.as_str()),
            code::Key::Local(..) => None,
        })
        .collect();
    let mut offences = Vec::new();
    for code in codes {
        let inside = code.defined.iter().filter_map(|name| Some((names::offence(name)?, name)));
        let open = code.open.iter().filter(|(mangled, _)| !defined.contains(mangled.as_str()));
        let open = open.filter_map(|(_, name)| Some((names::external_offence(name)?, name)));
        offences.extend(inside.chain(open).map(|(offence, name)| format!("{}: {name}", offence.text())));
    }
    offences.sort();
    offences.dedup();
    println!(
        "  names           {}",
        verdict(offences.is_empty(), "no panic, no allocator, no floating point")
    );
    offences
}

/// Checks recursion and the deepest chain, from the functions whose name starts with `entry_points`.
fn stack(codes: &[Code], entry_points: &str, offences: &mut Vec<String>) {
    let calls = Calls::new(codes);
    match calls.deepest(entry_points) {
        Ok(Chain { bytes, names }) => {
            println!(
                "  stack           {bytes} bytes at most (limit {STACK_LIMIT}), no recursion: {}",
                names.join(" > ")
            );
            if bytes == 0 || bytes > STACK_LIMIT {
                offences.push(format!("a stack of {bytes} bytes: expected 1 to {STACK_LIMIT}"));
            }
        }
        Err(unbounded) => offences.push(text(&unbounded)),
    }
    let external = calls.external(entry_points);
    println!("  calls outside   {}", external.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    for name in external.iter().filter(|name| names::is_formatting(name)) {
        offences.push(format!("an entry point formats text, on a stack that is not measured: {name}"));
    }
    // Display is not among the entry points; it must not recurse either.
    match calls.deepest("") {
        Ok(Chain { bytes, .. }) => println!("  stack of text   {bytes} bytes at most, and core::fmt below"),
        Err(unbounded) => offences.push(text(&unbounded)),
    }
}

fn text(unbounded: &Unbounded) -> String {
    match unbounded {
        Unbounded::Recursion(names) => format!("recursion: {}", names.join(" > ")),
        Unbounded::Frame(name) => format!("a frame that is not constant: {name}"),
    }
}

/// Checks the source files for floats; returns their number.
fn floats(root: &Path, offences: &mut Vec<String>) -> Result<usize, String> {
    let mut count = 0;
    for folder in ["crates/arm/src", "crates/events/src"] {
        for file in sources::rust_files(&root.join(folder))? {
            let source =
                std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let lines = sources::float_lines(&source);
            offences.extend(lines.iter().map(|line| format!("a float: {}:{line}", file.display())));
            count += 1;
        }
    }
    Ok(count)
}
