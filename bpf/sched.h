/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers: each chooses what the kernel's module of that name chooses for
 * the same history (net/netfilter/ipvs/ip_vs_*.c).
 *
 * Here are rr, wrr and the choice among all.  What moves from pick to pick is
 * their run's cursor, one 64-bit word: a pick is made from its value and counts
 * when the compare-and-swap to the next value succeeds, so that CPUs share one
 * sequence without a lock.
 */
#ifndef XLVS_SCHED_H
#define XLVS_SCHED_H

#include "locality.h"
#include "parse.h"
#include "run.h"
#include "sched_hash.h"
#include "sched_least.h"

#define CURSOR_RETRIES 16
#define AGAIN (-2)
/* bpf_loop() itself stops at 8 Mi; a pick of wrr needs a pass or two. */
#define SCHEDULE_STEPS (1u << 18)

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

__attribute__((noinline)) int schedule_rr(const struct run *run)
{
	__u64 *cursor = run ? pool_at(run->start) : 0;
	__u32 tries = CURSOR_RETRIES;
	struct rr_walk walk;
	__u64 old;

	if (!cursor)
		return NO_DESTINATION;
	do {
		old = *(volatile __u64 *)cursor;
		walk.start = run->start;
		walk.count = run->count;
		walk.position = low_half(old);
		walk.found = NO_DESTINATION;
		/* Mostly it is the next one. */
		if (!rr_step(0, &walk))
			bpf_loop(loop_count(run->count - 1), rr_step, &walk, 0);
		if (walk.found < 0)
			break;
		if (__sync_val_compare_and_swap(cursor, old, halves(walk.position, 0)) == old)
			break;
	} while (--tries);
	return walk.found;
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
	__u8 whole;       /* this pass began with the first in the list */
	__u8 pad;
	__s32 found;
	__s32 best;       /* highest weight that this pass has met among those that may be chosen */
};

/*
 * How many passes there are to the next one that can find somebody, or to the last one,
 * once a whole pass was in vain: the kernel goes through all of them, and between weights
 * of a million and of one there are a million.
 */
static __always_inline __s32 passes_in_vain(const struct wrr_walk *walk)
{
	__u32 to_last = (__u32)(walk->current - 1) / (__u32)walk->decrement;
	__u32 to_best;

	if (!walk->whole || walk->current <= walk->decrement || walk->best >= walk->current)
		return 1;
	to_best = (__u32)(walk->current - walk->best + walk->decrement - 1) / (__u32)walk->decrement;
	return to_best < to_last ? to_best : to_last;
}

static long wrr_step(__u32 i, void *data)
{
	struct wrr_walk *walk = data;
	struct pick pick;

	if (walk->position >= walk->count) {
		walk->position = 0;
		walk->current -= passes_in_vain(walk) * walk->decrement;
		walk->whole = 1;
		walk->best = 0;
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
	if ((__s32)pick.weight >= walk->current) {
		if (usable(&pick)) {
			walk->found = pick.destination;
			return 1;
		}
	} else if (walk->whole && (__s32)pick.weight > walk->best && usable(&pick)) {
		walk->best = pick.weight;
	}
	return walk->position == walk->stop;
}

/* One pick; AGAIN if another CPU made one meanwhile, unless it is to be made anyway. */
__attribute__((noinline)) int pick_by_wrr(const struct run *run, int anyway)
{
	__u64 *cursor = run ? pool_at(run->start) : 0;
	__u64 weights = run ? pool_read(run->start + 2) : 0;
	struct wrr_walk walk = {};
	__u64 old, new;

	if (!cursor || low_half(weights) == 0)
		return NO_DESTINATION;
	old = *(volatile __u64 *)cursor;
	walk.start = run->start;
	walk.count = run->count;
	walk.position = walk.last = low_half(old);
	walk.current = high_half(old);
	walk.highest = low_half(weights);
	walk.decrement = high_half(weights);
	walk.stop = walk.last_pass = walk.restarted = walk.whole = unseen(0);
	walk.best = unseen(0);
	walk.found = NO_DESTINATION;
	/* Mostly it is one of the next two. */
	if (!wrr_step(0, &walk) && !wrr_step(0, &walk))
		bpf_loop(SCHEDULE_STEPS, wrr_step, &walk, 0);
	/* The kernel keeps its place after a fruitless walk, too. */
	new = halves(walk.position, walk.current);
	return __sync_val_compare_and_swap(cursor, old, new) == old || anyway ? walk.found : AGAIN;
}

static __always_inline int schedule_wrr(const struct run *run)
{
	int found = AGAIN;

	for (int tries = CURSOR_RETRIES; found == AGAIN && tries; tries--)
		found = pick_by_wrr(run, tries == 1);
	return found;
}

/*
 * Choose a destination for a new connection of `packet`; its index, or
 * NO_DESTINATION.
 */
__attribute__((noinline)) int schedule(__u32 service_index, const struct packet *packet)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct run run;
	__u64 header;
	int found;

	if (!service || !packet)
		return NO_DESTINATION;
	run.service = first_record(service_index);
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
	case SCHEDULER_WLC:
	case SCHEDULER_SED:
	case SCHEDULER_NQ:
		return schedule_least(&run);
	case SCHEDULER_FO:
	case SCHEDULER_OVF:
		return schedule_highest(&run);
	case SCHEDULER_TWOS:
		return schedule_twos(&run);
	case SCHEDULER_SH:
	case SCHEDULER_DH:
	case SCHEDULER_MH:
		return schedule_hash(&run, service->flags, packet);
	case SCHEDULER_LBLC:
		found = recall_server(&run, &packet->flow.virtual);
		if (found < 0) {
			found = schedule_least(&run);
			if (found >= 0)
				remember_server(&run, &packet->flow.virtual, found);
		}
		return found;
	case SCHEDULER_LBLCR:
		found = recall_replica(&run, &packet->flow.virtual);
		if (found < 0) {
			found = schedule_least(&run);
			if (found >= 0)
				remember_replica(&run, &packet->flow.virtual, found);
		}
		return found;
	default:
		return NO_DESTINATION;
	}
}

#endif
