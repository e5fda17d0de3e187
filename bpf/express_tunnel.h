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

/* `size` is what goes into the outer packet, `id` its identification. */
static __always_inline void write_ipv4_words(struct ipv4_words *ip, __u8 family, const void *inner,
					     const struct destination *destination, __u32 size, __u16 id)
{
	__u32 lengths = WITHOUT_OPTIONS | outer_tos(tos_of(family, inner)) << 8 |
			(__u32)bpf_htons(sizeof(*ip) + size) << 16;
	__u32 fragment = id | (is_whole_around(family, inner) ?
				       (__u32)bpf_htons(IPV4_DONT_FRAGMENT) << 16 : 0);
	__u32 hop = (hops_of(family, inner) - 1) |
		    outer_protocol(family, destination->tunnel_kind) << 8;
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
	ip->hop = bpf_htons(size) | outer_protocol(family, destination->tunnel_kind) << 16 |
		  (hops_of(family, inner) - 1) << 24;
	ip->source[0] = destination->own_address.half[0];
	ip->source[1] = destination->own_address.half[1];
	ip->destination[0] = destination->address.half[0];
	ip->destination[1] = destination->address.half[1];
}

/* Write what is between the outer header and the packet, `size` bytes with that. */
static __always_inline void write_between(__u8 family, __u32 state, void *between, const void *inner,
					  const struct destination *destination, __u32 size)
{
	if (destination->tunnel_kind == TUNNEL_GRE) {
		*(__u32 *)between = (__u32)bpf_htons(family == AF_INET ? ETH_P_IP : ETH_P_IPV6) << 16;
	} else if (destination->tunnel_kind == TUNNEL_GUE) {
		struct flow flow = flow_of(family, protocol_of(state), inner);
		struct udp_header *udp = between;

		udp->ports.source = gue_source_port(&flow);
		udp->ports.destination = destination->tunnel_port;
		udp->length = bpf_htons(size);
		udp->checksum = 0;
		*(__u32 *)(udp + 1) = (family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6) << 8;
	}
}

/*
 * A packet in whose front there is room now is about to go on: count it, wrap it, send it.  By
 * `outer`, the family of the outer header, its length is known.
 */
static __always_inline int send_wrapped(__u8 family, __u8 outer, __u32 state, struct xdp_md *context,
					struct connection *entry, const struct destination *destination,
					__u32 now)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	void *ip = data + sizeof(struct ethhdr), *between = ip + outer_size(outer), *inner;
	struct ethernet_words *ethernet = data;
	__u64 count;
	__u32 size;

	inner = between + wrapping_size(destination->tunnel_kind, TUNNEL_NO_CHECKSUM, 0);
	if (inner + header_size(family) + UDP_HEADER_SIZE > end)
		return XDP_DROP;
	count = note_request(AT_XDP, state, entry, destination, now, bytes_of(family, inner));
	size = bytes_of(family, inner) + (inner - between);
	write_between(family, state, between, inner, destination, size);
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
