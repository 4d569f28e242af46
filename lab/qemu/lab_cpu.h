/*
 * The Seawall lab's changes of the CPU, as far as they are functions.
 *
 * SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 */
#ifndef TARGET_ARM_LAB_CPU_H
#define TARGET_ARM_LAB_CPU_H

#include "cpu.h"
#include "internals.h"

/* SCTLR2_ELx of FEAT_DoubleFault2, and the bit that lets EL1 have it. */
#define LAB_SCTLR2_NMEA     (1ULL << 2)
#define LAB_SCTLR2_EASE     (1ULL << 5)
#define LAB_HCRX_SCTLR2EN   (1ULL << 15)

static inline bool lab_has_sctlr2(const ARMISARegisters *id)
{
    return FIELD_EX64(id->id_aa64mmfr3, ID_AA64MMFR3, SCTLRX) != 0;
}

/* -cpu ...,lab-double-fault2=on: the ID registers say so. */
static inline void lab_offer_double_fault2(ARMCPU *cpu)
{
    ARMISARegisters *id = &cpu->isar;

    if (cpu->lab_double_fault2) {
        id->id_aa64pfr1 = FIELD_DP64(id->id_aa64pfr1, ID_AA64PFR1, DF2, 1);
        id->id_aa64mmfr3 = FIELD_DP64(id->id_aa64mmfr3, ID_AA64MMFR3, SCTLRX, 1);
    }
}

/* What SCTLR2 adds to the bits of HCRX_EL2. */
static inline uint64_t lab_hcrx_bits(ARMCPU *cpu)
{
    return lab_has_sctlr2(&cpu->isar) ? LAB_HCRX_SCTLR2EN : 0;
}

/* A virtual SError is taken in spite of PSTATE.A. */
static inline bool lab_nmea(CPUARMState *env)
{
    return env->cp15.lab_sctlr2_el[1] & LAB_SCTLR2_NMEA;
}

/*
 * The exception level of an abort: HCR_EL2.TEA routes synchronous External
 * aborts of EL0 and EL1 to EL2.
 */
static inline int lab_abort_target(CPUARMState *env, const ARMMMUFaultInfo *fi,
                                   int target_el)
{
    bool external = fi->type == ARMFault_SyncExternal ||
                    fi->type == ARMFault_SyncExternalOnWalk;

    if (external && target_el < 2 && (arm_hcr_el2_eff(env) & HCR_TEA)) {
        return 2;
    }
    return target_el;
}

#endif
