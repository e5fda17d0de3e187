/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The express way at TC: data of established connections, which changes no connection's
 * state, in headers of the usual form, where the way on is known.  That is nearly all of
 * what comes, by Direct Routing, masqueraded, and the answers of masqueraded real servers.
 *
 * As at XDP (express.h) headers are read in words and once, many things are tested by one
 * comparison, and the MACs are those that the last look-up of the way found.  What is not
 * known here goes the long way, which nothing was written or counted for before.  Both make
 * the same of a packet.
 */
#ifndef XLVS_EXPRESS_TC_H
#define XLVS_EXPRESS_TC_H

#include "answer.h"
#include "conn.h"
#include "forward.h"
#include "headers.h"
#include "maps.h"
#include "nat.h"
#include "reach.h"
#include "state.h"
#include "stats.h"

#define LONG_WAY (-2) /* no verdict of TC's */

/* A packet at hand, with what was found out about it. */
struct traveller {
	struct headers headers;
	struct ethernet_words *ethernet;
	__u16 *checksum; /* TCP's or UDP's */
	__u32 state;     /* that its connection has to have */
	__u32 now;
	const struct settings *settings;
};

/* The sum of an address, 16 bits of which are a unit of the checksum. */
static __always_inline __u64 sum_of_address(__u8 family, const union address *address)
{
	if (family == AF_INET)
		return (__u32)address->half[0];
	return (__u64)(__u32)address->half[0] + (address->half[0] >> 32) +
	       (__u32)address->half[1] + (address->half[1] >> 32);
}

/*
 * Whether a checksum may be one that a device has yet to finish: such a field holds the sum
 * of the pseudo-header.  Of the finished ones one in 65,535 looks the same.
 */
static __always_inline int may_be_open(__u8 family, const struct headers *headers, __u16 checksum)
{
	__u64 pseudo_header = sum_of_address(family, &headers->flow.client) +
			      sum_of_address(family, &headers->flow.virtual) +
			      bpf_htons(headers->flow.protocol) + bpf_htons(headers->behind);

	return folds_to_ones(pseudo_header + (__u16)~checksum);
}

/* Have the kernel's helpers change a checksum that may be open; its differences are of
 * addresses and of ports, which an open one does not cover. */
static __always_inline int change_open(struct __sk_buff *skb, __u8 family,
				       const struct traveller *traveller, __u16 addresses,
				       const struct translation *change)
{
	__u64 flags = traveller->state == TCP_ESTABLISHED ? 0 : BPF_F_MARK_MANGLED_0;
	__u32 field = (void *)traveller->checksum - (void *)traveller->ethernet;

	if (family == AF_INET6 ? replace_ipv6_address(skb, field, addresses, flags) :
				 bpf_l4_csum_replace(skb, field, 0, addresses, flags | BPF_F_PSEUDO_HDR))
		return -1;
	return change->from_port == change->to_port ?
		       0 :
		       bpf_l4_csum_replace(skb, field, change->from_port, change->to_port,
					   flags | sizeof(__be16));
}

/* A finished checksum with other addresses and ports (RFC 1624), those of UDP never 0. */
static __always_inline __u16 changed_checksum(__u32 state, __u16 checksum, __u64 difference)
{
	__u16 changed = ~fold((__u16)~checksum + difference);

	return changed || state == TCP_ESTABLISHED ? changed : 0xffff;
}

/*
 * Replace one side's address and port, and take the hop.  0, or -1 where that can't be done;
 * `ethernet` is where the packet is afterwards.  The sum that a device may have made of the
 * packet stays right: in IPv4 the address in the header and the header's checksum make up for
 * each other, and only what the address changed of TCP's or UDP's checksum remains; in IPv6
 * this makes up for the address.  Ports and the same checksum do so in both.
 */
static __always_inline int rewrite(struct __sk_buff *skb, __u8 family, struct traveller *traveller,
				   const struct translation *change)
{
	struct headers *headers = &traveller->headers;
	__u64 addresses = sum_of_address(family, &change->to) +
			  (family == AF_INET ? 0xffffffffULL : 4 * 0xffffffffULL) -
			  sum_of_address(family, &change->from);
	__u16 holds = *traveller->checksum;
	const __u32 size = family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	void *ip = (void *)traveller->ethernet + sizeof(struct ethhdr);
	struct ports *ports = headers->transport;

	if (may_be_open(family, headers, holds)) {
		if (change_open(skb, family, traveller, fold(addresses), change))
			return -1;
		traveller->ethernet = (void *)(long)skb->data;
		ip = (void *)traveller->ethernet + sizeof(struct ethhdr);
		ports = ip + size;
		if ((void *)(ports + 1) > (void *)(long)skb->data_end)
			return -1;
	} else {
		*traveller->checksum =
			changed_checksum(traveller->state, holds,
					 addresses + (__u16)~change->from_port + change->to_port);
		if (family == AF_INET)
			bpf_csum_update(skb, (__u16)~fold(addresses));
	}
	if (change->side == NAT_SOURCE)
		ports->source = change->to_port;
	else
		ports->destination = change->to_port;
	if (family == AF_INET) {
		struct ipv4_words *header = ip;
		__u32 sum = (__u16)~fold((__u64)(__u16)~(headers->hop >> 16) + addresses);

		header->hop = hop_taken((__u16)headers->hop | sum << 16);
		if (change->side == NAT_SOURCE)
			header->source = change->to.v4;
		else
			header->destination = change->to.v4;
	} else {
		struct ipv6hdr *header = ip;
		flow_word *field = change->side == NAT_SOURCE ? (flow_word *)&header->saddr :
								(flow_word *)&header->daddr;

		header->hop_limit--;
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
		field[0] = change->to.half[0];
		field[1] = change->to.half[1];
	}
	return 0;
}

/* Take the hop of a packet that stays what it is otherwise. */
static __always_inline void take_hop_of(struct __sk_buff *skb, __u8 family,
					const struct traveller *traveller)
{
	void *ip = (void *)traveller->ethernet + sizeof(struct ethhdr);

	if (family == AF_INET) {
		((struct ipv4_words *)ip)->hop = hop_taken(traveller->headers.hop);
		return;
	}
	((struct ipv6hdr *)ip)->hop_limit--;
	bpf_csum_update(skb, (__u16)~bpf_htons(1));
}

/* Whether nothing makes up for a port that changes: UDP may have no checksum. */
static __always_inline int lacks_checksum(const struct traveller *traveller)
{
	return traveller->state == TCP_NONE && *traveller->checksum == 0;
}

static __always_inline void live_on(struct connection *entry, const struct traveller *traveller,
				    const struct destination *destination)
{
	__u32 timeout = destination->idle_timeout;

	if (!timeout)
		timeout = traveller->settings->timeout[traveller->state == TCP_NONE ? TIMEOUT_UDP :
										      TCP_ESTABLISHED];
	conn_refresh(entry, traveller->now, timeout);
}

/* An answer, whose entry is `reply`: on to its client. */
static __always_inline int express_answer(struct __sk_buff *skb, __u8 family, struct traveller *traveller,
					  const struct connection *reply)
{
	const struct headers *headers = &traveller->headers;
	struct connection *entry = conn_of_reply(reply);
	struct translation change = { .side = NAT_SOURCE };
	struct destination *destination;
	struct client_way *way;
	__u32 cpu, index;

	if (!entry || (load_control(entry) &
		       CONTROL_BITS(0, 0xff, CONNECTION_NO_OUTPUT | CONNECTION_CLIENT_HERE)) !=
			      CONTROL_BITS(0, traveller->state, 0) ||
	    has_passed(entry->expires, traveller->now) || lacks_checksum(traveller) ||
	    (traveller->state == TCP_NONE && (entry->link || traveller->settings->callers)) ||
	    control_flags(load_control(reply)) & CONNECTION_FTP)
		return LONG_WAY;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE))
		return LONG_WAY;
	way = client_way_of(&headers->flow.virtual);
	if (!way || !leads_to(way, &entry->flow.virtual, &headers->flow.virtual, family, headers->bytes,
			      traveller->now))
		return LONG_WAY;
	live_on(entry, traveller, destination);
	cpu = row_here();
	count_outbound_in(cpu, destination->service, index, headers->bytes);
	COUNT_EVENT_IN(cpu, forwarded);
	change.from = headers->flow.client;
	change.to = entry->flow.virtual;
	change.from_port = headers->flow.client_port;
	change.to_port = entry->flow.virtual_port;
	if (rewrite(skb, family, traveller, &change))
		return TC_ACT_SHOT;
	set_macs(traveller->ethernet, way->macs);
	return bpf_redirect(way->way.interface, 0);
}

/* A client's packet, whose entry this is: on to its real server. */
static __always_inline int express_request(struct __sk_buff *skb, __u8 family,
					   struct traveller *traveller, struct connection *entry,
					   __u32 method)
{
	const __u32 flags = DESTINATION_AVAILABLE | DESTINATION_LOCAL | DESTINATION_REHOMES;
	const __u32 wanted = REACH_VIRTUAL_LOCAL | REACH_ROUTE | REACH_MAC;
	const struct headers *headers = &traveller->headers;
	struct translation change = { .side = NAT_DESTINATION };
	struct destination *destination;
	__u32 cpu, index;

	if (has_passed(entry->expires, traveller->now) ||
	    (method == METHOD_MASQUERADE && lacks_checksum(traveller)))
		return LONG_WAY;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || (destination->flags & flags) != DESTINATION_AVAILABLE ||
	    (destination->reach & wanted) != wanted ||
	    is_stale(destination->refreshed, traveller->now) || headers->bytes > destination->mtu)
		return LONG_WAY;
	live_on(entry, traveller, destination);
	count_in_packet(entry);
	cpu = row_here();
	count_inbound_in(cpu, destination->service, index, headers->bytes);
	COUNT_EVENT_IN(cpu, forwarded);
	if (method == METHOD_MASQUERADE) {
		change.from = headers->flow.virtual;
		change.to = destination->address;
		change.from_port = headers->flow.virtual_port;
		change.to_port = entry->destination_port;
		if (rewrite(skb, family, traveller, &change))
			return TC_ACT_SHOT;
	} else {
		take_hop_of(skb, family, traveller);
	}
	set_macs(traveller->ethernet, destination->mac);
	return bpf_redirect(destination->interface, 0);
}

/* A packet of this family and protocol: each has a copy of its own, in which nothing is asked that
 * is known.  `state` is the one that its connection has to have. */
static __always_inline int express_as(__u8 family, __u32 state, struct __sk_buff *skb,
				      struct ethernet_words *ethernet, struct headers *headers,
				      __u16 *checksum)
{
	struct traveller traveller = {
		.headers = *headers, .ethernet = ethernet, .checksum = checksum, .state = state,
	};
	struct connection *entry;
	__u32 zero = 0, method;
	__u64 control;

	traveller.settings = bpf_map_lookup_elem(&settings, &zero);
	if (!traveller.settings || traveller.settings->sysctl[SYSCTL_NAT_ICMP_SEND] || headers->hops <= 1)
		return LONG_WAY;
	entry = conn_here(&headers->flow);
	if (!entry)
		return LONG_WAY;
	traveller.now = ticks_now();
	control = load_control(entry);
	if (control_flags(control) & CONNECTION_REPLY)
		return express_answer(skb, family, &traveller, entry);
	if ((control & CONTROL_BITS(0xff, 0xff, CONNECTION_TEMPLATE)) !=
	    CONTROL_BITS(PHASE_LIVE, state, 0))
		return LONG_WAY;
	method = control_method(control);
	if (method == METHOD_ROUTE)
		return express_request(skb, family, &traveller, entry, METHOD_ROUTE);
	if (method == METHOD_MASQUERADE)
		return express_request(skb, family, &traveller, entry, METHOD_MASQUERADE);
	return LONG_WAY;
}

static __always_inline int express_of_family(__u8 family, struct __sk_buff *skb,
					     struct ethernet_words *ethernet, void *end)
{
	void *ip = (void *)ethernet + sizeof(struct ethhdr);
	__u32 room = skb->len - sizeof(struct ethhdr);
	struct headers headers = {};
	struct tcp_header *tcp;

	if (family == AF_INET ? read_ipv4(ip, end, room, &headers) : read_ipv6(ip, end, room, &headers))
		return LONG_WAY;
	tcp = headers.transport;
	if (headers.flow.protocol == PROTOCOL_UDP && headers.behind >= UDP_HEADER_SIZE)
		return express_as(family, TCP_NONE, skb, ethernet, &headers,
				  headers.transport + UDP_CHECKSUM_OFFSET);
	/* Data in an established connection: no table has another state for it. */
	if (headers.flow.protocol != PROTOCOL_TCP || (void *)(tcp + 1) > end ||
	    headers.behind < (__s32)sizeof(*tcp) ||
	    (tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK ||
	    headers.flow.virtual_port == bpf_htons(FTP_PORT))
		return LONG_WAY;
	return express_as(family, TCP_ESTABLISHED, skb, ethernet, &headers, &tcp->checksum);
}

/* The verdict for a packet that came in for the director, or LONG_WAY. */
__attribute__((noinline)) int express_by_tc(struct __sk_buff *skb)
{
	struct ethernet_words *ethernet = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if ((void *)ethernet + sizeof(struct ethhdr) > end)
		return LONG_WAY;
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return express_of_family(AF_INET, skb, ethernet, end);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return express_of_family(AF_INET6, skb, ethernet, end);
	return LONG_WAY;
}

#endif
