/* SPDX-License-Identifier: GPL-2.0-only */
/* From a frame to a `struct packet`: the same code for XDP and TC. */
#ifndef XLVS_PARSE_H
#define XLVS_PARSE_H

#include <stddef.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "sctp.h"

#define AF_INET 2
#define AF_INET6 10

/* linux/in.h and linux/tcp.h pull in the C library's socket headers. */
enum {
	PROTOCOL_HOP_BY_HOP = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_ROUTING = 43,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_DESTINATION_OPTIONS = 60,
	PROTOCOL_SCTP = 132,
};

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

#define IPV4_OFFSET_MASK 0x1fff
#define IPV6_OFFSET_MASK 0xfff8
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV6_EXTENSION_HEADERS 6 /* more than that: not ours */
#define UDP_HEADER_SIZE 8
#define LONGEST_TOLD 0xffff /* by the length in an IP header */

#define FLOW_ENDS (offsetof(struct flow, client_port) / sizeof(__u64))

/* An Ethernet header: the compiler takes the packed struct ethhdr byte by byte. */
struct ethernet_words {
	__u32 destination;
	__u16 destination_end;
	__u16 source;
	__u32 source_end;
	__be16 protocol;
} __attribute__((may_alias));

struct ports {
	__be16 source;
	__be16 destination;
};

/* IPv6's; the offset has the upper 13 bits. */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

struct tcp_header {
	struct ports ports;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

enum fragment_kind {
	NOT_FRAGMENTED,
	FIRST_FRAGMENT,
	LATER_FRAGMENT, /* has no ports */
};

/* Whether the director itself made a packet. */
enum own_packet {
	FROM_OUTSIDE,
	OWN_LEAVING,    /* seen as it leaves */
	OWN_SENT_ROUND, /* seen as it comes in again by lo: see loopback.h */
};

/* What the rest of the path needs to know of a packet. */
struct packet {
	struct flow flow;
	__u32 bytes;      /* of the IP packet, link-layer padding left out */
	__u16 transport;  /* where TCP, UDP or SCTP begins, from the frame's start */
	__u8 tcp_flags;
	__u8 ttl;         /* or hop limit */
	__u8 tos;         /* or traffic class */
	__u8 fragment;    /* enum fragment_kind */
	__be32 fragment_id;
	__u8 whole;       /* must not be fragmented: DF, or IPv6 */
	__u8 own;         /* enum own_packet */
	__u8 sctp_event;  /* enum sctp_event */
	__u8 quoted;      /* this is what an ICMP error quotes, turned round: see related.h */
};

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP;
}

/* Whether a packet asks for a new connection. */
static __always_inline int asks(const struct packet *packet)
{
	return packet->flow.protocol == PROTOCOL_TCP ? packet->tcp_flags & TCP_SYN :
						       packet->sctp_event == SCTP_ASKS;
}

typedef __u64 __attribute__((may_alias)) flow_word;
typedef __u32 __attribute__((may_alias)) flow_half;

/*
 * Set all of a flow but its addresses, in one store: the hash reads whole words, and a load
 * that spans several narrower stores waits until they have left the processor.
 */
static __always_inline void set_ends(struct flow *flow, __u8 family, __u8 protocol,
				     const struct ports *ports)
{
	__u64 word = (__u64)protocol << 32 | (__u64)family << 40;

	if (ports)
		word |= *(const __u32 *)ports;
	((flow_word *)flow)[FLOW_ENDS] = word;
}

/* `room` is what the IP packet has left for it: what follows is padding. */
static __always_inline int parse_transport(void *header, void *end, __s32 room, __u8 family,
					   __u8 protocol, struct packet *packet)
{
	if (protocol == PROTOCOL_TCP) {
		struct tcp_header *tcp = header;

		if (room < (__s32)sizeof(*tcp) || (void *)(tcp + 1) > end)
			return -1;
		packet->tcp_flags = tcp->flags;
	} else if (protocol == PROTOCOL_UDP) {
		if (room < UDP_HEADER_SIZE || header + UDP_HEADER_SIZE > end)
			return -1;
	} else if (protocol == PROTOCOL_SCTP) {
		struct sctp_header *sctp = header;
		struct sctp_chunk *chunk = (void *)(sctp + 1);

		if (room < (__s32)sizeof(*sctp) || (void *)(sctp + 1) > end)
			return -1;
		if (room >= (__s32)(sizeof(*sctp) + sizeof(*chunk)) && (void *)(chunk + 1) <= end)
			packet->sctp_event = sctp_event_of(chunk->type);
	} else {
		return -1;
	}
	set_ends(&packet->flow, family, protocol, header);
	return 0;
}

#define IPV4_FIXED_WORDS 5
#define IPV4_MOST_WORDS 15

/*
 * Whether a sum of words, not zero, folds to 0xffff: whether it is divisible by that.  What
 * is, is turned by the divisor's inverse modulo 2^64 into the quotient; all else into more
 * than any quotient.
 */
static __always_inline int folds_to_ones(__u64 sum)
{
	const __u64 largest = 0x0001000100010001ULL; /* quotient; the inverse is its negative */

	return sum * -largest <= largest;
}

/* The sum of a header's options: of `words` words of which the first five are none.
 * A function of its own, for what it needs of the stack: callers have none to spare. */
static __attribute__((noinline)) __u64 sum_options(struct iphdr *ip, void *end, __u32 words)
{
	__u32 *word = (__u32 *)(ip + 1);
	__u64 sum = 0;

	for (__u32 i = IPV4_FIXED_WORDS; i < IPV4_MOST_WORDS && i < words; i++) {
		/* Else the compiler compares with another pointer than it reads from. */
		asm volatile("" : "+r"(word));
		if ((void *)(word + 1) > end)
			return 0;
		sum += *word++;
	}
	return sum;
}

/* RFC 791: a packet whose header's checksum is wrong is discarded (ip_rcv()). */
static __always_inline int is_ipv4_header_sound(struct iphdr *ip, void *end, __u32 words)
{
	__u32 *word = (__u32 *)ip;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < IPV4_FIXED_WORDS; i++)
		sum += word[i];
	if (words > IPV4_FIXED_WORDS) {
		if ((void *)(word + words) > end)
			return 0;
		sum += sum_options(ip, end, words);
	}
	return folds_to_ones(sum);
}

static __always_inline int parse_ipv4(void *header, void *end, __u32 bytes, struct packet *packet)
{
	struct iphdr *ip = header;
	__u32 length, total;

	if ((void *)(ip + 1) > end || ip->version != 4 || !is_ipv4_header_sound(ip, end, ip->ihl))
		return -1;
	length = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	/* A super-packet for segmentation may be longer than the field can tell. */
	if (total == 0 && bytes > LONGEST_TOLD)
		total = bytes;
	if (length < sizeof(*ip) || total < length || total > bytes)
		return -1;
	packet->flow.client.half[0] = ip->saddr;
	packet->flow.virtual.half[0] = ip->daddr;
	packet->ttl = ip->ttl;
	packet->tos = ip->tos;
	packet->whole = !!(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	packet->bytes = total;
	packet->transport = sizeof(struct ethhdr) + length;
	packet->fragment_id = ip->id;
	if (ip->frag_off & bpf_htons(IPV4_OFFSET_MASK)) {
		packet->fragment = LATER_FRAGMENT;
		set_ends(&packet->flow, AF_INET, ip->protocol, 0);
		return 0;
	}
	if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS))
		packet->fragment = FIRST_FRAGMENT;
	return parse_transport(header + length, end, total - length, AF_INET, ip->protocol, packet);
}

static __always_inline int parse_ipv6(void *header, void *end, __u32 bytes, struct packet *packet)
{
	struct ipv6hdr *ip = header;
	__u32 total, offset = sizeof(struct ethhdr) + sizeof(*ip);
	__s32 room;
	__u8 next;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return -1;
	total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->payload_len == 0 && bytes > LONGEST_TOLD)
		total = bytes;
	if (total > bytes)
		return -1;
	packet->flow.client.half[0] = *(flow_word *)&ip->saddr.s6_addr32[0];
	packet->flow.client.half[1] = *(flow_word *)&ip->saddr.s6_addr32[2];
	packet->flow.virtual.half[0] = *(flow_word *)&ip->daddr.s6_addr32[0];
	packet->flow.virtual.half[1] = *(flow_word *)&ip->daddr.s6_addr32[2];
	packet->ttl = ip->hop_limit;
	packet->whole = 1;
	packet->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	packet->bytes = total;

	room = total - sizeof(*ip);
	next = ip->nexthdr;
	header = ip + 1;
	for (int i = 0; i < IPV6_EXTENSION_HEADERS; i++) {
		__u8 *extension = header;

		if (has_ports(next) || packet->fragment == LATER_FRAGMENT)
			break;
		if (header + 8 > end)
			return -1;
		if (next == PROTOCOL_FRAGMENT) {
			struct fragment_header *fragment = header;

			packet->fragment_id = fragment->id;
			packet->fragment = fragment->offset & bpf_htons(IPV6_OFFSET_MASK) ?
						   LATER_FRAGMENT :
						   FIRST_FRAGMENT;
			header += 8;
			offset += 8;
			room -= 8;
		} else if (next == PROTOCOL_HOP_BY_HOP || next == PROTOCOL_ROUTING ||
			   next == PROTOCOL_DESTINATION_OPTIONS) {
			offset += (extension[1] + 1) * 8;
			header += (extension[1] + 1) * 8;
			room -= (extension[1] + 1) * 8;
		} else {
			return -1;
		}
		next = extension[0];
	}
	if (room < 0)
		return -1;
	packet->transport = offset;
	if (packet->fragment == LATER_FRAGMENT) {
		set_ends(&packet->flow, AF_INET6, next, 0);
		return 0;
	}
	return parse_transport(header, end, room, AF_INET6, next, packet);
}

/*
 * Fill `packet` (zeroed by the caller) from an Ethernet frame of `length`
 * bytes, of which [data, end) can be read.  Returns 0 for an IPv4 or IPv6
 * packet of TCP, UDP or SCTP with readable ports, -1 for anything else: that is
 * never ours.  VLAN-tagged frames belong to the VLAN device above.
 */
static __always_inline int parse_frame(void *data, void *end, __u32 length, struct packet *packet)
{
	struct ethernet_words *ethernet = data;
	void *header = data + sizeof(struct ethhdr);

	if (header > end)
		return -1;
	length -= sizeof(struct ethhdr);
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(header, end, length, packet);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(header, end, length, packet);
	return -1;
}

/* Whether the first chunk of an SCTP packet does not say its event by itself: it is
 * beyond what could be read, or an ABORT may be bundled with it (RFC 9260, 3.3.7). */
static __always_inline int needs_second_look(const struct packet *packet)
{
	return packet->flow.protocol == PROTOCOL_SCTP &&
	       (packet->sctp_event == SCTP_NO_CHUNK || sctp_may_hide_abort(packet->sctp_event));
}

static __always_inline int read_chunk(struct __sk_buff *skb, const struct packet *packet,
				      __u32 offset, struct sctp_chunk *chunk)
{
	if (offset + sizeof(*chunk) > sizeof(struct ethhdr) + packet->bytes)
		return -1;
	return bpf_skb_load_bytes(skb, offset, chunk, sizeof(*chunk));
}

/* The second look. */
static __always_inline void look_at_chunks(struct __sk_buff *skb, struct packet *packet)
{
	__u32 offset = packet->transport + sizeof(struct sctp_header), length;
	struct sctp_chunk chunk;

	if (packet->fragment == LATER_FRAGMENT || !needs_second_look(packet) ||
	    read_chunk(skb, packet, offset, &chunk))
		return;
	packet->sctp_event = sctp_event_of(chunk.type);
	length = bpf_ntohs(chunk.length);
	if (sctp_may_hide_abort(packet->sctp_event) && length >= sizeof(chunk) &&
	    !read_chunk(skb, packet, offset + ((length + 3) & ~3u), &chunk) &&
	    chunk.type == CHUNK_ABORT)
		packet->sctp_event = SCTP_ABORTS;
}

/* The same as parse_frame() at TC, where not all of a packet may be in one piece. */
static __always_inline int parse_skb(struct __sk_buff *skb, struct packet *packet)
{
	if (parse_frame((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, packet))
		return -1;
	look_at_chunks(skb, packet);
	return 0;
}

#endif
