//! The kernel of our own: Debian's source, changed, configured and built.

use std::path::{Path, PathBuf};

use seawall_anchor_edit::Plan;

use super::changes::{self, EDITS, Ours};
use super::tools::{self, Tools};
use crate::lab::apt::Apt;
use crate::lab::cache::Cached;
use crate::lab::error::{Error, Result};
use crate::lab::progress::Step;
use crate::lab::source::{Parts, Source};
use crate::lab::{Folders, files, root};

/// What no build of ours reads: 400 MB.
const LEFT_OUT: [&str; 2] = ["drivers/gpu/drm/amd/include", "Documentation/*/*"];
/// What the configuration is laid over, and what it is.
const BASE: &str = "allnoconfig";
const CONFIGURATION: &str = "kernel/linux/config";
/// Without these a configuration was not taken: make drops what it cannot have, and says nothing.
const MUST_HAVE: [&str; 3] = ["CONFIG_KVM=y", "CONFIG_RUST=y", "CONFIG_KVM_ARM_SEAWALL=y"];
/// Lines that a first build writes.
const LINES: usize = 1390;
/// Changed when this file makes something else of the source.
const KEY: &str = "1";

/// What kbuild makes of our crates, in its output.
const OBJECTS: [&str; 3] = ["seawall_kernel.o", "seawall_events.o", "seawall_arm.o"];

/// What was built.
pub(crate) struct Built {
    /// To boot.
    pub(crate) image: PathBuf,
    /// As `uname -r` says it.
    pub(crate) release: String,
}

/// The objects of our crates, once they are built.
pub(super) fn objects(folders: &Folders) -> Vec<PathBuf> {
    let folder = output(folders).join("arch/arm64/kvm/seawall");
    OBJECTS.iter().map(|object| folder.join(object)).collect()
}

/// kbuild's.
fn output(folders: &Folders) -> PathBuf {
    folders.target.join("build")
}

/// Builds what is not built yet.
///
/// # Errors
/// A step failed, or something cannot be had here ([`Error::is_unavailable`]).
pub(super) fn prepare(folders: &Folders, apt: &Apt) -> Result<Built> {
    let tools = tools::prepare(folders, apt)?;
    let ours = changes::ours()?;
    let tree = tree(folders, apt, &ours)?;
    changes::refresh(&tree, &ours)?;
    let output = output(folders);
    configure(&tools, folders, &tree, &output)?;
    compile(&tools, folders, &tree, &output)?;
    let release = files::read_text(&output.join("include/config/kernel.release"))?.trim().to_owned();
    Ok(Built { image: output.join(IMAGE), release })
}

const IMAGE: &str = "arch/arm64/boot/Image";

/// The source with our changes. Files that are unpacked again are as old as before: kbuild compiles none of them twice.
fn tree(folders: &Folders, apt: &Apt, ours: &[Ours]) -> Result<PathBuf> {
    let cached = Cached::new(folders.target.join("source"), format!("{KEY}\n{EDITS:?}"));
    cached.make(|folder| {
        let step = Step::begin("Linux's source (160 MB)");
        let source = Source::newest(apt)?;
        source.unpack(&step, apt, folders, &Parts::AllBut(&LEFT_OUT), folder)?;
        changes::plan(folder, ours).and_then(Plan::apply).map_err(|error| {
            Error::failed(format!("{} is not what our changes expect: {error}", source.package()))
                .advise("Linux moved on: bring the anchors in xtask/src/kernel/changes.rs up to it")
        })?;
        step.done(&source.package());
        Ok(())
    })?;
    Ok(cached.folder)
}

/// Only if it must: a configuration that is written again has every file looked at.
fn configure(tools: &Tools, folders: &Folders, tree: &Path, output: &Path) -> Result<()> {
    let fragment = root().join(CONFIGURATION);
    let (wanted, copy) = (files::read_text(&fragment)?, output.join("seawall.config"));
    if std::fs::read_to_string(&copy).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    files::create_folder(output)?;
    let step = Step::begin("Linux: configure");
    let mut make = tools.make(tree, output);
    make.arg(BASE).arg(format!("KCONFIG_ALLCONFIG={}", fragment.display()));
    step.run(&mut make, &folders.logs.join("configure.log"))?;
    let configuration = files::read_text(&output.join(".config"))?;
    let missing: Vec<&str> =
        MUST_HAVE.into_iter().filter(|option| configuration.lines().all(|line| line != *option)).collect();
    if !missing.is_empty() {
        return Err(Error::failed(format!(
            "Linux's configuration has not {}{}",
            missing.join(", "),
            why_no_rust(tools, folders, tree, output)
        ))
        .advise("see `make rustavailable` above for what the tools lack"));
    }
    step.done("");
    files::write(&copy, wanted)
}

/// What Linux says of the Rust tools.
fn why_no_rust(tools: &Tools, folders: &Folders, tree: &Path, output: &Path) -> String {
    let step = Step::begin("Linux: rustavailable");
    let mut make = tools.make(tree, output);
    match step.run(make.arg("rustavailable"), &folders.logs.join("rustavailable.log")) {
        Ok(()) => String::new(),
        Err(error) => format!("\n{error}"),
    }
}

fn compile(tools: &Tools, folders: &Folders, tree: &Path, output: &Path) -> Result<()> {
    let is_first = !output.join(IMAGE).exists();
    let step =
        Step::begin(if is_first { "Linux: compile (minutes, once)" } else { "Linux: compile what changed" });
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = tools.make(tree, output);
    make.arg(format!("-j{jobs}")).arg("Image");
    let log = folders.logs.join("compile.log");
    if is_first {
        step.run_counted(&mut make, &log, LINES)?;
    } else {
        step.run(&mut make, &log)?;
    }
    step.done("");
    Ok(())
}
