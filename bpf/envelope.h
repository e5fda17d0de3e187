/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A tunnel packet taken off its wrapping step by step: what stands where in
 * the frame, and the checksums over it.  For the decapsulator of real servers.
 */
#ifndef XLVS_ENVELOPE_H
#define XLVS_ENVELOPE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "checksum.h"

/* Each step says how it ended. */
enum step {
	OPENED,
	STRANGE,   /* not ours to judge: the stack gets the packet as it came */
	MALFORMED, /* ours, and the kernel's own tunnels would drop it too */
};

enum protocol {
	PROTOCOL_HOP_BY_HOP = 0,
	PROTOCOL_IPIP = 4,
	PROTOCOL_UDP = 17,
	PROTOCOL_IPV6 = 41,
	PROTOCOL_GRE = 47,
	PROTOCOL_DESTINATION_OPTIONS = 60,
};

#define IP_HEADER ETH_HLEN  /* where a frame's IP header begins */
#define IPV4_FRAGMENT 0x3fff /* "more fragments" and the offset */
#define IPV4_WORDS 15
#define EXTENSION_HEADERS 4

struct envelope {
	__u32 content;  /* where what has not been opened yet begins, from the frame's start */
	__u32 end;      /* where it ends; link-layer padding may follow */
	__u64 pseudo;   /* sum of the outer addresses */
	__u8 protocol;  /* of the content */
};

/* An address as a key; IPv4's as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2). */
struct address {
	__be32 word[4];
};

/* The real server's own addresses, filled before the program is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, __u32);
} own_addresses SEC(".maps");

static __always_inline int is_own(const struct address *address)
{
	return bpf_map_lookup_elem(&own_addresses, address) != 0;
}

#define SUM_CHUNK 512 /* what bpf_csum_diff() takes at once */
#define SUM_CHUNKS 128

/* A part of the packet, while it is summed up; the room beyond is for filling up. */
struct chunk {
	__u8 bytes[2 * SUM_CHUNK];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chunk);
} chunks SEC(".maps");

/*
 * The folded one's complement sum of the frame's bytes from `start` to `end`,
 * or -1 where they cannot be read.
 */
__attribute__((noinline)) int sum_bytes(struct __sk_buff *skb, __u32 start, __u32 end)
{
	struct chunk *chunk;
	__u32 zero = 0;
	__u64 sum = 0;

	chunk = bpf_map_lookup_elem(&chunks, &zero);
	if (!chunk || start > end)
		return -1;
	for (int i = 0; i < SUM_CHUNKS; i++) {
		__u32 left = end - start;
		__u64 size = left > SUM_CHUNK ? SUM_CHUNK - 1 : left - 1;

		if (left == 0)
			return fold(sum);
		/* From 1 to SUM_CHUNK, as the verifier of Linux 6.1 can see it, too. */
		asm volatile("" : "+r"(size));
		size = (size & (SUM_CHUNK - 1)) + 1;
		if (bpf_skb_load_bytes(skb, start, chunk->bytes, size))
			return -1;
		start += size;
		/* bpf_csum_diff() takes words: the last one is filled up with zeros. */
		for (int j = 0; j < 3; j++)
			chunk->bytes[size + j] = 0;
		size = (size + 3) & ~3ull;
		asm volatile("" : "+r"(size));
		if (size > SUM_CHUNK)
			size = SUM_CHUNK;
		sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)chunk->bytes, size, 0);
	}
	return start == end ? fold(sum) : -1;
}

/*
 * Whether a checksum of this packet is still to be made by an outgoing device
 * (CHECKSUM_PARTIAL), as on packets from this very machine.  The kernel takes
 * all of them for good then (skb_csum_unnecessary()), and its helper leaves
 * the field alone, by which it shows.
 */
static __always_inline int checksum_is_pending(struct __sk_buff *skb, __u32 field)
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

/* Whether the content, with its checksum in `field`, adds up together with `pseudo`. */
static __always_inline int adds_up(struct __sk_buff *skb, const struct envelope *envelope,
				   __u32 field, __u64 pseudo)
{
	int sum;

	if (checksum_is_pending(skb, field))
		return 1;
	sum = sum_bytes(skb, envelope->content, envelope->end);
	return sum >= 0 && fold(pseudo + (__u32)sum) == 0xffff;
}

/* How long an IP packet is; a length of 0 is a segmentation super-packet of over 64 KiB. */
static __always_inline __u32 length_told(struct __sk_buff *skb, __u32 told, __u32 room)
{
	return told == 0 && skb->gso_size ? room : told;
}

/* Most packets carry no other one, which is to cost them nothing more. */
static __always_inline int may_wrap(__u8 protocol)
{
	return protocol == PROTOCOL_IPIP || protocol == PROTOCOL_IPV6 ||
	       protocol == PROTOCOL_GRE || protocol == PROTOCOL_UDP;
}

/* Open an IPv4 packet to one of our addresses. */
static __always_inline enum step open_ipv4(struct __sk_buff *skb, struct envelope *envelope)
{
	struct address own = { { 0, 0, bpf_htonl(0xffff), 0 } };
	__u32 words[IPV4_WORDS] = {}, length, room = skb->len - IP_HEADER;
	struct iphdr *ip = (struct iphdr *)words;
	__u64 size;

	if (bpf_skb_load_bytes(skb, IP_HEADER, words, sizeof(*ip)) || ip->version != 4 ||
	    !may_wrap(ip->protocol) || ip->frag_off & bpf_htons(IPV4_FRAGMENT))
		return STRANGE;
	own.word[3] = ip->daddr;
	if (!is_own(&own))
		return STRANGE;
	size = ip->ihl * 4;
	length = length_told(skb, bpf_ntohs(ip->tot_len), room);
	asm volatile("" : "+r"(size));
	if (size < sizeof(*ip))
		return STRANGE;
	asm volatile("" : "+r"(size));
	if (size > sizeof(words))
		return STRANGE;
	if (length < size || length > room || bpf_skb_load_bytes(skb, IP_HEADER, words, size) ||
	    fold((__u32)bpf_csum_diff(0, 0, words, sizeof(words), 0)) != 0xffff)
		return STRANGE;
	envelope->content = IP_HEADER + size;
	envelope->end = IP_HEADER + length;
	envelope->pseudo = (__u64)ip->saddr + ip->daddr;
	envelope->protocol = ip->protocol;
	return OPENED;
}

/* Open an IPv6 packet to one of our addresses; ip6tnl sends an option, "tunnel encapsulation limit". */
static __always_inline enum step open_ipv6(struct __sk_buff *skb, struct envelope *envelope)
{
	struct address own;
	__u32 length, room = skb->len - IP_HEADER;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, IP_HEADER, &ip, sizeof(ip)) || ip.version != 6 ||
	    !(may_wrap(ip.nexthdr) || ip.nexthdr == PROTOCOL_HOP_BY_HOP ||
	      ip.nexthdr == PROTOCOL_DESTINATION_OPTIONS))
		return STRANGE;
	__builtin_memcpy(&own, &ip.daddr, sizeof(own));
	if (!is_own(&own))
		return STRANGE;
	length = length_told(skb, bpf_ntohs(ip.payload_len), room - sizeof(ip));
	if (length > room - sizeof(ip))
		return STRANGE;
	envelope->content = IP_HEADER + sizeof(ip);
	envelope->end = envelope->content + length;
	envelope->pseudo = (__u32)bpf_csum_diff(0, 0, (__be32 *)&ip.saddr, 32, 0);
	envelope->protocol = ip.nexthdr;
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		__u8 extension[2];

		if (envelope->protocol != PROTOCOL_HOP_BY_HOP &&
		    envelope->protocol != PROTOCOL_DESTINATION_OPTIONS)
			return OPENED;
		if (bpf_skb_load_bytes(skb, envelope->content, extension, sizeof(extension)))
			return STRANGE;
		envelope->protocol = extension[0];
		envelope->content += (extension[1] + 1) * 8;
		if (envelope->content > envelope->end)
			return STRANGE;
	}
	return STRANGE;
}

#endif
