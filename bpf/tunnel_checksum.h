/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checksums of tunnel headers cover the packet inside as it will be on the
 * wire.  Its own checksum may still be open: then the outgoing device writes
 * it after us, and what it will make of the whole follows from the
 * pseudo-header (kernel: lco_csum(), Documentation/networking/checksum-offloads).
 */
#ifndef XLVS_TUNNEL_CHECKSUM_H
#define XLVS_TUNNEL_CHECKSUM_H

#include "checksum.h"
#include "nat.h"
#include "parse.h"
#include "stats.h"

static __always_inline __u64 sum_address(const union address *address)
{
	return (__u64)address->word[0] + address->word[1] + address->word[2] + address->word[3];
}

/* The pseudo-header of TCP or UDP, in IPv4 and IPv6 alike. */
static __always_inline __u64 sum_pseudo_header(const union address *source,
					       const union address *destination, __u8 protocol,
					       __u32 length)
{
	return sum_address(source) + sum_address(destination) + bpf_htonl(protocol) +
	       (__u64)bpf_htonl(length);
}

/* What all of a segment of `length` bytes adds up to once its checksum is right. */
static __always_inline __u16 sum_of_right_segment(const struct packet *packet, __u32 length)
{
	return ~fold(sum_pseudo_header(&packet->flow.client, &packet->flow.virtual,
				       packet->flow.protocol, length));
}

/* Where a client's packet has its checksum; 0 for fragments and ICMP errors. */
static __always_inline __u32 checksum_field(const struct packet *packet)
{
	if (packet->fragment)
		return 0;
	if (packet->flow.protocol == PROTOCOL_TCP)
		return packet->transport + TCP_CHECKSUM_OFFSET;
	if (packet->flow.protocol == PROTOCOL_UDP)
		return packet->transport + UDP_CHECKSUM_OFFSET;
	return 0;
}

/*
 * Whether a packet's checksum is open in the way that remote checksum offload
 * can leave it to the real server: the field holds the pseudo-header's sum.
 */
__attribute__((noinline)) int is_open(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 field;
	__u16 holds, length;

	if (!packet || skb->gso_size)
		return 0;
	field = checksum_field(packet);
	if (!field || !checksum_is_partial(skb, field) ||
	    bpf_skb_load_bytes(skb, field, &holds, sizeof(holds)))
		return 0;
	length = packet->bytes - (packet->transport - sizeof(struct ethhdr));
	return holds == (__u16)~sum_of_right_segment(packet, length);
}

/*
 * The folded sum of the packet in the frame as it will be on the wire, or -1.
 * With `remote` its checksum shall stay open: the device cannot be told so,
 * but turns the right checksum back into the sum that stood there.
 */
__attribute__((noinline)) int sum_packet(struct __sk_buff *skb, const struct packet *packet,
					 int remote)
{
	const __u32 ip = sizeof(struct ethhdr);
	__u32 field, headers, length;
	int above, below;
	__u16 right;

	if (!packet)
		return -1;
	field = checksum_field(packet);
	if (!field || !checksum_is_partial(skb, field))
		return sum_frame(skb, ip, packet->bytes);
	headers = packet->transport - ip;
	length = packet->bytes - headers;
	above = sum_frame(skb, ip, headers);
	if (above < 0)
		return -1;
	if (!remote)
		return fold((__u64)above + sum_of_right_segment(packet, length));
	below = sum_frame(skb, packet->transport, length);
	if (below < 0)
		return -1;
	right = ~below;
	if (bpf_skb_store_bytes(skb, field, &right, sizeof(right), 0))
		return -1;
	return fold((__u64)above + below);
}

/*
 * The same for each segment that a device will make of a packet, of which
 * `room` bytes have been put in front.  The device copies the outer headers,
 * so all segments get one checksum.  It is right for all in IPv6, where the
 * lengths cancel each other out; in IPv4 for all of full size.
 */
__attribute__((noinline)) int sum_segment(struct __sk_buff *skb, const struct packet *packet,
					  __u32 room)
{
	const __u32 ip = sizeof(struct ethhdr);
	__u32 headers, header = UDP_HEADER_SIZE, length;
	__u32 size = skb->gso_size;
	__u64 sum;
	int above;
	__u8 offset;

	if (!packet || size == 0)
		return -1;
	headers = packet->transport - ip;
	if (packet->flow.protocol == PROTOCOL_TCP) {
		if (bpf_skb_load_bytes(skb, packet->transport + room + offsetof(struct tcp_header, offset),
				       &offset, sizeof(offset)))
			return -1;
		header = (offset >> 4) * 4;
	}
	length = header + size;
	above = sum_frame(skb, ip + room, headers);
	if (above < 0)
		return -1;
	sum = (__u64)above + sum_of_right_segment(packet, length);
	if (packet->flow.family == AF_INET6)
		sum += (__u16)~bpf_htons(packet->bytes - sizeof(struct ipv6hdr)) +
		       (__u64)bpf_htons(headers - sizeof(struct ipv6hdr) + length);
	else if ((packet->bytes - headers - header) % size)
		COUNT_EVENT(unchecked);
	return fold(sum);
}

#endif
