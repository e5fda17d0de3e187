/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Headers of the usual form, read in words: for what most packets are, where each instruction
 * is paid for by each of them.  Whatever has another form is parse.h's.
 */
#ifndef XLVS_HEADERS_H
#define XLVS_HEADERS_H

#include "parse.h"

/* What follows reads the frame again, rather than keep on the stack what was read of it. */
#define read_anew(frame) asm volatile("" : "+r"(frame) : : "memory")

/* Two MACs, of the next hop and of the interface that leads there, stand as in a header. */
static __always_inline void set_macs(struct ethernet_words *ethernet, const __u8 *both)
{
	*(flow_word *)ethernet = *(const flow_word *)both;
	ethernet->source_end = ((const struct ethernet_words *)both)->source_end;
}

/* The words have more alignment than there are bytes to a header. */
static __always_inline void *ip_header(const struct ethernet_words *ethernet)
{
	return (void *)ethernet + sizeof(struct ethhdr);
}

#define WITHOUT_OPTIONS 0x45 /* IPv4: version and header length */

/* An Ethernet header without its end, and then type, version and what follows in IPv4. */
struct frame_words {
	__u32 macs[3];
	__u32 type_and_version; /* and IPv4's header length and type of service */
} __attribute__((may_alias));

/* Whether a frame has an IPv4 header without options, or an IPv6 header. */
static __always_inline int is_plain_ipv4(const void *frame)
{
	return (((const struct frame_words *)frame)->type_and_version & 0xffffff) ==
	       (bpf_htons(ETH_P_IP) | WITHOUT_OPTIONS << 16);
}

static __always_inline int is_ipv6(const void *frame)
{
	return (((const struct frame_words *)frame)->type_and_version & 0xf0ffff) ==
	       (bpf_htons(ETH_P_IPV6) | 6 << 20);
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

/* That word with a TTL less and the checksum that fits it (RFC 1624): in the order of the
 * network the checksum's unit is the TTL's, and stands in the upper half. */
static __always_inline __u32 hop_taken(__u32 hop)
{
	__u32 taken = hop - 1 + 0x10000;

	if (hop >= 0xfffe0000) {
		taken += 0x10000;
		/* Rare enough for a jump. */
		asm volatile("" : "+r"(taken));
	}
	return taken;
}

static __always_inline __u32 header_size(__u8 family)
{
	return family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* What a frame with a packet of UDP has at least; one of TCP has more. */
#define SHORTEST(family) (sizeof(struct ethhdr) + header_size(family) + UDP_HEADER_SIZE)

/* Whether a packet is one that is_plain_ipv4() or is_ipv6() tells of, is no fragment and, of IPv4, has a
 * header with the right checksum. */
static __always_inline int is_usual(__u8 family, const void *header)
{
	const __u32 in_fragments = (__u32)bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK) << 16;
	const struct ipv4_words *ip = header;

	return family != AF_INET ||
	       (!(ip->fragment & in_fragments) &&
		folds_to_ones((__u64)ip->lengths + ip->fragment + ip->hop + ip->source + ip->destination));
}

static __always_inline __u8 protocol_of(__u32 state)
{
	return state == TCP_NONE ? PROTOCOL_UDP : PROTOCOL_TCP;
}

/* The flow of a packet whose header is of the usual form. */
static __always_inline struct flow flow_of(__u8 family, __u8 protocol, const void *header)
{
	struct flow flow = {};

	if (family == AF_INET) {
		const struct ipv4_words *ip = header;

		flow.client.half[0] = ip->source;
		flow.virtual.half[0] = ip->destination;
	} else {
		const struct ipv6hdr *ip = header;
		const flow_word *addresses = (const flow_word *)&ip->saddr;

		flow.client.half[0] = addresses[0];
		flow.client.half[1] = addresses[1];
		flow.virtual.half[0] = addresses[2];
		flow.virtual.half[1] = addresses[3];
	}
	((flow_word *)&flow)[FLOW_ENDS] = (__u64)protocol << 32 | (__u64)family << 40 |
					  *(const __u32 *)(header + header_size(family));
	return flow;
}

/* Whom an answer is for. */
static __always_inline union address client_in(__u8 family, const void *header)
{
	union address client = {};

	if (family == AF_INET)
		client.half[0] = ((const struct ipv4_words *)header)->destination;
	else
		client = flow_of(family, 0, header).virtual;
	return client;
}

static __always_inline __u32 bytes_of(__u8 family, const void *header)
{
	if (family == AF_INET)
		return bpf_ntohs(((const struct iphdr *)header)->tot_len);
	return bpf_ntohs(((const struct ipv6hdr *)header)->payload_len) + sizeof(struct ipv6hdr);
}

static __always_inline __u8 protocol_in(__u8 family, const void *header)
{
	return family == AF_INET ? ((const struct iphdr *)header)->protocol :
				   ((const struct ipv6hdr *)header)->nexthdr;
}

static __always_inline __u32 hops_of(__u8 family, const void *header)
{
	return family == AF_INET ? ((const struct iphdr *)header)->ttl :
				   ((const struct ipv6hdr *)header)->hop_limit;
}

/* All of headers that were found to be of the usual form. */
static __always_inline void read_again(__u8 family, __u8 protocol, void *header, struct headers *headers)
{
	headers->flow = flow_of(family, protocol, header);
	headers->bytes = bytes_of(family, header);
	headers->behind = headers->bytes - header_size(family);
	headers->hops = hops_of(family, header);
	if (family == AF_INET)
		headers->hop = ((const struct ipv4_words *)header)->hop;
	headers->transport = header + header_size(family);
}

static __always_inline void take_one_hop(__u8 family, void *header)
{
	if (family == AF_INET)
		((struct ipv4_words *)header)->hop = hop_taken(((struct ipv4_words *)header)->hop);
	else
		((struct ipv6hdr *)header)->hop_limit--;
}

#endif
