/*
 * Poisonable memory for the Seawall lab: see hw/arm/lab_poison.c.
 *
 * SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 */
#ifndef HW_ARM_LAB_POISON_H
#define HW_ARM_LAB_POISON_H

#include "exec/hwaddr.h"

/* Where the register page is: a hole in the virt machine's memory map. */
#define LAB_POISON_BASE 0x0b000000ULL
#define LAB_POISON_SIZE 0x1000ULL

/* The machine's RAM can go bad from now on. */
void lab_poison_init(hwaddr ram_base, hwaddr ram_size, void *fdt);

/*
 * Where the CPU shall go for this physical address: elsewhere if its 4 KiB
 * page has a bad line, to the same place if not.
 */
hwaddr lab_poison_route(hwaddr pa);

#endif
