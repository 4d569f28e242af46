/*
 * A C program with a vCPU of a stock kernel, and what a VMM does with the library. The vCPU does what mainline's
 * KVM_SET_VCPU_EVENTS does, for AArch64 without a virtual EL2: see SPECIFICATION.md, and
 * crates/events/AUDIT.md. Expectations are literals.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "seawall.h"

static int checks, failures;

static void check(int holds, const char *what, int line)
{
    checks++;
    if (!holds) {
        failures++;
        printf("line %d: expected %s\n", line, what);
    }
}

static void check_number(uint64_t got, uint64_t expected, const char *what, int line)
{
    checks++;
    if (got != expected) {
        failures++;
        printf("line %d: %s: expected %#" PRIx64 ", got %#" PRIx64 "\n", line, what, expected, got);
    }
}

static void check_text(const char *got, const char *expected, int line)
{
    checks++;
    if (strcmp(got, expected) != 0) {
        failures++;
        printf("line %d: expected `%s`,\n  got `%s`\n", line, expected, got);
    }
}

#define CHECK(holds) check(holds, #holds, __LINE__)
#define IS(got, expected) check_number((uint64_t)(got), (uint64_t)(expected), #got, __LINE__)
#define SAYS(got, expected) check_text(got, expected, __LINE__)
#define OK(call) check_number((uint64_t)(call), SEAWALL_STATUS_OK, #call, __LINE__)

/* ---- the vCPU ---- */

#define CORE 0x6030000000100000u
#define SYSTEM 0x6030000000130000u
#define VBAR 0xffff800010000800u
#define PSTATE_A (1u << 8)

/* Documentation/virt/kvm/api.rst: KVM_GET_ONE_REG, arm64. */
static const uint64_t ids[] = { CORE + 0x40, CORE + 0x42, CORE + 0x46, CORE + 0x48, SYSTEM + 0xc290, SYSTEM + 0xc300,
                                SYSTEM + 0xc600, CORE + 2 * 20 };
enum { PC, PSTATE, ELR, SPSR, ESR, FAR, VECTORS, X20, REGISTERS };

struct vcpu {
    uint64_t reg[REGISTERS];
    uint64_t last_far;
    int serror_pending;
    int sets, gets, events;
    /* Which set of a register fails, from 1; and whether each get does. */
    int failing_set, failing_gets;
};

static void enter(struct vcpu *vcpu, unsigned type, uint64_t esr)
{
    int from_lower = (vcpu->reg[PSTATE] & 0xf) == 0;

    vcpu->reg[ELR] = vcpu->reg[PC];
    vcpu->reg[SPSR] = vcpu->reg[PSTATE];
    vcpu->reg[ESR] = esr;
    vcpu->reg[PC] = vcpu->reg[VECTORS] + (from_lower ? 0x400 : 0x200) + type;
    vcpu->reg[PSTATE] = (vcpu->reg[PSTATE] & 0xf0000000) | 0x3c5;
}

static int set_vcpu_events(void *opaque, const uint8_t *events)
{
    struct vcpu *vcpu = opaque;
    int from_lower = (vcpu->reg[PSTATE] & 0xf) == 0;
    int i;

    /* Not those by which the library asks what the kernel speaks. */
    vcpu->events += events[0] || events[2];
    for (i = 16; i < 64; i++)
        if (events[i])
            return EINVAL;
    for (i = 3; i < 8; i++)
        if (events[i])
            return EINVAL;
    if (events[2]) {
        vcpu->reg[FAR] = vcpu->last_far;
        enter(vcpu, 0, from_lower ? 0x92000010 : 0x96000010);
    }
    if (events[0]) {
        if (vcpu->reg[PSTATE] & PSTATE_A)
            vcpu->serror_pending = 1;
        else
            enter(vcpu, 0x180, 0xbf000000);
    }
    return 0;
}

static int get_vcpu_events(void *opaque, uint8_t *events)
{
    struct vcpu *vcpu = opaque;

    memset(events, 0, SEAWALL_VCPU_EVENTS_SIZE);
    events[0] = (uint8_t)vcpu->serror_pending;
    events[1] = 1;
    return 0;
}

static uint64_t *find(struct vcpu *vcpu, uint64_t id)
{
    int i;

    for (i = 0; i < REGISTERS; i++)
        if (ids[i] == id)
            return &vcpu->reg[i];
    return NULL;
}

static int get_one_reg(void *opaque, uint64_t id, uint64_t *value)
{
    struct vcpu *vcpu = opaque;
    uint64_t *reg = find(vcpu, id);

    vcpu->gets++;
    if (vcpu->failing_gets)
        return -EIO;
    if (!reg)
        return -ENOENT;
    *value = *reg;
    return 0;
}

static int set_one_reg(void *opaque, uint64_t id, uint64_t value)
{
    struct vcpu *vcpu = opaque;
    uint64_t *reg = find(vcpu, id);

    if (++vcpu->sets == vcpu->failing_set)
        return EINTR;
    if (!reg)
        return ENOENT;
    *reg = value;
    return 0;
}

/* A process of the guest's at 0x401074. */
static struct vcpu at_el0(void)
{
    struct vcpu vcpu = { .last_far = 0x401074 };

    vcpu.reg[PC] = 0x401074;
    vcpu.reg[VECTORS] = VBAR;
    return vcpu;
}

static seawall_vcpu calls(struct vcpu *vcpu)
{
    seawall_vcpu calls = { vcpu, set_vcpu_events, get_vcpu_events, get_one_reg, set_one_reg };

    return calls;
}

/* ---- the guest's memory: what is at 0x50000000 ---- */

#define BASE 0x50000000u

static uint64_t memory_words[0x10000 / 8];

static uint8_t *at(uint64_t gpa, size_t size)
{
    if (gpa < BASE || gpa - BASE > sizeof memory_words - size)
        return NULL;
    return (uint8_t *)memory_words + (gpa - BASE);
}

static int read_memory(void *opaque, uint64_t gpa, uint8_t *bytes, size_t size)
{
    const uint8_t *from = at(gpa, size);

    (void)opaque;
    if (!from)
        return EFAULT;
    memcpy(bytes, from, size);
    return 0;
}

static int write_memory(void *opaque, uint64_t gpa, const uint8_t *bytes, size_t size)
{
    uint8_t *to = at(gpa, size);

    (void)opaque;
    if (!to)
        return EFAULT;
    memcpy(to, bytes, size);
    return 0;
}

static const seawall_memory memory = { NULL, read_memory, write_memory };

static uint64_t word(uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, at(gpa, 8), 8);
    return value;
}

/* What the guest does when it has read a record. */
static void acknowledge(unsigned source)
{
    uint64_t one = 1;

    memcpy(at(BASE + 512 * source + 8, 8), &one, 8);
}

/* ---- what a VMM does ---- */

static const seawall_sea_exit fetch = { 1, 0x82000210, 0x401074, 0x40099000 };
static const seawall_sea_exit load = { 1, 0x92000210, 0x410008, 0x400a2000 };
static const seawall_records_region records = { BASE, 2, 1, 1000 };
static seawall_error error;

static void contain_a_fetch(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    seawall_outcome outcome;
    struct vcpu vcpu = at_el0();
    seawall_vcpu ioctls = calls(&vcpu);
    char text[256];

    OK(seawall_containment_new("full", &containment, &error));
    SAYS(error.message, "");
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_containment_set_records(containment, &records, NULL));
    OK(seawall_containment_reset_records(containment, &memory, NULL));
    IS(word(BASE), BASE + 16);
    IS(word(BASE + 8), 1);

    OK(seawall_handle_sea(containment, &ioctls, &memory, &fetch, 1000, 1790000000, incident, &error));
    IS(vcpu.reg[ESR], 0x82000210);
    IS(vcpu.reg[FAR], 0x401074);
    IS(vcpu.reg[ELR], 0x401074);
    IS(vcpu.reg[SPSR], 0);
    IS(vcpu.reg[PC], 0xffff800010000c00);
    IS(vcpu.reg[PSTATE], 0x3c5);
    IS(vcpu.events, 1);
    IS(vcpu.sets, 1);

    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_INJECTED);
    IS(outcome.access, SEAWALL_ACCESS_FETCH);
    IS(outcome.valid, SEAWALL_VALID_GPA | SEAWALL_VALID_GVA | SEAWALL_VALID_ESR);
    IS(outcome.gpa, 0x40099000);
    IS(outcome.size, 4096);
    IS(outcome.gva, 0x401074);
    IS(outcome.pc, 0x401074);
    IS(outcome.esr, 0x82000210);
    IS(outcome.exception_level, 0);
    IS(outcome.injection, SEAWALL_INJECT_INSTRUCTION_ABORT);
    IS(outcome.iss, 0x210);
    IS(outcome.guest_state, SEAWALL_GUEST_STATE_AT_VECTOR);
    IS(outcome.guest_level, 1);
    IS(outcome.guest_pc, 0xffff800010000c00);
    IS(outcome.guest_esr, 0x82000210);
    IS(outcome.guest_far, 0x401074);
    IS(outcome.recorded, SEAWALL_RECORDED_AT_SOURCE);
    IS(outcome.record_source, 0);
    IS(outcome.evacuate_pages, 0);
    OK(seawall_incident_text(incident, text, sizeof text, NULL));
    SAYS(text, "fetch at EL0, PC 0x401074: gva 0x401074, gpa 0x40099000: instruction abort, ISS 0x210; "
               "guest at vector 0xffff800010000c00, ESR 0x82000210, FAR 0x401074; record at source 0");
    OK(seawall_incident_text(incident, text, 6, NULL));
    SAYS(text, "fetch");

    /* The record: one uncorrectable error, not acknowledged, at that page. ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.5. */
    IS(word(BASE + 8), 0);
    IS(word(BASE + 16) & 0xffffffff, 0x11);
    IS(word(BASE + 16 + 20), 0x4ede6f64a5bc1114);
    IS(word(BASE + 16 + 20 + 72 + 16), 0x40099000);
    IS(word(BASE + 16 + 20 + 72 + 24), 0xfffffffffffff000);

    /* What was done is done once. */
    IS(seawall_inject(containment, &ioctls, incident, &error), SEAWALL_STATUS_INVALID_ARGUMENT);
    SAYS(error.message, "expected an incident that was decided on, and is not done: decide first");
    IS(vcpu.events, 1);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

static void step_by_step(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    seawall_outcome outcome;
    struct vcpu vcpu = at_el0(), before;
    seawall_vcpu ioctls = calls(&vcpu);
    seawall_sea_exit next = load;
    char text[256];
    int i;

    OK(seawall_containment_new("full", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_incident_text(incident, text, sizeof text, NULL));
    SAYS(text, "nothing was decided");
    OK(seawall_containment_set_records(containment, &records, NULL));
    OK(seawall_containment_reset_records(containment, &memory, NULL));

    /* To decide alone is a dry run. */
    before = vcpu;
    OK(seawall_decide_sea(containment, &ioctls, &load, 1, incident, NULL));
    CHECK(memcmp(before.reg, vcpu.reg, sizeof vcpu.reg) == 0);
    IS(vcpu.events, 0);
    OK(seawall_incident_text(incident, text, sizeof text, NULL));
    SAYS(text, "load at EL0, PC 0x401074: gva 0x410008, gpa 0x400a2000: to inject: data abort, ISS 0x210");
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_INJECT);
    IS(outcome.recorded, SEAWALL_RECORDED_NO);

    /* The record of the first. The second waits until the guest has read that, a second at most. After that nobody waits
       for this guest, and for the third there is no source. */
    for (i = 0; i < 4; i++) {
        static const struct { uint64_t page, now; uint32_t action, recorded, source; } steps[] = {
            { 0, 2, SEAWALL_ACTION_INJECT, SEAWALL_RECORDED_AT_SOURCE, 0 },
            { 1, 3, SEAWALL_ACTION_WAIT, SEAWALL_RECORDED_NO, 0 },
            { 1, 1000000003, SEAWALL_ACTION_INJECT, SEAWALL_RECORDED_AT_SOURCE, 1 },
            { 2, 1000000004, SEAWALL_ACTION_INJECT, SEAWALL_RECORDED_UNACKNOWLEDGED, 0 },
        };

        next.gpa = load.gpa + 0x1000 * steps[i].page;
        OK(seawall_decide_sea(containment, &ioctls, &next, steps[i].now, incident, NULL));
        OK(seawall_record(containment, &memory, 1790000000, incident, NULL));
        OK(seawall_incident_outcome(incident, &outcome, NULL));
        IS(outcome.action, steps[i].action);
        IS(outcome.recorded, steps[i].recorded);
        IS(outcome.record_source, steps[i].source);
    }

    /* It read them all. */
    acknowledge(0);
    acknowledge(1);
    OK(seawall_handle_sea(containment, &ioctls, &memory, &next, 1000000005, 1790000000, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_INJECTED);
    IS(outcome.record_source, 0);
    IS(vcpu.reg[ESR], 0x92000210);
    IS(vcpu.events, 1);
    OK(seawall_handle_sea(containment, &ioctls, &memory, &load, 1000000006, 1790000000, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_WAIT);
    IS(vcpu.events, 1);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

/* SIGBUS has no syndrome: the FAR says that it was the fetch. */
static void contain_a_sigbus(void)
{
    static const seawall_memory_region regions[] = { { 0x40000000, 0x7f0000000000, 0x40000000 },
                                                     { 0x100000000, 0x7f0040000000, 0x40000000 } };
    seawall_address_map *map;
    seawall_containment *containment;
    seawall_incident *incident;
    struct vcpu vcpu = at_el0();
    seawall_vcpu ioctls = calls(&vcpu);
    uint64_t gpa, size, host;

    OK(seawall_address_map_new(regions, 2, &map, NULL));
    OK(seawall_address_map_guest(map, 0x7f0000099074, &gpa, NULL));
    IS(gpa, 0x40099074);
    OK(seawall_address_map_host(map, 0x100000000, &host, NULL));
    IS(host, 0x7f0040000000);
    IS(seawall_address_map_guest(map, 0x1000, &gpa, &error), SEAWALL_STATUS_NOT_FOUND);
    SAYS(error.message, "there is no guest memory at the VMM's address 0x1000");
    OK(seawall_address_map_guest_range(map, 0x7f003fffe000, 0x4000, 1, &gpa, &size, NULL));
    IS(gpa, 0x100000000);
    IS(size, 0x2000);
    IS(seawall_address_map_guest_range(map, 0x7f003fffe000, 0x4000, 2, &gpa, &size, NULL), SEAWALL_STATUS_NOT_FOUND);
    OK(seawall_address_map_guest_range(map, 0x7f0000099000, 1 << 12, 0, &gpa, &size, NULL));

    OK(seawall_containment_new("full", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_handle_sigbus(containment, &ioctls, NULL, gpa, size, 1, 1790000000, incident, NULL));
    IS(vcpu.reg[ESR], 0x82000010);
    IS(vcpu.reg[FAR], 0x401074);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
    seawall_address_map_free(map);
}

static void what_kvm_does_today(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    seawall_outcome outcome;
    struct vcpu vcpu = at_el0();
    seawall_vcpu ioctls = calls(&vcpu);

    vcpu.reg[PSTATE] = 0x3c5;
    OK(seawall_containment_new("serror", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_handle_sea(containment, &ioctls, NULL, &load, 1, 0, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.injection, SEAWALL_INJECT_SERROR);
    IS(outcome.guest_state, SEAWALL_GUEST_STATE_SERROR_PENDING);
    IS(vcpu.serror_pending, 1);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

static void rules_dry_runs_and_the_host_first(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    seawall_outcome outcome;
    struct vcpu vcpu = at_el0();
    seawall_vcpu ioctls = calls(&vcpu);

    OK(seawall_containment_new("user-fetch=stop,user-data=host-first", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_handle_sea(containment, &ioctls, NULL, &fetch, 1, 0, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_STOP);
    IS(outcome.stop_reason, SEAWALL_STOP_REASON_POLICY);
    IS(vcpu.events, 0);

    OK(seawall_decide_sea(containment, &ioctls, &load, 2, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_HOST_FIRST);
    OK(seawall_repaired(containment, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_REPAIRED);
    IS(vcpu.events, 0);

    /* The host cannot: the guest is told. */
    OK(seawall_containment_set_records(containment, &records, NULL));
    OK(seawall_containment_reset_records(containment, &memory, NULL));
    OK(seawall_containment_set_dry_run(containment, 1, NULL));
    OK(seawall_handle_sea(containment, &ioctls, &memory, &load, 3, 0, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_DRY_RUN);
    IS(outcome.injection, SEAWALL_INJECT_DATA_ABORT);
    IS(outcome.recorded, SEAWALL_RECORDED_NO);
    IS(vcpu.events, 0);
    OK(seawall_containment_set_dry_run(containment, 0, NULL));
    OK(seawall_handle_sea(containment, &ioctls, &memory, &load, 4, 0, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.action, SEAWALL_ACTION_INJECTED);
    IS(outcome.recorded, SEAWALL_RECORDED_AT_SOURCE);
    IS(vcpu.reg[ESR], 0x92000210);

    /* A host with pages of 64 KiB: all of one is lost. */
    OK(seawall_containment_set_host_page(containment, 0x10000, NULL));
    OK(seawall_decide_sea(containment, &ioctls, &load, 5, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.gpa, 0x400a0000);
    IS(outcome.size, 0x10000);

    /* A new guest is told where its records are. */
    OK(seawall_containment_reset(containment, NULL));
    IS(seawall_containment_reset_records(containment, &memory, NULL), SEAWALL_STATUS_NOT_FOUND);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

static void when_ioctls_fail(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    struct vcpu vcpu = at_el0();
    seawall_vcpu ioctls = calls(&vcpu);

    OK(seawall_containment_new("full", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    vcpu.failing_gets = 1;
    IS(seawall_handle_sea(containment, &ioctls, NULL, &fetch, 1, 0, incident, &error), SEAWALL_STATUS_VCPU);
    IS(error.status, SEAWALL_STATUS_VCPU);
    IS(error.os_errno, EIO);
    SAYS(error.message, "KVM_GET_ONE_REG failed: Input/output error (os error 5); nothing was injected");
    IS(vcpu.events, 0);

    /* After the kernel delivered, the guest has its data abort, and a second injection is refused. */
    vcpu.failing_gets = 0;
    vcpu.failing_set = 1;
    IS(seawall_handle_sea(containment, &ioctls, NULL, &fetch, 2, 0, incident, &error), SEAWALL_STATUS_DEGRADED);
    IS(vcpu.reg[ESR], 0x92000010);
    IS(vcpu.reg[PC], 0xffff800010000c00);
    IS(seawall_inject(containment, &ioctls, incident, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(vcpu.events, 1);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

static void a_storm_is_stopped(void)
{
    seawall_containment *containment;
    seawall_incident *incident;
    seawall_outcome outcome;
    struct vcpu vcpu;
    seawall_vcpu ioctls = calls(&vcpu);
    int times;

    OK(seawall_containment_new("full", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    outcome.action = SEAWALL_ACTION_NONE;
    for (times = 0; times < 100 && outcome.action != SEAWALL_ACTION_STOP; times++) {
        vcpu = at_el0();
        if (seawall_handle_sea(containment, &ioctls, NULL, &fetch, (uint64_t)times, 0, incident, NULL))
            break;
        seawall_incident_outcome(incident, &outcome, NULL);
    }
    IS(outcome.action, SEAWALL_ACTION_STOP);
    IS(outcome.stop_reason, SEAWALL_STOP_REASON_STORM);
    IS(outcome.storm_times, 17);
    IS(times, 17);
    IS(vcpu.events, 0);
    seawall_incident_free(incident);
    seawall_containment_free(containment);
}

static void records_and_tables(void)
{
    seawall_containment *containment;
    uint8_t bytes[512];
    uint32_t announcement;
    size_t length, waiting;

    IS(seawall_hest(&records, NULL, 0, &length, &error), SEAWALL_STATUS_BUFFER_TOO_SMALL);
    IS(length, 40 + 3 * 92);
    OK(seawall_hest(&records, bytes, sizeof bytes, &length, NULL));
    CHECK(memcmp(bytes, "HEST\x3c\x01", 6) == 0);
    IS(bytes[40], 10);
    IS(bytes[40 + 32], 8);
    IS(bytes[40 + 2 * 92 + 32], 0);

    OK(seawall_cper(0x40210040, 64, SEAWALL_SEVERITY_RECOVERABLE, 1790000000, 7, bytes, sizeof bytes, &length, NULL));
    IS(length, SEAWALL_CPER_SIZE);
    CHECK(memcmp(bytes + 20 + 44, "seawall 7", 9) == 0);
    CHECK(memcmp(bytes + 20 + 64, "\x20\x13\x14\x01\x21\x09\x26\x20", 8) == 0);
    CHECK(memcmp(bytes + 20 + 72 + 16, "\x40\x00\x21\x40\0\0\0\0\xc0\xff\xff\xff\xff\xff\xff\xff", 16) == 0);
    IS(seawall_cper(0, 64, 3, 0, 7, bytes, sizeof bytes, &length, &error), SEAWALL_STATUS_INVALID_ARGUMENT);
    SAYS(error.message, "expected a severity from 0 to 2, got 3");
    IS(seawall_cper(0, 64, 0, UINT64_MAX, 7, bytes, sizeof bytes, &length, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_cper(0, 0, 0, 0, 7, bytes, sizeof bytes, &length, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_cper(UINT64_MAX, 64, 0, 0, 7, bytes, sizeof bytes, &length, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);

    OK(seawall_containment_new("full", &containment, NULL));
    IS(seawall_announce(containment, &memory, 0x40210000, 4096, 0, &announcement, &error), SEAWALL_STATUS_NOT_FOUND);
    OK(seawall_containment_set_records(containment, &records, NULL));
    OK(seawall_containment_reset_records(containment, &memory, NULL));
    OK(seawall_announce(containment, &memory, 0x40210000, 4096, 1790000000, &announcement, NULL));
    IS(announcement, SEAWALL_ANNOUNCEMENT_WRITTEN);
    OK(seawall_announce(containment, &memory, 0x40211000, 4096, 1790000000, &announcement, NULL));
    IS(announcement, SEAWALL_ANNOUNCEMENT_QUEUED);
    OK(seawall_flush_records(containment, &memory, &waiting, NULL));
    IS(waiting, 1);
    acknowledge(2);
    OK(seawall_flush_records(containment, &memory, &waiting, NULL));
    IS(waiting, 0);
    IS(word(BASE + 2 * 512 + 16 + 20 + 72 + 16), 0x40211000);
    seawall_containment_free(containment);
}

static void the_ledger_survives(const char *folder)
{
    seawall_ledger *ledger, *again;
    seawall_bad_range bad;
    char path[4096], missing[4096];
    uint8_t bytes[256];
    uint64_t number;
    uint32_t is_bad;
    size_t length;
    FILE *file;

    snprintf(path, sizeof path, "%s/ledger", folder);
    snprintf(missing, sizeof missing, "%s/no/such/ledger", folder);
    IS(seawall_ledger_load(path, &ledger, NULL), SEAWALL_STATUS_NOT_FOUND);
    OK(seawall_ledger_new(&ledger, NULL));
    OK(seawall_ledger_insert(ledger, 0x40210040, 64, SEAWALL_CAUSE_CONSUMED, 1790000000, &number, NULL));
    IS(number, 1);
    OK(seawall_ledger_insert(ledger, 0x80000000, 1 << 30, SEAWALL_CAUSE_FOUND, 1790000001, &number, NULL));
    IS(number, 262144);
    OK(seawall_ledger_save(ledger, path, NULL));
    seawall_ledger_free(ledger);

    OK(seawall_ledger_load(path, &ledger, NULL));
    OK(seawall_ledger_pages(ledger, &number, NULL));
    IS(number, 262145);
    OK(seawall_ledger_contains(ledger, 0x40210fff, &is_bad, NULL));
    IS(is_bad, 1);
    OK(seawall_ledger_contains(ledger, 0x40211000, &is_bad, NULL));
    IS(is_bad, 0);
    OK(seawall_ledger_next(ledger, 0, &bad, NULL));
    IS(bad.gpa, 0x40210000);
    IS(bad.size, 0x1000);
    IS(bad.unix_seconds, 1790000000);
    IS(bad.cause, SEAWALL_CAUSE_CONSUMED);
    OK(seawall_ledger_next(ledger, bad.gpa + bad.size, &bad, NULL));
    IS(bad.gpa, 0x80000000);
    IS(bad.size, 0x40000000);
    IS(seawall_ledger_next(ledger, bad.gpa + bad.size, &bad, NULL), SEAWALL_STATUS_NOT_FOUND);

    /* A migration. */
    OK(seawall_ledger_to_bytes(ledger, bytes, sizeof bytes, &length, NULL));
    IS(length, 24 + 2 * 24 + 32);
    OK(seawall_ledger_from_bytes(bytes, length, &again, NULL));
    OK(seawall_ledger_remove(again, 0x80000000, 1 << 30, &number, NULL));
    IS(number, 262144);
    seawall_ledger_free(again);
    IS(seawall_ledger_from_bytes(bytes, length - 1, &again, &error), SEAWALL_STATUS_FORMAT);

    /* What cannot be read or written says so. */
    IS(seawall_ledger_save(ledger, missing, &error), SEAWALL_STATUS_FILE);
    CHECK(strstr(error.message, "/no/such/ledger, what was there stays: No such file or directory") != NULL);
    file = fopen(path, "r+b");
    fseek(file, 30, SEEK_SET);
    fputc(0xff, file);
    fclose(file);
    IS(seawall_ledger_load(path, &again, &error), SEAWALL_STATUS_FORMAT);
    CHECK(strstr(error.message, "the checksum is wrong: the ledger was damaged") != NULL);
    seawall_ledger_free(ledger);
}

static void bad_arguments_are_refused(void)
{
    static const seawall_records_region odd = { BASE + 4, 2, 1, 1000 }, none = { BASE, 0, 0, 0 },
                                        beyond = { UINT64_MAX - 7, 2, 1, 1000 };
    static const seawall_memory_region twice[] = { { 0, 0x1000, 0x1000 }, { 0x800, 0x9000, 0x1000 } };
    static const seawall_memory nowhere = { NULL, NULL, write_memory };
    seawall_containment *containment = NULL;
    seawall_incident *incident;
    seawall_ledger *ledger;
    seawall_address_map *map;
    struct vcpu vcpu = at_el0();
    seawall_outcome outcome;
    seawall_vcpu ioctls = calls(&vcpu), broken = ioctls;
    seawall_records_region far_away = records;

    IS(seawall_containment_new("fulll", &containment, &error), SEAWALL_STATUS_INVALID_ARGUMENT);
    SAYS(error.message, "expected a policy (`rules`, `serror`, `mainline`, `full`) or rules such as `kernel-fetch=stop`, "
                        "got `fulll`");
    IS(seawall_containment_new("walk=stop,walk=go", &containment, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    CHECK(containment == NULL);
    IS(seawall_containment_new(NULL, &containment, &error), SEAWALL_STATUS_NULL_POINTER);
    SAYS(error.message, "expected `policy`, got NULL");
    IS(seawall_containment_new("full", NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    OK(seawall_containment_new("full", &containment, NULL));
    OK(seawall_incident_new(&incident, NULL));
    OK(seawall_ledger_new(&ledger, NULL));

    IS(seawall_handle_sea(NULL, &ioctls, NULL, &fetch, 0, 0, incident, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_handle_sea(containment, NULL, NULL, &fetch, 0, 0, incident, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_handle_sea(containment, &ioctls, NULL, NULL, 0, 0, incident, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_handle_sea(containment, &ioctls, NULL, &fetch, 0, 0, NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    broken.get_one_reg = NULL;
    IS(seawall_handle_sea(containment, &broken, NULL, &fetch, 0, 0, incident, &error), SEAWALL_STATUS_NULL_POINTER);
    SAYS(error.message, "expected the vCPU's function `get_one_reg`, got NULL");
    IS(seawall_handle_sigbus(containment, &ioctls, NULL, 0, 0, 0, 0, incident, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_decide_sigbus(containment, &ioctls, UINT64_MAX, 2, 0, incident, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_record(containment, &memory, 0, incident, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(vcpu.events, 0);

    IS(seawall_containment_set_records(containment, &odd, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_containment_set_records(containment, &none, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_containment_set_records(containment, &beyond, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_containment_reset_records(containment, &memory, NULL), SEAWALL_STATUS_NOT_FOUND);
    far_away.base = 0x60000000;
    OK(seawall_containment_set_records(containment, &far_away, NULL));
    IS(seawall_containment_reset_records(containment, &nowhere, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_containment_reset_records(containment, &memory, &error), SEAWALL_STATUS_MEMORY);
    IS(error.os_errno, EFAULT);
    SAYS(error.message, "cannot write 512 bytes of guest memory at 0x60000000: Bad address (os error 14)");

    /* If the record cannot be written the decision stands, and the guest gets the abort alone. */
    OK(seawall_decide_sea(containment, &ioctls, &fetch, 0, incident, NULL));
    IS(seawall_record(containment, &memory, 0, incident, NULL), SEAWALL_STATUS_MEMORY);
    IS(vcpu.events, 0);
    OK(seawall_inject(containment, &ioctls, incident, NULL));
    IS(vcpu.reg[ESR], 0x82000210);
    vcpu = at_el0();
    OK(seawall_handle_sea(containment, &ioctls, &memory, &fetch, 0, 0, incident, NULL));
    OK(seawall_incident_outcome(incident, &outcome, NULL));
    IS(outcome.recorded, SEAWALL_RECORDED_UNWRITABLE);

    IS(seawall_incident_outcome(incident, NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_incident_text(incident, NULL, 8, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_address_map_new(NULL, 1, &map, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_address_map_new(twice, 2, &map, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_ledger_insert(ledger, 0, 64, 5, 0, NULL, &error), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_ledger_insert(ledger, (uint64_t)1 << 52, 64, 1, 0, NULL, NULL), SEAWALL_STATUS_INVALID_ARGUMENT);
    IS(seawall_ledger_insert(NULL, 0, 64, 1, 0, NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_ledger_contains(ledger, 0, NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    IS(seawall_ledger_save(ledger, NULL, NULL), SEAWALL_STATUS_NULL_POINTER);
    seawall_incident_free(NULL);
    seawall_ledger_free(NULL);
    seawall_address_map_free(NULL);
    seawall_containment_free(NULL);
    seawall_incident_free(incident);
    seawall_ledger_free(ledger);
    seawall_containment_free(containment);
}

static void the_library_is_of_the_headers_release(void)
{
    char expected[32];

    snprintf(expected, sizeof expected, "%d.%d.%d", SEAWALL_VERSION_MAJOR, SEAWALL_VERSION_MINOR,
             SEAWALL_VERSION_PATCH);
    CHECK(strcmp(seawall_version(), expected) == 0);
    CHECK(strcmp(seawall_version(), "0.1.0") == 0);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        printf("expected a folder for files\n");
        return EXIT_FAILURE;
    }
    the_library_is_of_the_headers_release();
    contain_a_fetch();
    step_by_step();
    contain_a_sigbus();
    what_kvm_does_today();
    rules_dry_runs_and_the_host_first();
    when_ioctls_fail();
    a_storm_is_stopped();
    records_and_tables();
    the_ledger_survives(argv[1]);
    bad_arguments_are_refused();
    if (failures) {
        printf("%d of %d checks failed\n", failures, checks);
        return EXIT_FAILURE;
    }
    printf("%d checks passed\n", checks);
    return EXIT_SUCCESS;
}
