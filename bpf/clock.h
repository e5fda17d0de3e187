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

/* True when `when` is not after `now`. */
static __always_inline int has_passed(__u32 when, __u32 now)
{
	return (__s32)(now - when) >= 0;
}

#endif
