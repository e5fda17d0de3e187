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
#include "sysctl.h"
#include "tunnel_checksum.h"

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

#define GUE_PRIVATE 0x0001             /* in `flags`: private flags follow */
#define GUE_REMOTE_CHECKSUM 0x80000000 /* in those: a `struct gue_remote` follows */

/* Variant 0 (draft-ietf-intarea-gue). */
struct gue_header {
	__u8 version_length; /* of what follows, in words */
	__u8 protocol;
	__be16 flags;
};

/* Where the packet inside has an open checksum (draft-herbert-remotecsumoffload). */
struct gue_remote {
	__be32 private_flags;
	__be16 start; /* from the inner IP header */
	__be16 field;
};

#define GRE_CHECKSUM 0x8000

/* RFC 2784; the second half is there with GRE_CHECKSUM. */
struct gre_header {
	__be16 flags;
	__be16 protocol;
	__be16 checksum;
	__be16 reserved;
};

/* What stands between the outer IP header and the packet, at most. */
struct wrapping {
	union {
		struct {
			struct udp_header udp;
			struct gue_header gue;
			struct gue_remote remote;
		};
		struct gre_header gre;
	};
};

_Static_assert(sizeof(struct udp_header) + sizeof(struct gue_header) == GUE_PLAIN_SIZE, "GUE's headers");
_Static_assert(offsetof(struct gre_header, checksum) == GRE_PLAIN_SIZE, "GRE's header");

static __always_inline __u32 wrapping_size(__u8 kind, __u8 checksum, int remote)
{
	if (kind == TUNNEL_GUE)
		return GUE_PLAIN_SIZE + (remote ? sizeof(struct gue_remote) : 0);
	if (kind == TUNNEL_GRE)
		return checksum ? sizeof(struct gre_header) : GRE_PLAIN_SIZE;
	return 0;
}

static __always_inline __u32 outer_size(__u8 family)
{
	return family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline int leaves_checksum_open(struct __sk_buff *skb,
						const struct packet *packet,
						const struct destination *destination)
{
	return destination->tunnel_checksum == TUNNEL_REMOTE_CHECKSUM && is_open(skb, packet);
}

/* What a tunnel takes away from the MTU for a packet. */
static __always_inline __u32 tunnel_overhead(struct __sk_buff *skb, const struct packet *packet,
					     const struct destination *destination)
{
	return outer_size(destination->family) +
	       wrapping_size(destination->tunnel_kind, destination->tunnel_checksum,
			     leaves_checksum_open(skb, packet, destination));
}

static __always_inline __u64 room_flags(const struct packet *packet,
					const struct destination *destination, __u32 wrapping)
{
	__u64 flags = destination->family == AF_INET ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 :
						       BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

	if (destination->tunnel_kind == TUNNEL_GUE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			 BPF_F_ADJ_ROOM_ENCAP_L2((__u64)wrapping - sizeof(struct udp_header));
	else if (destination->tunnel_kind == TUNNEL_GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	/* Segments of TCP become smaller, so that they fit; datagrams are as they are. */
	if (packet->flow.protocol == PROTOCOL_UDP)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	return flags;
}

/* All packets of a flow have one, so that they stay in order; flows are spread over many, by their
 * clients' addresses and ports. */
static __always_inline __be16 gue_source_port(const struct flow *flow)
{
	const __u64 *word = (const __u64 *)flow;
	__u64 hash = word[0] * limits.hash_factor[0] + word[FLOW_ENDS] * limits.hash_factor[FLOW_ENDS];

	if (flow->family != FAMILY_IPV4)
		hash += word[1] * limits.hash_factor[1];
	return bpf_htons(LOWEST_SOURCE_PORT + ((hash >> 32) * SOURCE_PORTS >> 32));
}

static __always_inline void fill_gue(const struct packet *packet,
				     const struct destination *destination, __u32 size,
				     int remote, struct wrapping *wrapping)
{
	__u32 start = packet->transport - sizeof(struct ethhdr);

	wrapping->udp.ports.source = gue_source_port(&packet->flow);
	wrapping->udp.ports.destination = destination->tunnel_port;
	wrapping->udp.length = bpf_htons(packet->bytes + size);
	wrapping->gue.protocol =
		packet->flow.family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6;
	if (!remote)
		return;
	wrapping->gue.version_length = sizeof(struct gue_remote) / 4;
	wrapping->gue.flags = bpf_htons(GUE_PRIVATE);
	wrapping->remote.private_flags = bpf_htonl(GUE_REMOTE_CHECKSUM);
	wrapping->remote.start = bpf_htons(start);
	wrapping->remote.field = bpf_htons(checksum_field(packet) - sizeof(struct ethhdr));
}

static __always_inline void fill_gre(const struct packet *packet,
				     const struct destination *destination,
				     struct wrapping *wrapping)
{
	if (destination->tunnel_checksum)
		wrapping->gre.flags = bpf_htons(GRE_CHECKSUM);
	wrapping->gre.protocol =
		bpf_htons(packet->flow.family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
}

/* `inner` is the sum of the packet inside, `size` the wrapping's. */
static __always_inline void fill_checksum(const struct packet *packet,
					  const struct destination *destination, __u32 inner,
					  __u32 size, struct wrapping *wrapping)
{
	/* What the wrapping does not use is zero, and adds nothing. */
	__u64 sum = (__u64)inner +
		    (__u32)bpf_csum_diff(0, 0, (__be32 *)wrapping, sizeof(*wrapping), 0);

	if (destination->tunnel_kind == TUNNEL_GRE) {
		wrapping->gre.checksum = checksum_of(sum);
		return;
	}
	sum += sum_pseudo_header(&destination->own_address, &destination->address, PROTOCOL_UDP,
				 packet->bytes + size);
	wrapping->udp.checksum = checksum_of(sum);
}

/* `family` is that of the packet inside. */
static __always_inline __u8 outer_protocol(__u8 family, __u8 kind)
{
	if (kind == TUNNEL_GUE)
		return PROTOCOL_UDP;
	if (kind == TUNNEL_GRE)
		return PROTOCOL_GRE;
	return family == AF_INET ? PROTOCOL_IPIP : PROTOCOL_IPV6;
}

/* RFC 3168, full functionality: "congestion experienced" stays inside. */
static __always_inline __u8 outer_tos(__u8 tos)
{
	return (tos & ECN_MASK) == ECN_EXPERIENCED ? (tos & ~ECN_MASK) | ECN_CAPABLE : tos;
}

/* Whether the outer header says that nobody may fragment the packet: as the client's says,
 * unless pmtu_disc is 0. */
static __always_inline int is_whole_outside(const struct packet *packet)
{
	return packet->whole && packet->flow.family == AF_INET && is_set(SYSCTL_PMTU_DISC);
}

/* Whether a packet has to be fragmented with its outer headers, by the stack. */
static __always_inline int needs_cutting(struct __sk_buff *skb, const struct packet *packet,
					 const struct destination *destination, __u32 overhead)
{
	return destination->family == AF_INET && destination->mtu && !skb->gso_size &&
	       packet->bytes + overhead > destination->mtu && !is_whole_outside(packet);
}

static __always_inline int write_outer_ipv4(struct __sk_buff *skb, const struct packet *packet,
					    const struct destination *destination, __u32 length)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tos = outer_tos(packet->tos),
		.tot_len = bpf_htons(sizeof(ip) + length),
		.id = bpf_get_prandom_u32(),
		/* The stack takes a hop off, too. */
		.ttl = packet->ttl -
		       !needs_cutting(skb, packet, destination, sizeof(ip) + length - packet->bytes),
		.protocol = outer_protocol(packet->flow.family, destination->tunnel_kind),
		.saddr = destination->own_address.v4,
		.daddr = destination->address.v4,
	};

	if (is_whole_outside(packet))
		ip.frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip),
				   BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int write_outer_ipv6(struct __sk_buff *skb, const struct packet *packet,
					    const struct destination *destination, __u32 length)
{
	__u8 tos = outer_tos(packet->tos);
	struct ipv6hdr ip = {
		.version = 6,
		.priority = tos >> 4,
		.flow_lbl = { tos << 4 },
		.payload_len = bpf_htons(length),
		.nexthdr = outer_protocol(packet->flow.family, destination->tunnel_kind),
		.hop_limit = packet->ttl - 1,
	};

	__builtin_memcpy(&ip.saddr, &destination->own_address, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &destination->address, sizeof(ip.daddr));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip),
				   BPF_F_RECOMPUTE_CSUM);
}

/* `size` is one of wrapping_size(). */
static __always_inline int write_wrapping(struct __sk_buff *skb, __u32 offset,
					  const struct wrapping *wrapping, __u64 size)
{
	asm volatile("" : "+r"(size));
	if (size > sizeof(*wrapping))
		return -1;
	asm volatile("" : "+r"(size));
	if (size < GRE_PLAIN_SIZE)
		return -1;
	return bpf_skb_store_bytes(skb, offset, wrapping, size, BPF_F_RECOMPUTE_CSUM);
}

/* A tunnel's source address is known once there was a route at adding or editing. */
static __always_inline int has_source(const struct destination *destination)
{
	return destination->own_address.half[0] | destination->own_address.half[1] ? 1 : 0;
}

/* Tells wrap() that the tunnel's header has no checksum; it may be 0 otherwise. */
#define UNCHECKED (-1)

/*
 * Write the outer headers before a packet, in the room made for them; 0, or -1
 * where that can't be done.  `inner` is the packet's sum, for the checksum, or
 * UNCHECKED.
 */
__attribute__((noinline)) int wrap(struct __sk_buff *skb, const struct packet *packet,
				   __u32 destination_index, int inner, int remote)
{
	struct destination *destination =
		bpf_map_lookup_elem(&destinations, &destination_index);
	struct wrapping wrapping = {};
	__u32 size, outer;
	__be16 protocol;

	if (!packet || !destination)
		return -1;
	outer = outer_size(destination->family);
	size = wrapping_size(destination->tunnel_kind, destination->tunnel_checksum, remote);
	if (destination->tunnel_kind == TUNNEL_GUE)
		fill_gue(packet, destination, size, remote, &wrapping);
	else if (destination->tunnel_kind == TUNNEL_GRE)
		fill_gre(packet, destination, &wrapping);
	if (inner >= 0)
		fill_checksum(packet, destination, inner, size, &wrapping);
	if (size && write_wrapping(skb, sizeof(struct ethhdr) + outer, &wrapping, size))
		return -1;
	protocol = bpf_htons(destination->family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol,
				sizeof(protocol), 0))
		return -1;
	return destination->family == AF_INET ?
		       write_outer_ipv4(skb, packet, destination, packet->bytes + size) :
		       write_outer_ipv6(skb, packet, destination, packet->bytes + size);
}

/*
 * Wrap a client's packet and send it to its real server; returns the verdict.
 *
 * A packet of several segments (GRO) is cut up by the device, which copies the
 * wrapping to each: BPF cannot ask it for a checksum.  GUE then has none, which
 * receivers take; one of GRE is made so that it fits all segments of full size.
 * One that is too long for the way, and may be fragmented, comes in again by lo, as
 * from the director to the real server: BPF cannot cut it up, the stack can.
 *
 * `by_macs`: the way is known, and fresh enough not to ask the kernel's neighbour entry.
 */
__attribute__((noinline)) int tc_tunnel(struct __sk_buff *skb, const struct packet *packet,
					__u32 destination_index, int by_macs)
{
	struct destination *destination =
		bpf_map_lookup_elem(&destinations, &destination_index);
	__u32 room, size, segmented = skb->gso_size;
	int remote, checked, inner = UNCHECKED;

	if (!packet || !destination ||
	    take_hop(skb, packet->flow.family))
		return TC_ACT_SHOT;
	if (!has_source(destination)) {
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	checked = destination->tunnel_checksum && destination->tunnel_kind != TUNNEL_IPIP;
	if (checked && segmented && destination->tunnel_kind == TUNNEL_GUE) {
		COUNT_EVENT(unchecked);
		checked = 0;
	}
	remote = checked && leaves_checksum_open(skb, packet, destination);
	if (checked && !segmented) {
		inner = sum_packet(skb, packet, remote);
		if (inner < 0)
			return TC_ACT_SHOT;
	}
	size = wrapping_size(destination->tunnel_kind, destination->tunnel_checksum, remote);
	room = size + outer_size(destination->family);
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC,
				room_flags(packet, destination, size)))
		return TC_ACT_SHOT;
	if (checked && segmented) {
		inner = sum_segment(skb, packet, room);
		if (inner < 0)
			return TC_ACT_SHOT;
	}
	if (wrap(skb, packet, destination_index, inner, remote))
		return TC_ACT_SHOT;
	if (needs_cutting(skb, packet, destination, room))
		return tc_to_self(skb);
	return by_macs ? tc_by_macs(skb, destination) : tc_to_next_hop(skb, destination);
}

#endif
