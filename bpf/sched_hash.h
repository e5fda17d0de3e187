/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers by hash: sh, dh, mh (kernel: net/netfilter/ipvs/ip_vs_{sh,dh,mh}.c).
 *
 * Their table of slots, each with the position of a pick, stands behind the
 * run's picks.  User space fills it (datapath/hashing.py) whenever the service
 * changes, as the kernel does; here is only the look-up.  Same addresses, same
 * hashes: two directors behind one router choose the same real server for a
 * client, be they kernel IPVS or xlvs.
 */
#ifndef XLVS_SCHED_HASH_H
#define XLVS_SCHED_HASH_H

#include <bpf/bpf_endian.h>
#include "parse.h"
#include "run.h"

#define GOLDEN_RATIO_32 0x61c88647u /* linux/hash.h */
#define MH_KEY 2654435761ULL        /* both halves of the key: generate_hash_secret() */

struct hash_walk {
	__u32 start;
	__u32 table;     /* where its slots begin in the pool */
	__u32 width;     /* bits of a slot */
	__u32 scheduler;
	__u32 key;       /* folded address + port */
	__u32 home;      /* slot of the first try */
	__s32 found;
	__u32 pad;
};

/* An address in 32 bits, host order, as the kernel folds it for a hash. */
static __always_inline __u32 folded_address(const union address *address, __u8 family)
{
	if (family == AF_INET)
		return bpf_ntohl(address->v4);
	return bpf_ntohl(address->word[0] ^ address->word[1] ^ address->word[2] ^ address->word[3]);
}

static __always_inline __u64 rotate_left(__u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

#define SIPHASH_ROUND(a, b, c, d)                  \
	do {                                       \
		a += b;                            \
		b = rotate_left(b, 13) ^ a;        \
		a = rotate_left(a, 32);            \
		c += d;                            \
		d = rotate_left(d, 16) ^ c;        \
		a += d;                            \
		d = rotate_left(d, 21) ^ a;        \
		c += b;                            \
		b = rotate_left(b, 17) ^ c;        \
		c = rotate_left(c, 32);            \
	} while (0)

/*
 * hsiphash() of four bytes, with mh's first key, as 64-bit kernels have it:
 * SipHash-1-3 (https://131002.net/siphash/), the low 32 bits.
 */
static __always_inline __u32 mh_hash(__u32 value)
{
	__u64 a = 0x736f6d6570736575ULL ^ MH_KEY, b = 0x646f72616e646f6dULL ^ MH_KEY;
	__u64 c = 0x6c7967656e657261ULL ^ MH_KEY, d = 0x7465646279746573ULL ^ MH_KEY;
	__u64 block = 4ULL << 56 | value;

	d ^= block;
	SIPHASH_ROUND(a, b, c, d);
	a ^= block;
	c ^= 0xff;
	SIPHASH_ROUND(a, b, c, d);
	SIPHASH_ROUND(a, b, c, d);
	SIPHASH_ROUND(a, b, c, d);
	return a ^ b ^ c ^ d;
}

/* The slot of the try with that offset; 0 is the first. */
static __always_inline __u32 slot_of(__u32 scheduler, __u32 key, __u32 offset)
{
	if (scheduler == SCHEDULER_MH)
		return mh_hash(offset + key) % MH_SLOTS;
	return (offset + (key * GOLDEN_RATIO_32 >> 24)) % HASH_SLOTS;
}

/* Note the destination of a slot if it may take a connection; true if it may. */
static __always_inline int try_slot(struct hash_walk *walk, __u32 slot)
{
	__u32 bit = slot * walk->width;
	__u64 element = pool_read(walk->table + bit / 64);
	__u32 position = element >> bit % 64 & ((1u << (walk->width & 31)) - 1);
	struct pick pick = pick_at(walk->start, position + 1);

	if (!usable(&pick))
		return 0;
	walk->found = pick.destination;
	return 1;
}

static long fallback_step(__u32 i, void *data)
{
	struct hash_walk *walk = data;
	__u32 slots = walk->scheduler == SCHEDULER_MH ? MH_SLOTS : HASH_SLOTS;
	__u32 offset = (walk->home + i) % slots;

	return try_slot(walk, slot_of(walk->scheduler, walk->key, offset));
}

/*
 * sh, mh: by the client's address, with SERVICE_SCHED_2 (sh-port, mh-port) its
 * port, too; with SERVICE_SCHED_1 (sh-fallback, mh-fallback) other slots are
 * tried when the first one's destination takes nothing.  dh: by the address that
 * the packet is for.
 */
__attribute__((noinline)) int schedule_hash(const struct run *run, __u32 flags,
					    const struct packet *packet)
{
	struct hash_walk walk = { .found = NO_DESTINATION };

	if (!run || !packet)
		return NO_DESTINATION;
	walk.start = run->start;
	walk.table = run->start + RUN_HEADER + run->count;
	walk.width = low_half(pool_read(run->start + 2));
	walk.scheduler = run->scheduler;
	if (walk.width == 0)
		return NO_DESTINATION;
	if (run->scheduler == SCHEDULER_DH) {
		walk.key = folded_address(&packet->flow.virtual, packet->flow.family);
		flags = 0;
	} else {
		walk.key = folded_address(&packet->flow.client, packet->flow.family);
		if (flags & SERVICE_SCHED_2)
			walk.key += bpf_ntohs(packet->flow.client_port);
	}
	walk.home = slot_of(walk.scheduler, walk.key, 0);
	if (!try_slot(&walk, walk.home) && flags & SERVICE_SCHED_1)
		bpf_loop(walk.scheduler == SCHEDULER_MH ? MH_SLOTS : HASH_SLOTS, fallback_step, &walk, 0);
	return walk.found;
}

#endif
