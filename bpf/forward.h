/* SPDX-License-Identifier: GPL-2.0-only */
/* Forwarding methods: how a packet leaves for its real server. */
#ifndef XLVS_FORWARD_H
#define XLVS_FORWARD_H

#include "conn.h"
#include "maps.h"
#include "nat.h"
#include "parse.h"
#include "reach.h"
#include "stats.h"

/* TC: on to the next program, then into the stack. */
#define NOT_OURS TC_ACT_UNSPEC

/* RFC 1624: the checksum changes by what the TTL's 16-bit word changed. */
static __always_inline void decrement_ipv4_ttl(struct iphdr *ip)
{
	__u32 check = ip->check;

	check += bpf_htons(0x0100);
	ip->check = (__u16)(check + (check >= 0xffff));
	ip->ttl--;
}

/* Decrement TTL or hop limit in [data, end); 0, or -1 if it can't be reached. */
static __always_inline int decrement_ttl(void *data, void *end, __u8 family)
{
	void *header = data + sizeof(struct ethhdr);

	if (family == AF_INET) {
		struct iphdr *ip = header;

		if ((void *)(ip + 1) > end)
			return -1;
		decrement_ipv4_ttl(ip);
	} else {
		struct ipv6hdr *ip = header;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->hop_limit--;
	}
	return 0;
}

/* Whether a packet that must not be fragmented does not fit; a packet of
 * several segments (GRO) is cut up again by the device. */
static __always_inline int is_too_big(const struct packet *packet,
				      const struct destination *destination, __u32 overhead)
{
	return packet->whole && destination->mtu &&
	       packet->bytes + overhead > destination->mtu;
}

/* To an address, by the routing table; for what goes back to clients. */
__attribute__((noinline)) int tc_to(struct __sk_buff *skb, const union address *address,
				    __u8 family)
{
	struct bpf_redir_neigh next = { .nh_family = family };
	struct bpf_fib_lookup query = {};
	int answer;

	if (!address)
		return TC_ACT_SHOT;
	answer = look_up_route(skb, &query, address, family);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH) {
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	if (family == AF_INET)
		next.ipv4_nh = query.ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, query.ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(query.ifindex, &next, sizeof(next), 0);
}

/* As it is to a real server's next hop, by the way that refresh() found. */
static __always_inline int tc_to_next_hop(struct __sk_buff *skb,
					  const struct destination *destination)
{
	struct bpf_redir_neigh next = { .nh_family = destination->family };

	__builtin_memcpy(next.ipv6_nh, &destination->next_hop, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(destination->interface, &next, sizeof(next), 0);
}

/* To a real server, with one hop less. */
static __always_inline int tc_to_destination(struct __sk_buff *skb, __u8 family,
					     const struct destination *destination)
{
	if (decrement_ttl((void *)(long)skb->data, (void *)(long)skb->data_end, family))
		return TC_ACT_SHOT;
	return tc_to_next_hop(skb, destination);
}

/* A client's packet to its real server. */
static __always_inline int tc_forward(struct __sk_buff *skb, const struct packet *packet,
				      const struct connection *entry,
				      const struct destination *destination)
{
	if (control_method(load_control(entry)) == METHOD_MASQUERADE) {
		struct translation change = {
			.from = packet->flow.virtual,
			.to = destination->address,
			.from_port = packet->flow.virtual_port,
			.to_port = entry->destination_port,
			.side = NAT_DESTINATION,
		};

		if (translate(skb, packet, &change))
			return TC_ACT_SHOT;
	}
	return tc_to_destination(skb, packet->flow.family, destination);
}

/* A masqueraded real server's answer to its client: from the VIP, as far as
 * the client can tell.  In the packet's flow the server is the `client`. */
static __always_inline int tc_answer(struct __sk_buff *skb, const struct packet *packet,
				     const struct connection *entry)
{
	struct translation change = {
		.from = packet->flow.client,
		.to = entry->flow.virtual,
		.from_port = packet->flow.client_port,
		.to_port = entry->flow.virtual_port,
		.side = NAT_SOURCE,
	};

	if (translate(skb, packet, &change) ||
	    decrement_ttl((void *)(long)skb->data, (void *)(long)skb->data_end,
			  packet->flow.family))
		return TC_ACT_SHOT;
	return tc_to(skb, &packet->flow.virtual, packet->flow.family);
}

/* Direct Routing at XDP: the MACs are in the destination. */
static __always_inline int xdp_direct_route(struct xdp_md *context,
					    const struct destination *destination, __u8 family)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end || decrement_ttl(data, end, family))
		return XDP_DROP;
	__builtin_memcpy(ethernet->h_dest, destination->mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, destination->source_mac, ETH_ALEN);
	if (destination->interface == context->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(destination->interface, 0);
}

#endif
