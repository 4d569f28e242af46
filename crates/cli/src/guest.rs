//! `seawall guest`: Linux guests for experiments.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::ProgressBar;
use seawall_campaign::engine::quoted;
use seawall_linux::services::{self, Services, services};
use seawall_linux::{COMMAND_LINE, Error, Fetch, Flavour, Guest, by_hand, cache_directory};
use serde_json::json;

use crate::style::{dim, head};
use crate::{Failure, exit, out};

/// Get a Linux guest: Debian's kernel, and an initramfs with a workload.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Fetch a guest, or find one that was fetched before.
    Fetch(FetchArgs),
}

/// Fetches Debian's arm64 kernel and busybox by the packages' names, through the apt and the mirror of this
/// host, and makes an initramfs of busybox and a workload. The workload is five processes that report the memory
/// they use, that they live, and how they ended. The command needs no root. It keeps the fetched files, and checks
/// their hashes on each use.
#[derive(clap::Args)]
#[command(after_help = HELP)]
struct FetchArgs {
    /// Distribution of the kernel.
    #[arg(value_parser = ["debian"])]
    whose: String,
    /// Folder that keeps the guest [default: $XDG_CACHE_HOME/seawall/guests, or below ~/.cache].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A suite of Debian's, such as bookworm [default: trixie-backports, else sid, for a kernel from 7.0].
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// Debian's kernel to fetch: `cloud` is made for virtual machines, `default` (linux-image-arm64) for any machine, `rt`
    /// has PREEMPT_RT, `16k` has pages of 16 KiB.
    #[arg(long, value_name = "FLAVOUR", default_value = Flavour::Cloud.word(), value_parser = flavours())]
    flavour: Flavour,
    /// An arm64 kernel of your own; the command then fetches nothing.
    #[arg(long, value_name = "FILE", requires = "busybox", conflicts_with_all = ["suite", "flavour"])]
    kernel: Option<PathBuf>,
    /// A static arm64 busybox of your own.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    busybox: Option<PathBuf>,
    /// A guest for campaigns: its root is a disk with Debian's sqlite3 and bzip2, a web server, and the five processes.
    #[arg(long, conflicts_with_all = ["kernel", "busybox"])]
    services: bool,
    /// Print one JSON object: kernel, initrd, busybox (paths), release, packages, append; disk with --services.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  seawall guest fetch debian
  seawall guest fetch debian --suite bookworm --json | jq -r .kernel
  seawall guest fetch debian --flavour 16k                         pages of 16 KiB
  seawall guest fetch debian --kernel Image --busybox busybox      without a network

The guest's kernel command line (--append) selects the work of the guest:
  seawall.workload=workload   five processes, and a report of how each ended (the default)
  seawall.workload=stress     tools on known data; the kernel tests its ciphers
  seawall.workload=shell      a shell on the console
  seawall.rounds=100          how long the five processes work, in rounds of 10 ms
  seawall.sigbus=handle       the five processes handle SIGBUS and print its contents

If the host's apt sources have no mirror of Debian, set SEAWALL_DEBIAN_MIRROR to one.";

/// The parser of a flavour's option word.
fn flavours() -> impl TypedValueParser<Value = Flavour> {
    let words = PossibleValuesParser::new(Flavour::ALL.map(Flavour::word));
    words.try_map(|word| Flavour::by_word(&word).ok_or("expected a flavour of Debian's kernel"))
}

pub(crate) fn main(args: &Args, quiet: bool) -> Result<u8, Failure> {
    let Action::Fetch(fetch) = &args.action;
    let directory = fetch.dir.clone().or_else(cache_directory).ok_or_else(|| {
        Failure::new(exit::FILE, "there is no home to keep a guest in: name a directory by --dir")
    })?;
    // Absolute paths, which are valid wherever the printed command is run.
    let directory = std::path::absolute(&directory)
        .map_err(|error| Failure::new(exit::FILE, format!("--dir {}: {error}", directory.display())))?;
    let fetched = if let (Some(kernel), Some(busybox)) = (&fetch.kernel, &fetch.busybox) {
        by_hand(&directory, kernel, busybox).map(Fetched::Guest)
    } else {
        let what = Fetch { directory, suite: fetch.suite.clone(), flavour: fetch.flavour };
        if fetch.services {
            fetch_services(&what, quiet).map(Fetched::Services)
        } else {
            with_progress(quiet, |note| what.guest(note)).map(Fetched::Guest)
        }
    };
    let fetched = fetched.map_err(|error| {
        let Failure { code, message } = failure(&error);
        let by_hand = if error.is_unavailable() { " (--kernel FILE --busybox FILE)" } else { "" };
        Failure::new(code, format!("{message}{by_hand}"))
    })?;
    out::stdout(&match (&fetched, fetch.json) {
        (Fetched::Guest(guest), true) => format!("{}\n", as_json(guest)),
        (Fetched::Guest(guest), false) => screen(guest),
        (Fetched::Services(services), true) => services_as_json(services),
        (Fetched::Services(services), false) => services_screen(services),
    })?;
    Ok(0)
}

/// The guest with services, fetched or found.
pub(crate) fn fetch_services(what: &Fetch, quiet: bool) -> Result<Services, Error> {
    with_progress(quiet, |note| services(what, note))
}

fn with_progress<T>(quiet: bool, fetch: impl FnOnce(&dyn Fn(&str)) -> Result<T, Error>) -> Result<T, Error> {
    let progress = Progress::default();
    let fetched = fetch(&|text| {
        if !quiet {
            progress.note(text);
        }
    });
    progress.end();
    fetched
}

/// The fetched files.
enum Fetched {
    Guest(Guest),
    Services(Services),
}

fn services_as_json(services: &Services) -> String {
    let mut report = as_json(&services.guest);
    report["initrd"] = json!(services.initrd);
    report["disk"] = json!(services.disk);
    report["append"] = json!(services::COMMAND_LINE);
    format!("{report}\n")
}

fn services_screen(Services { guest, initrd, disk }: &Services) -> String {
    let of = guest
        .packages
        .iter()
        .fold(String::new(), |text, package| text + &format!("{} {package}\n", head("of      ")));
    format!(
        "{} {}\n{} {}\n{} {}\n{of}\n{}\n  seawall campaign plan DIR --services\n",
        head("kernel  "),
        guest.kernel.display(),
        head("initrd  "),
        initrd.display(),
        head("disk    "),
        disk.display(),
        dim("plan a campaign with it: which of its pages can go bad, and what that costs"),
    )
}

pub(crate) fn failure(error: &Error) -> Failure {
    let code = if error.is_unavailable() { exit::UNAVAILABLE } else { exit::FILE };
    Failure::new(code, format!("no guest: {error}"))
}

fn as_json(guest: &Guest) -> serde_json::Value {
    json!({
        "kernel": guest.kernel,
        "initrd": guest.initrd,
        "busybox": guest.busybox,
        "release": guest.release,
        "packages": guest.packages,
        "append": COMMAND_LINE,
    })
}

fn screen(guest: &Guest) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: &str| {
        let _ = writeln!(text, "{} {what}", head(format!("{name:<8}")));
    };
    line("kernel", &guest.kernel.display().to_string());
    line("initrd", &guest.initrd.display().to_string());
    for package in &guest.packages {
        line("of", package);
    }
    let _ = write!(
        text,
        "\n{}\n  seawall run --kernel {} \\\n    --initrd {} \\\n    --append '{COMMAND_LINE} seawall.workload=workload' \\\n    \
         --poison page:code --poison page:anonymous\n",
        dim("boot it, and let the code of one process and the data of another go bad:"),
        quoted(&guest.kernel),
        quoted(&guest.initrd),
    );
    text
}

/// A spinner at a terminal; otherwise a single line.
#[derive(Default)]
struct Progress(RefCell<Option<ProgressBar>>);

impl Progress {
    fn note(&self, text: &str) {
        let mut bar = self.0.borrow_mut();
        let bar = bar.get_or_insert_with(|| {
            if std::io::stderr().is_terminal() {
                return ProgressBar::new_spinner();
            }
            out::stderr("seawall: making a guest of Debian's packages");
            ProgressBar::hidden()
        });
        // The names of packages matter; apt's own figures do not.
        bar.set_message(text.chars().take(100).collect::<String>());
        bar.tick();
    }

    fn end(&self) {
        if let Some(bar) = self.0.borrow().as_ref() {
            bar.finish_and_clear();
        }
    }
}
