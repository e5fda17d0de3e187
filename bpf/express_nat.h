/* SPDX-License-Identifier: GPL-2.0-only */
/* NAT at XDP, where checksums are complete: to the same bytes as TC's. */
#ifndef XLVS_EXPRESS_NAT_H
#define XLVS_EXPRESS_NAT_H

#include "answer.h"
#include "conn.h"
#include "express_front.h"
#include "frame.h"
#include "new_end.h"
#include "parse.h"
#include "reach.h"
#include "state.h"
#include "stats.h"
#include "tunnel.h"

/* Give a packet its new end, and take a hop. */
static __always_inline void translate_frame(__u8 family, __u32 state, struct ethernet_words *ethernet,
					    const struct new_end *end)
{
	struct headers headers = {};
	__u64 change;
	void *header;

	read_anew(ethernet);
	header = ip_header(ethernet);
	read_again(family, protocol_of(state), header, &headers);
	change = change_of_address(family, &headers, end);
	change_transport(&headers, state, end, change);
	write_end(family, header, headers.transport, &headers, end, change);
}

/* Whether packets have gone to a next hop by TC within the last second. */
static __always_inline int is_next_hop_confirmed(const struct way *way, __u32 now)
{
	struct next_hop *next = next_hop_at(way);

	return next && next->address.half[0] == way->next_hop.half[0] &&
	       next->address.half[1] == way->next_hop.half[1] && next->interface == way->interface &&
	       !is_stale(next->used, now);
}

/* Ask the routing table for the way to a client, as the VIP's, and remember it for frames; 0, or -1
 * where TC has to see to it. */
__attribute__((noinline)) int find_frame_way(struct xdp_md *context, const union address *virtual,
					     const union address *client, __u32 family)
{
	struct bpf_fib_lookup query = {};
	struct client_way *known;
	struct way way = {};
	__u32 now = ticks_now();
	int answer;

	if (!virtual || !client)
		return -1;
	set_source(&query, virtual, family);
	ask_for(&query, client, family, 1);
	query.ifindex = LOOPBACK_INDEX;
	answer = bpf_fib_lookup(context, &query, sizeof(query), 0);
	if (answer == BPF_FIB_LKUP_RET_FWD_DISABLED) {
		ask_for(&query, client, family, 1);
		query.ifindex = context->ingress_ifindex;
		answer = bpf_fib_lookup(context, &query, sizeof(query), 0);
	}
	if (answer != BPF_FIB_LKUP_RET_SUCCESS || !query.mtu_result)
		return -1;
	way.interface = query.ifindex;
	way.family = next_hop_of(&query, &way.next_hop);
	way.mtu = query.mtu_result;
	known = client_way_of(family, client);
	if (!known || !is_next_hop_confirmed(&way, now))
		return -1;
	remember_client_way(known, virtual, client, family, &query);
	known->way = way;
	known->found = now;
	return 0;
}

/* Have the way to an answer's client found; null where there is none for XDP. */
static __always_inline struct client_way *new_frame_way(__u8 family, struct xdp_md *context, const void *header,
							const struct connection *entry)
{
	/* Copies, so that others need not stand in memory. */
	union address client = client_in(family, header), from = entry->flow.virtual;
	struct client_way *known;

	if (find_frame_way(context, &from, &client, family))
		return 0;
	known = client_way_of(family, &client);
	return known && bytes_of(family, header) <= known->way.mtu ? known : 0;
}

/*
 * A masqueraded real server's packet, with the connection that its reply's entry leads to; as
 * answer() in answer.h does it.  What is not plain data of a connection whose state it
 * leaves as it is, and what its router has to refuse, is TC's.
 */
static __always_inline int answer_frame(__u8 family, __u32 state, struct xdp_md *context,
					struct ethernet_words *ethernet, const struct connection *reply)
{
	const void *header = ip_header(ethernet);
	struct new_end end = { .side = NAT_SOURCE };
	struct destination *destination;
	struct connection *entry;
	union address client;
	__u32 index, now, interface;
	struct client_way *way;
	struct flow flow;

	/* A link of 0 leads beyond the table. */
	entry = conn_at(reply->link - 1);
	if (!entry)
		return pass();
	/* One address, instead of one worked out for each of its fields. */
	asm volatile("" : "+r"(entry));
	flow = flow_of(family, protocol_of(state), header);
	if (!is_answered_by(family, entry, &flow, header + header_size(family), state, reply))
		return pass();
	now = ticks_cheaply();
	/* A template is told that its client was answered. */
	if (has_passed(entry->expires, now) || (state == TCP_NONE && entry->link))
		return pass();
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || hops_of(family, header) <= 1 ||
	    (destination->flags & (DESTINATION_AVAILABLE | DESTINATION_LOCAL)) != DESTINATION_AVAILABLE)
		return pass();
	client = client_in(family, header);
	way = client_way_of(family, &client);
	if (!way)
		return pass();
	read_anew(ethernet);
	header = ip_header(ethernet);
	client = client_in(family, header);
	if (!leads_to(way, &entry->flow.virtual, &client, family, bytes_of(family, header), now)) {
		way = new_frame_way(family, context, header, entry);
		if (!way)
			return pass();
	}
	interface = way->way.interface;
	if (interface != context->ingress_ifindex && !takes_frames(interface))
		return pass();
	note_answer(AT_XDP, family, state, header, entry, destination, now);
	end.address = &entry->flow.virtual;
	end.port = entry->flow.virtual_port;
	translate_frame(family, state, ethernet, &end);
	set_macs(ethernet, way->macs);
	return send_by(context, way->way.interface);
}

#endif
