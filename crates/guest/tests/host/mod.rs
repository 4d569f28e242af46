//! A host for the guests: Seawall's machine with a UART, PSCI, and a callback for SEA exits.

use std::ops::Range;

use seawall_events::{SeaExit, VcpuEvents};
use seawall_guest::{Image, READY};
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::{Config, Vcpu, Vm};

/// More steps than any guest here needs: a longer run is a hang.
const BUDGET: u64 = 50_000_000;

/// The PL011, as far as these guests see it: its data register first, and UARTFR with both FIFOs empty.
const UART: Range<u64> = 0x0900_0000..0x0900_1000;
const FR: u64 = 0x18;
const EMPTY: u8 = 0x90;

/// The result of a run.
pub(crate) struct Run {
    /// The guest's whole output.
    pub(crate) console: String,
    /// Every SEA exit, in order.
    pub(crate) exits: Vec<SeaExit>,
}

/// Runs `image` to its SYSTEM_OFF. `at_ready` is called when the guest reports that it is ready, `on_sea` for
/// each SEA exit. A load or store to an empty address gets an external data abort, as on a bus without a
/// device.
pub(crate) fn run<L>(
    image: &Image<L>,
    config: Config,
    at_ready: impl FnOnce(&mut Vm),
    mut on_sea: impl FnMut(&mut Vcpu<'_>, &SeaExit),
) -> Run {
    let mut vm = Vm::new(config).unwrap();
    vm.memory_mut().store(image.load_address, &image.bytes).unwrap();
    let mut vcpu = vm.vcpu(0).unwrap();
    vcpu.set_reg(seawall_events::Reg::Pc, image.entry).unwrap();
    vcpu.set_budget(Some(BUDGET));
    let mut console = String::new();
    let mut exits = Vec::new();
    let mut at_ready = Some(at_ready);
    loop {
        match vcpu.run().unwrap() {
            Exit::Mmio(access) if UART.contains(&access.phys_addr) => {
                if !access.is_write {
                    let flags = if access.phys_addr == UART.start + FR { EMPTY } else { 0 };
                    vcpu.answer_mmio([flags, 0, 0, 0, 0, 0, 0, 0]);
                    continue;
                }
                if access.phys_addr == UART.start {
                    console.push(char::from(access.data[0]));
                }
                let line_is_ready = console.ends_with('\n')
                    && console.lines().last().is_some_and(|line| line.starts_with(READY));
                if let Some(at_ready) = at_ready.take_if(|_| line_is_ready) {
                    at_ready(vcpu.vm_mut());
                }
            }
            Exit::Mmio(_) | Exit::Nisv(_) => {
                vcpu.inject(&VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }).unwrap();
            }
            Exit::Sea(exit) => {
                exits.push(exit);
                assert!(exits.len() < 1000, "the same SEA again and again: {exit:x?}\n{console}");
                on_sea(&mut vcpu, &exit);
            }
            Exit::SystemEvent(SystemEvent::Shutdown) => return Run { console, exits },
            exit => panic!("{exit:x?}\n{console}"),
        }
    }
}
