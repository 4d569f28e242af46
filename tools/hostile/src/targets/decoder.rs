//! Any bytes as instructions, from any register state, at EL0 or EL1, with or without MMU and poison. The
//! machine runs them or gives the guest its exception, never panics, keeps to its budget, and repeats a run
//! exactly.

use seawall_events::{Abi, Layout, Reg, VcpuEvents};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, Error, NoSyndrome, RAM_BASE, StorePolicy, Vm};

const RAM_SIZE: u64 = 0x1_0000;
const VECTORS: u64 = RAM_BASE;
const CODE: u64 = RAM_BASE + 0x1000;
const TABLE: u64 = RAM_BASE + 0x8000;
/// Steps of one input, exits not counted.
const BUDGET: u64 = 600;
const EXITS: u32 = 40;
/// Skips the instruction that trapped: mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; eret.
const SKIP: [u32; 4] = [0xd538_4020, 0x9100_1000, 0xd518_4020, 0xd69f_03e0];

/// The setup in the first 16 bytes of an input.
struct Setup {
    seed: u64,
    /// AP, SH, AF, nG, UXN, PXN and GP of the block that maps RAM.
    attributes: u64,
    el0: bool,
    mmu: bool,
    poison: Option<u64>,
    config: Config,
}

impl Setup {
    fn new(head: &[u8; 16]) -> Self {
        let options = head[8];
        let bit = |n: u32| options >> n & 1 != 0;
        let attributes = u64::from(head[9]) << 6 | u64::from(head[10]) << 50 | u64::from(!bit(7)) << 10;
        let abi = match head[11] % 3 {
            0 => Abi::Mainline,
            1 => Abi::Extended(Layout::Posted),
            _ => Abi::Extended(Layout::Trailing),
        };
        Self {
            seed: u64::from_le_bytes([
                head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7],
            ]),
            attributes,
            el0: bit(0),
            mmu: bit(1),
            poison: bit(2).then_some(u64::from(head[12]) * 64),
            config: Config {
                memory_size: RAM_SIZE,
                abi,
                ras: bit(3),
                sea_to_user: bit(4),
                no_syndrome: match (bit(5), head[11] / 3 % 2) {
                    (true, 0) => NoSyndrome::Serve,
                    (true, _) => NoSyndrome::Exit,
                    (false, _) => NoSyndrome::Fail,
                },
                store_policy: if bit(6) { StorePolicy::Abort } else { StorePolicy::Defer },
                ..Config::default()
            },
        }
    }

    /// Half of the registers are addresses in RAM, the others are anything.
    fn register(&self, n: u8) -> u64 {
        let mut z = self.seed.wrapping_add(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        match z % 4 {
            0 | 1 => RAM_BASE + (z >> 8) % RAM_SIZE,
            2 => z >> 8 & 0xff,
            _ => z,
        }
    }

    fn machine(&self, code: &[u8]) -> Result<Vm, Error> {
        let mut vm = Vm::new(self.config)?;
        let memory = vm.memory_mut();
        let skip: Vec<u8> = SKIP.iter().flat_map(|word| word.to_le_bytes()).collect();
        for vector in 0..16 {
            memory.store(VECTORS + vector * 0x80, &skip)?;
        }
        memory.store(CODE, &code[..code.len().min(0x6000)])?;
        // The lower GiB as Device; RAM as one block of 1 GiB.
        memory.store(TABLE, &0x0060_0000_0000_0401_u64.to_le_bytes())?;
        memory.store(TABLE + 8, &(RAM_BASE | self.attributes | 0b101).to_le_bytes())?;
        let mut cpu = vm.vcpu(0)?;
        for n in 0..=30 {
            cpu.set_reg(Reg::X(n), self.register(n))?;
        }
        let sctlr = self.register(40) & !0x0108_0001 | u64::from(self.mmu);
        for (reg, value) in [
            (Reg::SpEl0, self.register(31)),
            (Reg::SpEl1, self.register(32)),
            (Reg::VbarEl1, VECTORS),
            (Reg::MairEl1, 0xff00),
            (Reg::TcrEl1, 5 << 32 | 0b10 << 30 | 0x19 << 16 | 0x19 | self.register(41) & 7 << 39),
            (Reg::Ttbr0El1, TABLE),
            (Reg::Ttbr1El1, TABLE),
            (Reg::SctlrEl1, sctlr),
            (Reg::Pstate, if self.el0 { 0x0 } else { 0x5 } | self.register(42) & 0xf140_03c0),
            (Reg::Pc, CODE),
        ] {
            cpu.set_reg(reg, value)?;
        }
        if let Some(line) = self.poison {
            vm.poison(RAM_BASE + line % RAM_SIZE..RAM_BASE + line % RAM_SIZE + 1)?;
        }
        Ok(vm)
    }
}

/// Runs to the end of the budget, and answers every exit as a VMM might. Returns the exits.
fn run(vm: &mut Vm, seed: u64) -> Vec<Result<Exit, Error>> {
    let mut exits = Vec::new();
    let Ok(mut cpu) = vm.vcpu(0) else { return exits };
    cpu.set_budget(Some(BUDGET));
    for _ in 0..EXITS {
        let exit = cpu.run();
        exits.push(exit.clone());
        let mut events = VcpuEvents::default();
        match exit {
            Ok(Exit::Sea(sea)) => {
                events.ext_iabt_pending = sea.is_fetch() && cpu.traits().abi != Abi::Mainline;
                events.ext_dabt_pending = !events.ext_iabt_pending;
            }
            Ok(Exit::Mmio(_)) => {
                cpu.answer_mmio(seed.to_le_bytes());
                continue;
            }
            Ok(Exit::Nisv(_)) => events.ext_dabt_pending = true,
            Ok(Exit::Idle) => events.serror_pending = true,
            Ok(Exit::SystemEvent(_)) => continue,
            _ => break,
        }
        cpu.inject(&events).expect("well formed");
    }
    exits
}

/// See the module.
pub(super) fn body(data: &[u8]) {
    let Some((head, code)) = data.split_first_chunk::<16>() else { return };
    let setup = Setup::new(head);
    let mut vm = setup.machine(code).expect("a machine");
    let mut again = setup.machine(code).expect("a machine");
    let exits = run(&mut vm, setup.seed);
    assert_eq!(exits, run(&mut again, setup.seed));
    assert_eq!(vm.state_hash(), again.state_hash());
    let (cpu, other) = (vm.vcpu(0).expect("a CPU"), again.vcpu(0).expect("a CPU"));
    // The answer to an MMIO exit completes an instruction beyond the budget.
    assert!(cpu.instructions() <= BUDGET + u64::from(EXITS));
    assert_eq!(cpu.instructions(), other.instructions());
    for reg in
        (0..=30).map(Reg::X).chain([Reg::Pc, Reg::Pstate, Reg::SpEl0, Reg::SpEl1, Reg::EsrEl1, Reg::FarEl1])
    {
        assert_eq!(cpu.reg(reg), other.reg(reg), "{reg:?}");
    }
}
