//! Our own programs for the lab: built by cargo each time, so that they are never stale.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cross::{TARGET, Toolchain};
use super::error::{Error, Result};
use super::example::Example;
use super::{Folders, root};

/// A program for the lab's /bin, by its package.
struct Binary {
    package: &'static str,
    name: &'static str,
}

/// What the lab is used with: the command, the differential test, the containment with its victims. Static.
const BINARIES: [Binary; 5] = [
    Binary { package: "seawall-cli", name: "seawall" },
    Binary { package: "seawall-lab", name: "seawall-lab-diff" },
    Binary { package: "seawall-lab", name: "seawall-lab-contain" },
    Binary { package: "seawall-lab", name: "seawall-lab-victim" },
    Binary { package: "seawall-lab", name: "seawall-lab-wrap" },
];
/// Its times are those of the code as it is shipped.
const BENCH: Binary = Binary { package: "seawall-lab", name: "seawall-lab-bench" };
/// What is run with the library of LD_PRELOAD, and so must not be static: in the library's first mode, and in its second.
const PRELOADED: [Binary; 2] = [
    Binary { package: "seawall-lab", name: "seawall-lab-raw-ioctls" },
    Binary { package: "seawall-lab-small-vmm", name: "seawall-lab-small-vmm" },
];
const PRELOAD: &str = "seawall-preload";
/// Their tests run in the lab: that which speaks to /dev/kvm, and that which speaks of bad memory.
const TESTED: [&str; 2] = ["seawall-kvm", "seawall-host"];

/// Built anew after each change, and run by a software CPU: quick to build is better than quick.
const FAST_BUILD: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];
/// The release profile but for what is of no use in the lab.
const AS_SHIPPED: [(&str, &str); 1] = [("CARGO_PROFILE_RELEASE_DEBUG", "0")];

/// A program that was built: its name in the lab, and where it is on the host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds the programs of the table.
pub(crate) fn build(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let mut arguments = vec!["build"];
    for binary in &BINARIES {
        arguments.extend(["--package", binary.package, "--bin", binary.name]);
    }
    cargo(&arguments, folders, &Link::Static(toolchain), is_program)
}

/// Builds the command for this host, and gives its path. Without LTO it is 4 % slower, and built in a third of the time.
pub(crate) fn build_for_host(folders: &Folders) -> Result<PathBuf> {
    let arguments = ["build", "--package", "seawall-cli", "--bin", "seawall"];
    let built = cargo(&arguments, folders, &Link::Host, is_program)?;
    let program = built.into_iter().find(|program| program.name == "seawall").map(|program| program.path);
    program.ok_or_else(|| Error::failed("cargo built no program \"seawall\""))
}

/// Builds the bench.
pub(crate) fn build_bench(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let arguments = ["build", "--package", BENCH.package, "--bin", BENCH.name];
    cargo(&arguments, folders, &Link::StaticAsShipped(toolchain), is_program)
}

/// Builds the tests of crates that need the lab.
pub(crate) fn build_tests(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let packages = TESTED.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<&str> = ["test", "--no-run"].into_iter().chain(packages).collect();
    cargo(&arguments, folders, &Link::Static(toolchain), is_test)
}

/// Builds an example.
pub(crate) fn build_example(
    folders: &Folders,
    toolchain: &Toolchain,
    example: &Example,
) -> Result<Vec<Built>> {
    let arguments = ["build", "--package", &example.package, "--example", &example.name];
    cargo(&arguments, folders, &Link::Static(toolchain), is_program)
}

/// Builds the library for LD_PRELOAD and the programs that are run with it. It takes Debian's cross compiler.
pub(crate) fn build_preload(folders: &Folders, toolchain: &Toolchain) -> Result<Vec<Built>> {
    let shared = Link::Shared(toolchain);
    let mut built = cargo(&["build", "--package", PRELOAD], folders, &shared, is_shared)?;
    // Apart from each other: a VMM that knows nothing of Seawall has none of its crates' features.
    for Binary { package, name } in PRELOADED {
        built.extend(cargo(&["build", "--package", package, "--bin", name], folders, &shared, is_program)?);
    }
    Ok(built)
}

/// How programs are linked.
enum Link<'a> {
    Static(&'a Toolchain),
    StaticAsShipped(&'a Toolchain),
    Shared(&'a Toolchain),
    /// A program of this host.
    Host,
}

impl Link<'_> {
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Self::Static(toolchain) | Self::StaticAsShipped(toolchain) => toolchain.environment(),
            Self::Shared(toolchain) => toolchain.environment_for_shared(),
            Self::Host => Vec::new(),
        }
    }

    fn profile(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::StaticAsShipped(_) | Self::Shared(_) => &AS_SHIPPED,
            _ => &FAST_BUILD,
        }
    }

    /// What it is built for; `None`: this host.
    fn target(&self) -> Option<&'static str> {
        if matches!(self, Self::Host) { None } else { Some(TARGET) }
    }

    /// A target directory for each, so that neither has the other built anew.
    fn folder(&self) -> &'static str {
        match self {
            Self::Static(_) => "cargo",
            Self::StaticAsShipped(_) => "cargo-shipped",
            Self::Shared(_) => "cargo-shared",
            Self::Host => "cargo-host",
        }
    }
}

fn cargo(
    arguments: &[&str],
    folders: &Folders,
    link: &Link<'_>,
    wanted: fn(&Value) -> Option<Built>,
) -> Result<Vec<Built>> {
    let line = format!("cargo {}", arguments.join(" "));
    eprintln!("lab: {line}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(arguments)
        .args(["--release", "--message-format=json-render-diagnostics"])
        .args(link.target().into_iter().flat_map(|target| ["--target", target]))
        .arg("--target-dir")
        .arg(folders.target.join(link.folder()))
        .current_dir(root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .envs(link.environment())
        .envs(link.profile().iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|error| Error::failed(format!("{cargo}: {error}")))?;
    if !output.status.success() {
        return Err(Error::failed(format!("{line}: {}", output.status)).advise("see cargo's messages above"));
    }
    Ok(artifacts(&String::from_utf8_lossy(&output.stdout), wanted))
}

/// What cargo says it built, as far as it is wanted.
fn artifacts(messages: &str, wanted: fn(&Value) -> Option<Built>) -> Vec<Built> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built: Vec<Built> = messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| wanted(&message))
        .collect();
    // Cargo tells what is fresh in no order.
    built.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    built
}

fn is_program(message: &Value) -> Option<Built> {
    let path = message["executable"].as_str()?;
    Some(Built { name: message["target"]["name"].as_str()?.into(), path: path.into() })
}

fn is_test(message: &Value) -> Option<Built> {
    let path = message["executable"].as_str()?;
    let of_test = message["profile"]["test"].as_bool()?;
    of_test.then(|| Built {
        name: message["target"]["name"].as_str().unwrap_or("test").into(),
        path: path.into(),
    })
}

fn is_shared(message: &Value) -> Option<Built> {
    let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
    let path = PathBuf::from(files.find(|file| file.ends_with("/libseawall_preload.so"))?);
    Some(Built { name: "libseawall_preload.so".into(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_tests_and_libraries_are_told_apart_in_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"seawall"},"profile":{"test":false},"executable":null,"filenames":["/t/libseawall.rlib"]}
{"reason":"compiler-artifact","target":{"name":"seawall"},"profile":{"test":false},"executable":"/t/seawall","filenames":["/t/seawall"]}
{"reason":"compiler-artifact","target":{"name":"probe"},"profile":{"test":true},"executable":"/t/deps/probe-1","filenames":["/t/deps/probe-1"]}
{"reason":"compiler-artifact","target":{"name":"seawall_preload"},"profile":{"test":false},"executable":null,"filenames":["/t/libseawall_preload.so"]}
{"reason":"build-finished","success":true}"#;
        let built = |name: &str, path: &str| Built { name: name.into(), path: path.into() };
        assert_eq!(artifacts(messages, is_test), [built("probe", "/t/deps/probe-1")]);
        assert_eq!(
            artifacts(messages, is_shared),
            [built("libseawall_preload.so", "/t/libseawall_preload.so")]
        );
        assert!(artifacts(messages, is_program).contains(&built("seawall", "/t/seawall")));
    }
}
