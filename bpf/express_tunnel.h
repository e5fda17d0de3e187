/* SPDX-License-Identifier: GPL-2.0-only */
/* Tunnels at XDP: the same outer headers as TC's (tunnel.h), written in words. */
#ifndef XLVS_EXPRESS_TUNNEL_H
#define XLVS_EXPRESS_TUNNEL_H

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

/* What goes outside of a packet. */
struct outside {
	__u32 size;       /* of what is wrapped: the packet and what is between it and the outer header */
	__u16 id;
	__u8 hops;
	__u8 protocol;
	__u8 tos;
	__u8 whole;       /* nobody may fragment it */
};

/* Whether XDP wraps by itself: checksums over a whole packet are TC's. */
static __always_inline int is_tunnel_for_frames(const struct destination *destination)
{
	return (destination->tunnel_kind == TUNNEL_IPIP ||
		destination->tunnel_checksum == TUNNEL_NO_CHECKSUM) &&
	       has_source(destination);
}

/* What a tunnel without checksum puts in front of a packet. */
static __always_inline __u32 frame_overhead(const struct destination *destination)
{
	return outer_size(destination->family) +
	       wrapping_size(destination->tunnel_kind, TUNNEL_NO_CHECKSUM, 0);
}

static __always_inline __u8 tos_of(__u8 family, const void *header)
{
	__u32 first = *(const __u32 *)header;

	return family == AF_INET ? first >> 8 : (first & 0xf) << 4 | (first >> 12 & 0xf);
}

static __always_inline void write_ipv4_words(struct ipv4_words *ip, const struct destination *destination,
					     const struct outside *outside)
{
	__u32 lengths = WITHOUT_OPTIONS | outside->tos << 8 |
			(__u32)bpf_htons(sizeof(*ip) + outside->size) << 16;
	__u32 fragment = outside->id |
			 (outside->whole ? (__u32)bpf_htons(IPV4_DONT_FRAGMENT) << 16 : 0);
	__u32 hop = outside->hops | outside->protocol << 8;
	__u32 source = destination->own_address.v4, to = destination->address.v4;
	__u16 sum = fold((__u64)lengths + fragment + hop + source + to);

	ip->lengths = lengths;
	ip->fragment = fragment;
	ip->hop = hop | (__u32)(__u16)~sum << 16;
	ip->source = source;
	ip->destination = to;
}

static __always_inline void write_ipv6_words(struct ipv6_words *ip, const struct destination *destination,
					     const struct outside *outside)
{
	ip->lengths = 0x60 | outside->tos >> 4 | (outside->tos & 0xf) << 12;
	ip->hop = bpf_htons(outside->size) | outside->protocol << 16 | (__u32)outside->hops << 24;
	ip->source[0] = destination->own_address.half[0];
	ip->source[1] = destination->own_address.half[1];
	ip->destination[0] = destination->address.half[0];
	ip->destination[1] = destination->address.half[1];
}

/* Write what is between the outer header and the packet; returns where the packet begins, or null. */
static __always_inline void *write_between(__u8 family, void *place, void *end, const struct headers *headers,
					   const struct destination *destination)
{
	__u8 inner = family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6;

	if (destination->tunnel_kind == TUNNEL_GRE) {
		__u32 *gre = place;

		if (place + GRE_PLAIN_SIZE > end)
			return 0;
		*gre = (__u32)bpf_htons(family == AF_INET ? ETH_P_IP : ETH_P_IPV6) << 16;
		return place + GRE_PLAIN_SIZE;
	}
	if (destination->tunnel_kind == TUNNEL_GUE) {
		struct udp_header *udp = place;
		__u32 *gue = place + sizeof(*udp);

		if ((void *)(gue + 1) > end)
			return 0;
		udp->ports.source = gue_source_port(&headers->flow);
		udp->ports.destination = destination->tunnel_port;
		udp->length = bpf_htons(sizeof(*udp) + sizeof(*gue) + headers->bytes);
		udp->checksum = 0;
		*gue = inner << 8;
		return gue + 1;
	}
	return place;
}

/* Write the outer headers in the room that was made; returns the frame's Ethernet header, or null. */
static __always_inline struct ethernet_words *write_outside(__u8 family, __u8 outer, struct xdp_md *context,
							    const struct headers *headers,
							    const struct destination *destination,
							    const struct outside *outside)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	void *ip = data + sizeof(struct ethhdr), *between = ip + outer_size(outer), *inner;
	struct ethernet_words *ethernet = data;

	if (between > end)
		return 0;
	inner = write_between(family, between, end, headers, destination);
	if (!inner || inner + outer_size(family) > end)
		return 0;
	if (family == AF_INET)
		((struct ipv4_words *)inner)->hop = hop_taken(headers->hop);
	else
		((struct ipv6hdr *)inner)->hop_limit--;
	ethernet->protocol = bpf_htons(outer == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	if (outer == AF_INET)
		write_ipv4_words(ip, destination, outside);
	else
		write_ipv6_words(ip, destination, outside);
	return ethernet;
}

/*
 * An identification that no packet to the same real server had lately, without a call for a
 * random one: packets' numbers, spread by factors that nobody else knows.
 */
static __always_inline __u16 outer_id(const struct frame *frame)
{
	return (frame->count * limits.hash_factor[0] + frame->cpu * limits.hash_factor[1]) >> 48;
}

/* What the outer header of a packet will say, whose own is `header`. */
static __always_inline struct outside outside_of(__u8 family, const void *header,
						 const struct headers *headers,
						 const struct destination *destination)
{
	struct outside outside = {
		.size = headers->bytes + wrapping_size(destination->tunnel_kind, TUNNEL_NO_CHECKSUM, 0),
		.hops = headers->hops - 1,
		.protocol = outer_protocol(family, destination->tunnel_kind),
		.tos = outer_tos(tos_of(family, header)),
	};

	if (family == AF_INET && ((const struct ipv4_words *)header)->fragment >> 16 &
					 bpf_htons(IPV4_DONT_FRAGMENT))
		outside.whole = is_set(SYSCTL_PMTU_DISC);
	return outside;
}

/* Wrap a packet in the room made for that; returns the frame's Ethernet header, MACs missing. */
static __always_inline struct ethernet_words *wrap_frame(__u8 family, struct xdp_md *context,
							 const struct headers *headers,
							 const struct destination *destination,
							 const struct outside *outside)
{
	return destination->family == AF_INET ?
		       write_outside(family, AF_INET, context, headers, destination, outside) :
		       write_outside(family, AF_INET6, context, headers, destination, outside);
}

#endif
