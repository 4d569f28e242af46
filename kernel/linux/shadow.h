/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Shadow mode: C acts, Rust says beforehand what it will do. */
#ifndef SEAWALL_SHADOW_H
#define SEAWALL_SHADOW_H

#include "seawall.h"

int seawall_shadow_set(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c);
int seawall_shadow_get(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events, seawall_events_fn c);
void seawall_shadow_sea(const seawall_sea *rust, const seawall_sea *c);

/* Of seawall.c. */
void seawall_base(struct kvm_vcpu *vcpu, struct seawall_base *base);

#endif
