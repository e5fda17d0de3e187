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
	const struct ethernet_words *macs = (const struct ethernet_words *)destination->mac;

	ethernet->destination = macs->destination;
	ethernet->destination_end = macs->destination_end;
	ethernet->source = macs->source;
	ethernet->source_end = macs->source_end;
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

/* What of a packet is needed here; the compiler has it in registers. */
struct headers {
	struct flow flow;
	__u32 bytes;      /* of the IP packet */
	__s32 behind;     /* the part of them that comes after the IP header */
	__u32 hops;
	__u32 hop;        /* IPv4: the word with the hops and the checksum */
	void *transport;
};

/* IPv4's header. */
struct ipv4_words {
	__u32 lengths;    /* version, header length, type of service, length */
	__u32 fragment;
	__u32 hop;        /* TTL, protocol, checksum */
	__u32 source;
	__u32 destination;
} __attribute__((may_alias));

#define WITHOUT_OPTIONS 0x45 /* version and header length */

/* That word with a TTL less and the checksum that fits it (RFC 1624): in the order of the
 * network the checksum's unit is the TTL's, and stands in the upper half. */
static __always_inline __u32 hop_taken(__u32 hop)
{
	return hop - 1 + 0x10000 + (hop >= 0xfffe0000 ? 0x10000 : 0);
}

/* `room` is what the frame has for the packet; 0, or -1 for what is not of the usual form. */
static __always_inline int read_ipv4(const struct ipv4_words *ip, void *end, __u32 room,
				     struct headers *headers)
{
	const __u32 in_fragments = (__u32)bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK) << 16;
	__u32 lengths, fragment, hop, source, destination;

	if ((void *)(ip + 1) + UDP_HEADER_SIZE > end)
		return -1;
	lengths = ip->lengths;
	fragment = ip->fragment;
	hop = ip->hop;
	source = ip->source;
	destination = ip->destination;
	headers->bytes = bpf_ntohs(lengths >> 16);
	if ((__u8)lengths != WITHOUT_OPTIONS || fragment & in_fragments || headers->bytes > room ||
	    !folds_to_ones((__u64)lengths + fragment + hop + source + destination))
		return -1;
	headers->behind = headers->bytes - sizeof(*ip);
	headers->hops = (__u8)hop;
	headers->hop = hop;
	headers->transport = (void *)(ip + 1);
	headers->flow.client.half[0] = source;
	headers->flow.virtual.half[0] = destination;
	set_ends(&headers->flow, AF_INET, hop >> 8, headers->transport);
	return 0;
}

static __always_inline int read_ipv6(const struct ipv6hdr *ip, void *end, __u32 room,
				     struct headers *headers)
{
	const flow_word *addresses = (const flow_word *)&ip->saddr;

	if ((void *)(ip + 1) + UDP_HEADER_SIZE > end || ip->version != 6)
		return -1;
	headers->behind = bpf_ntohs(ip->payload_len);
	headers->bytes = headers->behind + sizeof(*ip);
	if (headers->bytes > room)
		return -1;
	headers->hops = ip->hop_limit;
	headers->transport = (void *)(ip + 1);
	headers->flow.client.half[0] = addresses[0];
	headers->flow.client.half[1] = addresses[1];
	headers->flow.virtual.half[0] = addresses[2];
	headers->flow.virtual.half[1] = addresses[3];
	set_ends(&headers->flow, AF_INET6, ip->nexthdr, headers->transport);
	return 0;
}

/* Parts of a connection's control word. */
#define CONTROL_BITS(phase, state, flags)                                              \
	((__u64)(phase) << CONTROL_PHASE_SHIFT | (__u64)(state) << CONTROL_STATE_SHIFT | \
	 (__u64)(flags) << CONTROL_FLAGS_SHIFT)
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
