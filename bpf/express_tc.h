/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The express way at TC: data of established connections, which changes no connection's
 * state, in headers of the usual form, where the way on is known.  That is nearly all of
 * what comes, by Direct Routing, masqueraded, into tunnels, and the answers of masqueraded
 * real servers.
 *
 * It is written as XDP's (express_front.h), and the MACs are those that the last look-up of the
 * way found.  What is not known here goes the long way, which nothing was written or counted
 * for before.  Both make the same of a packet.
 */
#ifndef XLVS_EXPRESS_TC_H
#define XLVS_EXPRESS_TC_H

#include "answer.h"
#include "conn.h"
#include "express_front.h"
#include "forward.h"
#include "headers.h"
#include "maps.h"
#include "nat.h"
#include "new_end.h"
#include "reach.h"
#include "state.h"
#include "stats.h"
#include "sysctl.h"
#include "tunnel.h"

/* No verdicts of TC's. */
#define LONG_WAY (-2)
#define INTO_TUNNEL 0x40000000 /* and the index of the destination */

/* A packet at hand, with what was found out about it. */
struct traveller {
	struct headers headers;
	struct ethernet_words *ethernet;
	__be16 *checksum; /* TCP's or UDP's */
	__u32 state;     /* that its connection has to have */
	__u32 now;
};

static __always_inline __u64 sum_of_address(__u8 family, const union address *address)
{
	return family == AF_INET ? (__u32)address->half[0] : sum_half(address->half[0]) + sum_half(address->half[1]);
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
 * the address and of the port, which an open one does not cover. */
static __always_inline int change_open(struct __sk_buff *skb, __u8 family,
				       const struct traveller *traveller, __u16 address,
				       const struct new_end *end)
{
	__u64 flags = traveller->state == TCP_ESTABLISHED ? 0 : BPF_F_MARK_MANGLED_0;
	__u32 field = (void *)traveller->checksum - (void *)traveller->ethernet;
	__be16 port = old_port(&traveller->headers, end);

	if (family == AF_INET6 ? replace_ipv6_address(skb, field, address, flags) :
				 bpf_l4_csum_replace(skb, field, 0, address, flags | BPF_F_PSEUDO_HDR))
		return -1;
	return port == end->port ? 0 : bpf_l4_csum_replace(skb, field, port, end->port, flags | sizeof(__be16));
}

/*
 * Replace one side's address and port, and take the hop.  0, or -1 where that can't be done;
 * `ethernet` is where the packet is afterwards.  The sum that a device may have made of the
 * packet stays right: in IPv4 the address in the header and the header's checksum make up for
 * each other, and only what the address changed of TCP's or UDP's checksum remains; in IPv6
 * this makes up for the address.  Ports and the same checksum do so in both.
 */
static __always_inline int rewrite(struct __sk_buff *skb, __u8 family, struct traveller *traveller,
				   const struct new_end *end)
{
	struct headers *headers = &traveller->headers;
	__u64 change = change_of_address(family, headers, end);
	const __u32 size = family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	void *ip = ip_header(traveller->ethernet);
	struct ports *ports = headers->transport;

	if (may_be_open(family, headers, *traveller->checksum)) {
		if (change_open(skb, family, traveller, fold(change), end))
			return -1;
		traveller->ethernet = (void *)(long)skb->data;
		ip = ip_header(traveller->ethernet);
		ports = ip + size;
		if ((void *)(ports + 1) > (void *)(long)skb->data_end)
			return -1;
	} else {
		change_transport(headers, traveller->state, end, change);
		if (family == AF_INET)
			bpf_csum_update(skb, (__u16)~fold(change));
	}
	write_end(family, ip, ports, headers, end, change);
	if (family == AF_INET6)
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
	return 0;
}

/* Take the hop of a packet that stays what it is otherwise. */
static __always_inline void take_hop_in(struct __sk_buff *skb, __u8 family, void *header)
{
	take_one_hop(family, header);
	if (family == AF_INET6)
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
}

/* Whether nothing makes up for a port that changes: UDP may have no checksum. */
static __always_inline int lacks_checksum(const struct traveller *traveller)
{
	return traveller->state == TCP_NONE && *traveller->checksum == 0;
}

/* An answer, whose entry is `reply`: on to its client. */
static __always_inline int express_answer(struct __sk_buff *skb, __u8 family, struct traveller *traveller,
					  const struct connection *reply)
{
	const struct headers *headers = &traveller->headers;
	struct connection *entry = conn_of_answer(family, headers, traveller->state, reply);
	struct new_end end = { .side = NAT_SOURCE };
	struct destination *destination;
	struct client_way *way;
	__u32 index;

	if (!entry || has_passed(entry->expires, traveller->now) || lacks_checksum(traveller) ||
	    (traveller->state == TCP_NONE && entry->link))
		return LONG_WAY;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE))
		return LONG_WAY;
	way = client_way_of(family, &headers->flow.virtual);
	if (!way || !leads_to(way, &entry->flow.virtual, &headers->flow.virtual, family, headers->bytes,
			      traveller->now))
		return LONG_WAY;
	note_answer(AT_TC, family, traveller->state, ip_header(traveller->ethernet), entry, destination,
		    traveller->now);
	end.address = &entry->flow.virtual;
	end.port = entry->flow.virtual_port;
	if (rewrite(skb, family, traveller, &end))
		return TC_ACT_SHOT;
	set_macs(traveller->ethernet, way->macs);
	return bpf_redirect(way->way.interface, 0);
}

/* What tc_tunnel() needs to know of a packet. */
static __always_inline void describe(__u8 family, const struct traveller *traveller, struct packet *packet)
{
	void *header = ip_header(traveller->ethernet);

	*packet = (struct packet){};
	packet->flow = traveller->headers.flow;
	packet->bytes = traveller->headers.bytes;
	packet->ttl = traveller->headers.hops;
	packet->transport = sizeof(struct ethhdr);
	if (family == AF_INET) {
		const struct iphdr *ip = header;

		packet->transport += sizeof(*ip);
		packet->tos = ip->tos;
		packet->whole = !!(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	} else {
		const struct ipv6hdr *ip = header;

		packet->transport += sizeof(*ip);
		packet->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		packet->whole = 1;
	}
}

/* The most that a method takes away from the MTU. */
static __always_inline __u32 most_overhead(__u32 method, const struct destination *destination)
{
	if (method != METHOD_TUNNEL)
		return 0;
	return outer_size(destination->family) +
	       wrapping_size(destination->tunnel_kind, destination->tunnel_checksum,
			     destination->tunnel_checksum == TUNNEL_REMOTE_CHECKSUM);
}

/* A client's packet that changes on its way to its real server; it is described in `packet`
 * where it is for a tunnel. */
static __always_inline int express_change(struct __sk_buff *skb, __u8 family, struct traveller *traveller,
					  struct connection *entry, __u32 method, struct packet *packet)
{
	const struct headers *headers = &traveller->headers;
	struct new_end end = { .side = NAT_DESTINATION };
	struct destination *destination;
	__u32 index = entry->destination;

	/* FTP's requests are read on their way. */
	if (has_passed(entry->expires, traveller->now) ||
	    (method == METHOD_MASQUERADE &&
	     (lacks_checksum(traveller) || entry->flow.virtual_port == bpf_htons(FTP_PORT))))
		return LONG_WAY;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination ||
	    !may_go_to(destination, headers->bytes + most_overhead(method, destination), traveller->now))
		return LONG_WAY;
	note_request(AT_TC, traveller->state, entry, destination, traveller->now, headers->bytes);
	if (method == METHOD_TUNNEL) {
		describe(family, traveller, packet);
		return INTO_TUNNEL | index;
	}
	end.address = &destination->address;
	end.port = entry->destination_port;
	if (rewrite(skb, family, traveller, &end))
		return TC_ACT_SHOT;
	set_macs(traveller->ethernet, destination->mac);
	return bpf_redirect(destination->interface, 0);
}

/* A packet that goes by Direct Routing. */
static __always_inline int express_route(struct __sk_buff *skb, __u8 family, __u32 state,
					 struct ethernet_words *ethernet, struct connection *entry)
{
	__u32 now = ticks_cheaply(), index = entry->destination;
	struct destination *destination;
	void *header = ip_header(ethernet);

	if (has_passed(entry->expires, now))
		return LONG_WAY;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !may_go_to(destination, bytes_of(family, header), now))
		return LONG_WAY;
	note_request(AT_TC, state, entry, destination, now, bytes_of(family, header));
	take_hop_in(skb, family, header);
	set_macs(ethernet, destination->mac);
	return bpf_redirect(destination->interface, 0);
}

/* A packet of this family and protocol. */
static __always_inline int express_packet(__u8 family, __u32 state, struct __sk_buff *skb,
					  struct ethernet_words *ethernet, struct packet *packet)
{
	struct traveller traveller = { .state = state };
	struct connection *entry;
	__u64 control;

	if (is_set(SYSCTL_NAT_ICMP_SEND) || hops_of(family, ip_header(ethernet)) <= 1)
		return LONG_WAY;
	entry = find_usual(family, state, &ethernet);
	if (!entry)
		return LONG_WAY;
	control = load_control(entry);
	if (is_control_of(control, state, METHOD_ROUTE))
		return express_route(skb, family, state, ethernet, entry);
	traveller.ethernet = ethernet;
	traveller.now = ticks_cheaply();
	read_again(family, protocol_of(state), ip_header(ethernet), &traveller.headers);
	traveller.checksum = traveller.headers.transport +
			     (state == TCP_NONE ? UDP_CHECKSUM_OFFSET : TCP_CHECKSUM_OFFSET);
	if (is_control_of_reply(control))
		return express_answer(skb, family, &traveller, entry);
	if (is_control_of(control, state, METHOD_MASQUERADE))
		return express_change(skb, family, &traveller, entry, METHOD_MASQUERADE, packet);
	if (is_control_of(control, state, METHOD_TUNNEL))
		return express_change(skb, family, &traveller, entry, METHOD_TUNNEL, packet);
	return LONG_WAY;
}

static __always_inline int express_of_family(__u8 family, struct __sk_buff *skb,
					     struct ethernet_words *ethernet, const void *end,
					     struct packet *packet)
{
	const void *header = ip_header(ethernet);
	__u32 bytes = bytes_of(family, header);

	/* All of it is there, but not all in one piece. */
	if (sizeof(struct ethhdr) + bytes > skb->len || !is_usual(family, header))
		return LONG_WAY;
	if (is_tcp_data(family, header, end, bytes))
		return express_packet(family, TCP_ESTABLISHED, skb, ethernet, packet);
	if (is_udp(family, header, bytes))
		return express_packet(family, TCP_NONE, skb, ethernet, packet);
	return LONG_WAY;
}

/*
 * The verdict for a packet that came in for the director; LONG_WAY; or INTO_TUNNEL, and what
 * tc_tunnel() needs in `packet`, of which nothing is known otherwise.  A function of its own for its
 * stack, but no global one: their callers have to clear what they let them write.
 */
static __attribute__((noinline)) int express_by_tc(struct __sk_buff *skb, struct packet *packet)
{
	struct ethernet_words *ethernet = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if ((void *)ethernet + SHORTEST(AF_INET) > end)
		return LONG_WAY;
	if (is_plain_ipv4(ethernet))
		return express_of_family(AF_INET, skb, ethernet, end, packet);
	if (is_ipv6(ethernet) && (void *)ethernet + SHORTEST(AF_INET6) <= end)
		return express_of_family(AF_INET6, skb, ethernet, end, packet);
	return LONG_WAY;
}

#endif
