/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Headers of the usual form, read in words and once: for what most packets are, where each
 * instruction is paid for by each of them.  Whatever has another form is parse.h's.
 */
#ifndef XLVS_HEADERS_H
#define XLVS_HEADERS_H

#include "parse.h"

/* Two MACs, of the next hop and of the interface that leads there, stand as in a header. */
static __always_inline void set_macs(struct ethernet_words *ethernet, const __u8 *both)
{
	const struct ethernet_words *macs = (const struct ethernet_words *)both;

	ethernet->destination = macs->destination;
	ethernet->destination_end = macs->destination_end;
	ethernet->source = macs->source;
	ethernet->source_end = macs->source_end;
}

/* The words have more alignment than there are bytes to a header. */
static __always_inline void *ip_header(const struct ethernet_words *ethernet)
{
	return (void *)ethernet + sizeof(struct ethhdr);
}

/* What of a packet is needed here; the compiler has it in registers. */
struct headers {
	struct flow flow;
	__u32 bytes;      /* of the IP packet */
	__s32 behind;     /* the part of them that comes after the IP header */
	__u32 hops;
	__u32 hop;        /* IPv4: the word with the hops and the checksum */
	void *transport;
};

/* IPv4's header. */
struct ipv4_words {
	__u32 lengths;    /* version, header length, type of service, length */
	__u32 fragment;
	__u32 hop;        /* TTL, protocol, checksum */
	__u32 source;
	__u32 destination;
} __attribute__((may_alias));

#define WITHOUT_OPTIONS 0x45 /* version and header length */

/* That word with a TTL less and the checksum that fits it (RFC 1624): in the order of the
 * network the checksum's unit is the TTL's, and stands in the upper half. */
static __always_inline __u32 hop_taken(__u32 hop)
{
	return hop - 1 + 0x10000 + (hop >= 0xfffe0000 ? 0x10000 : 0);
}

/* `room` is what the frame has for the packet; 0, or -1 for what is not of the usual form. */
static __always_inline int read_ipv4(const struct ipv4_words *ip, void *end, __u32 room,
				     struct headers *headers)
{
	const __u32 in_fragments = (__u32)bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK) << 16;
	__u32 lengths, fragment, hop, source, destination;

	if ((void *)(ip + 1) + UDP_HEADER_SIZE > end)
		return -1;
	lengths = ip->lengths;
	fragment = ip->fragment;
	hop = ip->hop;
	source = ip->source;
	destination = ip->destination;
	headers->bytes = bpf_ntohs(lengths >> 16);
	if ((__u8)lengths != WITHOUT_OPTIONS || fragment & in_fragments || headers->bytes > room ||
	    !folds_to_ones((__u64)lengths + fragment + hop + source + destination))
		return -1;
	headers->behind = headers->bytes - sizeof(*ip);
	headers->hops = (__u8)hop;
	headers->hop = hop;
	headers->transport = (void *)(ip + 1);
	headers->flow.client.half[0] = source;
	headers->flow.virtual.half[0] = destination;
	set_ends(&headers->flow, AF_INET, hop >> 8, headers->transport);
	return 0;
}

static __always_inline int read_ipv6(const struct ipv6hdr *ip, void *end, __u32 room,
				     struct headers *headers)
{
	const flow_word *addresses = (const flow_word *)&ip->saddr;

	if ((void *)(ip + 1) + UDP_HEADER_SIZE > end || ip->version != 6)
		return -1;
	headers->behind = bpf_ntohs(ip->payload_len);
	headers->bytes = headers->behind + sizeof(*ip);
	if (headers->bytes > room)
		return -1;
	headers->hops = ip->hop_limit;
	headers->transport = (void *)(ip + 1);
	headers->flow.client.half[0] = addresses[0];
	headers->flow.client.half[1] = addresses[1];
	headers->flow.virtual.half[0] = addresses[2];
	headers->flow.virtual.half[1] = addresses[3];
	set_ends(&headers->flow, AF_INET6, ip->nexthdr, headers->transport);
	return 0;
}

#endif
