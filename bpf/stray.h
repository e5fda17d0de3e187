/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a real server sends that belongs to no connection.  One of a service with a
 * persistence engine may begin a call (outward.h).  With the setting nat_icmp_send any
 * masqueraded one is told that the port is unreachable, and its packet dropped
 * (kernel: ip_vs_out(), net/netfilter/ipvs/ip_vs_core.c).
 */
#ifndef XLVS_STRAY_H
#define XLVS_STRAY_H

#include "forward.h"
#include "icmp.h"
#include "outward.h"
#include "parse.h"
#include "reach.h"
#include "sctp.h"
#include "sysctl.h"

#define NOBODYS (-2) /* no verdict: the packet is no real server's to whom that matters */

/* Whether a packet may be one of those: worth looking who has sent it. */
static __always_inline int may_be_stray(const struct packet *packet)
{
	return is_set(SYSCTL_NAT_ICMP_SEND) || may_reach_out(packet);
}

/* Whether a packet ends what it belongs to: that is no news to its sender
 * (kernel: is_tcp_reset(), is_sctp_abort(), which looks at the first chunk). */
static __always_inline int says_goodbye(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 type = 0;

	if (packet->flow.protocol == PROTOCOL_TCP)
		return packet->tcp_flags & TCP_RST;
	return packet->flow.protocol == PROTOCOL_SCTP &&
	       !bpf_skb_load_bytes(skb, packet->transport + sizeof(struct sctp_header), &type,
				   sizeof(type)) &&
	       type == CHUNK_ABORT;
}

/*
 * Tell the masqueraded real server that sent a packet of no connection so, and return the
 * verdict; NOBODYS if there is none, or what its router has to refuse.  The error is from
 * the address that the packet was for, if that is the director's; `packet` is spent then.
 */
__attribute__((noinline)) int refuse_stray(struct __sk_buff *skb, struct packet *packet)
{
	struct destination *destination;
	struct way way = {};
	int answer, sender;
	__u32 index;

	if (!packet)
		return NOBODYS;
	sender = sender_of(packet);
	if (sender < 0 || says_goodbye(skb, packet))
		return NOBODYS;
	index = sender;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return NOBODYS;
	answer = find_way(skb, ANY_SOURCE, &packet->flow.virtual,
			  family_and_length(packet->flow.family,
					    packet->whole && !skb->gso_size ? packet->bytes : 1),
			  &way);
	if (packet->own) {
		packet->flow.virtual = packet->flow.client;
	} else if (answer != BPF_FIB_LKUP_RET_NOT_FWDED) {
		if (answer || packet->ttl <= 1)
			return NOBODYS;
		refresh(skb, destination, index);
		packet->flow.virtual = destination->own_address;
		/* The kernel quotes it with the hop that it has taken. */
		if (take_hop(skb, packet->flow.family))
			return TC_ACT_SHOT;
	}
	COUNT_EVENT(strays);
	return send_error(skb, packet, ERROR_PORT_UNREACHABLE, 0);
}

/* A packet that has no connection, or whose reply in the slot `reply` - 1 has lost it; 0 for
 * no reply.  Returns its verdict or NOBODYS. */
static __always_inline int follow_stray(struct __sk_buff *skb, struct packet *packet, __u32 reply)
{
	int choice = may_reach_out(packet) ? call_out(skb, packet, reply) : NOT_A_SERVICE;

	if (choice >= 0)
		return send_call(skb, packet, choice);
	return is_set(SYSCTL_NAT_ICMP_SEND) ? refuse_stray(skb, packet) : NOBODYS;
}

#endif
