/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What XDP finishes: packets of established connections by Direct Routing, where the
 * way to the real server is known.
 *
 *   express    what nearly all of them are: data, which changes no connection's state, in
 *              headers of the usual form.  Each instruction here is paid for by each packet.
 *              So it reads a header in words and once, tests many things by one comparison,
 *              and keeps no `struct packet`.  What it does not know it leaves to
 *   xdp_any    all the others, in the words of the rest of the packet path.
 */
#ifndef XLVS_EXPRESS_H
#define XLVS_EXPRESS_H

#include "conn.h"
#include "forward.h"
#include "headers.h"
#include "maps.h"
#include "parse.h"
#include "reach.h"
#include "state.h"
#include "stats.h"

/* What is known of the interface that a frame came in by, or 0 if it is not for that one. */
static __always_inline __u32 interface_of(const struct ethernet_words *ethernet, __u32 index)
{
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);
	const struct ethernet_words *its;

	if (!interface)
		return 0;
	its = (const struct ethernet_words *)interface->mac;
	if (ethernet->destination != its->destination || ethernet->destination_end != its->destination_end)
		return 0;
	return interface->known & INTERFACE_KNOWN ? interface->known : 0;
}

/* Whether frames that came in natively may leave by another interface.  Where there is no
 * native XDP most drivers lose them, without a word. */
static __always_inline int takes_frames(__u32 index)
{
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);

	return interface && interface->known & INTERFACE_NATIVE;
}

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
	set_macs(ethernet, destination->mac);
	return destination->interface == from ? XDP_TX : bpf_redirect(destination->interface, 0);
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

#define FLAGS_THAT_MATTER                               \
	(CONNECTION_REPLY | CONNECTION_TEMPLATE |       \
	 CONNECTION_METHOD_MASK << CONNECTION_METHOD_SHIFT)
#define FLAGS_OF_ROUTED (METHOD_ROUTE << CONNECTION_METHOD_SHIFT)

static __always_inline int express_of(__u8 family, struct xdp_md *context,
				      struct ethernet_words *ethernet, void *end, __u32 from,
				      __u32 known)
{
	void *ip = (void *)ethernet + sizeof(struct ethhdr);
	__u32 room = (__u32)(end - (void *)ethernet) - sizeof(struct ethhdr);
	__u32 now, index, cpu, state, timeout, zero = 0;
	struct destination *destination;
	struct headers headers = {};
	struct connection *entry;
	struct settings *current;
	__u64 control;

	if (family == AF_INET ? read_ipv4(ip, end, room, &headers) :
				read_ipv6(ip, end, room, &headers))
		return xdp_any(context);
	if (headers.flow.protocol == PROTOCOL_TCP) {
		struct tcp_header *tcp = headers.transport;

		/* Data in an established connection: no table has another state for it. */
		if ((void *)(tcp + 1) > end || headers.behind < (__s32)sizeof(*tcp) ||
		    (tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK)
			return xdp_any(context);
		state = TCP_ESTABLISHED;
	} else {
		if (headers.flow.protocol != PROTOCOL_UDP || headers.behind < UDP_HEADER_SIZE)
			return xdp_any(context);
		state = TCP_NONE;
	}
	entry = conn_here(&headers.flow);
	if (!entry)
		return XDP_PASS;
	now = ticks_now();
	control = load_control(entry);
	if ((control & CONTROL_BITS(0xff, 0xff, FLAGS_THAT_MATTER)) !=
	    CONTROL_BITS(PHASE_LIVE, state, FLAGS_OF_ROUTED))
		return control_method(control) == METHOD_ROUTE ? xdp_any(context) : XDP_PASS;
	if (has_passed(entry->expires, now))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination ||
	    (destination->flags & (DESTINATION_AVAILABLE | DESTINATION_LOCAL | DESTINATION_REHOMES)) !=
		    DESTINATION_AVAILABLE ||
	    !is_xdp_way(destination, now, from, known) || headers.bytes > destination->mtu ||
	    headers.hops <= 1)
		return xdp_any(context);
	current = bpf_map_lookup_elem(&settings, &zero);
	if (!current)
		return xdp_any(context);
	timeout = destination->idle_timeout;
	if (!timeout)
		timeout = state == TCP_NONE ? current->timeout[TIMEOUT_UDP] : current->timeout[TCP_ESTABLISHED];
	conn_refresh(entry, now, timeout);
	count_in_packet(entry);
	cpu = row_here();
	count_inbound_in(cpu, destination->service, index, headers.bytes);
	COUNT_EVENT_IN(cpu, xdp_forwarded);
	if (family == AF_INET)
		((struct ipv4_words *)ip)->hop = hop_taken(headers.hop);
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
