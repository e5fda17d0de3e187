/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers: each chooses what the kernel's module of that name chooses for
 * the same history (net/netfilter/ipvs/ip_vs_{rr,wrr,lc,wlc}.c).
 *
 * A scheduler works on a run (abi.h).  Positions count from 1; position 0 is
 * the head of the kernel's list, before the first destination.  What changes
 * from pick to pick is the run's cursor, one 64-bit word: a pick is made from
 * its value and counts when the compare-and-swap to the next value succeeds,
 * so that CPUs share one sequence without a lock.
 */
#ifndef XLVS_SCHED_H
#define XLVS_SCHED_H

#include "maps.h"

#define NO_DESTINATION (-1)
#define CURSOR_RETRIES 16
/* bpf_loop() itself stops at 8 Mi; a pick of wrr needs a pass or two. */
#define SCHEDULE_STEPS (1u << 18)

struct run {
	__u32 start;
	__u32 count;
	__u32 scheduler;
};

static __always_inline __u64 *pool_at(__u32 index)
{
	return bpf_map_lookup_elem(&pool, &index);
}

static __always_inline __u64 pool_read(__u32 index)
{
	__u64 *element = pool_at(index);

	return element ? *(volatile __u64 *)element : 0;
}

static __always_inline __u32 low_half(__u64 word)
{
	return (__u32)word;
}

static __always_inline __u32 high_half(__u64 word)
{
	return word >> 32;
}

static __always_inline __u64 halves(__u32 low, __u32 high)
{
	return (__u64)high << 32 | low;
}

/* bpf_loop() takes a 32-bit count, but where the verifier inlines it it looks
 * at all 64 bits of the register: the compiler must clear the upper half. */
static __always_inline __u64 loop_count(__u32 count)
{
	__u64 wide = count;

	asm volatile("" : "+r"(wide));
	return wide;
}

/* The n-th pick of a run, n from 1. */
static __always_inline struct pick pick_at(__u32 start, __u32 position)
{
	__u64 element = pool_read(start + RUN_HEADER + position - 1);
	struct pick pick = { .destination = low_half(element), .weight = high_half(element) };

	return pick;
}

/* A destination that may take a connection, or null. */
static __always_inline struct destination *usable(const struct pick *pick)
{
	struct destination *destination;

	if ((__s32)pick->weight <= 0)
		return 0;
	destination = bpf_map_lookup_elem(&destinations, &pick->destination);
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE) ||
	    destination->overload & OVERLOADED)
		return 0;
	return destination;
}

/* rr: the next usable destination after the last pick. */

struct rr_walk {
	__u32 start;
	__u32 count;
	__u32 position;
	__s32 found;
};

static long rr_step(__u32 i, void *data)
{
	struct rr_walk *walk = data;
	struct pick pick;

	walk->position = walk->position >= walk->count ? 1 : walk->position + 1;
	pick = pick_at(walk->start, walk->position);
	if (!usable(&pick))
		return 0;
	walk->found = pick.destination;
	return 1;
}

static __always_inline int schedule_rr(const struct run *run)
{
	__u64 *cursor = pool_at(run->start);

	if (!cursor)
		return NO_DESTINATION;
	for (int i = 0; i < CURSOR_RETRIES; i++) {
		__u64 old = *(volatile __u64 *)cursor;
		struct rr_walk walk = {
			.start = run->start,
			.count = run->count,
			.position = low_half(old),
			.found = NO_DESTINATION,
		};

		bpf_loop(loop_count(run->count), rr_step, &walk, 0);
		if (walk.found < 0)
			return NO_DESTINATION;
		if (__sync_val_compare_and_swap(cursor, old, halves(walk.position, 0)) == old ||
		    i == CURSOR_RETRIES - 1)
			return walk.found;
	}
	return NO_DESTINATION;
}

/*
 * wrr: passes over the list with a falling threshold.  The kernel's two
 * nested loops, one step of the inner one at a time.
 */

struct wrr_walk {
	__u32 start;
	__u32 count;
	__u32 position;
	__s32 current;    /* weight that a destination must have in this pass */
	__s32 highest;
	__s32 decrement;
	__u32 last;       /* where this walk began */
	__u32 stop;       /* where it ends for good, 0 while that isn't known */
	__u8 last_pass;
	__u8 restarted;
	__u16 pad;
	__s32 found;
};

static long wrr_step(__u32 i, void *data)
{
	struct wrr_walk *walk = data;
	struct pick pick;

	if (walk->position >= walk->count) {
		walk->position = 0;
		walk->current -= walk->decrement;
		if (walk->current <= 0) {
			walk->current = walk->highest;
			if (walk->last_pass || walk->last == 0)
				return 1;
			walk->restarted = 1;
		}
		walk->last_pass = walk->current <= walk->decrement;
		if (walk->last_pass && walk->restarted && walk->last != 0)
			walk->stop = walk->last;
		return 0;
	}
	walk->position++;
	pick = pick_at(walk->start, walk->position);
	if ((__s32)pick.weight >= walk->current && usable(&pick)) {
		walk->found = pick.destination;
		return 1;
	}
	return walk->position == walk->stop;
}

static __always_inline int schedule_wrr(const struct run *run)
{
	__u64 *cursor = pool_at(run->start);
	__u64 weights = pool_read(run->start + 2);

	if (!cursor || low_half(weights) == 0)
		return NO_DESTINATION;
	for (int i = 0; i < CURSOR_RETRIES; i++) {
		__u64 old = *(volatile __u64 *)cursor;
		struct wrr_walk walk = {
			.start = run->start,
			.count = run->count,
			.position = low_half(old),
			.current = high_half(old),
			.highest = low_half(weights),
			.decrement = high_half(weights),
			.last = low_half(old),
			.found = NO_DESTINATION,
		};

		bpf_loop(SCHEDULE_STEPS, wrr_step, &walk, 0);
		/* The kernel keeps its place after a fruitless walk, too. */
		if (__sync_val_compare_and_swap(cursor, old, halves(walk.position, walk.current)) ==
			    old ||
		    i == CURSOR_RETRIES - 1)
			return walk.found;
	}
	return NO_DESTINATION;
}

/* lc and wlc: the least loaded, the first of equals. */

struct least_walk {
	__u32 start;
	__u32 weighted;
	__s32 found;
	__s32 load;
	__u32 weight;
	__u32 pad;
};

static __always_inline __s32 overhead(const struct destination *destination)
{
	return destination->active * 256 + destination->inactive;
}

static long least_step(__u32 i, void *data)
{
	struct least_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);
	struct destination *destination = usable(&pick);
	__u32 weight;
	__s32 load;

	if (!destination)
		return 0;
	load = overhead(destination);
	weight = walk->weighted ? pick.weight : 1;
	/* load/weight below the least so far, by cross-multiplication */
	if (walk->found < 0 || (__s64)walk->load * weight > (__s64)load * walk->weight) {
		walk->found = pick.destination;
		walk->load = load;
		walk->weight = weight;
	}
	return 0;
}

static __always_inline int schedule_least(const struct run *run, __u32 weighted)
{
	struct least_walk walk = {
		.start = run->start,
		.weighted = weighted,
		.found = NO_DESTINATION,
	};

	bpf_loop(loop_count(run->count), least_step, &walk, 0);
	return walk.found;
}

/* Choose a destination for a new connection; its index, or NO_DESTINATION. */
__attribute__((noinline)) int schedule(__u32 service_index)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct run run;
	__u64 header;

	if (!service)
		return NO_DESTINATION;
	run.start = *(volatile __u32 *)&service->run;
	if (run.start == 0)
		return NO_DESTINATION;
	header = pool_read(run.start + 1);
	run.count = low_half(header);
	run.scheduler = high_half(header);
	if (run.count == 0)
		return NO_DESTINATION;

	switch (run.scheduler) {
	case SCHEDULER_RR:
		return schedule_rr(&run);
	case SCHEDULER_WRR:
		return schedule_wrr(&run);
	case SCHEDULER_LC:
		return schedule_least(&run, 0);
	case SCHEDULER_WLC:
		return schedule_least(&run, 1);
	default:
		return NO_DESTINATION;
	}
}

#endif
