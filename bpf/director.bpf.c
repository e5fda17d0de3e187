// SPDX-License-Identifier: GPL-2.0-only
/*
 * The director's packet path.
 *
 *   xlvs_tc     TC ingress: the complete path.
 *   xlvs_tc_out TC egress: what the director itself sends, as a real server or,
 *               by lo, as a client.
 *   xlvs_tc_lo  TC ingress of lo: the packets of those clients (loopback.h).
 *   xlvs_xdp    XDP: packets of established connections, where the way to the
 *               real server, or its client, is known; everything else passes on to xlvs_tc,
 *               and XDP has then written nothing, so that nothing is counted
 *               or scheduled twice.
 *   xlvs_start  run once by user space: starts the timer that expires
 *               connections.
 *
 * A packet goes parse -> connection -> (service -> schedule -> new
 * connection) -> count -> state -> forward, in the order of the kernel's
 * ip_vs_in() (net/netfilter/ipvs/ip_vs_core.c).  What belongs to no virtual
 * service continues into the stack untouched.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"
#include "clock.h"
#include "parse.h"
#include "stats.h"
#include "tcp.h"
#include "conn.h"
#include "defense.h"
#include "sched.h"
#include "persist.h"
#include "state.h"
#include "mark.h"
#include "reach.h"
#include "admit.h"
#include "forward.h"
#include "icmp.h"
#include "reject.h"
#include "tunnel.h"
#include "fragment.h"
#include "ftp.h"
#include "answer.h"
#include "outward.h"
#include "stray.h"
#include "related.h"
#include "tunnel_error.h"
#include "express.h"
#include "express_tc.h"
#include "sweep.h"

char director_license[] SEC("license") = "GPL";

#define PACKET_HOST 0
#define VLAN_NUMBER_MASK 0x0fff
#define GSO_BY_FRAGS 0xffff /* of SCTP, whose segments differ in size */
#define LONGEST_HEADERS 160 /* what must be readable: Ethernet, IP with options, TCP; ICMP's quote */

/* To a real server that is another machine. */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *packet,
				   const struct destination *destination, __u32 index,
				   __u32 method, __be16 port)
{
	__u32 overhead = method == METHOD_TUNNEL ? tunnel_overhead(skb, packet, destination) : 0;

	if (packet->own && is_loopback(&packet->flow.client, packet->flow.family)) {
		/* Such a source must not leave the director (kernel: crosses_local_route_boundary()). */
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	if (packet->ttl <= 1) {
		COUNT_EVENT(ttl_exceeded);
		return send_error(skb, packet, ERROR_TIME_EXCEEDED, 0);
	}
	if (is_too_big(packet, destination, overhead) && !skb->gso_size &&
	    !(may_be_fragmented(destination) && needs_cutting(skb, packet, destination, overhead))) {
		COUNT_EVENT(too_big);
		/* The kernel quotes it with the hop that it has taken. */
		if (take_hop(skb, packet->flow.family))
			return TC_ACT_SHOT;
		return send_error(skb, packet, ERROR_TOO_BIG, destination->mtu - overhead);
	}
	COUNT_EVENT(forwarded);
	if (method == METHOD_TUNNEL)
		return tc_tunnel(skb, packet, index, 0);
	if (method == METHOD_MASQUERADE && translate_request(skb, packet, destination, port))
		return TC_ACT_SHOT;
	return tc_to_destination(skb, packet->flow.family, destination);
}

/*
 * A packet for a cache that is not there (cache_bypass).  It is left to the stack, which
 * routes it to where its client sent it; what is addressed to the director itself has
 * nowhere else to go (kernel: ip_vs_leave()).
 */
__attribute__((noinline)) int bypass(struct __sk_buff *skb, const struct packet *packet)
{
	struct way way = {};

	if (!packet)
		return NOT_OURS;
	if (find_way(skb, ANY_SOURCE, &packet->flow.virtual,
		     family_and_length(packet->flow.family, 1), &way) !=
	    BPF_FIB_LKUP_RET_NOT_FWDED)
		return NOT_OURS;
	COUNT_EVENT(no_destination);
	return send_error(skb, packet, ERROR_PORT_UNREACHABLE, 0);
}

/* A client's packet, with what connection_for() returned for it. */
__attribute__((noinline)) int serve(struct __sk_buff *skb, const struct packet *packet, int choice)
{
	struct destination *destination;
	struct connection *entry = 0;
	__u32 index, method;
	__be16 port;

	if (!packet || choice == NOT_A_SERVICE)
		return NOT_OURS;
	if (choice == NOT_YET)
		return go_round(skb, packet);
	if (choice == NO_CACHE)
		return bypass(skb, packet);
	if (choice == NO_SERVER)
		return send_error(skb, packet, ERROR_PORT_UNREACHABLE, 0);
	if (choice < 0)
		return TC_ACT_SHOT;
	if (!(choice & ONE_PACKET)) {
		entry = conn_at(choice);
		if (!entry)
			return TC_ACT_SHOT;
	}
	/* The verifier knows `entry` by testing it, not by what it was set from. */
	asm volatile("" : "+r"(entry));
	index = entry ? entry->destination : choice & ~ONE_PACKET;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return TC_ACT_SHOT;
	if (!(destination->flags & DESTINATION_AVAILABLE)) {
		COUNT_EVENT(unavailable);
		if (!(destination->flags & DESTINATION_REJECTS_GONE))
			return TC_ACT_SHOT;
		if (entry)
			conn_kill(entry, choice, ticks_now());
		return reject(skb, packet);
	}
	refresh(skb, destination, index);
	if (!(destination->reach & REACH_VIRTUAL_LOCAL))
		return NOT_OURS;
	if (packet->own == OWN_LEAVING && destination->reach & REACH_ROUTE)
		return go_round(skb, packet);

	if (packet->fragment)
		note_fragment(packet, choice);
	count_inbound(destination, index, packet->bytes);
	method = destination->method;
	port = entry ? entry->destination_port : port_of_one_packet(packet, destination);
	if (entry) {
		follow(entry, packet, DIRECTION_INPUT, ticks_now());
		method = control_method(load_control(entry));
	}
	if ((destination->reach & (REACH_ROUTE | REACH_UNANSWERED)) == REACH_ROUTE)
		return forward(skb, packet, destination, index, method, port);
	/* No way out because it is the director itself? */
	if (!(destination->reach & REACH_ROUTE) && destination->flags & DESTINATION_LOCAL)
		return tc_to_local_server(skb, packet, destination, method, port);
	COUNT_EVENT(unroutable);
	/* The kernel says so, too (dst_link_failure()); no error about an error. */
	return packet->quoted ? TC_ACT_SHOT : send_error(skb, packet, ERROR_HOST_UNREACHABLE, 0);
}

/*
 * Frames with a VLAN's tag belong to the VLAN's device.  A tag of VLAN 0 only tells a
 * priority (IEEE 802.1Q): without it the frame is the interface's own, as it is
 * for the stack (kernel: __netif_receive_skb_core()).  0 if it was such a tag, and
 * none of a VLAN beneath it.
 */
static __always_inline int shed_priority_tag(struct __sk_buff *skb)
{
	return skb->vlan_tci & VLAN_NUMBER_MASK || bpf_skb_vlan_pop(skb) || skb->vlan_present;
}

static __always_inline void make_readable(struct __sk_buff *skb)
{
	__u32 linear = skb->data_end - skb->data;

	/* Where such a packet is to be cut up is in its pieces: they stay as they are. */
	if (skb->gso_size == GSO_BY_FRAGS)
		return;
	if (linear < LONGEST_HEADERS && linear < skb->len)
		bpf_skb_pull_data(skb, skb->len < LONGEST_HEADERS ? skb->len : LONGEST_HEADERS);
}

/* The flags of the entry in `slot`, if that is a reply's; else 0. */
static __always_inline __u32 reply_flags_at(int slot)
{
	struct connection *entry = slot >= 0 ? conn_at(slot) : 0;
	__u32 flags = entry ? control_flags(load_control(entry)) : 0;

	return flags & CONNECTION_REPLY ? flags : 0;
}

/* A packet that has its flow, whose entry may be in `slot`; FTP's is read on its way. */
static __always_inline int go_on(struct __sk_buff *skb, struct packet *packet, int slot,
				__u32 reply_flags)
{
	int choice;

	if (reply_flags) {
		if (reply_flags & CONNECTION_FTP)
			ftp_answer(skb, packet, slot);
		if (!may_be_stray(packet) || !is_stray(slot))
			return answer(skb, packet, slot);
		choice = follow_stray(skb, packet, slot + 1);
		return choice == NOBODYS ? NOT_OURS : choice;
	}
	if (is_set(SYSCTL_NAT_ICMP_SEND)) {
		choice = follow_stray(skb, packet, 0);
		if (choice != NOBODYS)
			return choice;
	}
	choice = connection_for(skb, packet, slot);
	if (packet->flow.virtual_port == bpf_htons(FTP_PORT) && choice >= 0)
		ftp_request(skb, packet, choice);
	if (choice == NOT_A_SERVICE && packet->own == FROM_OUTSIDE && may_reach_out(packet)) {
		choice = follow_stray(skb, packet, 0);
		return choice == NOBODYS ? NOT_OURS : choice;
	}
	return serve(skb, packet, choice);
}

/* Whether an ICMP error that belongs to a service, but to no connection, is to be dropped: it
 * has none that it could begin (kernel: ip_vs_leave(), which answers no error with another). */
static __always_inline int schedule_error(struct __sk_buff *skb, struct packet *packet)
{
	int choice, slot = quoted_packet(skb, packet);

	if (slot == NOTHING_TO_SCHEDULE)
		return 0;
	choice = connection_for(skb, packet, slot);
	return choice < 0 && choice != NOT_A_SERVICE;
}

/* An error about what a real server sent in a connection that has no entry, because it began in
 * a full table: its real server is the one that gets the connection's packets. */
static __always_inline int follow_error_by_hash(struct __sk_buff *skb, struct packet *packet)
{
	if (!full_at() || quoted_packet(skb, packet) != NOT_FOUND)
		return NOT_OURS;
	if (packet->ttl <= 1)
		return TC_ACT_SHOT; /* no error about an error */
	return serve(skb, packet, connection_for(skb, packet, NOT_FOUND));
}

/* A frame that is no TCP, UDP or SCTP packet; it may be an error about one, or about a tunnel's.
 * `packet` is to be used at will. */
static __always_inline int follow_error_of_any(struct __sk_buff *skb, struct packet *packet)
{
	int verdict;

	if (is_set(SYSCTL_SCHEDULE_ICMP) && schedule_error(skb, packet))
		return TC_ACT_SHOT;
	verdict = follow_error(skb, FROM_OUTSIDE);
	if (verdict == NOT_OURS)
		verdict = follow_error_by_hash(skb, packet);
	return verdict == NOT_OURS ? follow_tunnel_error(skb) : verdict;
}

SEC("tc")
int xlvs_tc(struct __sk_buff *skb)
{
	struct packet packet;
	int slot;

	if (skb->pkt_type != PACKET_HOST || (skb->vlan_present && shed_priority_tag(skb)))
		return NOT_OURS;
	slot = express_by_tc(skb, &packet);
	if (slot != LONG_WAY)
		return slot & INTO_TUNNEL ? tc_tunnel(skb, &packet, slot & ~INTO_TUNNEL, 1) : slot;
	packet = (struct packet){};
	make_readable(skb);
	if (parse_skb(skb, &packet))
		return follow_error_of_any(skb, &packet);
	if (packet.fragment == LATER_FRAGMENT)
		return follow_fragment(skb, &packet);
	slot = conn_find(&packet.flow);
	return go_on(skb, &packet, slot, reply_flags_at(slot));
}

SEC("tc")
int xlvs_tc_out(struct __sk_buff *skb)
{
	struct packet packet;
	__u32 reply_flags;
	int slot;

	/* What only passes through was seen as it came in; each packet that is forwarded does. */
	if (skb->ingress_ifindex || skb->vlan_present)
		return NOT_OURS;
	packet = (struct packet){ .own = OWN_LEAVING };
	make_readable(skb);
	if (parse_skb(skb, &packet))
		return follow_error(skb, OWN_LEAVING);
	if (packet.fragment == LATER_FRAGMENT)
		return follow_fragment(skb, &packet);
	slot = conn_find(&packet.flow);
	reply_flags = reply_flags_at(slot);
	if (!reply_flags && note_local_answer(&packet))
		return NOT_OURS;
	if (!reply_flags && skb->ifindex != LOOPBACK_INDEX) {
		slot = may_be_stray(&packet) ? follow_stray(skb, &packet, 0) : NOBODYS;
		return slot == NOBODYS ? NOT_OURS : slot;
	}
	return go_on(skb, &packet, slot, reply_flags);
}

SEC("tc")
int xlvs_tc_lo(struct __sk_buff *skb)
{
	struct packet packet = { .own = OWN_SENT_ROUND };
	int slot;

	if (!was_sent_round(skb))
		return NOT_OURS;
	if (parse_skb(skb, &packet))
		return follow_error(skb, OWN_SENT_ROUND);
	if (packet.fragment == LATER_FRAGMENT)
		return follow_fragment(skb, &packet);
	slot = conn_find(&packet.flow);
	return go_on(skb, &packet, slot, 0);
}

SEC("xdp")
int xlvs_xdp(struct xdp_md *context)
{
	return express(context);
}

SEC("tc")
int xlvs_start(struct __sk_buff *skb)
{
	return start_sweeper();
}
