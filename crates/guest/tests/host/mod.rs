//! A host for the guests: Seawall's machine with a UART, PSCI, and a say in what an SEA exit leads to.

use seawall_events::{Exit, SeaExit, SystemEvent, Vcpu as _, VcpuEvents};
use seawall_guest::{Image, READY};
use seawall_machine::uart::{self, Pl011};
use seawall_machine::{Config, Vcpu, Vm, loader};

/// More steps than any guest here needs: one that takes longer hangs.
const BUDGET: u64 = 50_000_000;

/// What came of a run.
pub(crate) struct Run {
    /// All that the guest wrote.
    pub(crate) console: String,
    /// Every SEA exit, in order.
    pub(crate) exits: Vec<SeaExit>,
}

/// Runs `image` to its SYSTEM_OFF. `at_ready` is called when the guest says that it is ready, `on_sea` for each SEA
/// exit. A load or store where there is nothing gets an external data abort, as on a bus without a device.
pub(crate) fn run<L>(
    image: &Image<L>,
    config: Config,
    at_ready: impl FnOnce(&mut Vm),
    mut on_sea: impl FnMut(&mut Vcpu<'_>, &SeaExit),
) -> Run {
    let mut vm = Vm::new(config).unwrap();
    loader::load_flat(vm.memory_mut(), &image.bytes, image.load_address).unwrap();
    let mut vcpu = vm.vcpu(0).unwrap();
    vcpu.set_reg(seawall_events::Reg::Pc, image.entry).unwrap();
    vcpu.set_budget(Some(BUDGET));
    let mut uart = Pl011::new();
    let mut console = String::new();
    let mut exits = Vec::new();
    let mut at_ready = Some(at_ready);
    loop {
        match vcpu.run().unwrap() {
            Exit::Mmio(access) if (uart::BASE..uart::BASE + uart::SIZE).contains(&access.phys_addr) => {
                let offset = access.phys_addr - uart::BASE;
                if !access.is_write {
                    let mut data = [0; 8];
                    data[..4].copy_from_slice(&uart.read(offset).to_le_bytes());
                    vcpu.answer_mmio(data);
                    continue;
                }
                uart.write(offset, u32::from_le_bytes(access.data[..4].try_into().unwrap()));
                console.push_str(&String::from_utf8(uart.take_sent()).unwrap());
                let line_is_ready = console.ends_with('\n')
                    && console.lines().last().is_some_and(|line| line.starts_with(READY));
                if let Some(at_ready) = at_ready.take_if(|_| line_is_ready) {
                    at_ready(vcpu.vm_mut());
                }
            }
            Exit::Mmio(_) | Exit::Nisv(_) => {
                vcpu.set_events(&VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }).unwrap();
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
