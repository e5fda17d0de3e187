/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What XDP finishes: packets of established connections, where the way on is known.
 *
 *   express    what nearly all of them are: data, which changes no connection's state, in
 *              headers of the usual form; from clients by Direct Routing, NAT
 *              (express_nat.h) and tunnels (express_tunnel.h), and NAT's answers.  How it is
 *              written is said in express_front.h.  What it does not know it leaves to
 *   xdp_any    all others of Direct Routing, in the words of the rest of the packet path.
 */
#ifndef XLVS_EXPRESS_H
#define XLVS_EXPRESS_H

#include "conn.h"
#include "express_front.h"
#include "express_nat.h"
#include "express_tunnel.h"
#include "forward.h"
#include "frame.h"
#include "ftp.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "reach.h"
#include "state.h"
#include "stats.h"

/* The general way. */
__attribute__((noinline)) int xdp_any(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct destination *destination;
	struct packet packet = {};
	struct connection *entry;
	__u32 now, index;
	int slot, verdict;
	__u64 control;

	if (data + sizeof(struct ethhdr) > end || parse_frame(data, end, end - data, &packet) ||
	    packet.fragment)
		return XDP_PASS;
	slot = conn_find(&packet.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	/* A SYN or an INIT may begin anew what stands there: for TC to see, as is what
	 * needs a second look. */
	if (!entry || asks(&packet) || needs_second_look(&packet))
		return XDP_PASS;
	now = ticks_now();
	control = load_control(entry);
	if (control_flags(control) & (CONNECTION_REPLY | CONNECTION_TEMPLATE) ||
	    control_method(control) != METHOD_ROUTE || has_passed(entry->expires, now))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination ||
	    (destination->flags & (DESTINATION_AVAILABLE | DESTINATION_LOCAL)) != DESTINATION_AVAILABLE ||
	    (destination->weight == 0 && destination->flags & DESTINATION_REHOMES) ||
	    !is_way_known(destination, now) || is_too_big(&packet, destination, 0) || packet.ttl <= 1)
		return XDP_PASS;
	verdict = leave(context, data, destination->interface);
	if (verdict == XDP_PASS || decrement_ttl(data, end, packet.flow.family))
		return XDP_PASS;
	count_inbound(destination, index, packet.bytes);
	follow(entry, &packet, DIRECTION_INPUT, now);
	COUNT_EVENT(xdp_forwarded);
	set_macs(data, destination->mac);
	return verdict;
}

/* A client's packet that goes through a tunnel. */
static __always_inline int wrap_request(__u8 family, __u32 state, struct xdp_md *context,
					const void *header, struct connection *entry,
					const struct destination *destination, __u32 now)
{
	/* Read once: who edits the real server may change it meanwhile. */
	__u32 overhead = *(const volatile __u8 *)&destination->frame_overhead;

	if (!overhead || !has_frame_source(destination) ||
	    !may_go_to(destination, bytes_of(family, header) + overhead, now) ||
	    bpf_xdp_adjust_head(context, -(int)overhead))
		return pass();
	return destination->family == AF_INET ?
		       send_wrapped(family, AF_INET, state, context, entry, destination, overhead, now) :
		       send_wrapped(family, AF_INET6, state, context, entry, destination, overhead, now);
}

/* A client's packet for a masqueraded real server. */
static __always_inline int masquerade_request(__u8 family, __u32 state, struct xdp_md *context,
					      struct ethernet_words *ethernet, struct connection *entry,
					      const struct destination *destination, __u32 now)
{
	struct new_end end = { .side = NAT_DESTINATION };

	/* FTP's requests are read on their way. */
	if (entry->flow.virtual_port == bpf_htons(FTP_PORT) ||
	    !may_go_to(destination, bytes_of(family, ip_header(ethernet)), now))
		return pass();
	note_request(AT_XDP, state, entry, destination, now, bytes_of(family, ip_header(ethernet)));
	end.address = &destination->address;
	end.port = entry->destination_port;
	translate_frame(family, state, ethernet, &end);
	set_macs(ethernet, destination->mac);
	return send_by(context, destination->interface);
}

/* A packet that goes by Direct Routing. */
static __always_inline int route_frame(__u8 family, __u32 state, struct xdp_md *context,
				       struct ethernet_words *ethernet, struct connection *entry)
{
	__u32 now = ticks_cheaply(), index;
	struct destination *destination;
	void *ip = ip_header(ethernet);
	int verdict = XDP_TX;

	if (has_passed(entry->expires, now))
		return pass();
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return pass();
	if (!may_go_to(destination, bytes_of(family, ip), now) || hops_of(family, ip) <= 1)
		return xdp_any(context);
	/* If it goes back out of where it came in it was for that interface. */
	if (destination->interface != context->ingress_ifindex || !is_to(ethernet, destination->source_mac)) {
		verdict = leave(context, ethernet, destination->interface);
		if (verdict == XDP_PASS)
			return pass();
	}
	note_request(AT_XDP, state, entry, destination, now, bytes_of(family, ip));
	take_one_hop(family, ip);
	set_macs(ethernet, destination->mac);
	return verdict;
}

/* A packet that changes on its way. */
static __always_inline int change_frame(__u8 family, __u32 state, struct xdp_md *context,
					struct ethernet_words *ethernet, struct connection *entry,
					__u64 control)
{
	struct destination *destination;
	__u32 index, now;

	/* In generic XDP checksums may have been left to a device, and only TC can tell. */
	if (!is_native(ethernet, context->ingress_ifindex))
		return xdp_any(context);
	if (is_control_of_reply(control))
		return answer_frame(family, state, context, ethernet, entry);
	now = ticks_cheaply();
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || has_passed(entry->expires, now) || hops_of(family, ip_header(ethernet)) <= 1 ||
	    (destination->interface != context->ingress_ifindex && !takes_frames(destination->interface)))
		return pass();
	if (is_control_of(control, state, METHOD_MASQUERADE))
		return masquerade_request(family, state, context, ethernet, entry, destination, now);
	if (is_control_of(control, state, METHOD_TUNNEL))
		return wrap_request(family, state, context, ip_header(ethernet), entry, destination, now);
	return xdp_any(context);
}

/* A packet of this family and protocol. */
static __always_inline int express_frame(__u8 family, __u32 state, struct xdp_md *context,
					 struct ethernet_words *ethernet)
{
	struct connection *entry = find_usual(family, state, &ethernet);
	__u64 control;

	if (!entry)
		return pass();
	control = load_control(entry);
	if (is_control_of(control, state, METHOD_ROUTE))
		return route_frame(family, state, context, ethernet, entry);
	return change_frame(family, state, context, ethernet, entry, control);
}

static __always_inline int express_of(__u8 family, struct xdp_md *context,
				      struct ethernet_words *ethernet, const void *end)
{
	const void *header = ip_header(ethernet);
	__u32 bytes = bytes_of(family, header);

	if (bytes > (__u32)(end - header) || !is_usual(family, header))
		return xdp_any(context);
	/* Each has a copy of its own: no instruction asks again which it is. */
	if (is_tcp_data(family, header, end, bytes))
		return express_frame(family, TCP_ESTABLISHED, context, ethernet);
	if (is_udp(family, header, bytes))
		return express_frame(family, TCP_NONE, context, ethernet);
	return xdp_any(context);
}

static __always_inline int express(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;

	if (data + SHORTEST(AF_INET) > end)
		return pass();
	if (is_plain_ipv4(data))
		return express_of(AF_INET, context, data, end);
	if (is_ipv6(data) && data + SHORTEST(AF_INET6) <= end)
		return express_of(AF_INET6, context, data, end);
	return xdp_any(context);
}

#endif
