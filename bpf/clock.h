/* SPDX-License-Identifier: GPL-2.0-only */
/* Time in ticks: see abi.h. */
#ifndef XLVS_CLOCK_H
#define XLVS_CLOCK_H

#include <bpf/bpf_helpers.h>
#include "abi.h"

#define NS_PER_SECOND 1000000000ULL
#define TICKS_PER_SECOND ((__u32)(NS_PER_SECOND >> TICK_SHIFT))

static __always_inline __u32 ticks_now(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* The time of one of the kernel's ticks, in the lower half, and which one that was. */
static volatile __u64 tick_read;

/*
 * The same, mostly without a call, but with more registers.  Both clocks move on with
 * the kernel's tick: the one that takes a call is asked once after each.  Who comes between
 * their two moves has the time of the tick before.
 */
static __always_inline __u32 ticks_cheaply(void)
{
	__u64 known = tick_read;
	__u32 jiffies = bpf_jiffies64(), now;

	if ((__u32)(known >> 32) == jiffies)
		return known;
	now = ticks_now();
	tick_read = (__u64)jiffies << 32 | now;
	return now;
}

/* True when `when` is not after `now`. */
static __always_inline int has_passed(__u32 when, __u32 now)
{
	return (__s32)(when - now) <= 0;
}

#endif
