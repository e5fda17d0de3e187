/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address and port translation at TC.  The kernel's helpers keep checksums
 * right whether they are complete or left to the outgoing device.
 */
#ifndef XLVS_NAT_H
#define XLVS_NAT_H

#include <stddef.h>
#include "maps.h"
#include "parse.h"

#define TCP_CHECKSUM_OFFSET offsetof(struct tcp_header, checksum)
#define UDP_CHECKSUM_OFFSET 6

enum nat_side {
	NAT_SOURCE,
	NAT_DESTINATION,
};

struct translation {
	union address from;
	union address to;
	__be16 from_port;
	__be16 to_port;
	__u32 side;
};

static __always_inline int translate_ipv4(struct __sk_buff *skb, const struct translation *change,
					  __u32 checksum, __u64 flags)
{
	const __u32 ip = sizeof(struct ethhdr);
	__u32 field = ip + (change->side == NAT_SOURCE ? offsetof(struct iphdr, saddr) :
							 offsetof(struct iphdr, daddr));

	if (bpf_l4_csum_replace(skb, checksum, change->from.v4, change->to.v4,
				flags | BPF_F_PSEUDO_HDR | sizeof(__be32)) ||
	    bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), change->from.v4,
				change->to.v4, sizeof(__be32)))
		return -1;
	return bpf_skb_store_bytes(skb, field, &change->to.v4, sizeof(__be32), 0);
}

static __always_inline int translate_ipv6(struct __sk_buff *skb, const struct translation *change,
					  __u32 checksum, __u64 flags)
{
	__u32 field = sizeof(struct ethhdr) +
		      (change->side == NAT_SOURCE ? offsetof(struct ipv6hdr, saddr) :
						    offsetof(struct ipv6hdr, daddr));
	__s64 difference = bpf_csum_diff((__be32 *)change->from.word, sizeof(change->from),
					 (__be32 *)change->to.word, sizeof(change->to), 0);

	if (difference < 0 ||
	    bpf_l4_csum_replace(skb, checksum, 0, difference, flags | BPF_F_PSEUDO_HDR))
		return -1;
	return bpf_skb_store_bytes(skb, field, &change->to, sizeof(change->to), 0);
}

/* Replace one side's address and port; 0, or -1 where the packet can't be changed. */
static __always_inline int translate(struct __sk_buff *skb, const struct packet *packet,
				     const struct translation *change)
{
	int is_tcp = packet->flow.protocol == PROTOCOL_TCP;
	__u32 checksum =
		packet->transport + (is_tcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
	/* A UDP checksum of 0 means none, and must neither appear nor go. */
	__u64 flags = is_tcp ? 0 : BPF_F_MARK_MANGLED_0;
	__u32 port = packet->transport + (change->side == NAT_SOURCE ?
						  offsetof(struct ports, source) :
						  offsetof(struct ports, destination));
	int failed;

	failed = packet->flow.family == AF_INET ?
			 translate_ipv4(skb, change, checksum, flags) :
			 translate_ipv6(skb, change, checksum, flags);
	if (failed)
		return -1;
	if (change->from_port == change->to_port)
		return 0;
	if (bpf_l4_csum_replace(skb, checksum, change->from_port, change->to_port,
				flags | sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, port, &change->to_port, sizeof(__be16), 0);
}

#endif
