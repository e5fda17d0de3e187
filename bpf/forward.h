/* SPDX-License-Identifier: GPL-2.0-only */
/* Forwarding methods: how a packet leaves for its real server. */
#ifndef XLVS_FORWARD_H
#define XLVS_FORWARD_H

#include "conn.h"
#include "headers.h"
#include "loopback.h"
#include "maps.h"
#include "nat.h"
#include "parse.h"
#include "reach.h"
#include "stats.h"

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

/* The same at TC, where a device may have summed the packet up: IPv4's header makes up
 * for its TTL, IPv6's has nothing that could. */
static __always_inline int take_hop(struct __sk_buff *skb, __u8 family)
{
	if (decrement_ttl((void *)(long)skb->data, (void *)(long)skb->data_end, family))
		return -1;
	if (family == AF_INET6)
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
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

/* A way out: what the routing table says of an address. */
struct way {
	__u32 interface;
	__u16 family; /* of the next hop */
	__u16 mtu;    /* 0 = not known */
	union address next_hop;
};

/* Not one of a packet's sources: where the way must not depend on that. */
#define ANY_SOURCE ((const union address *)0)

/* What a way is asked with: a function of BPF takes five arguments. */
static __always_inline __u32 family_and_length(__u8 family, __u32 length)
{
	return (__u32)family << 16 | (length > LONGEST_TOLD ? LONGEST_TOLD : length);
}

static __always_inline __u8 family_in(__u32 asked)
{
	return asked >> 16;
}

/*
 * Ask for the way to a client for a packet from `source`; 0, or what bpf_fib_lookup()
 * returns where there is none for it.  The source counts as in the kernel, whose
 * answers and errors go by routing rules for the VIP (kernel: ip_route_me_harder(),
 * icmp_route_lookup()).  `query` is zero; its MACs hold where the way's MTU is known.
 */
static __always_inline int ask_way(struct __sk_buff *skb, struct bpf_fib_lookup *query,
				   const union address *source, const union address *address,
				   __u32 asked, struct way *way)
{
	__u8 family = family_in(asked);
	int answer;

	if (source)
		set_source(query, source, family);
	answer = look_up_route_for(skb, query, address, family, (__u16)asked);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return answer;
	way->interface = query->ifindex;
	way->family = next_hop_of(query, &way->next_hop);
	/* Where no neighbour is known yet it says nothing of it. */
	way->mtu = answer == BPF_FIB_LKUP_RET_SUCCESS ? query->mtu_result : 0;
	return 0;
}

/* The same, for who has no room for the query. */
__attribute__((noinline)) int find_way(struct __sk_buff *skb, const union address *source,
				       const union address *address, __u32 asked, struct way *way)
{
	struct bpf_fib_lookup query = {};

	if (!address || !way)
		return BPF_FIB_LKUP_RET_UNREACHABLE;
	return ask_way(skb, &query, source, address, asked, way);
}

static __always_inline int send_on(const struct way *way)
{
	struct bpf_redir_neigh next = { .nh_family = way->family };

	__builtin_memcpy(next.ipv6_nh, &way->next_hop, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(way->interface, &next, sizeof(next), 0);
}

/* To a client, by the routing table, with that source. */
static __always_inline int tc_to(struct __sk_buff *skb, const union address *source,
				 const union address *address, __u8 family)
{
	struct way way = {};

	if (find_way(skb, source, address, family_and_length(family, 1), &way)) {
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	return send_on(&way);
}

/* As it is to a real server's next hop, by the way that refresh() found. */
static __always_inline int tc_to_next_hop(struct __sk_buff *skb,
					  const struct destination *destination)
{
	struct bpf_redir_neigh next = {
		.nh_family = destination->reach & REACH_BY_IPV6 ? AF_INET6 : destination->family,
	};

	__builtin_memcpy(next.ipv6_nh, &destination->next_hop, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(destination->interface, &next, sizeof(next), 0);
}

/* The same by the MACs that refresh() found: the neighbour entry is not asked, nor confirmed. */
static __always_inline int tc_by_macs(struct __sk_buff *skb, const struct destination *destination)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + sizeof(struct ethhdr) > end)
		return TC_ACT_SHOT;
	set_macs(data, destination->mac);
	return bpf_redirect(destination->interface, 0);
}

/* To a real server, with one hop less. */
static __always_inline int tc_to_destination(struct __sk_buff *skb, __u8 family,
					     const struct destination *destination)
{
	if (take_hop(skb, family))
		return TC_ACT_SHOT;
	return tc_to_next_hop(skb, destination);
}

/* Give a client's packet the address and port of its masqueraded real server. */
static __always_inline int translate_request(struct __sk_buff *skb, const struct packet *packet,
					     const struct destination *destination, __be16 port)
{
	struct translation change = {
		.from = packet->flow.virtual,
		.to = destination->address,
		.from_port = packet->flow.virtual_port,
		.to_port = port,
		.side = NAT_DESTINATION,
	};

	return translate(skb, packet, &change);
}

/* Whether an address is 127.0.0.0/8 or ::1. */
static __always_inline int is_loopback(const union address *address, __u8 family)
{
	if (family == AF_INET)
		return (bpf_ntohl(address->v4) >> 24) == 127;
	return address->half[0] == 0 && address->word[2] == 0 && address->word[3] == bpf_htonl(1);
}

/* The real server is the director itself: the stack goes on with the packet. */
static __always_inline int tc_to_local_server(struct __sk_buff *skb, const struct packet *packet,
					      const struct destination *destination,
					      __u32 method, __be16 port)
{
	if (method != METHOD_MASQUERADE)
		return NOT_OURS;
	/* From outside nothing comes to loopback addresses (kernel: ip_vs_nat_xmit()). */
	if ((!packet->own && is_loopback(&destination->address, destination->family)) ||
	    translate_request(skb, packet, destination, port)) {
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	return NOT_OURS;
}

#endif
