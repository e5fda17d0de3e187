/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Scheduling runs (abi.h): reading what user space prepared, and walking over it.
 * Positions of picks count from 1; position 0 is the head of the kernel's list,
 * before the first destination.
 */
#ifndef XLVS_RUN_H
#define XLVS_RUN_H

#include "maps.h"

#define NO_DESTINATION (-1)

struct run {
	__u32 service;
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

volatile __u32 always_zero; /* in memory that the verifier takes for writable */

/*
 * A constant of which the verifier does not know the value.  Linux before 6.7
 * verifies a callback of bpf_loop() once, with what its context holds at the
 * call, and removes what this one time leaves out: a context's field that is
 * a constant at first and tested by the callback must be set through this.
 */
static __always_inline __u32 unseen(__u32 constant)
{
	return constant + always_zero;
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

#endif
