/*
 * Seawall: containment of memory errors for VMMs, in C.
 * Licensed under Apache-2.0 or BSD-3-Clause, at your option.
 *
 * Made by cbindgen from crates/capi/src. Do not edit.
 */

#ifndef SEAWALL_H
#define SEAWALL_H

#include <stddef.h>
#include <stdint.h>

/**
 * The header's release, MAJOR.MINOR.PATCH: another MAJOR may break callers, and so may another MINOR while
 * MAJOR is 0.
 */
#define SEAWALL_VERSION_MAJOR 0

/**
 * See `SEAWALL_VERSION_MAJOR`.
 */
#define SEAWALL_VERSION_MINOR 1

/**
 * See `SEAWALL_VERSION_MAJOR`.
 */
#define SEAWALL_VERSION_PATCH 0

/**
 * Size of a message in bytes, with the zero at its end.
 */
#define SEAWALL_MESSAGE_SIZE 256

/**
 * `kvm_run.exit_reason` of an access to memory that the hardware could not correct: `KVM_EXIT_ARM_SEA`, Linux 6.19.
 */
#define SEAWALL_KVM_EXIT_ARM_SEA 41

/**
 * The capability that enables this exit, by `KVM_ENABLE_CAP` on the VM: `KVM_CAP_ARM_SEA_TO_USER`.
 */
#define SEAWALL_KVM_CAP_ARM_SEA_TO_USER 245

/**
 * Size of `struct kvm_vcpu_events` in bytes.
 */
#define SEAWALL_VCPU_EVENTS_SIZE 64

/**
 * In `valid` of `seawall_outcome`: `gpa` and `size` are known.
 */
#define SEAWALL_VALID_GPA 1

/**
 * In `valid` of `seawall_outcome`: `gva` is known.
 */
#define SEAWALL_VALID_GVA 2

/**
 * In `valid` of `seawall_outcome`: `esr` is known; SIGBUS has none.
 */
#define SEAWALL_VALID_ESR 4

/**
 * In `valid` of `seawall_outcome`: the table walk met the error, at `walk_level`.
 */
#define SEAWALL_VALID_WALK_LEVEL 8

/**
 * In `injection` of `seawall_outcome`: an external data abort.
 */
#define SEAWALL_INJECT_DATA_ABORT 1

/**
 * In `injection` of `seawall_outcome`: an external instruction abort.
 */
#define SEAWALL_INJECT_INSTRUCTION_ABORT 2

/**
 * In `injection` of `seawall_outcome`: an SError.
 */
#define SEAWALL_INJECT_SERROR 4

/**
 * Size of a record in bytes: a Generic Error Status Block with one memory section.
 */
#define SEAWALL_CPER_SIZE 172

/**
 * Size in bytes of the guest memory for each source of records.
 */
#define SEAWALL_SOURCE_SIZE 512

/**
 * The result of a call.
 */
enum seawall_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Success.
   */
  SEAWALL_STATUS_OK = 0,
  /**
   * A required pointer is NULL.
   */
  SEAWALL_STATUS_NULL_POINTER = 1,
  /**
   * An argument is not valid.
   */
  SEAWALL_STATUS_INVALID_ARGUMENT = 2,
  /**
   * There is no such thing.
   */
  SEAWALL_STATUS_NOT_FOUND = 3,
  /**
   * The buffer is too small; it is unchanged, and the length says how many bytes are needed.
   */
  SEAWALL_STATUS_BUFFER_TOO_SMALL = 4,
  /**
   * A callback of the vCPU failed, or the request was refused; nothing was injected.
   */
  SEAWALL_STATUS_VCPU = 5,
  /**
   * A callback of the vCPU failed after the kernel delivered: the guest takes a sound abort, but not the
   * complete request.
   */
  SEAWALL_STATUS_DEGRADED = 6,
  /**
   * This vCPU cannot carry out the policy's decision; nothing was injected.
   */
  SEAWALL_STATUS_REFUSED = 7,
  /**
   * A callback of the guest's memory failed.
   */
  SEAWALL_STATUS_MEMORY = 8,
  /**
   * A file could not be read or written.
   */
  SEAWALL_STATUS_FILE = 9,
  /**
   * Bytes or a file are not a ledger, or are damaged.
   */
  SEAWALL_STATUS_FORMAT = 10,
  /**
   * A bug of the library: please report it.
   */
  SEAWALL_STATUS_PANIC = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_status seawall_status;
#else
typedef int32_t seawall_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The kind of access that met the bad memory.
 */
enum seawall_access
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Unknown, after SIGBUS.
   */
  SEAWALL_ACCESS_UNKNOWN = 0,
  /**
   * An instruction fetch.
   */
  SEAWALL_ACCESS_FETCH = 1,
  /**
   * A read of data.
   */
  SEAWALL_ACCESS_LOAD = 2,
  /**
   * A write of data.
   */
  SEAWALL_ACCESS_STORE = 3,
  /**
   * A cache maintenance or address translation instruction.
   */
  SEAWALL_ACCESS_MAINTENANCE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_access seawall_access;
#else
typedef uint32_t seawall_access;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The action for an error, to take or taken.
 */
enum seawall_action
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * No decision yet.
   */
  SEAWALL_ACTION_NONE = 0,
  /**
   * An injection was decided: `seawall_inject` does it.
   */
  SEAWALL_ACTION_INJECT = 1,
  /**
   * Injected: `guest_state` says where the guest is now. Run it again.
   */
  SEAWALL_ACTION_INJECTED = 2,
  /**
   * The guest has not acknowledged an earlier record. Run the vCPU again, which repeats the access, and
   * let the others run.
   */
  SEAWALL_ACTION_WAIT = 3,
  /**
   * Do not run the guest again; the text gives the reason.
   */
  SEAWALL_ACTION_STOP = 4,
  /**
   * Let the host restore the memory with its content, if it can, and call `seawall_repaired`; otherwise go
   * on with `seawall_record` and `seawall_inject`.
   */
  SEAWALL_ACTION_HOST_FIRST = 5,
  /**
   * The host restored the memory. Run the guest again.
   */
  SEAWALL_ACTION_REPAIRED = 6,
  /**
   * Nothing was injected, because of the dry run; `injection` says what would have been.
   */
  SEAWALL_ACTION_DRY_RUN = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_action seawall_action;
#else
typedef uint32_t seawall_action;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The outcome of an announcement.
 */
enum seawall_announcement
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The guest finds its record at its next poll.
   */
  SEAWALL_ANNOUNCEMENT_WRITTEN = 0,
  /**
   * It waits for a free source: `seawall_flush_records`.
   */
  SEAWALL_ANNOUNCEMENT_QUEUED = 1,
  /**
   * Too many wait: the guest will not be told.
   */
  SEAWALL_ANNOUNCEMENT_DROPPED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_announcement seawall_announcement;
#else
typedef uint32_t seawall_announcement;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The way in which a page was found to be bad.
 */
enum seawall_cause
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * A vCPU consumed it: a SEA exit, or SIGBUS with `BUS_MCEERR_AR`.
   */
  SEAWALL_CAUSE_CONSUMED = 1,
  /**
   * The host found it before any access: SIGBUS with `BUS_MCEERR_AO`, or a scrubber's report.
   */
  SEAWALL_CAUSE_FOUND = 2,
  /**
   * It was bad at the source of a migration.
   */
  SEAWALL_CAUSE_MIGRATED = 3,
  /**
   * An experiment made it bad.
   */
  SEAWALL_CAUSE_EXPERIMENT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_cause seawall_cause;
#else
typedef uint32_t seawall_cause;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The guest's position after an injection.
 */
enum seawall_guest_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing was injected.
   */
  SEAWALL_GUEST_STATE_NONE = 0,
  /**
   * At the first instruction of its handler: `guest_pc`, `guest_esr`, `guest_far`.
   */
  SEAWALL_GUEST_STATE_AT_VECTOR = 1,
  /**
   * The SError waits for the guest to unmask it.
   */
  SEAWALL_GUEST_STATE_SERROR_PENDING = 2,
  /**
   * The kernel took the error for transient and did nothing: the guest repeats the access.
   */
  SEAWALL_GUEST_STATE_NOT_DELIVERED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_guest_state seawall_guest_state;
#else
typedef uint32_t seawall_guest_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The state of the error's record in the guest.
 */
enum seawall_recorded
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * There is none: the guest has no place for records, the error has no address, nothing is injected, or
   * the guest has read so many records of this error that only the abort alone is left to try.
   */
  SEAWALL_RECORDED_NO = 0,
  /**
   * It is at the source `record_source`.
   */
  SEAWALL_RECORDED_AT_SOURCE = 1,
  /**
   * The guest did not acknowledge earlier records for too long: it gets the abort alone.
   */
  SEAWALL_RECORDED_UNACKNOWLEDGED = 2,
  /**
   * The guest's memory could not be written at its records: it gets the abort alone.
   */
  SEAWALL_RECORDED_UNWRITABLE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_recorded seawall_recorded;
#else
typedef uint32_t seawall_recorded;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The severity of an error, in ACPI's numbers.
 */
enum seawall_severity
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The memory is lost, but not the whole system.
   */
  SEAWALL_SEVERITY_RECOVERABLE = 0,
  /**
   * The system is lost: Linux panics.
   */
  SEAWALL_SEVERITY_FATAL = 1,
  /**
   * Nothing was lost.
   */
  SEAWALL_SEVERITY_CORRECTED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_severity seawall_severity;
#else
typedef uint32_t seawall_severity;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The reason why a guest is stopped.
 */
enum seawall_stop_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is not stopped.
   */
  SEAWALL_STOP_REASON_NONE = 0,
  /**
   * The same access aborts forever: `storm_times`.
   */
  SEAWALL_STOP_REASON_STORM = 1,
  /**
   * The policy stops the guest for errors of this kind.
   */
  SEAWALL_STOP_REASON_POLICY = 2,
  /**
   * The guest hypervisor takes the abort from its own guest, and stock kernels cannot deliver that
   * soundly.
   */
  SEAWALL_STOP_REASON_NESTED = 3,
  /**
   * A reason without a name in this version of the interface; the text gives it.
   */
  SEAWALL_STOP_REASON_OTHER = 4,
  /**
   * A vCPU touched bad memory of the VMM itself.
   */
  SEAWALL_STOP_REASON_NOT_GUESTS = 5,
  /**
   * Errors come faster than memory can fail: the guest causes them itself, or reads an entire bad range
   * over and over.
   */
  SEAWALL_STOP_REASON_FLOOD = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum seawall_stop_reason seawall_stop_reason;
#else
typedef uint32_t seawall_stop_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A translation between guest physical addresses and the VMM's. A lookup takes time in the logarithm of the
 * number of regions.
 */
typedef struct seawall_address_map seawall_address_map;

/**
 * Handles the memory errors of one guest as a policy decides.
 */
typedef struct seawall_containment seawall_containment;

/**
 * One memory error in progress through `seawall_decide_*`, `seawall_record` and `seawall_inject`. Each
 * thread that runs a vCPU needs only one: the decision on the next error replaces the last.
 */
typedef struct seawall_incident seawall_incident;

/**
 * The bad pages of one guest.
 */
typedef struct seawall_ledger seawall_ledger;

/**
 * A failure in words. The caller owns it; it needs no initialisation. Each call that gets it writes it, even
 * on success.
 */
typedef struct seawall_error {
  /**
   * The returned status.
   */
  seawall_status status;
  /**
   * The underlying errno, positive; 0 if none is known.
   */
  int32_t os_errno;
  /**
   * The expectation and the finding, for people. Empty on success.
   */
  char message[SEAWALL_MESSAGE_SIZE];
} seawall_error;

/**
 * An incident in numbers. Unknown values are 0.
 */
typedef struct seawall_outcome {
  /**
   * Start of the bad range, guest physical.
   */
  uint64_t gpa;
  /**
   * Size in bytes of the range that may be bad.
   */
  uint64_t size;
  /**
   * Guest virtual address of the access.
   */
  uint64_t gva;
  /**
   * PC of the instruction, which has not retired.
   */
  uint64_t pc;
  /**
   * The ESR of the exit.
   */
  uint64_t esr;
  /**
   * After an injection: PC, the vector.
   */
  uint64_t guest_pc;
  /**
   * After an injection: the ESR that the handler will read.
   */
  uint64_t guest_esr;
  /**
   * After an injection: the FAR that the handler will read.
   */
  uint64_t guest_far;
  /**
   * If not 0, the number of distinct pages that went bad in so short a time that the guest should be
   * migrated while it lives.
   */
  uint64_t evacuate_pages;
  /**
   * Which of the above fields are known: SEAWALL_VALID_*.
   */
  uint32_t valid;
  /**
   * One of `seawall_action`.
   */
  uint32_t action;
  /**
   * One of `seawall_access`.
   */
  uint32_t access;
  /**
   * Exception level of the access: 0, 1 or 2.
   */
  uint32_t exception_level;
  /**
   * Lookup level of the table walk, -1 to 3.
   */
  int32_t walk_level;
  /**
   * The injection, to come or done: SEAWALL_INJECT_*.
   */
  uint32_t injection;
  /**
   * The ISS for the abort, to come or given.
   */
  uint32_t iss;
  /**
   * One of `seawall_guest_state`.
   */
  uint32_t guest_state;
  /**
   * After an injection: the Exception level of the handler, 1 or 2.
   */
  uint32_t guest_level;
  /**
   * One of `seawall_recorded`.
   */
  uint32_t recorded;
  /**
   * The id of the record's source.
   */
  uint32_t record_source;
  /**
   * One of `seawall_stop_reason`.
   */
  uint32_t stop_reason;
  /**
   * After a storm: the number of times that the same abort came.
   */
  uint32_t storm_times;
  /**
   * 0.
   */
  uint32_t reserved;
} seawall_outcome;

/**
 * A vCPU outside of `KVM_RUN`. Each function is an ioctl on its file descriptor, returns 0 or the errno
 * (positive or negative), and is called on the thread that called the library, before that call returns.
 * None may be NULL.
 *
 * The registers must be the kernel's: a VMM that keeps a copy (QEMU: `cpu_synchronize_state`) writes it back
 * before the call, and treats it as stale afterwards.
 */
typedef struct seawall_vcpu {
  /**
   * Passed to each function unchanged.
   */
  void *opaque;
  /**
   * `KVM_SET_VCPU_EVENTS` with `SEAWALL_VCPU_EVENTS_SIZE` bytes, mainline's layout.
   */
  int32_t (*set_vcpu_events)(void *opaque, const uint8_t *events);
  /**
   * `KVM_GET_VCPU_EVENTS` into `SEAWALL_VCPU_EVENTS_SIZE` bytes.
   */
  int32_t (*get_vcpu_events)(void *opaque, uint8_t *events);
  /**
   * `KVM_GET_ONE_REG` of a 64-bit register.
   */
  int32_t (*get_one_reg)(void *opaque, uint64_t id, uint64_t *value);
  /**
   * `KVM_SET_ONE_REG` of a 64-bit register.
   */
  int32_t (*set_one_reg)(void *opaque, uint64_t id, uint64_t value);
} seawall_vcpu;

/**
 * The `arm_sea` member of the union in `struct kvm_run`, at byte 0x20 of it. The fields are the same, so
 * `memcpy` can copy it if the kernel's headers are too old to have it.
 */
typedef struct seawall_sea_exit {
  /**
   * Bit 0: `gpa` is valid.
   */
  uint64_t flags;
  /**
   * The masked `ESR_EL2`.
   */
  uint64_t esr;
  /**
   * Guest virtual address, valid if FnV (bit 10) of `esr` is 0.
   */
  uint64_t gva;
  /**
   * Guest physical address, page aligned.
   */
  uint64_t gpa;
} seawall_sea_exit;

/**
 * Guest memory, for the records of errors. Each function returns 0 or an errno (positive or negative), and
 * completes the whole request or fails. An access of 4 or 8 bytes is aligned, and must be one load or one
 * store, because the guest reads the same words. QEMU's `address_space_rw` does that; so do
 * `__atomic_load_n` and `__atomic_store_n` over a mapping. The library takes care of ordering.
 */
typedef struct seawall_memory {
  /**
   * Passed to each function unchanged.
   */
  void *opaque;
  /**
   * Reads `size` bytes at `gpa` into `bytes`.
   */
  int32_t (*read)(void *opaque, uint64_t gpa, uint8_t *bytes, size_t size);
  /**
   * Writes `size` bytes from `bytes` at `gpa`.
   */
  int32_t (*write)(void *opaque, uint64_t gpa, const uint8_t *bytes, size_t size);
} seawall_memory;

/**
 * The place of the records in guest memory. The guest must not use it as RAM: `seawall_hest` tells the guest
 * of it.
 */
typedef struct seawall_records_region {
  /**
   * Guest physical address, a multiple of 8. The region has SEAWALL_SOURCE_SIZE bytes for each source.
   */
  uint64_t base;
  /**
   * The number of sources for consumed errors, such as 16; as many errors can be outstanding.
   */
  uint16_t sea_sources;
  /**
   * The number of sources for errors that were only found, such as 1.
   */
  uint16_t polled_sources;
  /**
   * The interval in milliseconds at which the guest polls those.
   */
  uint32_t poll_interval_ms;
} seawall_records_region;

/**
 * A run of guest memory.
 */
typedef struct seawall_memory_region {
  /**
   * Guest physical address.
   */
  uint64_t guest;
  /**
   * The address of the same byte in the VMM's address space.
   */
  uint64_t host;
  /**
   * Size in bytes.
   */
  uint64_t size;
} seawall_memory_region;

/**
 * Neighbouring bad pages with the same history.
 */
typedef struct seawall_bad_range {
  /**
   * Guest physical address, whole pages of 4 KiB.
   */
  uint64_t gpa;
  /**
   * Size in bytes.
   */
  uint64_t size;
  /**
   * The time at which it was found, in seconds since 1970.
   */
  uint64_t unix_seconds;
  /**
   * One of `seawall_cause`.
   */
  uint32_t cause;
} seawall_bad_range;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The release of the linked library, such as `0.1.0`. It equals the header's, unless the two were installed
 * separately. The text lives as long as the program.
 */
const char *seawall_version(void);

/**
 * Makes an empty incident.
 *
 * Contract:
 * `incident` must be valid for writes of a pointer; the new incident must go to `seawall_incident_free`.
 * `error` must be NULL or valid for writes.
 */
seawall_status seawall_incident_new(struct seawall_incident **incident, struct seawall_error *error);

/**
 * Frees an incident; does nothing for NULL.
 *
 * Contract:
 * `incident` must be NULL, or from `seawall_incident_new` and no longer in use.
 */
void seawall_incident_free(struct seawall_incident *incident);

/**
 * Writes an incident in numbers to `outcome`.
 *
 * Contract:
 * `incident` must be NULL or from `seawall_incident_new`, `outcome` and `error` NULL or valid for writes.
 */
seawall_status seawall_incident_outcome(const struct seawall_incident *incident,
                                        struct seawall_outcome *outcome,
                                        struct seawall_error *error);

/**
 * Writes an incident in words, one line for the log: as much as fits into `size` bytes with a zero at the
 * end.
 *
 * Contract:
 * `incident` must be NULL or from `seawall_incident_new`, `text` NULL or valid for writes of `size` bytes,
 * `error` NULL or valid for writes.
 */
seawall_status seawall_incident_text(const struct seawall_incident *incident,
                                     char *text,
                                     size_t size,
                                     struct seawall_error *error);

/**
 * Makes the containment of one guest. `policy` is the name of a policy: `rules` (the default ones),
 * `serror`, `mainline` or `full`; or rules that differ from the default or from one of these, separated by
 * commas, such as `kernel-fetch=stop,user-data=host-first` or `full,nested=stop`. The containment writes no
 * records until `seawall_containment_set_records`.
 *
 * Contract:
 * `policy` must be NULL or end with a zero, `containment` NULL or valid for writes of a pointer; the new
 * containment must go to `seawall_containment_free`. `error` must be NULL or valid for writes.
 */
seawall_status seawall_containment_new(const char *policy,
                                       struct seawall_containment **containment,
                                       struct seawall_error *error);

/**
 * Frees a containment; does nothing for NULL.
 *
 * Contract:
 * `containment` must be NULL, or from `seawall_containment_new` and no longer in use.
 */
void seawall_containment_free(struct seawall_containment *containment);

/**
 * Sets or clears the dry run: with `is_dry_run` not 0 everything is decided, and nothing is recorded or
 * injected.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
 */
seawall_status seawall_containment_set_dry_run(const struct seawall_containment *containment,
                                               uint32_t is_dry_run,
                                               struct seawall_error *error);

/**
 * Sets the size in bytes of the host's pages behind the guest's memory: a power of two, 4096 by default. An
 * error costs such a page as a whole, or a page of the guest if those are larger.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
 */
seawall_status seawall_containment_set_host_page(const struct seawall_containment *containment,
                                                 uint64_t bytes,
                                                 struct seawall_error *error);

/**
 * Handles a restart of the guest: forgets the old guest's errors and injections. Set the place of the new
 * guest's records again (`seawall_containment_set_records`).
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`, `error` NULL or valid for writes.
 */
seawall_status seawall_containment_reset(const struct seawall_containment *containment,
                                         struct seawall_error *error);

/**
 * Decides on a `KVM_EXIT_ARM_SEA`. The guest is unchanged: this call alone is a dry run.
 *
 * `now_ns`: nanoseconds of any monotonic clock, the same one for all calls with this containment.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`; `vcpu` and `exit` NULL or valid for reads,
 * and the functions of `vcpu` as `seawall_vcpu` requires; `incident` NULL or from `seawall_incident_new`,
 * and not used by another thread meanwhile; `error` NULL or valid for writes.
 */
seawall_status seawall_decide_sea(const struct seawall_containment *containment,
                                  const struct seawall_vcpu *vcpu,
                                  const struct seawall_sea_exit *exit,
                                  uint64_t now_ns,
                                  struct seawall_incident *incident,
                                  struct seawall_error *error);

/**
 * Decides on a SIGBUS with `BUS_MCEERR_AR` that a vCPU's thread got in `KVM_RUN`. `gpa` and `size`: the
 * guest memory behind `si_addr` and `si_addr_lsb`, see `seawall_address_map_guest_range`.
 *
 * Contract:
 * As `seawall_decide_sea`.
 */
seawall_status seawall_decide_sigbus(const struct seawall_containment *containment,
                                     const struct seawall_vcpu *vcpu,
                                     uint64_t gpa,
                                     uint64_t size,
                                     uint64_t now_ns,
                                     struct seawall_incident *incident,
                                     struct seawall_error *error);

/**
 * Writes the record of the error, if the guest looks for records and an abort will be injected that makes it
 * look. While the guest has not acknowledged an earlier record, the incident's action becomes
 * `SEAWALL_ACTION_WAIT`, for a second at most.
 *
 * If the call fails the decision stands: `seawall_inject` goes on without a record. After
 * `SEAWALL_ACTION_HOST_FIRST` the call means that the host could not help, and changes the action to
 * `SEAWALL_ACTION_INJECT`.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`; `memory` NULL or valid for reads, and its
 * functions as `seawall_memory` requires; `incident` NULL or from `seawall_incident_new`, and not used by
 * another thread meanwhile; `error` NULL or valid for writes.
 */
seawall_status seawall_record(const struct seawall_containment *containment,
                              const struct seawall_memory *memory,
                              uint64_t unix_seconds,
                              struct seawall_incident *incident,
                              struct seawall_error *error);

/**
 * Carries out the decision, and reads back what the guest will see. The vCPU must not have run since the
 * decision. If the call fails the incident is empty: unless the status is `SEAWALL_STATUS_DEGRADED` nothing
 * was injected, and you can decide again.
 *
 * Contract:
 * As `seawall_decide_sea`.
 */
seawall_status seawall_inject(const struct seawall_containment *containment,
                              const struct seawall_vcpu *vcpu,
                              struct seawall_incident *incident,
                              struct seawall_error *error);

/**
 * Reports, after `SEAWALL_ACTION_HOST_FIRST`, that the host restored the memory with its content. The
 * incident is done; run the vCPU again.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`; `incident` NULL or from
 * `seawall_incident_new`, and not used by another thread meanwhile; `error` NULL or valid for writes.
 */
seawall_status seawall_repaired(const struct seawall_containment *containment,
                                struct seawall_incident *incident,
                                struct seawall_error *error);

/**
 * Calls `seawall_decide_sea`, `seawall_record` if `memory` is not NULL, and `seawall_inject`; a record that
 * cannot be written is left out (`SEAWALL_RECORDED_UNWRITABLE`). The incident's action says what to do next:
 * run the vCPU again for `SEAWALL_ACTION_INJECTED` and `SEAWALL_ACTION_WAIT`, not for `SEAWALL_ACTION_STOP`.
 * The host is not asked first.
 *
 * Contract:
 * As `seawall_decide_sea` and `seawall_record`.
 */
seawall_status seawall_handle_sea(const struct seawall_containment *containment,
                                  const struct seawall_vcpu *vcpu,
                                  const struct seawall_memory *memory,
                                  const struct seawall_sea_exit *exit,
                                  uint64_t now_ns,
                                  uint64_t unix_seconds,
                                  struct seawall_incident *incident,
                                  struct seawall_error *error);

/**
 * The same for a SIGBUS: see `seawall_decide_sigbus`.
 *
 * Contract:
 * As `seawall_decide_sea` and `seawall_record`.
 */
seawall_status seawall_handle_sigbus(const struct seawall_containment *containment,
                                     const struct seawall_vcpu *vcpu,
                                     const struct seawall_memory *memory,
                                     uint64_t gpa,
                                     uint64_t size,
                                     uint64_t now_ns,
                                     uint64_t unix_seconds,
                                     struct seawall_incident *incident,
                                     struct seawall_error *error);

/**
 * Sets the place where the guest looks for records from now on; NULL for none. Call
 * `seawall_containment_reset_records` next.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`, `region` NULL or valid for reads, `error`
 * NULL or valid for writes.
 */
seawall_status seawall_containment_set_records(const struct seawall_containment *containment,
                                               const struct seawall_records_region *region,
                                               struct seawall_error *error);

/**
 * Frees all sources: call it before each start of the guest.
 *
 * Contract:
 * `containment` must be NULL or from `seawall_containment_new`; `memory` NULL or valid for reads, and its
 * functions as `seawall_memory` requires; `error` NULL or valid for writes.
 */
seawall_status seawall_containment_reset_records(const struct seawall_containment *containment,
                                                 const struct seawall_memory *memory,
                                                 struct seawall_error *error);

/**
 * Tells the guest of bad memory that it has not touched yet, after a SIGBUS with `BUS_MCEERR_AO`.
 * `announcement` receives one of `seawall_announcement`.
 *
 * Contract:
 * As `seawall_containment_reset_records`; `announcement` must be NULL or valid for writes.
 */
seawall_status seawall_announce(const struct seawall_containment *containment,
                                const struct seawall_memory *memory,
                                uint64_t gpa,
                                uint64_t size,
                                uint64_t unix_seconds,
                                uint32_t *announcement,
                                struct seawall_error *error);

/**
 * Writes waiting announcements to the sources that the guest has freed; `waiting` receives the number that
 * still wait. Call it now and then while there are some.
 *
 * Contract:
 * As `seawall_containment_reset_records`; `waiting` must be NULL or valid for writes.
 */
seawall_status seawall_flush_records(const struct seawall_containment *containment,
                                     const struct seawall_memory *memory,
                                     size_t *waiting,
                                     struct seawall_error *error);

/**
 * Writes the HEST, the ACPI table that tells the guest of the records: its size in bytes to `length`, and
 * the table to `buffer` if its `size` suffices (40, and 92 for each source).
 *
 * Contract:
 * `region` must be NULL or valid for reads; `buffer` valid for writes of `size` bytes, or NULL with `size`
 * 0; `length` and `error` NULL or valid for writes.
 */
seawall_status seawall_hest(const struct seawall_records_region *region,
                            uint8_t *buffer,
                            size_t size,
                            size_t *length,
                            struct seawall_error *error);

/**
 * Writes the record of an error, SEAWALL_CPER_SIZE bytes, for a VMM with its own GHES. `severity` is one of
 * `seawall_severity`. The range becomes the smallest power of two around it. `serial` makes the record
 * differ from all others: Linux takes a record equal to one of the last ten seconds for a repeat, and
 * ignores it.
 *
 * Contract:
 * `buffer` must be valid for writes of `size` bytes, or NULL with `size` 0; `length` and `error` NULL or
 * valid for writes.
 */
seawall_status seawall_cper(uint64_t gpa,
                            uint64_t range_size,
                            uint32_t severity,
                            uint64_t unix_seconds,
                            uint32_t serial,
                            uint8_t *buffer,
                            size_t size,
                            size_t *length,
                            struct seawall_error *error);

/**
 * Makes a map of regions, in any order, which must not overlap.
 *
 * Contract:
 * `regions` must be valid for reads of `count` regions, or NULL with `count` 0; `map` NULL or valid for
 * writes of a pointer, and the new map must go to `seawall_address_map_free`; `error` NULL or valid for
 * writes.
 */
seawall_status seawall_address_map_new(const struct seawall_memory_region *regions,
                                       size_t count,
                                       struct seawall_address_map **map,
                                       struct seawall_error *error);

/**
 * Frees a map; does nothing for NULL.
 *
 * Contract:
 * `map` must be NULL, or from `seawall_address_map_new` and no longer in use.
 */
void seawall_address_map_free(struct seawall_address_map *map);

/**
 * Writes the guest physical address of a byte of the VMM to `gpa`; SEAWALL_STATUS_NOT_FOUND if the byte is
 * not the guest's.
 *
 * Contract:
 * `map` must be NULL or from `seawall_address_map_new`, `gpa` and `error` NULL or valid for writes.
 */
seawall_status seawall_address_map_guest(const struct seawall_address_map *map,
                                         uint64_t host,
                                         uint64_t *gpa,
                                         struct seawall_error *error);

/**
 * Writes the VMM's address of a byte of the guest to `host`; SEAWALL_STATUS_NOT_FOUND if it is not in the
 * map.
 *
 * Contract:
 * `map` must be NULL or from `seawall_address_map_new`, `host` and `error` NULL or valid for writes.
 */
seawall_status seawall_address_map_host(const struct seawall_address_map *map,
                                        uint64_t gpa,
                                        uint64_t *host,
                                        struct seawall_error *error);

/**
 * Writes one of the guest's ranges behind `size` bytes of the VMM at `host`: for a SIGBUS, `si_addr` and `1
 * << si_addr_lsb`. There are several if regions meet: `index` counts from 0, and SEAWALL_STATUS_NOT_FOUND
 * comes after the last.
 *
 * Contract:
 * `map` must be NULL or from `seawall_address_map_new`, `gpa`, `gpa_size` and `error` NULL or valid for
 * writes.
 */
seawall_status seawall_address_map_guest_range(const struct seawall_address_map *map,
                                               uint64_t host,
                                               uint64_t size,
                                               size_t index,
                                               uint64_t *gpa,
                                               uint64_t *gpa_size,
                                               struct seawall_error *error);

/**
 * Makes an empty ledger.
 *
 * Contract:
 * `ledger` must be NULL or valid for writes of a pointer; the new ledger must go to `seawall_ledger_free`.
 * `error` must be NULL or valid for writes.
 */
seawall_status seawall_ledger_new(struct seawall_ledger **ledger, struct seawall_error *error);

/**
 * Reads a ledger from a file. SEAWALL_STATUS_NOT_FOUND if there is no file yet: make a new one. A damaged,
 * truncated or foreign file is refused (SEAWALL_STATUS_FORMAT); do not overwrite it without checking.
 *
 * Contract:
 * `path` must be NULL or end with a zero. Otherwise as `seawall_ledger_new`.
 */
seawall_status seawall_ledger_load(const char *path,
                                   struct seawall_ledger **ledger,
                                   struct seawall_error *error);

/**
 * Reads a ledger from the bytes of `seawall_ledger_to_bytes`, on the other side of a migration.
 *
 * Contract:
 * `bytes` must be valid for reads of `size` bytes, or NULL with `size` 0. Otherwise as `seawall_ledger_new`.
 */
seawall_status seawall_ledger_from_bytes(const uint8_t *bytes,
                                         size_t size,
                                         struct seawall_ledger **ledger,
                                         struct seawall_error *error);

/**
 * Frees a ledger; does nothing for NULL.
 *
 * Contract:
 * `ledger` must be NULL, or from the library and no longer in use.
 */
void seawall_ledger_free(struct seawall_ledger *ledger);

/**
 * Writes the ledger to a file, replacing the old one. When it returns the file is on the disk; if it fails,
 * the old file stays.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `path` NULL or end with a zero, `error` NULL or valid for
 * writes.
 */
seawall_status seawall_ledger_save(const struct seawall_ledger *ledger,
                                   const char *path,
                                   struct seawall_error *error);

/**
 * Writes the ledger as the bytes of its file: their number to `length`, and the bytes to `buffer` if its
 * `size` suffices.
 *
 * Contract:
 * `ledger` must be NULL or from the library; `buffer` valid for writes of `size` bytes, or NULL with `size`
 * 0; `length` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_to_bytes(const struct seawall_ledger *ledger,
                                       uint8_t *buffer,
                                       size_t size,
                                       size_t *length,
                                       struct seawall_error *error);

/**
 * Enters the pages that a range touches. `cause` is one of `seawall_cause`. `added`, which may be NULL,
 * receives the number of new pages; the other pages keep their entry.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `added` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_insert(const struct seawall_ledger *ledger,
                                     uint64_t gpa,
                                     uint64_t size,
                                     uint32_t cause,
                                     uint64_t unix_seconds,
                                     uint64_t *added,
                                     struct seawall_error *error);

/**
 * Removes the pages that lie wholly in a range, because they were healed. `removed`, which may be NULL,
 * receives their number.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `removed` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_remove(const struct seawall_ledger *ledger,
                                     uint64_t gpa,
                                     uint64_t size,
                                     uint64_t *removed,
                                     struct seawall_error *error);

/**
 * Writes 1 to `is_bad` if the page of this address is bad, otherwise 0.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `is_bad` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_contains(const struct seawall_ledger *ledger,
                                       uint64_t gpa,
                                       uint32_t *is_bad,
                                       struct seawall_error *error);

/**
 * Writes the number of bad pages to `pages`.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `pages` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_pages(const struct seawall_ledger *ledger,
                                    uint64_t *pages,
                                    struct seawall_error *error);

/**
 * Writes the first bad range at or after `from` to `bad`; SEAWALL_STATUS_NOT_FOUND if there is none. Search
 * for the next one from its end.
 *
 * Contract:
 * `ledger` must be NULL or from the library, `bad` and `error` NULL or valid for writes.
 */
seawall_status seawall_ledger_next(const struct seawall_ledger *ledger,
                                   uint64_t from,
                                   struct seawall_bad_range *bad,
                                   struct seawall_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SEAWALL_H */

