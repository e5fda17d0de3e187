/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What XDP finishes: packets of established connections, where the way on is known.
 *
 *   express    what nearly all of them are: data, which changes no connection's state, in
 *              headers of the usual form; from clients by Direct Routing, NAT
 *              (express_nat.h) and tunnels (express_tunnel.h), and NAT's answers.  Each
 *              instruction here is paid for by each packet.  So it reads a header in words
 *              and once, tests many things by one comparison, and keeps no `struct packet`.
 *              What it does not know it leaves to
 *   xdp_any    all others of Direct Routing, in the words of the rest of the packet path.
 */
#ifndef XLVS_EXPRESS_H
#define XLVS_EXPRESS_H

#include "conn.h"
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

/*
 * Whether the way to a destination is one for XDP.  A packet a second takes the long way,
 * by TC: the kernel's neighbour entry is confirmed by it, and the way looked up again.
 */
static __always_inline int is_xdp_way(const struct destination *destination, __u32 now,
				      __u32 from, __u32 known)
{
	const __u32 wanted = REACH_VIRTUAL_LOCAL | REACH_ROUTE | REACH_MAC;

	return (destination->reach & wanted) == wanted && !is_stale(destination->refreshed, now) &&
	       (destination->interface == from || !(known & INTERFACE_NATIVE) ||
		takes_frames(destination->interface));
}

/* On to a real server: its MAC and the director's are in its destination. */
static __always_inline int xdp_send(struct ethernet_words *ethernet,
				    const struct destination *destination, __u32 from)
{
	return send_frame(ethernet, destination->mac, destination->interface, from);
}

/* The general way. */
__attribute__((noinline)) int xdp_any(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	__u32 now, index, known, from = context->ingress_ifindex;
	struct destination *destination;
	struct packet packet = {};
	struct connection *entry;
	__u64 control;

	if (data + sizeof(struct ethhdr) > end)
		return XDP_PASS;
	known = interface_of(data, from);
	if (!known || parse_frame(data, end, end - data, &packet) || packet.fragment)
		return XDP_PASS;
	entry = conn_here(&packet.flow);
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
	    !is_xdp_way(destination, now, from, known) || is_too_big(&packet, destination, 0) || packet.ttl <= 1 ||
	    decrement_ttl(data, end, packet.flow.family))
		return XDP_PASS;
	count_inbound(destination, index, packet.bytes);
	follow(entry, &packet, DIRECTION_INPUT, now);
	COUNT_EVENT(xdp_forwarded);
	return xdp_send(data, destination, from);
}

/* Of a connection's control word. */
#define METHODS CONTROL_BITS(0, 0, CONNECTION_METHOD_MASK << CONNECTION_METHOD_SHIFT)
#define CONTROL_THAT_MATTERS \
	(CONTROL_BITS(0xff, 0xff, CONNECTION_REPLY | CONNECTION_TEMPLATE | CONNECTION_FTP) | METHODS)
#define FLAGS_OF(method) ((method) << CONNECTION_METHOD_SHIFT)

#define NOT_FOR_FRAMES 0x10000

/* What the way to a real server takes away from its MTU, by that method; more than any MTU
 * where it is TC's to go it. */
static __always_inline __u32 overhead_of(const struct destination *destination, __u32 method,
					 const struct flow *flow)
{
	if (method == METHOD_TUNNEL && is_tunnel_for_frames(destination))
		return frame_overhead(destination);
	/* FTP's requests are read on their way. */
	if (method == METHOD_MASQUERADE && flow->virtual_port != bpf_htons(FTP_PORT))
		return 0;
	return NOT_FOR_FRAMES;
}

/* Whether frames may go to a destination; `bytes` is a packet's length with what is put before it. */
static __always_inline int is_for_frames(const struct destination *destination, __u32 bytes,
					 const struct frame *frame)
{
	return (destination->flags &
		(DESTINATION_AVAILABLE | DESTINATION_LOCAL | DESTINATION_REHOMES)) ==
		       DESTINATION_AVAILABLE &&
	       is_xdp_way(destination, frame->now, frame->from, frame->known) &&
	       bytes <= destination->mtu && frame->headers.hops > 1;
}

/* A client's packet is about to go on: its connection lives, and all count it. */
static __always_inline void note_request(struct connection *entry, const struct destination *destination,
					 __u32 index, struct frame *frame)
{
	__u32 cpu;

	conn_refresh(entry, frame->now,
		     data_timeout(destination,
				  frame->state == TCP_NONE ? TIMEOUT_UDP : frame->state));
	count_in_packet(entry);
	cpu = row_here();
	frame->count = count_inbound_in(cpu, destination->service, index, frame->headers.bytes);
	frame->cpu = cpu;
	COUNT_EVENT_IN(cpu, xdp_forwarded);
}

/* A client's packet that changes on its way, by NAT or a tunnel. */
static __always_inline int changed_request(__u8 family, __u32 method, struct xdp_md *context, struct frame *frame,
					   struct connection *entry)
{
	__u32 index = entry->destination, overhead;
	struct ethernet_words *ethernet = frame->ethernet;
	struct new_end end = { .side = NAT_DESTINATION };
	struct destination *destination;
	struct outside outside;

	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || has_passed(entry->expires, frame->now))
		return XDP_PASS;
	overhead = overhead_of(destination, method, &frame->headers.flow);
	if (!is_for_frames(destination, frame->headers.bytes + overhead, frame))
		return XDP_PASS;
	if (method == METHOD_TUNNEL) {
		outside = outside_of(family, ip_header(ethernet), &frame->headers, destination);
		if (bpf_xdp_adjust_head(context, -(int)overhead))
			return XDP_PASS;
		note_request(entry, destination, index, frame);
		outside.id = outer_id(frame);
		ethernet = wrap_frame(family, context, &frame->headers, destination, &outside);
		if (!ethernet)
			return XDP_DROP;
	} else {
		note_request(entry, destination, index, frame);
		end.address = &destination->address;
		end.port = entry->destination_port;
		translate_frame(family, ip_header(ethernet), frame, &end);
	}
	return xdp_send(ethernet, destination, frame->from);
}

static __always_inline int express_of(__u8 family, struct xdp_md *context,
				      struct ethernet_words *ethernet, void *end, __u32 from,
				      __u32 known)
{
	void *ip = ip_header(ethernet);
	__u32 room = (__u32)(end - (void *)ethernet) - sizeof(struct ethhdr);
	struct frame frame = { .ethernet = ethernet, .from = from, .known = known };
	struct headers *headers = &frame.headers;
	struct destination *destination;
	struct connection *entry;
	__u32 index;
	__u64 control;

	if (family == AF_INET ? read_ipv4(ip, end, room, headers) : read_ipv6(ip, end, room, headers))
		return xdp_any(context);
	if (headers->flow.protocol == PROTOCOL_TCP) {
		struct tcp_header *tcp = headers->transport;

		/* Data in an established connection: no table has another state for it. */
		if ((void *)(tcp + 1) > end || headers->behind < (__s32)sizeof(*tcp) ||
		    (tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK)
			return xdp_any(context);
		frame.state = TCP_ESTABLISHED;
	} else {
		if (headers->flow.protocol != PROTOCOL_UDP || headers->behind < UDP_HEADER_SIZE)
			return xdp_any(context);
		frame.state = TCP_NONE;
	}
	entry = conn_here(&headers->flow);
	if (!entry)
		return XDP_PASS;
	frame.now = ticks_at_xdp();
	control = load_control(entry);
	if ((control & CONTROL_THAT_MATTERS) != CONTROL_BITS(PHASE_LIVE, frame.state, FLAGS_OF(METHOD_ROUTE))) {
		/* In generic XDP checksums may have been left to a device, and only TC can tell. */
		if (!(known & INTERFACE_NATIVE))
			return xdp_any(context);
		if ((control & CONTROL_THAT_MATTERS) == CONTROL_BITS(PHASE_LIVE, 0, CONNECTION_REPLY))
			return answer_frame(family, context, &frame, entry);
		if ((control & CONTROL_THAT_MATTERS) ==
		    CONTROL_BITS(PHASE_LIVE, frame.state, FLAGS_OF(METHOD_MASQUERADE)))
			return changed_request(family, METHOD_MASQUERADE, context, &frame, entry);
		if ((control & CONTROL_THAT_MATTERS) ==
		    CONTROL_BITS(PHASE_LIVE, frame.state, FLAGS_OF(METHOD_TUNNEL)))
			return changed_request(family, METHOD_TUNNEL, context, &frame, entry);
		return xdp_any(context);
	}
	if (has_passed(entry->expires, frame.now))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !is_for_frames(destination, headers->bytes, &frame))
		return xdp_any(context);
	note_request(entry, destination, index, &frame);
	if (family == AF_INET)
		((struct ipv4_words *)ip)->hop = hop_taken(headers->hop);
	else
		((struct ipv6hdr *)ip)->hop_limit--;
	return xdp_send(ethernet, destination, from);
}

static __always_inline int express(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	__u32 known, from = context->ingress_ifindex;
	struct ethernet_words *ethernet = data;

	if (data + sizeof(struct ethhdr) > end)
		return XDP_PASS;
	known = interface_of(ethernet, from);
	if (!known)
		return XDP_PASS;
	/* Each family has a copy of its own: no instruction asks again which it is. */
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return express_of(AF_INET, context, ethernet, end, from, known);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return express_of(AF_INET6, context, ethernet, end, from, known);
	return XDP_PASS;
}

#endif
