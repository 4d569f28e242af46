//! Changes of QEMU's source: anchors, and files of ours in `lab/qemu`. `lab/README.md` says what for.

use seawall_anchor_edit::{Addition, Changes, Edit, Place};

use Place::{After, LineAfter, LineBefore, Replace};

/// All of them, for QEMU 10.0.
pub(super) const CHANGES: Changes<'_> = Changes { mark: "lab_", edits: EDITS, additions: ADDITIONS };

const TLB_HELPER: &str = "target/arm/tcg/tlb_helper.c";
const CPU_C: &str = "target/arm/cpu.c";
const CPU_H: &str = "target/arm/cpu.h";
const HELPER: &str = "target/arm/helper.c";
const WALKER: &str = "target/arm/ptw.c";
const TLB: &str = "accel/tcg/cputlb.c";
const MACHINE: &str = "hw/arm/virt.c";

const INCLUDE_CPU: &str = "#include \"lab_cpu.h\"";
const INCLUDE_POISON: &str = "#include \"hw/arm/lab_poison.h\"";

#[rustfmt::skip]
const EDITS: &[Edit<'_>] = &[
    // HCR_EL2.TEA routes a synchronous External abort to EL2.
    edit(TLB_HELPER, "\"internals.h\"", LineAfter, INCLUDE_CPU),
    within("void arm_deliver_fault(", edit(TLB_HELPER, "same_el = ", LineBefore,
        "    target_el = lab_abort_target(env, fi, target_el);")),

    // RAM that can go bad: the TLB and the walker go to a bad page through the device's window.
    edit(TLB, "\"exec/vaddr.h\"", LineAfter, INCLUDE_POISON),
    within("void tlb_set_page_full(", edit(TLB, "paddr_page = ", LineAfter,
        "    paddr_page = lab_poison_route(paddr_page);")),
    edit(WALKER, "\"idau.h\"", LineAfter, INCLUDE_POISON),
    edit(WALKER, "ptw->out_phys = full", LineAfter,
        "        if (!ptw->out_host) {\n            ptw->out_phys = lab_poison_route(ptw->out_phys);\n        }"),
    edit(MACHINE, "\"hw/arm/boot.h\"", LineAfter, INCLUDE_POISON),
    edit(MACHINE, "virt_flash_fdt(vms, sysmem", LineBefore,
        "    lab_poison_init(vms->memmap[VIRT_MEM].base, machine->ram_size, machine->fdt);"),
    edit("hw/arm/meson.build", "'virt.c'", After, ", 'lab_poison.c'"),

    // SCTLR2 and FEAT_DoubleFault2: -cpu ...,lab-double-fault2=on.
    edit(CPU_H, "uint64_t vsctlr;", LineBefore,
        "        uint64_t lab_sctlr2_el[3]; /* SCTLR2_EL1 and SCTLR2_EL2, by level */"),
    edit(CPU_H, "bool backcompat_pauth_default", LineAfter, "    bool lab_double_fault2;"),
    edit(CPU_C, "\"internals.h\"", LineAfter, INCLUDE_CPU),
    edit(CPU_C, "\"backcompat-pauth-default", LineBefore,
        "    DEFINE_PROP_BOOL(\"lab-double-fault2\", ARMCPU, lab_double_fault2, false),"),
    edit(CPU_C, "arm_cpu_finalize_features(cpu, &", LineAfter, "    lab_offer_double_fault2(cpu);"),
    edit(CPU_C, "!(env->daif & PSTATE_A)", After, " || lab_nmea(env)"),
    edit(HELPER, "\"internals.h\"", LineAfter, INCLUDE_CPU),
    within("static void hcrx_write(", edit(HELPER, "valid_mask = 0", Replace,
        "valid_mask = lab_hcrx_bits(cpu)")),
    edit(HELPER, "E2HAlias aliases[]", LineAfter,
        "        { K(3, 0, 1, 0, 3), K(3, 4, 1, 0, 3), K(3, 5, 1, 0, 3),\n          \
         \"SCTLR2_EL1\", \"SCTLR2_EL2\", \"SCTLR2_EL12\", lab_has_sctlr2 },"),
    edit(HELPER, "define_pmu_regs(ARMCPU", LineBefore, "#include \"lab_sctlr2.c.inc\"\n"),
    edit(HELPER, "(any_predinv, cpu)", LineBefore, "    lab_define_sctlr2(cpu);"),

    // Debian's source has no firmware images to unpack.
    edit("meson.build", "blobs = bzip2.found()", Replace, "blobs = false # lab_qemu boots without firmware"),
];

const ADDITIONS: &[Addition<'_>] = &[
    Addition { file: "hw/arm/lab_poison.c", text: include_str!("../../../../lab/qemu/lab_poison.c") },
    Addition { file: "include/hw/arm/lab_poison.h", text: include_str!("../../../../lab/qemu/lab_poison.h") },
    Addition { file: "target/arm/lab_cpu.h", text: include_str!("../../../../lab/qemu/lab_cpu.h") },
    Addition {
        file: "target/arm/lab_sctlr2.c.inc",
        text: include_str!("../../../../lab/qemu/lab_sctlr2.c.inc"),
    },
    Addition {
        file: "configs/devices/aarch64-softmmu/lab.mak",
        text: include_str!("../../../../lab/qemu/devices.mak"),
    },
];

const fn edit<'a>(file: &'a str, anchor: &'a str, place: Place, text: &'a str) -> Edit<'a> {
    Edit { file, within: None, anchor, place, text }
}

const fn within<'a>(block: &'a str, edit: Edit<'a>) -> Edit<'a> {
    Edit { within: Some(block), ..edit }
}
