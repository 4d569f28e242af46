//! Instructions, as words. X1 is the accessed address, X3 the target of jumps, X8 the address for reports.

/// `ldr x2, [x1]`
pub(crate) const LDR: u32 = 0xf940_0022;
/// `ldrb w2, [x1]`
pub(crate) const LDRB: u32 = 0x3940_0022;
/// `ldrsw x2, [x1]`
pub(crate) const LDRSW: u32 = 0xb980_0022;
/// `str x2, [x1]`
pub(crate) const STR: u32 = 0xf900_0022;
/// `strb w2, [x1]`
pub(crate) const STRB: u32 = 0x3900_0022;
/// `ldr x2, [x1], #8`
pub(crate) const LDR_POST: u32 = 0xf840_8422;
/// `ldr x2, [x1, #8]!`
pub(crate) const LDR_PRE: u32 = 0xf840_8c22;
/// `str x2, [x1], #8`
pub(crate) const STR_POST: u32 = 0xf800_8422;
/// `ldp x2, x3, [x1]`
pub(crate) const LDP: u32 = 0xa940_0c22;
/// `stp x2, x3, [x1]`
pub(crate) const STP: u32 = 0xa900_0c22;
/// `ldxr x2, [x1]`
pub(crate) const LDXR: u32 = 0xc85f_7c22;
/// `ret x3`: a jump that leaves PSTATE.BTYPE 0
pub(crate) const RET_X3: u32 = 0xd65f_0060;
/// `br x3`
pub(crate) const BR_X3: u32 = 0xd61f_0060;
/// `nop`
pub(crate) const NOP: u32 = 0xd503_201f;
/// `b .`
pub(crate) const LOOP: u32 = 0x1400_0000;
/// `msr daifclr, #4`: unmasks SErrors
pub(crate) const UNMASK_A: u32 = 0xd503_44ff;
/// `esb`
pub(crate) const ESB: u32 = 0xd503_221f;
/// `mrs x2, disr_el1`
pub(crate) const MRS_X2_DISR: u32 = 0xd538_c122;
/// `movz x2, #0x600d`
pub(crate) const MOV_X2_GOOD: u32 = 0xd28c_01a2;
/// `str x2, [x8]`: reports X2
pub(crate) const REPORT_X2: u32 = 0xf900_0102;
