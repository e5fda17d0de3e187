/* SPDX-License-Identifier: GPL-2.0-only */
/* Forwarding methods: how a packet leaves for its real server. */
#ifndef XLVS_FORWARD_H
#define XLVS_FORWARD_H

#include "maps.h"
#include "parse.h"

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

/* Direct Routing at TC: the same packet, to the real server's MAC, which the
 * kernel finds, asking for it if need be. */
static __always_inline int tc_direct_route(struct __sk_buff *skb,
					   const struct destination *destination, __u8 family)
{
	struct bpf_redir_neigh next = {};

	if (decrement_ttl((void *)(long)skb->data, (void *)(long)skb->data_end, family))
		return TC_ACT_SHOT;
	next.nh_family = destination->family;
	__builtin_memcpy(next.ipv6_nh, &destination->next_hop, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(destination->interface, &next, sizeof(next), 0);
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
