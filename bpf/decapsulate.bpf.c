// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands in for tunnel devices on real servers, at TC ingress: in labs, and
 * where the kernel has none.
 *
 * A packet to an address of the real server's own that carries another one is
 * taken out of its wrapping and handed in by another device (a lab's tunl0), or
 * by that which it came by, as if ipip, ip_gre or fou had done it: IPv4 and
 * IPv6, in either, by IPIP, GRE
 * (RFC 2784, 2890) and GUE (draft-ietf-intarea-gue, as net/ipv4/fou_core.c
 * has it, with remote checksum offload).  Fragments are left to the stack, and
 * congestion marks of the outer header not taken over (RFC 6040).
 */
#include <stddef.h>
#include "envelope.h"

#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2
#define PACKET_HOST 0
#define GUE_PORTS 8

#define TAKES_IPIP 1
#define TAKES_GRE 2

/* Written before loading (realserver/decapsulator.py). */
const volatile struct {
	__u32 interface;      /* by which packets are handed in; 0: by that which they came by */
	__u32 kinds;          /* TAKES_ bits */
	__be16 gue_ports[GUE_PORTS]; /* 0: none */
} configuration SEC(".rodata.configuration") = {};

#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_VERSION_AND_ROUTING 0x4007 /* not 0: another protocol (PPTP), or long forbidden */

struct gre_header {
	__be16 flags;
	__be16 protocol;
	__be16 checksum; /* from here on only by flags */
};

struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
};

#define GUE_LENGTH 0x1f
#define GUE_CONTROL 0x20
#define GUE_VARIANT_SHIFT 6
#define GUE_PRIVATE 0x0001     /* the only flag that fou knows */
#define GUE_REMCSUM 0x80000000 /* and its only private one */

/* With the options in the order in which fou has them. */
struct gue_header {
	__u8 variant_length;
	__u8 protocol;
	__be16 flags;
	__be32 private_flags;
	__be16 checksum_start;
	__be16 checksum_offset;
};

#define GUE_BASE offsetof(struct gue_header, private_flags)
#define GUE_PRIVATE_END offsetof(struct gue_header, checksum_start)

static __always_inline enum step open_gre(struct __sk_buff *skb, struct envelope *envelope)
{
	struct gre_header gre = {};
	__u32 size = offsetof(struct gre_header, checksum);
	__u16 flags;

	if (bpf_skb_load_bytes(skb, envelope->content, &gre, size))
		return MALFORMED;
	flags = bpf_ntohs(gre.flags);
	if (flags & GRE_VERSION_AND_ROUTING)
		return STRANGE;
	if (gre.protocol == bpf_htons(ETH_P_IP))
		envelope->protocol = PROTOCOL_IPIP;
	else if (gre.protocol == bpf_htons(ETH_P_IPV6))
		envelope->protocol = PROTOCOL_IPV6;
	else
		return STRANGE;
	/* Each field is followed by, or fills, a word. */
	size += 4 * (!!(flags & GRE_CHECKSUM) + !!(flags & GRE_KEY) + !!(flags & GRE_SEQUENCE));
	if (envelope->content + size > envelope->end)
		return MALFORMED;
	if (flags & GRE_CHECKSUM &&
	    !adds_up(skb, envelope, envelope->content + offsetof(struct gre_header, checksum), 0))
		return MALFORMED;
	envelope->content += size;
	return OPENED;
}

static __always_inline int is_gue_port(__be16 port)
{
	int found = 0;

	for (int i = 0; i < GUE_PORTS; i++)
		found |= port == configuration.gue_ports[i];
	return found && port;
}

/*
 * Remote checksum offload: the checksum at `offset` holds what its pseudo-header
 * adds up to, and is to be made over everything from `start`, both counted from
 * where the content begins (skb_remcsum_process()).
 */
static __always_inline enum step complete_checksum(struct __sk_buff *skb,
						   const struct envelope *envelope, __u32 start,
						   __u32 offset)
{
	__u32 field = envelope->content + offset;
	__u16 checksum;
	int sum;

	if (envelope->content + start > envelope->end || field + sizeof(checksum) > envelope->end)
		return MALFORMED;
	/* A segmentation super-packet's is made where it is cut up, or never needed.  That of
	 * others has to be made even where a checksum is pending: it may be the outer one. */
	if (skb->gso_size)
		return OPENED;
	sum = sum_bytes(skb, envelope->content + start, envelope->end);
	if (sum < 0)
		return MALFORMED;
	checksum = ~sum;
	return bpf_skb_store_bytes(skb, field, &checksum, sizeof(checksum), 0) ? MALFORMED :
										 OPENED;
}

/* Variant 0: a header with options before the packet. */
static __always_inline enum step open_gue_header(struct __sk_buff *skb, struct envelope *envelope)
{
	__u32 size, options, header = envelope->content, remote = 0;
	struct gue_header gue = {};

	if (bpf_skb_load_bytes(skb, header, &gue, GUE_BASE))
		return MALFORMED;
	options = (gue.variant_length & GUE_LENGTH) * 4;
	size = GUE_BASE + options;
	/* fou has nothing to do with control messages. */
	if (header + size > envelope->end || gue.variant_length & GUE_CONTROL ||
	    gue.flags & ~bpf_htons(GUE_PRIVATE))
		return MALFORMED;
	if (gue.flags) {
		if (size < GUE_PRIVATE_END ||
		    bpf_skb_load_bytes(skb, header + GUE_BASE, &gue.private_flags,
				       sizeof(gue.private_flags)) ||
		    gue.private_flags & ~bpf_htonl(GUE_REMCSUM))
			return MALFORMED;
		remote = gue.private_flags;
	}
	if (remote && (size < sizeof(gue) ||
		       bpf_skb_load_bytes(skb, header + GUE_PRIVATE_END, &gue.checksum_start,
					  2 * sizeof(gue.checksum_start))))
		return MALFORMED;
	envelope->content = header + size;
	envelope->protocol = gue.protocol;
	if (envelope->protocol != PROTOCOL_IPIP && envelope->protocol != PROTOCOL_IPV6)
		return MALFORMED;
	if (!remote)
		return OPENED;
	return complete_checksum(skb, envelope, bpf_ntohs(gue.checksum_start),
				 bpf_ntohs(gue.checksum_offset));
}

static __always_inline enum step open_gue(struct __sk_buff *skb, struct envelope *envelope)
{
	struct udp_header udp;
	__u32 length;
	__u8 first;

	if (bpf_skb_load_bytes(skb, envelope->content, &udp, sizeof(udp)) ||
	    !is_gue_port(udp.destination))
		return STRANGE;
	length = bpf_ntohs(udp.length);
	if (length < sizeof(udp) || envelope->content + length > envelope->end)
		return MALFORMED;
	envelope->end = envelope->content + length;
	if (udp.checksum &&
	    !adds_up(skb, envelope, envelope->content + offsetof(struct udp_header, checksum),
		     envelope->pseudo + udp.length + bpf_htons(PROTOCOL_UDP)))
		return MALFORMED;
	envelope->content += sizeof(udp);
	if (envelope->content >= envelope->end ||
	    bpf_skb_load_bytes(skb, envelope->content, &first, sizeof(first)))
		return MALFORMED;
	if (first >> GUE_VARIANT_SHIFT == 0)
		return open_gue_header(skb, envelope);
	/* Variant 1: the packet itself, whose version begins with the bits 01. */
	envelope->protocol = first >> 4 == 4 ? PROTOCOL_IPIP : PROTOCOL_IPV6;
	return first >> 4 == 4 || first >> 4 == 6 ? OPENED : MALFORMED;
}

/* Is what has come out a whole packet of its kind, as far as its IP header tells? */
static __always_inline int is_whole(struct __sk_buff *skb, const struct envelope *envelope)
{
	__u32 room = envelope->end - envelope->content;
	struct ipv6hdr ip6;
	struct iphdr ip;
	__u32 length;

	if (envelope->protocol == PROTOCOL_IPIP) {
		if (room < sizeof(ip) ||
		    bpf_skb_load_bytes(skb, envelope->content, &ip, sizeof(ip)))
			return 0;
		length = length_told(skb, bpf_ntohs(ip.tot_len), room);
		return ip.version == 4 && ip.ihl >= 5 && length >= ip.ihl * 4 && length <= room;
	}
	if (room < sizeof(ip6) || bpf_skb_load_bytes(skb, envelope->content, &ip6, sizeof(ip6)))
		return 0;
	return ip6.version == 6 && bpf_ntohs(ip6.payload_len) <= room - sizeof(ip6);
}

/* From Linux 6.3 on: what the packet is afterwards.  Before, only its MAC header tells. */
#define ROOM_DECAP_IPV4 (1ULL << 7)
#define ROOM_DECAP_IPV6 (1ULL << 8)

/* Take `wrapping` bytes off behind the MAC header; not 0 where that cannot be. */
static __always_inline int take_off(struct __sk_buff *skb, int wrapping, __u64 kind)
{
	const __u32 least = IP_HEADER + sizeof(struct ipv6hdr);

	if (!bpf_skb_adjust_room(skb, -wrapping, BPF_ADJ_ROOM_MAC,
				 BPF_F_ADJ_ROOM_FIXED_GSO | kind))
		return 0;
	/* An older kernel takes no kind, and leaves no less than the outer IP header's
	 * size: padding makes up for it, which the stack will cut off. */
	if (skb->len - wrapping < least && bpf_skb_change_tail(skb, wrapping + least, 0))
		return -1;
	return bpf_skb_adjust_room(skb, -wrapping, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Take everything before the content away and hand the rest in by tunl0. */
static __always_inline int hand_in(struct __sk_buff *skb, const struct envelope *envelope)
{
	int wrapping = envelope->content - IP_HEADER;
	int v4 = envelope->protocol == PROTOCOL_IPIP;
	__be16 protocol = v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	__u64 kind = v4 ? ROOM_DECAP_IPV4 : ROOM_DECAP_IPV6;

	if (take_off(skb, wrapping, kind) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol,
				sizeof(protocol), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(configuration.interface ? configuration.interface : skb->ifindex,
			    BPF_F_INGRESS);
}

SEC("tc")
int xlvs_decapsulate(struct __sk_buff *skb)
{
	struct envelope envelope = {};
	enum step step = STRANGE;

	/* VLAN-tagged frames belong to the VLAN device above. */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->len < IP_HEADER)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		step = open_ipv4(skb, &envelope);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		step = open_ipv6(skb, &envelope);
	if (step != OPENED)
		return TC_ACT_UNSPEC;

	if (envelope.protocol == PROTOCOL_GRE)
		step = configuration.kinds & TAKES_GRE ? open_gre(skb, &envelope) : STRANGE;
	else if (envelope.protocol == PROTOCOL_UDP)
		step = open_gue(skb, &envelope);
	else if (envelope.protocol != PROTOCOL_IPIP && envelope.protocol != PROTOCOL_IPV6)
		step = STRANGE;
	else if (!(configuration.kinds & TAKES_IPIP))
		step = STRANGE;
	if (step == STRANGE)
		return TC_ACT_UNSPEC;
	if (step == MALFORMED || !is_whole(skb, &envelope))
		return TC_ACT_SHOT;
	return hand_in(skb, &envelope);
}

char decapsulate_license[] SEC("license") = "GPL";
