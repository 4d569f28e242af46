// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Shadow mode (kvm.seawall=shadow): C acts as ever. Rust works on copies that
 * were taken before, and what it leaves there is compared with what C left in
 * the vCPU. debugfs has the counts, and the first difference with both sides.
 */

#include <linux/debugfs.h>
#include <linux/kvm_host.h>
#include <linux/seq_file.h>

#include "shadow.h"

enum { SETS, GETS, EXITS, COUNTS };

static const char *const count_names[COUNTS] = { "set", "get", "sea_exit" };

static atomic64_t compared[COUNTS];
static atomic64_t mismatches[COUNTS];

static const char *const reg_names[SEAWALL_REGS] = {
	"PC", "PSTATE", "ELR_EL1", "SPSR_EL1", "ESR_EL1", "FAR_EL1", "VBAR_EL1",
	"SCTLR_EL1", "SCTLR2_EL1", "TCR_EL1", "X20", "SPSR_abt", "IFSR32_EL2",
	"ELR_EL2", "SPSR_EL2", "ESR_EL2", "FAR_EL2", "VBAR_EL2", "SCTLR_EL2",
	"SCTLR2_EL2", "HCR_EL2", "HCRX_EL2",
};

/* The first difference of all. */
#define DIFFERENCE_LINES 40
static DEFINE_MUTEX(difference_lock);
static char difference[DIFFERENCE_LINES][80];
static unsigned int difference_lines;

struct side {
	int result;
	bool mmio_needed;
	struct seawall_base base;
	struct seawall_regs regs;
};

/* A line of the report, kept and warned of. */
static void __printf(1, 2) line(const char *format, ...)
{
	va_list arguments;

	if (difference_lines >= DIFFERENCE_LINES)
		return;
	va_start(arguments, format);
	vsnprintf(difference[difference_lines], sizeof(difference[0]), format, arguments);
	va_end(arguments);
	pr_warn("kvm: seawall: %s\n", difference[difference_lines++]);
}

static void pair(const char *name, u64 c, u64 rust)
{
	line("%s %s: C %#llx, Rust %#llx", c == rust ? " " : "!", name, c, rust);
}

static bool equal(const struct side *c, const struct side *rust)
{
	return c->result == rust->result && c->mmio_needed == rust->mmio_needed &&
	       c->base.serror == rust->base.serror && c->base.vsesr == rust->base.vsesr &&
	       !memcmp(c->regs.reg, rust->regs.reg, sizeof(c->regs.reg));
}

static void report_set(const struct kvm_vcpu_events *events, const struct seawall_regs *before,
		       const struct side *c, const struct side *rust)
{
	int n;

	guard(mutex)(&difference_lock);
	if (difference_lines)
		return;
	line("KVM_SET_VCPU_EVENTS of %24phN", events);
	line("  last exit: ESR %#llx, FAR %#llx, IPA %#llx; PC %#llx, PSTATE %#llx", before->fault.esr,
	     before->fault.far, before->fault.ipa, before->reg[SEAWALL_PC],
	     before->reg[SEAWALL_PSTATE]);
	pair("result", c->result, rust->result);
	pair("MMIO waits", c->mmio_needed, rust->mmio_needed);
	pair("SError", c->base.serror, rust->base.serror);
	pair("VSESR", c->base.vsesr, rust->base.vsesr);
	for (n = 0; n < SEAWALL_REGS; n++)
		pair(reg_names[n], c->regs.reg[n], rust->regs.reg[n]);
}

int seawall_shadow_set(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c)
{
	struct side by_c = {}, by_rust = {};
	struct seawall_regs before;

	lockdep_assert_held(&vcpu->mutex);
	seawall_base(vcpu, &by_rust.base);
	seawall_load(vcpu, &by_rust.regs);
	before = by_rust.regs;
	by_rust.mmio_needed = vcpu->mmio_needed;
	by_rust.result = seawall_rust_predict_events(vcpu, &by_rust.base, &by_rust.regs,
						     SEAWALL_MAINLINE, (seawall_bytes *)events);
	if (by_rust.regs.written & SEAWALL_WROTE_NO_MMIO)
		by_rust.mmio_needed = false;

	by_c.result = c(vcpu, events);
	by_c.mmio_needed = vcpu->mmio_needed;
	seawall_base(vcpu, &by_c.base);
	seawall_load(vcpu, &by_c.regs);

	atomic64_inc(&compared[SETS]);
	if (!equal(&by_c, &by_rust)) {
		atomic64_inc(&mismatches[SETS]);
		report_set(events, &before, &by_c, &by_rust);
	}
	return by_c.result;
}

int seawall_shadow_get(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c)
{
	struct seawall_base base;
	seawall_bytes bytes = {};
	int by_rust, by_c;

	seawall_base(vcpu, &base);
	by_rust = seawall_rust_get_events(vcpu, &base, SEAWALL_MAINLINE, &bytes);
	by_c = c(vcpu, events);
	atomic64_inc(&compared[GETS]);
	if (by_c != by_rust || memcmp(events, &bytes, sizeof(bytes))) {
		atomic64_inc(&mismatches[GETS]);
		guard(mutex)(&difference_lock);
		if (!difference_lines) {
			line("KVM_GET_VCPU_EVENTS: C %d, Rust %d", by_c, by_rust);
			line("! C    %24phN", events);
			line("! Rust %24phN", &bytes);
		}
	}
	return by_c;
}

void seawall_shadow_sea(const seawall_sea *rust, const seawall_sea *c)
{
	atomic64_inc(&compared[EXITS]);
	if (!memcmp(c, rust, sizeof(*c)))
		return;
	atomic64_inc(&mismatches[EXITS]);
	guard(mutex)(&difference_lock);
	if (!difference_lines) {
		line("KVM_EXIT_ARM_SEA: flags, esr, gva, gpa");
		line("! C    %32phN", c);
		line("! Rust %32phN", rust);
	}
}

static int counts_show(struct seq_file *file, void *unused)
{
	int n;

	for (n = 0; n < COUNTS; n++)
		seq_printf(file, "%s compared %lld mismatches %lld\n", count_names[n],
			   atomic64_read(&compared[n]), atomic64_read(&mismatches[n]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counts);

static int difference_show(struct seq_file *file, void *unused)
{
	unsigned int n;

	guard(mutex)(&difference_lock);
	for (n = 0; n < difference_lines; n++)
		seq_printf(file, "%s\n", difference[n]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(difference);

static int __init seawall_shadow_init(void)
{
	struct dentry *folder = debugfs_create_dir("seawall", NULL);

	debugfs_create_file("counts", 0444, folder, NULL, &counts_fops);
	debugfs_create_file("difference", 0444, folder, NULL, &difference_fops);
	return 0;
}
late_initcall(seawall_shadow_init);
