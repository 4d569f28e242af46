/*
 * Poisonable memory for the Seawall lab.
 *
 * A register page turns ranges of RAM bad at run time. A load, an instruction
 * fetch or a page table walk that touches a bad range fails, which the CPU
 * takes as a synchronous External abort. A store to it is dropped.
 *
 *   +0x00  W64: a range from this physical address on goes bad; the address is
 *          rounded down to a multiple of the size
 *          R64: how many ranges are bad
 *   +0x08  RW64: size of the next range in bytes, a power of two from 64 on;
 *          64 at first. Another value is not taken.
 *   +0x10  W64: the range that begins at this physical address is repaired,
 *          whatever its size; all are if 0
 *   +0x18  R64: what became of the last write: 0 done, 1 no such size,
 *          2 not RAM, 3 a range begins there already, 4 no range begins there,
 *          5 too many ranges
 *
 * The CPU that wrote sees it from its next TB on (an ISB is enough), others
 * once they took note, some microseconds later.
 *
 * How: a page with a bad line is entered into the TLB not as RAM but as I/O,
 * in a window of the physical address space where no Arm CPU can reach. The
 * window's handler fails, or forwards to RAM. So clean pages pay nothing, and
 * the memory map never changes, however many lines are bad.
 *
 * SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "exec/address-spaces.h"
#include "exec/cputlb.h"
#include "exec/memory.h"
#include "hw/core/cpu.h"
#include "system/device_tree.h"
#include "hw/arm/lab_poison.h"

#define LINE_BITS 6
#define LINE BIT_ULL(LINE_BITS)
#define PAGE_BITS 12
/* Beyond 52 bits of physical address. */
#define WINDOW BIT_ULL(56)
#define RANGES_MAX (1 << 20)

enum { REG_POISON = 0x00, REG_SIZE = 0x08, REG_REPAIR = 0x10, REG_STATUS = 0x18 };
enum {
    STATUS_DONE, STATUS_SIZE, STATUS_NOT_RAM, STATUS_BAD_ALREADY,
    STATUS_NO_RANGE, STATUS_FULL,
};

static struct {
    MemoryRegion registers, window;
    hwaddr base, size;    /* of RAM */
    uint64_t *bad;        /* per page of RAM, a bit per line */
    GHashTable *ranges;   /* RAM offset to size: the ranges that are bad */
    uint64_t range;       /* REG_SIZE */
    uint64_t status;      /* REG_STATUS */
} lab;

static bool line_is_bad(hwaddr offset)
{
    uint64_t lines = qatomic_read(&lab.bad[offset >> PAGE_BITS]);
    return (lines >> ((offset >> LINE_BITS) & 63)) & 1;
}

hwaddr lab_poison_route(hwaddr pa)
{
    if (pa - lab.base < lab.size &&
        qatomic_read(&lab.bad[(pa - lab.base) >> PAGE_BITS])) {
        return WINDOW + (pa - lab.base);
    }
    return pa;
}

static MemTxResult window_read(void *opaque, hwaddr offset, uint64_t *data,
                               unsigned size, MemTxAttrs attrs)
{
    *data = 0;
    if (line_is_bad(offset) || line_is_bad(offset + size - 1)) {
        return MEMTX_ERROR;
    }
    return address_space_read(&address_space_memory, lab.base + offset, attrs,
                              data, size);
}

static MemTxResult window_write(void *opaque, hwaddr offset, uint64_t data,
                                unsigned size, MemTxAttrs attrs)
{
    unsigned here = MIN(size, LINE - (offset & (LINE - 1)));

    if (here < size) {
        /* It crosses into another line: each part for itself. */
        window_write(opaque, offset + here, data >> (8 * here), size - here,
                     attrs);
    }
    if (line_is_bad(offset)) {
        return MEMTX_OK;
    }
    return address_space_write(&address_space_memory, lab.base + offset, attrs,
                               &data, here);
}

/* Little-endian values on a little-endian host: bytes are copied as they are. */
QEMU_BUILD_BUG_ON(HOST_BIG_ENDIAN);

static const MemoryRegionOps window_ops = {
    .read_with_attrs = window_read,
    .write_with_attrs = window_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

static void forget_translations(void)
{
    if (current_cpu) {
        tlb_flush(current_cpu);
        tlb_flush_all_cpus_synced(current_cpu);
    }
}

/* The lines of a range; both are multiples of a line's size. */
static void set_lines(hwaddr offset, uint64_t size, bool bad)
{
    hwaddr end = offset + size;

    for (; offset < end; offset += LINE) {
        uint64_t *lines = &lab.bad[offset >> PAGE_BITS];
        uint64_t bit = BIT_ULL((offset >> LINE_BITS) & 63);

        qatomic_set(lines, bad ? *lines | bit : *lines & ~bit);
    }
}

/* Every line that a range covers is bad: to be said again after a repair. */
static void mark_ranges(void)
{
    GHashTableIter iterator;
    gpointer offset, size;

    g_hash_table_iter_init(&iterator, lab.ranges);
    while (g_hash_table_iter_next(&iterator, &offset, &size)) {
        set_lines((uintptr_t)offset, (uintptr_t)size, true);
    }
}

static uint64_t poison(hwaddr pa)
{
    hwaddr offset = (pa & ~(lab.range - 1)) - lab.base;

    if (offset >= lab.size || lab.range > lab.size - offset) {
        return STATUS_NOT_RAM;
    }
    if (g_hash_table_contains(lab.ranges, (gpointer)(uintptr_t)offset)) {
        return STATUS_BAD_ALREADY;
    }
    if (g_hash_table_size(lab.ranges) == RANGES_MAX) {
        return STATUS_FULL;
    }
    g_hash_table_insert(lab.ranges, (gpointer)(uintptr_t)offset,
                        (gpointer)(uintptr_t)lab.range);
    set_lines(offset, lab.range, true);
    forget_translations();
    return STATUS_DONE;
}

static uint64_t repair(hwaddr pa)
{
    gpointer offset = (gpointer)(uintptr_t)(pa - lab.base);
    uint64_t size = (uintptr_t)g_hash_table_lookup(lab.ranges, offset);

    if (!size) {
        return STATUS_NO_RANGE;
    }
    g_hash_table_remove(lab.ranges, offset);
    set_lines((uintptr_t)offset, size, false);
    mark_ranges();
    forget_translations();
    return STATUS_DONE;
}

static uint64_t repair_all(void)
{
    g_hash_table_remove_all(lab.ranges);
    memset(lab.bad, 0, (lab.size >> PAGE_BITS) * sizeof(*lab.bad));
    forget_translations();
    return STATUS_DONE;
}

static uint64_t set_size(uint64_t size)
{
    if (size < LINE || !is_power_of_2(size)) {
        return STATUS_SIZE;
    }
    lab.range = size;
    return STATUS_DONE;
}

static uint64_t registers_read(void *opaque, hwaddr offset, unsigned size)
{
    switch (offset) {
    case REG_POISON:
        return g_hash_table_size(lab.ranges);
    case REG_SIZE:
        return lab.range;
    case REG_STATUS:
        return lab.status;
    default:
        return 0;
    }
}

static void registers_write(void *opaque, hwaddr offset, uint64_t value,
                            unsigned size)
{
    switch (offset) {
    case REG_POISON:
        lab.status = poison(value);
        break;
    case REG_SIZE:
        lab.status = set_size(value);
        break;
    case REG_REPAIR:
        lab.status = value ? repair(value) : repair_all();
        break;
    }
}

static const MemoryRegionOps registers_ops = {
    .read = registers_read,
    .write = registers_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 8, .max_access_size = 8 },
    .impl = { .min_access_size = 8, .max_access_size = 8 },
};

void lab_poison_init(hwaddr ram_base, hwaddr ram_size, void *fdt)
{
    MemoryRegion *system = get_system_memory();
    g_autofree char *node = g_strdup_printf("/poison@%llx", LAB_POISON_BASE);

    lab.bad = g_new0(uint64_t, ram_size >> PAGE_BITS);
    lab.ranges = g_hash_table_new(NULL, NULL);
    lab.range = LINE;
    lab.base = ram_base;
    lab.size = ram_size;
    memory_region_init_io(&lab.registers, NULL, &registers_ops, NULL,
                          "lab-poison", LAB_POISON_SIZE);
    memory_region_add_subregion(system, LAB_POISON_BASE, &lab.registers);
    memory_region_init_io(&lab.window, NULL, &window_ops, NULL,
                          "lab-poison-window", ram_size);
    memory_region_add_subregion(system, WINDOW, &lab.window);
    /* So that software can tell the lab from a machine without the register. */
    qemu_fdt_add_subnode(fdt, node);
    qemu_fdt_setprop_string(fdt, node, "compatible", "seawall,poison");
    qemu_fdt_setprop_sized_cells(fdt, node, "reg", 2, LAB_POISON_BASE,
                                 2, LAB_POISON_SIZE);
}
