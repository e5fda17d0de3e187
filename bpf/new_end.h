/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Another address and port at one end of a packet, whose headers were read in words
 * (headers.h).  Complete checksums are changed by what they are changed by (RFC 1624).
 */
#ifndef XLVS_NEW_END_H
#define XLVS_NEW_END_H

#include "headers.h"
#include "nat.h"

/* What one end of a packet's flow becomes. */
struct new_end {
	const union address *address;
	__be16 port;
	__u8 side; /* enum nat_side */
};

static __always_inline __u64 sum_half(__u64 half)
{
	return (half >> 32) + (__u32)half;
}

/* What a checksum's sum grows by with another address; less than 2^20. */
static __always_inline __u64 change_of_address(__u8 family, const struct headers *headers,
					       const struct new_end *end)
{
	const union address *from = end->side == NAT_SOURCE ? &headers->flow.client : &headers->flow.virtual;
	const union address *to = end->address;
	__u64 change;

	if (family == AF_INET)
		change = (__u64)(__u32)~from->v4 + to->v4;
	else
		change = sum_half(~from->half[0]) + sum_half(~from->half[1]) + sum_half(to->half[0]) +
			 sum_half(to->half[1]);
	return (change & 0xffff) + (change >> 16);
}

static __always_inline __be16 old_port(const struct headers *headers, const struct new_end *end)
{
	const struct ports *ports = headers->transport;

	return end->side == NAT_SOURCE ? ports->source : ports->destination;
}

/* The checksum after its sum has grown by `change`, of less than 2^31. */
static __always_inline __u16 checksum_after(__u16 checksum, __u64 change)
{
	change += (__u16)~checksum;
	change = (change & 0xffff) + (change >> 16);
	return ~(change + (change >> 16));
}

/* Change TCP's checksum or UDP's, where 0 means that there is none, and must neither appear nor go;
 * `state` is TCP_ESTABLISHED or TCP_NONE, of UDP, and `change` the address's. */
static __always_inline void change_transport(const struct headers *headers, __u32 state,
					     const struct new_end *end, __u64 change)
{
	change += (__u16)~old_port(headers, end) + end->port;
	if (state == TCP_ESTABLISHED) {
		struct tcp_header *tcp = headers->transport;

		tcp->checksum = checksum_after(tcp->checksum, change);
	} else {
		struct udp_header *udp = headers->transport;
		__u16 before = udp->checksum, after = checksum_after(before, change);

		if (before)
			udp->checksum = after ? after : 0xffff;
	}
}

/* Write the new end and take a hop; `change` is the address's. */
static __always_inline void write_end(__u8 family, void *header, struct ports *ports,
				      const struct headers *headers, const struct new_end *end,
				      __u64 change)
{
	int is_source = end->side == NAT_SOURCE;

	if (family == AF_INET) {
		struct ipv4_words *ip = header;
		__u32 hop = headers->hop;

		/* A TTL less is so much more in its word's complement. */
		ip->hop = (__u16)(hop - 1) | (__u32)checksum_after(hop >> 16, change + 0xfffe) << 16;
		if (is_source)
			ip->source = end->address->v4;
		else
			ip->destination = end->address->v4;
	} else {
		struct ipv6hdr *ip = header;
		flow_word *address = (flow_word *)(is_source ? &ip->saddr : &ip->daddr);

		ip->hop_limit--;
		address[0] = end->address->half[0];
		address[1] = end->address->half[1];
	}
	if (is_source)
		ports->source = end->port;
	else
		ports->destination = end->port;
}

#endif
