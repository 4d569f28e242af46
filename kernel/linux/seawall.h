/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What arm.c and mmu.c call, and what the C side and the Rust side share. */
#ifndef SEAWALL_KVM_H
#define SEAWALL_KVM_H

#include <linux/kvm_host.h>

typedef int (*seawall_events_fn)(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events);

#ifdef CONFIG_KVM_ARM_SEAWALL

/* The two ioctls. @c is what they were before. */
int seawall_set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c);
int seawall_get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c);
/* Makes the exit for an abort that goes to user space; false: C is to make it. */
bool seawall_sea_exit(struct kvm_vcpu *vcpu);
/* Compares the exit that C made, in shadow mode. */
void seawall_sea_shadow(struct kvm_vcpu *vcpu);

#else

static inline int seawall_set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events,
				     seawall_events_fn c)
{
	return c(vcpu, events);
}

static inline int seawall_get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events,
				     seawall_events_fn c)
{
	return c(vcpu, events);
}

static inline bool seawall_sea_exit(struct kvm_vcpu *vcpu)
{
	return false;
}

static inline void seawall_sea_shadow(struct kvm_vcpu *vcpu)
{
}

#endif

/* The rest is src/c.rs of the Rust side, name by name. */

enum seawall_abi { SEAWALL_MAINLINE, SEAWALL_POSTED, SEAWALL_TRAILING };

#define SEAWALL_CONFIG_RAS	BIT(0)
#define SEAWALL_CONFIG_MTE	BIT(1)
#define SEAWALL_CONFIG_SCTLR2	BIT(2)
#define SEAWALL_CONFIG_EL2	BIT(3)
#define SEAWALL_CONFIG_EL1_32	BIT(4)
#define SEAWALL_CONFIG_HAS_RUN	BIT(5)

#define SEAWALL_SERROR_PENDING	BIT(0)
#define SEAWALL_SERROR_HELD	BIT(1)

struct seawall_base {
	u32 config;
	u32 serror;
	u64 vsesr;
};

struct seawall_fault {
	u64 esr, far, ipa;
};

enum seawall_reg {
	SEAWALL_PC, SEAWALL_PSTATE,
	SEAWALL_ELR_EL1, SEAWALL_SPSR_EL1, SEAWALL_ESR_EL1, SEAWALL_FAR_EL1,
	SEAWALL_VBAR_EL1, SEAWALL_SCTLR_EL1, SEAWALL_SCTLR2_EL1,
	SEAWALL_TCR_EL1, SEAWALL_X20, SEAWALL_SPSR_ABT, SEAWALL_IFSR32,
	SEAWALL_ELR_EL2, SEAWALL_SPSR_EL2, SEAWALL_ESR_EL2, SEAWALL_FAR_EL2,
	SEAWALL_VBAR_EL2, SEAWALL_SCTLR_EL2, SEAWALL_SCTLR2_EL2,
	SEAWALL_HCR_EL2, SEAWALL_HCRX_EL2,
	SEAWALL_REGS,
};

#define SEAWALL_WROTE_SERROR	BIT_ULL(32)
#define SEAWALL_WROTE_NO_MMIO	BIT_ULL(33)

struct seawall_regs {
	struct seawall_fault fault;
	u64 written;
	u64 reg[SEAWALL_REGS];
};

/* struct kvm_vcpu_events, and arm_sea of struct kvm_run. */
typedef u64 seawall_bytes[8];
typedef u64 seawall_sea[4];

/* Rust: 0 or a negative errno. */
int seawall_rust_set_events(struct kvm_vcpu *vcpu, struct seawall_base *base, u32 abi,
			    const seawall_bytes *events);
int seawall_rust_predict_events(struct kvm_vcpu *vcpu, struct seawall_base *base,
				struct seawall_regs *regs, u32 abi, const seawall_bytes *events);
int seawall_rust_get_events(struct kvm_vcpu *vcpu, struct seawall_base *base, u32 abi,
			    seawall_bytes *events);
void seawall_rust_sea_exit(const struct seawall_fault *fault, bool guest_has_ras, seawall_sea *sea);

/* C. */
void seawall_load(struct kvm_vcpu *vcpu, struct seawall_regs *regs);
void seawall_store(struct kvm_vcpu *vcpu, const struct seawall_base *base,
		   const struct seawall_regs *regs);
bool seawall_walk_level(struct kvm_vcpu *vcpu, u64 va, u64 ipa, s32 *level);

#endif
