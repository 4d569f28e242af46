//! `seawall-lab-wrap` in the lab: Debian's own QEMU for arm64, the preload library, and a Debian guest.

use std::io::stdout;
use std::time::Duration;

use clap::Parser as _;
use seawall_lab::options::{Wrap, WrapScenario};

use super::binaries::Built;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::machine::Machine;
use super::{Lab, Options, code, peer, preload, stranger};

const PROGRAM: &str = "seawall-lab-wrap";
/// Two vCPUs run side by side.
const CPUS: u32 = 2;

/// Runs the scenarios that are asked for: the exit code.
pub(crate) fn run(
    lab: &Lab,
    options: &Options,
    arguments: &[String],
    programs: &[Built],
    mut guests: Vec<Guest>,
) -> Result<u8> {
    guests.extend(peer::prepare(lab)?);
    let libraries = preload::prepare(lab)?;
    // What QEMU needs of the C library is in both.
    for library in libraries {
        if !guests.iter().any(|guest| guest.lab == library.lab) {
            guests.push(library);
        }
    }
    guests.push(stranger::prepare(lab)?);
    guests.push(Guest { host: lab.kernel.image.clone(), lab: "guest/vmlinuz".into() });
    guests.push(Guest { host: lab.kernel.initrd.clone(), lab: "guest/initrd".into() });
    let machine = options.machine.or_cpus(CPUS);
    eprintln!("lab: Linux {} on {}", lab.booted.release, machine.name());
    // It was read before, when there was no lab yet.
    let wrap = Wrap::try_parse_from([PROGRAM.to_owned()].iter().chain(arguments));
    let wrap = wrap.map_err(|error| Error::failed(error.to_string()))?;
    let (counted, timed): (Vec<_>, Vec<_>) =
        wrap.scenarios().partition(|scenario| *scenario == WrapScenario::Cost);
    let counting = Machine { counts_instructions: true, smp: Some(1), ..machine.clone() };
    let mut codes = Vec::new();
    for (machine, scenarios) in [(&machine, timed), (&counting, counted)] {
        if scenarios.is_empty() {
            continue;
        }
        let command: Vec<String> =
            std::iter::once(PROGRAM.to_owned()).chain(wrap.words(&scenarios)).collect();
        let timeout = Duration::from_secs(options.timeout);
        let ended = lab.run(machine, programs, &guests, &command, timeout, &mut stdout().lock())?;
        codes.push(code(&ended, options.timeout));
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}
