/* SPDX-License-Identifier: GPL-2.0-only */
/* Tunnels at XDP: the same outer headers as TC's (tunnel.h), written in words. */
#ifndef XLVS_EXPRESS_TUNNEL_H
#define XLVS_EXPRESS_TUNNEL_H

#include "express_front.h"
#include "frame.h"
#include "sysctl.h"
#include "tunnel.h"

/* IPv6's header. */
struct ipv6_words {
	__u32 lengths;    /* version, traffic class, flow label */
	__u32 hop;        /* payload length, next header, hop limit */
	flow_word source[2];
	flow_word destination[2];
} __attribute__((may_alias));

/* GUE's headers without a checksum. */
struct gue_words {
	__u32 ports;
	__u32 length;     /* of UDP; its checksum is 0 */
	__u32 protocol;
} __attribute__((may_alias));

/* Whether the director's own address on the way is known.  Those of IPv6 that begin with 64 zeros, as
 * none of a network does, are TC's. */
static __always_inline int has_frame_source(const struct destination *destination)
{
	return destination->own_address.half[0] ? 1 : 0;
}

/* The protocol that the outer header tells. */
static __always_inline __u8 frame_protocol(__u8 family, const struct destination *destination)
{
	return destination->frame_protocol[family == AF_INET ? 0 : 1];
}

static __always_inline __u8 tos_of(__u8 family, const void *header)
{
	__u32 first = *(const __u32 *)header;

	return family == AF_INET ? first >> 8 : (first & 0xf) << 4 | (first >> 12 & 0xf);
}

/* Whether nobody may fragment what is outside of a packet. */
static __always_inline int is_whole_around(__u8 family, const void *inner)
{
	return family == AF_INET && is_set(SYSCTL_PMTU_DISC) &&
	       ((const struct ipv4_words *)inner)->fragment >> 16 & bpf_htons(IPV4_DONT_FRAGMENT);
}

/*
 * An identification that no packet to the same real server had lately, without a call for a
 * random one: packets' numbers on this CPU, spread by a factor that nobody else knows.
 */
static __always_inline __u16 outer_id(__u64 count)
{
	return (count * limits.hash_factor[0] >> 48) ^ (bpf_get_smp_processor_id() * 0x9e37);
}

/* The first half of an outer IPv4 header's first word. */
static __always_inline __u32 version_and_tos(__u8 family, const void *inner)
{
	const __u32 congestion = ECN_MASK << 8;
	__u32 tos = family == AF_INET ? *(const __u32 *)inner & 0xff00 : (__u32)tos_of(family, inner) << 8;

	if ((tos & congestion) == ECN_EXPERIENCED << 8) {
		tos -= (ECN_EXPERIENCED - ECN_CAPABLE) << 8;
		/* Rare enough for a jump. */
		asm volatile("" : "+r"(tos));
	}
	return WITHOUT_OPTIONS | tos;
}

/* `size` is what goes into the outer packet, `id` its identification. */
static __always_inline void write_ipv4_words(struct ipv4_words *ip, __u8 family, const void *inner,
					     const struct destination *destination, __u32 size, __u16 id)
{
	__u32 lengths = version_and_tos(family, inner) | (__u32)bpf_htons(sizeof(*ip) + size) << 16;
	__u32 fragment = id | (is_whole_around(family, inner) ?
				       (__u32)bpf_htons(IPV4_DONT_FRAGMENT) << 16 : 0);
	__u32 hop = (hops_of(family, inner) - 1) |
		    frame_protocol(family, destination) << 8;
	__u32 source = destination->own_address.v4, to = destination->address.v4;
	__u64 sum = (__u64)lengths + fragment + hop + source + to;

	/* Less than 2^35: three times will do. */
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	ip->lengths = lengths;
	ip->fragment = fragment;
	ip->hop = hop | (__u32)(__u16)~sum << 16;
	ip->source = source;
	ip->destination = to;
}

static __always_inline void write_ipv6_words(struct ipv6_words *ip, __u8 family, const void *inner,
					     const struct destination *destination, __u32 size)
{
	__u8 tos = outer_tos(tos_of(family, inner));

	ip->lengths = 0x60 | tos >> 4 | (tos & 0xf) << 12;
	ip->hop = bpf_htons(size) | frame_protocol(family, destination) << 16 |
		  (hops_of(family, inner) - 1) << 24;
	ip->source[0] = destination->own_address.half[0];
	ip->source[1] = destination->own_address.half[1];
	ip->destination[0] = destination->address.half[0];
	ip->destination[1] = destination->address.half[1];
}

/* Write the `wrapping` bytes between the outer header and the packet; with that it has `size` bytes. */
static __always_inline void write_between(__u8 family, __u32 state, void *between, const void *inner,
					  const struct destination *destination, __u32 wrapping,
					  __u32 size)
{
	if (!wrapping)
		return;
	if (wrapping == GRE_PLAIN_SIZE) {
		*(__u32 *)between = (__u32)bpf_htons(family == AF_INET ? ETH_P_IP : ETH_P_IPV6) << 16;
	} else {
		struct flow flow = flow_of(family, protocol_of(state), inner);
		struct gue_words *gue = between;

		gue->ports = gue_source_port(&flow) | (__u32)destination->tunnel_port << 16;
		gue->length = bpf_htons(size);
		gue->protocol = (family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6) << 8;
	}
}

/*
 * A packet in whose front there is room now, `overhead`, is about to go on: count it, wrap it, send it.  By
 * `outer`, the family of the outer header, its length is known.
 */
static __always_inline int send_wrapped(__u8 family, __u8 outer, __u32 state, struct xdp_md *context,
					struct connection *entry, const struct destination *destination,
					__u32 overhead, __u32 now)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	void *ip = data + sizeof(struct ethhdr), *between = ip + outer_size(outer), *inner;
	struct ethernet_words *ethernet = data;
	__u32 wrapping = overhead - outer_size(outer), size;
	__u64 count;

	/* What was in the frame before is longer than all that is between. */
	inner = ip + overhead;
	if (between + GUE_PLAIN_SIZE > end || inner + header_size(family) + UDP_HEADER_SIZE > end)
		return XDP_DROP;
	count = note_request(AT_XDP, state, entry, destination, now, bytes_of(family, inner));
	size = bytes_of(family, inner) + wrapping;
	write_between(family, state, between, inner, destination, wrapping, size);
	if (outer == AF_INET)
		write_ipv4_words(ip, family, inner, destination, size, outer_id(count));
	else
		write_ipv6_words(ip, family, inner, destination, size);
	take_one_hop(family, inner);
	ethernet->protocol = bpf_htons(outer == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	set_macs(ethernet, destination->mac);
	return send_by(context, destination->interface);
}

#endif
