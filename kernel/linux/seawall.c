// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * The C side of Seawall's kernel half: the two ioctls, the exit, and access to
 * a vCPU's registers. It decides nothing: no check of what user space gave, no
 * syndrome and no vector is here.
 *
 * Both ioctls come with vcpu->mutex held and without vcpu_load(), so every
 * register is in memory, on VHE, nVHE and for pKVM's non-protected guests
 * (whose state was synchronised by vcpu_put() and is marked dirty).
 */

#include <linux/kvm_host.h>
#include <linux/moduleparam.h>

#include <asm/kvm_emulate.h>
#include <asm/kvm_nested.h>

#include "seawall.h"
#include "shadow.h"

enum seawall_mode { SEAWALL_OFF, SEAWALL_SHADOW, SEAWALL_ON };

static const char *const mode_names[] = { "off", "shadow", "on" };
static const char *const abi_names[] = { "mainline", "posted", "trailing" };

static int mode = SEAWALL_ON;
static int abi = SEAWALL_POSTED;

struct choice {
	int *value;
	const char *const *names;
	unsigned int count;
};

static int choose(const char *text, const struct kernel_param *param)
{
	const struct choice *choice = param->arg;
	int found = __sysfs_match_string(choice->names, choice->count, text);

	if (found < 0)
		return found;
	WRITE_ONCE(*choice->value, found);
	return 0;
}

static int chosen(char *buffer, const struct kernel_param *param)
{
	const struct choice *choice = param->arg;

	return sysfs_emit(buffer, "%s\n", choice->names[READ_ONCE(*choice->value)]);
}

static const struct kernel_param_ops choice_ops = { .set = choose, .get = chosen };
static struct choice mode_choice = { &mode, mode_names, ARRAY_SIZE(mode_names) };
static struct choice abi_choice = { &abi, abi_names, ARRAY_SIZE(abi_names) };

/* Who acts. */
module_param_cb(seawall, &choice_ops, &mode_choice, 0644);
/* What Rust speaks where it acts; C, and Rust beside it, speak mainline's. */
module_param_cb(seawall_abi, &choice_ops, &abi_choice, 0644);

void seawall_base(struct kvm_vcpu *vcpu, struct seawall_base *base)
{
	base->config = (cpus_have_final_cap(ARM64_HAS_RAS_EXTN) ? SEAWALL_CONFIG_RAS : 0) |
		       (kvm_has_mte(vcpu->kvm) ? SEAWALL_CONFIG_MTE : 0) |
		       (kvm_has_sctlr2(vcpu->kvm) ? SEAWALL_CONFIG_SCTLR2 : 0) |
		       (vcpu_has_nv(vcpu) ? SEAWALL_CONFIG_EL2 : 0) |
		       (vcpu_el1_is_32bit(vcpu) ? SEAWALL_CONFIG_EL1_32 : 0) |
		       (vcpu_has_run_once(vcpu) ? SEAWALL_CONFIG_HAS_RUN : 0);
	base->serror = (*vcpu_hcr(vcpu) & HCR_VSE ? SEAWALL_SERROR_PENDING : 0) |
		       (vcpu_get_flag(vcpu, NESTED_SERROR_PENDING) ? SEAWALL_SERROR_HELD : 0);
	base->vsesr = vcpu_get_vsesr(vcpu);
}

static void fault_of(const struct kvm_vcpu *vcpu, struct seawall_fault *fault)
{
	fault->esr = kvm_vcpu_get_esr(vcpu);
	fault->far = kvm_vcpu_get_hfar(vcpu);
	fault->ipa = kvm_vcpu_get_fault_ipa(vcpu);
}

/* System registers, each for load and store. */
#define FOR_EL1(DO)                                                            \
	DO(ELR_EL1) DO(SPSR_EL1) DO(ESR_EL1) DO(FAR_EL1) DO(VBAR_EL1)          \
	DO(SCTLR_EL1)
#define FOR_EL2(DO)                                                            \
	DO(ELR_EL2) DO(SPSR_EL2) DO(ESR_EL2) DO(FAR_EL2) DO(VBAR_EL2)          \
	DO(SCTLR_EL2) DO(HCR_EL2) DO(HCRX_EL2)
#define LOAD(name) regs->reg[SEAWALL_##name] = __vcpu_sys_reg(vcpu, name);
#define STORE(name)                                                            \
	if (regs->written & BIT_ULL(SEAWALL_##name))                           \
		__vcpu_assign_sys_reg(vcpu, name, regs->reg[SEAWALL_##name]);

void seawall_load(struct kvm_vcpu *vcpu, struct seawall_regs *regs)
{
	fault_of(vcpu, &regs->fault);
	regs->reg[SEAWALL_PC] = *vcpu_pc(vcpu);
	regs->reg[SEAWALL_PSTATE] = *vcpu_cpsr(vcpu);
	FOR_EL1(LOAD)
	if (kvm_has_sctlr2(vcpu->kvm)) {
		LOAD(SCTLR2_EL1)
		LOAD(SCTLR2_EL2)
	}
	if (vcpu_el1_is_32bit(vcpu)) {
		LOAD(TCR_EL1)
		regs->reg[SEAWALL_X20] = vcpu_gp_regs(vcpu)->regs[20];
		regs->reg[SEAWALL_SPSR_ABT] = vcpu->arch.ctxt.spsr_abt;
		regs->reg[SEAWALL_IFSR32] = __vcpu_sys_reg(vcpu, IFSR32_EL2);
	}
	if (vcpu_has_nv(vcpu)) {
		FOR_EL2(LOAD)
	}
}

static void store_el1_32(struct kvm_vcpu *vcpu, const struct seawall_regs *regs)
{
	if (regs->written & BIT_ULL(SEAWALL_X20))
		vcpu_gp_regs(vcpu)->regs[20] = regs->reg[SEAWALL_X20];
	if (regs->written & BIT_ULL(SEAWALL_SPSR_ABT))
		vcpu->arch.ctxt.spsr_abt = regs->reg[SEAWALL_SPSR_ABT];
	if (regs->written & BIT_ULL(SEAWALL_IFSR32))
		__vcpu_assign_sys_reg(vcpu, IFSR32_EL2, regs->reg[SEAWALL_IFSR32]);
}

static void store_serror(struct kvm_vcpu *vcpu, const struct seawall_base *base)
{
	vcpu_set_vsesr(vcpu, base->vsesr);
	if (base->serror & SEAWALL_SERROR_PENDING)
		*vcpu_hcr(vcpu) |= HCR_VSE;
	else
		*vcpu_hcr(vcpu) &= ~HCR_VSE;
	if (base->serror & SEAWALL_SERROR_HELD)
		vcpu_set_flag(vcpu, NESTED_SERROR_PENDING);
	else
		vcpu_clear_flag(vcpu, NESTED_SERROR_PENDING);
}

void seawall_store(struct kvm_vcpu *vcpu, const struct seawall_base *base,
		   const struct seawall_regs *regs)
{
	bool was_nested = is_nested_ctxt(vcpu);

	if (regs->written & BIT_ULL(SEAWALL_PC))
		*vcpu_pc(vcpu) = regs->reg[SEAWALL_PC];
	if (regs->written & BIT_ULL(SEAWALL_PSTATE))
		*vcpu_cpsr(vcpu) = regs->reg[SEAWALL_PSTATE];
	FOR_EL1(STORE)
	if (vcpu_el1_is_32bit(vcpu))
		store_el1_32(vcpu, regs);
	if (vcpu_has_nv(vcpu)) {
		FOR_EL2(STORE)
	}
	if (regs->written & SEAWALL_WROTE_SERROR)
		store_serror(vcpu, base);
	if (regs->written & SEAWALL_WROTE_NO_MMIO)
		vcpu->mmio_needed = false;
	/*
	 * All else that goes with a change of regime is done by the next vcpu_load(). Not so the
	 * filters of its counters; kvm_pmu_nested_transition() is for a vCPU that is loaded, as it
	 * hands this CPU's counters of EL0 over to the guest.
	 */
	if (was_nested && !is_nested_ctxt(vcpu) && kvm_vcpu_has_pmu(vcpu))
		kvm_make_request(KVM_REQ_RELOAD_PMU, vcpu);
}

bool seawall_walk_level(struct kvm_vcpu *vcpu, u64 va, u64 ipa, s32 *level)
{
	int found;

	if (__kvm_find_s1_desc_level(vcpu, va, ipa, &found))
		return false;
	*level = found;
	return true;
}

/* What the seam rests on. */
static void check_in_memory(struct kvm_vcpu *vcpu)
{
	lockdep_assert_held(&vcpu->mutex);
	WARN_ON_ONCE(vcpu_get_flag(vcpu, SYSREGS_ON_CPU) ||
		     vcpu_get_flag(vcpu, PENDING_EXCEPTION) ||
		     vcpu_get_flag(vcpu, INCREMENT_PC));
}

int seawall_set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c)
{
	struct seawall_base base;

	BUILD_BUG_ON(sizeof(*events) != sizeof(seawall_bytes));
	switch (READ_ONCE(mode)) {
	case SEAWALL_OFF:
		return c(vcpu, events);
	case SEAWALL_SHADOW:
		return seawall_shadow_set(vcpu, events, c);
	}
	check_in_memory(vcpu);
	seawall_base(vcpu, &base);
	return seawall_rust_set_events(vcpu, &base, READ_ONCE(abi), (seawall_bytes *)events);
}

int seawall_get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c)
{
	struct seawall_base base;

	switch (READ_ONCE(mode)) {
	case SEAWALL_OFF:
		return c(vcpu, events);
	case SEAWALL_SHADOW:
		return seawall_shadow_get(vcpu, events, c);
	}
	seawall_base(vcpu, &base);
	return seawall_rust_get_events(vcpu, &base, READ_ONCE(abi), (seawall_bytes *)events);
}

static void make_exit(struct kvm_vcpu *vcpu, seawall_sea *sea)
{
	struct seawall_fault fault;

	BUILD_BUG_ON(sizeof(vcpu->run->arm_sea) != sizeof(*sea));
	fault_of(vcpu, &fault);
	seawall_rust_sea_exit(&fault, kvm_has_ras(vcpu->kvm), sea);
}

bool seawall_sea_exit(struct kvm_vcpu *vcpu)
{
	if (READ_ONCE(mode) != SEAWALL_ON)
		return false;
	make_exit(vcpu, (seawall_sea *)&vcpu->run->arm_sea);
	vcpu->run->exit_reason = KVM_EXIT_ARM_SEA;
	return true;
}

void seawall_sea_shadow(struct kvm_vcpu *vcpu)
{
	seawall_sea sea;

	if (READ_ONCE(mode) != SEAWALL_SHADOW)
		return;
	make_exit(vcpu, &sea);
	seawall_shadow_sea(&sea, (seawall_sea *)&vcpu->run->arm_sea);
}
