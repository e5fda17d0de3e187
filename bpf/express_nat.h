/* SPDX-License-Identifier: GPL-2.0-only */
/* NAT at XDP, where checksums are complete: to the same bytes as TC's. */
#ifndef XLVS_EXPRESS_NAT_H
#define XLVS_EXPRESS_NAT_H

#include "answer.h"
#include "conn.h"
#include "frame.h"
#include "new_end.h"
#include "parse.h"
#include "reach.h"
#include "state.h"
#include "stats.h"
#include "tunnel.h"

/* Give a packet its new end, and take a hop. */
static __always_inline void translate_frame(__u8 family, void *header, const struct frame *frame,
					    const struct new_end *end)
{
	__u64 change = change_of_address(family, &frame->headers, end);

	change_transport(&frame->headers, frame->state, end, change);
	write_end(family, header, frame->headers.transport, &frame->headers, end, change);
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
	known = client_way_of(client);
	if (!known || !is_next_hop_confirmed(&way, now))
		return -1;
	remember_client_way(known, virtual, client, family, &query);
	known->way = way;
	known->found = now;
	return 0;
}

/* The way to a client for packets of up to `length` bytes, or null where there is none for XDP. */
static __always_inline struct client_way *frame_way(struct xdp_md *context, __u8 family,
						    const union address *virtual,
						    const union address *address, __u32 length, __u32 now)
{
	struct client_way *known = client_way_of(address);
	union address client;

	if (!known)
		return 0;
	if (leads_to(known, virtual, address, family, length, now))
		return known;
	/* A copy, so that the packet's need not stand in memory. */
	client = *address;
	if (find_frame_way(context, virtual, &client, family) || length > known->way.mtu)
		return 0;
	return known;
}

/*
 * A masqueraded real server's packet, with the connection that its reply's entry leads to; as
 * answer() in answer.h does it.  What is not plain data of a connection whose state it
 * leaves as it is, and what its router has to refuse, is TC's.
 */
static __always_inline int answer_frame(__u8 family, struct xdp_md *context, const struct frame *frame,
					const struct connection *reply)
{
	const struct headers *headers = &frame->headers;
	struct connection *entry = conn_of_answer(family, headers, frame->state, reply);
	struct new_end end = { .side = NAT_SOURCE };
	struct destination *destination;
	struct client_way *way;
	__u32 index, cpu;

	if (!entry || has_passed(entry->expires, frame->now) ||
	    /* A template is told that its client was answered. */
	    (frame->state == TCP_NONE && entry->link))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || headers->hops <= 1 ||
	    (destination->flags & (DESTINATION_AVAILABLE | DESTINATION_LOCAL)) != DESTINATION_AVAILABLE)
		return XDP_PASS;
	way = frame_way(context, family, &entry->flow.virtual, &headers->flow.virtual, headers->bytes,
			frame->now);
	if (!way || !may_leave_by(way->way.interface, frame))
		return XDP_PASS;
	conn_refresh(entry, frame->now,
		     data_timeout(destination, frame->state == TCP_NONE ? TIMEOUT_UDP : frame->state));
	cpu = row_here();
	count_outbound_in(cpu, destination->service, index, headers->bytes);
	COUNT_EVENT_IN(cpu, xdp_forwarded);
	end.address = &entry->flow.virtual;
	end.port = entry->flow.virtual_port;
	translate_frame(family, ip_header(frame->ethernet), frame, &end);
	return send_frame(frame->ethernet, way->macs, way->way.interface, frame->from);
}

#endif
