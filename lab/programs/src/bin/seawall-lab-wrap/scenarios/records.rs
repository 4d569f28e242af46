//! QEMU with `ras=on`: records of errors are QEMU's, if its own handler of SIGBUS gets them.

use std::process::Command;

use seawall_kvm::{GuestAddress, GuestMemoryBackend as _};
use seawall_lab::peer::conductor::memory;
use seawall_lab::peer::image::{PAGE, PAGES};
use seawall_lab::peer::qemu::Qemu;
use seawall_lab::report::Verdict;
use seawall_lab_machine::{PoisonRegister, physical_address};

use crate::ram::{Healing, text};

/// How many pages go bad, one by one.
const COUNT: u64 = 4;

/// How memory goes bad.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Road {
    /// The host does not know: an SEA.
    Register,
    /// `MADV_HWPOISON`: a SIGBUS.
    Host,
}

/// The guest loads from pages that went bad on this road, under `--sigbus TO`: each load aborts. True if the last one has a
/// record too.
fn has_record(to: &str, road: Road) -> Result<bool, String> {
    let mut command = Command::new("seawall");
    command.args(["wrap", "--quiet", "--sigbus", to, "--", "qemu-system-aarch64"]);
    let mut qemu = Qemu::start(command, COUNT).map_err(text)?;
    let _healing = Healing;
    qemu.tell_sources().map_err(text)?;
    qemu.conduct(|guest| guest.touch(COUNT)).map_err(text)?;
    let view = memory(qemu.file(), None).map_err(text)?;
    for page in 0..COUNT {
        let host = view.get_host_address(GuestAddress(PAGES + page * PAGE)).map_err(text)? as u64;
        match road {
            Road::Register => {
                // Read, so that it is mapped here.
                vm_memory::Bytes::read_obj::<u8>(&view, GuestAddress(PAGES + page * PAGE)).map_err(text)?;
                let physical = physical_address(host).map_err(text)?;
                PoisonRegister::open()
                    .and_then(|mut register| register.poison(physical, 64))
                    .map_err(text)?;
            }
            Road::Host => seawall_host::hwpoison(host..host + 1).map_err(text)?,
        }
    }
    qemu.conduct(|guest| {
        guest.abort(COUNT)?;
        Ok(guest.check_record(PAGES + (COUNT - 1) * PAGE).is_ok())
    })
    .map_err(text)
}

pub(super) fn run() -> Verdict {
    for (to, road, name, expected) in [
        ("vmm", Road::Register, "an SEA under --sigbus vmm", true),
        ("vmm", Road::Host, "a SIGBUS under --sigbus vmm", true),
        ("contain", Road::Register, "an SEA under --sigbus contain", false),
        ("contain", Road::Host, "a SIGBUS under --sigbus contain", false),
    ] {
        let found = has_record(to, road).map_err(|error| format!("{name}: {error}"))?;
        if found != expected {
            return Err(format!("{name}: expected a record: {expected}, got {found}"));
        }
    }
    Ok("an abort each time; with QEMU's record under --sigbus vmm, after an SEA too".to_owned())
}
