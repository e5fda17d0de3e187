/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps, and nothing else.  Sizes of 1 are set when the object is loaded. */
#ifndef XLVS_MAPS_H
#define XLVS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define likely(condition) __builtin_expect(!!(condition), 1)

const volatile struct limits limits SEC(".rodata.limits") = { .buckets = SWEEPS_PER_SECOND };

/* An array that user space maps into its memory: it reads and writes records
 * without a system call. */
#define SHARED_ARRAY(map, record, entries)               \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_ARRAY);        \
		__uint(map_flags, BPF_F_MMAPABLE);       \
		__uint(max_entries, entries);            \
		__type(key, __u32);                      \
		__type(value, record);                   \
	} map SEC(".maps")

/* Variables have a map of their own for each section: their place is known when a program is
 * loaded, and nothing is looked up. */
struct settings settings SEC(".data.settings");

struct interface interfaces[INTERFACE_LIMIT] SEC(".data.interfaces");

SHARED_ARRAY(connections, struct connection_bucket, 1);

/* One for a few buckets, whose homes they are: guards against inserting a flow twice. */
struct bucket_guard {
	struct bpf_spin_lock lock;
	/* How many connections of each home stand elsewhere, in 8 bits: there are 56 places for them. */
	__u32 spilled;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket_guard);
} bucket_guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct service_key);
	__type(value, __u32);
} service_index SEC(".maps");

SHARED_ARRAY(services, struct service, 1);

SHARED_ARRAY(destinations, struct destination, 1);

/* Masqueraded real servers by what they send from: those of services with a persistence engine,
 * which may begin calls; all, while nat_icmp_send is on. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct sender);
	__type(value, __u32);
} senders SEC(".maps");

/* Scheduling runs: see `struct pick`. */
SHARED_ARRAY(pool, __u64, 1);

/* Trees of loads: see load_tree.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct load_block);
} loads SEC(".maps");

/* What each CPU counts, see stats.h; so long is a row when the object is loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, EVENTS_ROOM + 2 * sizeof(struct traffic));
} counters SEC(".maps");

/* The counts from which `-Z`, or a record's new owner, began: user space only. */
SHARED_ARRAY(service_base, struct traffic, 1);

SHARED_ARRAY(destination_base, struct traffic, 1);

SHARED_ARRAY(service_estimates, struct estimate, 1);

SHARED_ARRAY(destination_estimates, struct estimate, 1);

/* Two sets of rules, of which packets read one: see `struct mark_rule`. */
SHARED_ARRAY(mark_rules, struct mark_rule, 2 * MARK_RULES);

static __always_inline struct interface *interface_at(__u32 index)
{
	__u64 place = index;

	if (place >= INTERFACE_LIMIT)
		return 0;
	/* Keeps the compiler from moving the arithmetic before the test, which the verifier refuses. */
	asm volatile("" : "+r"(place));
	return &interfaces[place];
}

struct sweeper {
	struct bpf_timer timer;
	__u64 due;        /* when it is to run next, ns; 0: at once */
	__u32 next_share;
	__u32 next_estimates; /* the next share of those (estimate.h) */
	__u32 localities; /* entries of lblc and lblcr that were left when last looked through */
	__u32 occupied;   /* slots in use that this walk over the table has seen */
	__u32 share_used[SWEEPS_PER_SECOND]; /* 0: nothing there to expire */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sweeper);
} sweepers SEC(".maps");

#endif
