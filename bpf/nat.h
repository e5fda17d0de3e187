/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address and port translation at TC.  The kernel's helpers keep checksums
 * right whether they are complete or left to the outgoing device.
 */
#ifndef XLVS_NAT_H
#define XLVS_NAT_H

#include <stddef.h>
#include "checksum.h"
#include "maps.h"
#include "parse.h"
#include "sctp.h"

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

/* Change one side's address in the IP header alone: a later fragment has no more to
 * translate, and SCTP's checksum does not cover it. */
static __always_inline int translate_address(struct __sk_buff *skb, const struct packet *packet,
					     const union address *to, __u32 side)
{
	const __u32 ip = sizeof(struct ethhdr);
	__u32 field;
	__be32 from;

	if (packet->flow.family == AF_INET6) {
		field = ip + (side == NAT_SOURCE ? offsetof(struct ipv6hdr, saddr) :
						   offsetof(struct ipv6hdr, daddr));
		return bpf_skb_store_bytes(skb, field, to, sizeof(*to), 0);
	}
	field = ip + (side == NAT_SOURCE ? offsetof(struct iphdr, saddr) :
					   offsetof(struct iphdr, daddr));
	from = side == NAT_SOURCE ? packet->flow.client.v4 : packet->flow.virtual.v4;
	return bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), from, to->v4,
				   sizeof(__be32)) ||
	       bpf_skb_store_bytes(skb, field, &to->v4, sizeof(__be32), 0);
}

/*
 * Of SCTP; a first fragment's port can't be changed, because its checksum, which is
 * that of the whole packet, depends on the packet's length.
 */
static __always_inline int translate_sctp_port(struct __sk_buff *skb, const struct packet *packet,
					       const struct translation *change)
{
	int is_source = change->side == NAT_SOURCE;
	__u32 length = packet->bytes + sizeof(struct ethhdr) - packet->transport;
	__u32 field = packet->transport + offsetof(struct sctp_header, checksum);
	__u32 port = packet->transport + (is_source ? offsetof(struct sctp_header, source) :
						      offsetof(struct sctp_header, destination));
	__u32 checksum, difference = change->from_port ^ change->to_port;

	if (packet->fragment)
		return -1;
	/* Segments get theirs when they are cut. */
	if (!skb->gso_size && !checksum_is_left(skb, field)) {
		if (bpf_skb_load_bytes(skb, field, &checksum, sizeof(checksum)))
			return -1;
		checksum ^= crc32c_change(is_source ? difference : difference << 16, length);
		if (bpf_skb_store_bytes(skb, field, &checksum, sizeof(checksum), 0))
			return -1;
	}
	return bpf_skb_store_bytes(skb, port, &change->to_port, sizeof(__be16), 0);
}

static __always_inline int translate_sctp(struct __sk_buff *skb, const struct packet *packet,
					  const struct translation *change)
{
	if (translate_address(skb, packet, &change->to, change->side))
		return -1;
	return change->from_port == change->to_port ? 0 : translate_sctp_port(skb, packet, change);
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

	if (packet->flow.protocol == PROTOCOL_SCTP)
		return translate_sctp(skb, packet, change);
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
