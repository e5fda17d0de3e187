/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tunnelling at TC: IPv4 or IPv6 in either, by IPIP, GUE or GRE, with the
 * outer header as the kernel makes it (ip_vs_tunnel_xmit(), ip_vs_xmit.c).
 */
#ifndef XLVS_TUNNEL_H
#define XLVS_TUNNEL_H

#include "checksum.h"
#include "conn.h"
#include "forward.h"
#include "maps.h"
#include "parse.h"

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define PROTOCOL_GRE 47
#define LOWEST_SOURCE_PORT 32768 /* net.ipv4.ip_local_port_range */
#define SOURCE_PORTS 28232
#define ECN_MASK 3
#define ECN_CAPABLE 2
#define ECN_EXPERIENCED 3

struct udp_header {
	struct ports ports;
	__be16 length;
	__be16 checksum;
};

/* Variant 0, no options (draft-ietf-intarea-gue). */
struct gue_header {
	__u8 version_length;
	__u8 protocol;
	__be16 flags;
};

struct gre_header {
	__be16 flags;
	__be16 protocol;
};

/* What stands between the outer IP header and the packet, at most. */
struct wrapping {
	union {
		struct {
			struct udp_header udp;
			struct gue_header gue;
		};
		struct gre_header gre;
	};
};

static __always_inline __u32 wrapping_size(__u8 kind)
{
	return kind == TUNNEL_GUE ? sizeof(struct wrapping) :
	       kind == TUNNEL_GRE ? sizeof(struct gre_header) : 0;
}

static __always_inline __u32 outer_size(__u8 family)
{
	return family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* What a tunnel takes away from the MTU. */
static __always_inline __u32 tunnel_overhead(const struct destination *destination)
{
	return outer_size(destination->family) + wrapping_size(destination->tunnel_kind);
}

static __always_inline __u64 room_flags(const struct destination *destination)
{
	__u64 flags = destination->family == AF_INET ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 :
						       BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

	if (destination->tunnel_kind == TUNNEL_GUE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			 BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct gue_header));
	else if (destination->tunnel_kind == TUNNEL_GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	return flags;
}

static __always_inline void fill_wrapping(const struct packet *packet,
					  const struct destination *destination,
					  struct wrapping *wrapping)
{
	int v4 = packet->flow.family == AF_INET;

	if (destination->tunnel_kind == TUNNEL_GRE) {
		wrapping->gre.protocol = bpf_htons(v4 ? ETH_P_IP : ETH_P_IPV6);
		return;
	}
	wrapping->udp.ports.source =
		bpf_htons(LOWEST_SOURCE_PORT +
			  ((flow_hash(&packet->flow) >> 32) * SOURCE_PORTS >> 32));
	wrapping->udp.ports.destination = destination->tunnel_port;
	wrapping->udp.length = bpf_htons(packet->bytes + sizeof(*wrapping));
	wrapping->gue.protocol = v4 ? PROTOCOL_IPIP : PROTOCOL_IPV6;
}

static __always_inline __u8 outer_protocol(const struct packet *packet, __u8 kind)
{
	if (kind == TUNNEL_GUE)
		return PROTOCOL_UDP;
	if (kind == TUNNEL_GRE)
		return PROTOCOL_GRE;
	return packet->flow.family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6;
}

/* RFC 3168, full functionality: "congestion experienced" stays inside. */
static __always_inline __u8 outer_tos(const struct packet *packet)
{
	return (packet->tos & ECN_MASK) == ECN_EXPERIENCED ?
		       (packet->tos & ~ECN_MASK) | ECN_CAPABLE :
		       packet->tos;
}

static __always_inline int write_outer_ipv4(struct __sk_buff *skb, const struct packet *packet,
					    const struct destination *destination, __u32 length)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tos = outer_tos(packet),
		.tot_len = bpf_htons(sizeof(ip) + length),
		.id = bpf_get_prandom_u32(),
		.ttl = packet->ttl - 1,
		.protocol = outer_protocol(packet, destination->tunnel_kind),
		.saddr = destination->tunnel_source.v4,
		.daddr = destination->address.v4,
	};

	if (packet->whole && packet->flow.family == AF_INET)
		ip.frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip), 0);
}

static __always_inline int write_outer_ipv6(struct __sk_buff *skb, const struct packet *packet,
					    const struct destination *destination, __u32 length)
{
	__u8 tos = outer_tos(packet);
	struct ipv6hdr ip = {
		.version = 6,
		.priority = tos >> 4,
		.flow_lbl = { tos << 4 },
		.payload_len = bpf_htons(length),
		.nexthdr = outer_protocol(packet, destination->tunnel_kind),
		.hop_limit = packet->ttl - 1,
	};

	__builtin_memcpy(&ip.saddr, &destination->tunnel_source, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &destination->address, sizeof(ip.daddr));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip), 0);
}

/* Wrap a client's packet and send it to its real server; returns the verdict. */
__attribute__((noinline)) int tc_tunnel(struct __sk_buff *skb, const struct packet *packet,
					__u32 destination_index)
{
	struct destination *destination =
		bpf_map_lookup_elem(&destinations, &destination_index);
	struct wrapping wrapping = {};
	struct bpf_redir_neigh next = {};
	__u32 inner, outer, size;
	__be16 protocol;
	int failed;

	if (!packet || !destination ||
	    decrement_ttl((void *)(long)skb->data, (void *)(long)skb->data_end,
			  packet->flow.family))
		return TC_ACT_SHOT;
	outer = outer_size(destination->family);
	inner = wrapping_size(destination->tunnel_kind);
	if (bpf_skb_adjust_room(skb, outer + inner, BPF_ADJ_ROOM_MAC, room_flags(destination)))
		return TC_ACT_SHOT;
	fill_wrapping(packet, destination, &wrapping);
	size = packet->bytes + inner;
	if (destination->family == AF_INET) {
		failed = write_outer_ipv4(skb, packet, destination, size);
		protocol = bpf_htons(ETH_P_IP);
	} else {
		failed = write_outer_ipv6(skb, packet, destination, size);
		protocol = bpf_htons(ETH_P_IPV6);
	}
	if (!failed && destination->tunnel_kind == TUNNEL_GUE)
		failed = bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + outer, &wrapping,
					     sizeof(wrapping), 0);
	else if (!failed && destination->tunnel_kind == TUNNEL_GRE)
		failed = bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + outer, &wrapping,
					     sizeof(wrapping.gre), 0);
	if (failed || bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol,
					  sizeof(protocol), 0))
		return TC_ACT_SHOT;
	next.nh_family = destination->family;
	__builtin_memcpy(next.ipv6_nh, &destination->next_hop, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(destination->interface, &next, sizeof(next), 0);
}

#endif
