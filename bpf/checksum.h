/* SPDX-License-Identifier: GPL-2.0-only */
/* The Internet checksum (RFC 1071), over packets of any length. */
#ifndef XLVS_CHECKSUM_H
#define XLVS_CHECKSUM_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SUM_CHUNK 512 /* what bpf_csum_diff() takes at once */
#define LONGEST_SUM 0xffff

static __always_inline __u16 fold(__u64 sum)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum as it stands in a header where 0 would mean that there is none. */
static __always_inline __u16 checksum_of(__u64 sum)
{
	__u16 checksum = ~fold(sum);

	return checksum ? checksum : 0xffff;
}

struct sum_chunk {
	__u8 bytes[SUM_CHUNK];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sum_chunk);
} sum_chunks SEC(".maps");

struct summing {
	struct __sk_buff *skb;
	__u64 sum;
	__u32 offset;
	__u32 left;
};

static long sum_next_chunk(__u32 i, struct summing *summing)
{
	struct sum_chunk *chunk;
	__u32 zero = 0;
	__u64 size = summing->left, least = 1;

	chunk = bpf_map_lookup_elem(&sum_chunks, &zero);
	if (!chunk)
		return 1;
	/* Both bounds, each where the verifier of Linux 6.1 sees it by itself; a
	 * comparison with 0, as which the compiler would write the second, is none. */
	asm volatile("" : "+r"(size));
	if (size > SUM_CHUNK)
		size = SUM_CHUNK;
	asm volatile("" : "+r"(size), "+r"(least));
	if (size < least)
		return 1;
	/* bpf_csum_diff() takes words: the last one is filled up with zeros. */
	*(__u32 *)(chunk->bytes + ((size - 1) & (SUM_CHUNK - 4))) = 0;
	if (bpf_skb_load_bytes(summing->skb, summing->offset, chunk->bytes, size))
		return 1;
	summing->offset += size;
	summing->left -= size;
	size = (size + 3) & ~3ull;
	asm volatile("" : "+r"(size));
	if (size > SUM_CHUNK)
		size = SUM_CHUNK;
	summing->sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)chunk->bytes, size, 0);
	return 0;
}

/*
 * The folded one's complement sum of `length` bytes of the frame, of which the
 * first stands at an even place; -1 where they can't be read.
 */
__attribute__((noinline)) int sum_frame(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	struct summing summing = { .skb = skb, .offset = offset, .left = length };
	__u64 chunks = (length + SUM_CHUNK - 1) / SUM_CHUNK;

	if (length > LONGEST_SUM)
		return -1;
	/* All 64 bits of the count have to be seen to be right: see loop_count(). */
	asm volatile("" : "+r"(chunks));
	bpf_loop(chunks, sum_next_chunk, &summing, 0);
	return summing.left ? -1 : fold(summing.sum);
}

/*
 * Whether the packet's checksum, which begins at `field`, is still to be made by an
 * outgoing device: the kernel's helper leaves the field alone then.
 */
static __always_inline int checksum_is_left(struct __sk_buff *skb, __u32 field)
{
	__u16 before, after;

	if (bpf_skb_load_bytes(skb, field, &before, sizeof(before)) ||
	    bpf_l4_csum_replace(skb, field, 0, bpf_htons(1), sizeof(before)) ||
	    bpf_skb_load_bytes(skb, field, &after, sizeof(after)))
		return 0;
	if (before == after)
		return 1;
	bpf_skb_store_bytes(skb, field, &before, sizeof(before), 0);
	return 0;
}

/* The same of TCP or UDP, where 0 means that there is none. */
static __always_inline int checksum_is_partial(struct __sk_buff *skb, __u32 field)
{
	__u16 holds;

	return !bpf_skb_load_bytes(skb, field, &holds, sizeof(holds)) && holds != 0 &&
	       checksum_is_left(skb, field);
}

#endif
