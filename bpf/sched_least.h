/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers that compare destinations by load or weight: lc, wlc, sed, nq, fo,
 * ovf, twos (kernel: net/netfilter/ipvs/ip_vs_{lc,wlc,sed,nq,fo,ovf,twos}.c).
 * Of equals the first in the list is taken.
 */
#ifndef XLVS_SCHED_LEAST_H
#define XLVS_SCHED_LEAST_H

#include "load_tree.h"

/* lc, wlc, sed, nq: load_of() says what they compare. */

struct least_walk {
	__u32 start;
	__u32 scheduler;
	__u64 load;
	__s32 found;
	__u32 pad;
};

static long least_step(__u32 i, void *data)
{
	struct least_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);
	__u64 load = load_of(&pick, walk->scheduler);

	if (is_lighter(load, walk->load)) {
		walk->found = pick.destination;
		walk->load = load;
	}
	return 0;
}

/* The least loaded in the sense of the run's scheduler; of any other, in that of wlc. */
__attribute__((noinline)) int walk_for_least(const struct run *run)
{
	struct least_walk walk = { .found = unseen(NO_DESTINATION) };

	if (!run)
		return NO_DESTINATION;
	walk.start = run->start;
	walk.scheduler = run->scheduler;
	walk.load = ENDLESS_LOAD + unseen(0);
	bpf_loop(loop_count(run->count), least_step, &walk, 0);
	return walk.found;
}

/* The same, by the service's tree where it has one. */
static __always_inline int schedule_least(const struct run *run)
{
	int found = run->count >= LOAD_FEWEST ? schedule_by_tree(run) : UNDECIDED;

	return found == UNDECIDED ? walk_for_least(run) : found;
}

/* fo: the highest weight; ovf: the highest whose active connections do not exceed it. */

struct highest_walk {
	__u32 start;
	__u32 scheduler;
	__s32 found;
	__s32 weight;
};

static long highest_step(__u32 i, void *data)
{
	struct highest_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);
	struct destination *destination = usable(&pick);
	__s32 weight = pick.weight;

	if (!destination || weight <= walk->weight ||
	    (walk->scheduler == SCHEDULER_OVF && destination->active > weight))
		return 0;
	walk->found = pick.destination;
	walk->weight = weight;
	return 0;
}

__attribute__((noinline)) int schedule_highest(const struct run *run)
{
	struct highest_walk walk = { .found = NO_DESTINATION, .weight = unseen(0) };

	if (!run)
		return NO_DESTINATION;
	walk.start = run->start;
	walk.scheduler = run->scheduler;
	bpf_loop(loop_count(run->count), highest_step, &walk, 0);
	return walk.found;
}

/*
 * twos: two destinations by chance, in proportion to their weights, and of these
 * the less loaded; the first drawn if they are equally so.  The kernel's chance
 * is a number from 0 to the sum of the weights inclusive, which gives the first
 * in the list a share of weight + 1.  Its 32-bit products and sums, which
 * overflow, are 64-bit ones here.
 */

struct twos_walk {
	__u64 total;
	__u64 mark[2];
	__s32 found[2];
	__s32 load[2];
	__u32 weight[2];
	__u32 start;
	__u32 pad;
};

static long weigh_step(__u32 i, void *data)
{
	struct twos_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);

	if (usable(&pick))
		walk->total += pick.weight;
	return 0;
}

static long draw_step(__u32 i, void *data)
{
	struct twos_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);
	struct destination *destination = usable(&pick);

	if (!destination)
		return 0;
	walk->total += pick.weight;
#pragma unroll
	for (int n = 0; n < 2; n++) {
		if (walk->found[n] >= 0 || walk->mark[n] > walk->total)
			continue;
		walk->found[n] = pick.destination;
		walk->load[n] = overhead(destination);
		walk->weight[n] = pick.weight;
	}
	return walk->found[0] >= 0 && walk->found[1] >= 0;
}

static __always_inline __u64 random_up_to(__u64 highest)
{
	__u64 chance = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	return chance % (highest + 1);
}

__attribute__((noinline)) int schedule_twos(const struct run *run)
{
	struct twos_walk walk = { .found = { unseen(NO_DESTINATION), unseen(NO_DESTINATION) } };

	if (!run)
		return NO_DESTINATION;
	walk.start = run->start;
	bpf_loop(loop_count(run->count), weigh_step, &walk, 0);
	if (walk.total == 0)
		return NO_DESTINATION;
	walk.mark[0] = random_up_to(walk.total);
	walk.mark[1] = random_up_to(walk.total);
	walk.total = 0;
	bpf_loop(loop_count(run->count), draw_step, &walk, 0);
	/* Weights do not change within a run; a destination may have been removed since. */
	if (walk.found[0] < 0 || walk.found[1] < 0)
		return walk.found[0];
	return is_less(walk.load[1], walk.weight[1], walk.load[0], walk.weight[0]) ? walk.found[1] :
										    walk.found[0];
}

#endif
