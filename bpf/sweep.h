/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Expiry: one timer in the kernel walks the connection table once a second,
 * a sixty-fourth at a time.  It lives as long as its map is pinned; no
 * process has to.
 */
#ifndef XLVS_SWEEP_H
#define XLVS_SWEEP_H

#include "conn.h"

#ifndef CLOCK_MONOTONIC
#define CLOCK_MONOTONIC 1
#endif

struct sweep {
	__u32 first;
	__u32 now;
};

static __always_inline void sweep_slot(struct connection *entry, __u32 now)
{
	__u64 control = load_control(entry);
	__u32 phase = control_phase(control);

	if (phase == PHASE_FREE)
		return;
	if (phase == PHASE_LIVE) {
		if (!has_passed(entry->expires, now))
			return;
		conn_kill(entry, now);
		COUNT_EVENT(expired);
	} else if (phase == PHASE_DEAD && has_passed(entry->expires + QUARANTINE_TICKS, now)) {
		swap_control(entry, control, control_with(control, PHASE_FREE, 0, 0));
	}
}

static long sweep_bucket(__u32 i, void *data)
{
	struct sweep *sweep = data;
	__u32 index = (sweep->first + i) & (limits.buckets - 1);
	struct connection_bucket *bucket = bpf_map_lookup_elem(&connections, &index);

	if (!bucket)
		return 1;
	for (int slot = 0; slot < SLOTS_PER_BUCKET; slot++)
		sweep_slot(&bucket->slot[slot], sweep->now);
	return 0;
}

static int sweep_table(void *map, __u32 *key, struct sweeper *sweeper)
{
	struct sweep sweep = { .first = sweeper->next_bucket, .now = ticks_now() };
	__u32 share = limits.buckets / SWEEPS_PER_SECOND;

	if (share == 0)
		share = 1;
	bpf_loop(share, sweep_bucket, &sweep, 0);
	sweeper->next_bucket = (sweep.first + share) & (limits.buckets - 1);
	bpf_timer_start(&sweeper->timer, NS_PER_SECOND / SWEEPS_PER_SECOND, 0);
	return 0;
}

/* Start the timer, or have it call this program's sweep_table() from now on. */
static __always_inline int start_sweeper(void)
{
	struct sweeper *sweeper;
	__u32 zero = 0;

	sweeper = bpf_map_lookup_elem(&sweepers, &zero);
	if (!sweeper)
		return -1;
	/* -EBUSY where it runs already: only the callback changes then. */
	bpf_timer_init(&sweeper->timer, &sweepers, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&sweeper->timer, sweep_table))
		return -1;
	return bpf_timer_start(&sweeper->timer, 0, 0);
}

#endif
