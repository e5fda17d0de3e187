/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about a connection go the way of its packets: from the client's
 * side to the real server, and from a masqueraded real server's side to the
 * client.  Path-MTU discovery depends on it.  What they quote is translated
 * as they are (kernel: ip_vs_in_icmp(), ip_vs_nat_icmp()).
 *
 * The quoted packet went the other way, so its flow, turned round, names the
 * entry: the forward one for an error from the client's side, the reply's for
 * one from the server's.
 */
#ifndef XLVS_RELATED_H
#define XLVS_RELATED_H

#include "answer.h"
#include "checksum.h"
#include "conn.h"
#include "forward.h"
#include "icmp.h"
#include "parse.h"
#include "tunnel.h"

struct related {
	struct packet outer; /* addresses, length and TTL of the error itself */
	struct flow flow;    /* of the quoted packet, turned round */
	__u16 icmp;          /* offsets from the frame's start */
	__u16 quoted;
	__u16 ports;
};

static __always_inline int is_ipv4_error(__u8 type)
{
	return type == 3 || type == 4 || type == 11;
}

static __always_inline int is_ipv6_error(__u8 type)
{
	return type < 128;
}

static __always_inline int parse_quoted_ports(void *header, void *end, struct related *related)
{
	struct ports *ports = header;

	if (!has_ports(related->flow.protocol))
		return -1;
	if ((void *)(ports + 1) > end)
		return -1;
	related->flow.client_port = ports->destination;
	related->flow.virtual_port = ports->source;
	return 0;
}

static __always_inline int parse_ipv4_error(void *data, void *end, struct related *related)
{
	struct iphdr *ip = data + sizeof(struct ethhdr), *quoted;
	struct icmp_header *icmp;
	__u32 length;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->protocol != PROTOCOL_ICMP ||
	    ip->frag_off & bpf_htons(IPV4_OFFSET_MASK | IPV4_MORE_FRAGMENTS))
		return -1;
	length = ip->ihl * 4;
	if (length < sizeof(*ip))
		return -1;
	icmp = (void *)ip + length;
	if ((void *)(icmp + 1) > end || !is_ipv4_error(icmp->type))
		return -1;
	related->outer.flow.family = AF_INET;
	related->outer.flow.client.v4 = ip->saddr;
	related->outer.flow.virtual.v4 = ip->daddr;
	related->outer.bytes = bpf_ntohs(ip->tot_len);
	related->outer.ttl = ip->ttl;
	related->outer.tos = ip->tos;
	related->outer.whole = !!(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	related->icmp = sizeof(struct ethhdr) + length;

	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end || quoted->version != 4 ||
	    quoted->frag_off & bpf_htons(IPV4_OFFSET_MASK))
		return -1;
	length = quoted->ihl * 4;
	if (length < sizeof(*quoted))
		return -1;
	related->quoted = related->icmp + sizeof(*icmp);
	related->ports = related->quoted + length;
	related->flow.family = AF_INET;
	related->flow.protocol = quoted->protocol;
	related->flow.client.v4 = quoted->daddr;
	related->flow.virtual.v4 = quoted->saddr;
	return parse_quoted_ports((void *)quoted + length, end, related);
}

static __always_inline int parse_ipv6_error(void *data, void *end, struct related *related)
{
	struct ipv6hdr *ip = data + sizeof(struct ethhdr), *quoted;
	struct icmp_header *icmp = (void *)(ip + 1);

	if ((void *)(icmp + 1) > end || ip->version != 6 || ip->nexthdr != PROTOCOL_ICMPV6 ||
	    !is_ipv6_error(icmp->type))
		return -1;
	related->outer.flow.family = AF_INET6;
	__builtin_memcpy(&related->outer.flow.client, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(&related->outer.flow.virtual, &ip->daddr, sizeof(ip->daddr));
	related->outer.bytes = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	related->outer.ttl = ip->hop_limit;
	related->outer.tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	related->outer.whole = 1;
	related->icmp = sizeof(struct ethhdr) + sizeof(*ip);

	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end || quoted->version != 6)
		return -1;
	related->quoted = related->icmp + sizeof(*icmp);
	related->ports = related->quoted + sizeof(*quoted);
	related->flow.family = AF_INET6;
	related->flow.protocol = quoted->nexthdr;
	__builtin_memcpy(&related->flow.client, &quoted->daddr, sizeof(quoted->daddr));
	__builtin_memcpy(&related->flow.virtual, &quoted->saddr, sizeof(quoted->saddr));
	return parse_quoted_ports(quoted + 1, end, related);
}

/* An ICMP error about a TCP, UDP or SCTP packet: 0 and `related` filled, else -1.
 * `length` is the frame's; what follows the IP packet in it is padding. */
static __always_inline int parse_error(void *data, void *end, __u32 length,
				       struct related *related)
{
	struct ethhdr *ethernet = data;
	__u32 packet_end;

	if ((void *)(ethernet + 1) > end)
		return -1;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (parse_ipv4_error(data, end, related))
			return -1;
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (parse_ipv6_error(data, end, related))
			return -1;
	} else {
		return -1;
	}
	packet_end = sizeof(*ethernet) + related->outer.bytes;
	return packet_end > length || related->ports + sizeof(struct ports) > packet_end ? -1 : 0;
}

/*
 * The setting schedule_icmp: an error from the client's side about an answer of no
 * connection that is known here begins one, so that it comes to the real server that
 * a hash names for the client, as it does on the director that the connection is on
 * (kernel: ip_vs_in_icmp(), ip_vs_try_to_schedule()).  Fills in `packet` for
 * connection_for(), and returns the slot of what is left of an entry of
 * its flow, or NOT_FOUND; or NOTHING_TO_SCHEDULE.
 */
#define NOTHING_TO_SCHEDULE (-2)

__attribute__((noinline)) int quoted_packet(struct __sk_buff *skb, struct packet *packet)
{
	struct related related = {};
	struct connection *entry;
	int slot;

	if (!packet || parse_error((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len,
				   &related))
		return NOTHING_TO_SCHEDULE;
	slot = conn_find(&related.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (entry && (is_reply(entry) || is_template(entry) || !has_ended(entry, ticks_now())))
		return NOTHING_TO_SCHEDULE;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->flow = related.flow;
	packet->bytes = related.outer.bytes;
	packet->ttl = related.outer.ttl;
	packet->tos = related.outer.tos;
	packet->quoted = 1;
	return slot;
}

/* The kernel translates no damaged ICMP error; it forwards one as it came. */
static __always_inline int is_damaged(struct __sk_buff *skb, const struct related *related)
{
	__u32 header = related->icmp - sizeof(struct ethhdr);

	return related->flow.family == AF_INET &&
	       sum_frame(skb, related->icmp, related->outer.bytes - header) != 0xffff;
}

/*
 * Give the error's one end and the quoted packet's the address and port in
 * `change`.  In IPv4 the quoted header's checksum makes up for its address, so
 * that of ICMP changes by the port alone.
 */
static __always_inline int translate_ipv4_error(struct __sk_buff *skb,
						const struct related *related,
						const struct translation *change)
{
	const __u32 ip = sizeof(struct ethhdr);
	int from_server = change->side == NAT_SOURCE;
	__u32 outer = ip + (from_server ? offsetof(struct iphdr, saddr) :
					  offsetof(struct iphdr, daddr));
	__u32 inner = related->quoted + (from_server ? offsetof(struct iphdr, daddr) :
						       offsetof(struct iphdr, saddr));
	__be32 before = from_server ? related->outer.flow.client.v4 :
				      related->outer.flow.virtual.v4;

	return bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), before,
				   change->to.v4, sizeof(__be32)) ||
	       bpf_skb_store_bytes(skb, outer, &change->to.v4, sizeof(__be32), 0) ||
	       bpf_l3_csum_replace(skb, related->quoted + offsetof(struct iphdr, check),
				   change->from.v4, change->to.v4, sizeof(__be32)) ||
	       bpf_skb_store_bytes(skb, inner, &change->to.v4, sizeof(__be32), 0);
}

static __always_inline int translate_ipv6_error(struct __sk_buff *skb,
						const struct related *related,
						const struct translation *change)
{
	const __u32 ip = sizeof(struct ethhdr);
	int from_server = change->side == NAT_SOURCE;
	__u32 checksum = related->icmp + offsetof(struct icmp_header, checksum);
	__u32 outer = ip + (from_server ? offsetof(struct ipv6hdr, saddr) :
					  offsetof(struct ipv6hdr, daddr));
	__u32 inner = related->quoted + (from_server ? offsetof(struct ipv6hdr, daddr) :
						       offsetof(struct ipv6hdr, saddr));
	union address before = from_server ? related->outer.flow.client :
					     related->outer.flow.virtual;
	__s64 header, quote;

	header = bpf_csum_diff(before.word, sizeof(before), (__be32 *)change->to.word,
			       sizeof(change->to), 0);
	quote = bpf_csum_diff((__be32 *)change->from.word, sizeof(change->from),
			      (__be32 *)change->to.word, sizeof(change->to), 0);
	return header < 0 || quote < 0 ||
	       replace_ipv6_address(skb, checksum, header, 0) ||
	       bpf_l4_csum_replace(skb, checksum, 0, quote, 0) ||
	       bpf_skb_store_bytes(skb, outer, &change->to, sizeof(change->to), 0) ||
	       bpf_skb_store_bytes(skb, inner, &change->to, sizeof(change->to), 0);
}

/* What an error about a packet of the entry in `slot` has to be changed by: the
 * forward entry for NAT_DESTINATION, the reply's for NAT_SOURCE. */
static __always_inline int translation_of(__u32 slot, __u32 side, struct translation *change)
{
	struct connection *found = conn_at(slot), *entry = found;
	struct destination *destination;
	__u32 index;

	if (found && side == NAT_SOURCE)
		entry = conn_of_reply(found);
	if (!entry)
		return -1;
	change->side = side;
	if (side == NAT_SOURCE) {
		change->from = found->flow.client;
		change->from_port = found->flow.client_port;
		change->to = entry->flow.virtual;
		change->to_port = entry->flow.virtual_port;
		return 0;
	}
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return -1;
	change->from = entry->flow.virtual;
	change->from_port = entry->flow.virtual_port;
	change->to = destination->address;
	change->to_port = entry->destination_port;
	return 0;
}

__attribute__((noinline)) int translate_error(struct __sk_buff *skb,
					      const struct related *related, __u32 slot,
					      __u32 side)
{
	struct translation change = {};
	__u32 port, checksum;

	if (!related || translation_of(slot, side, &change))
		return -1;
	port = related->ports + (side == NAT_SOURCE ? offsetof(struct ports, destination) :
						      offsetof(struct ports, source));
	checksum = related->icmp + offsetof(struct icmp_header, checksum);
	if (related->flow.family == AF_INET ? translate_ipv4_error(skb, related, &change) :
					      translate_ipv6_error(skb, related, &change))
		return -1;
	if (change.from_port == change.to_port)
		return 0;
	return bpf_l4_csum_replace(skb, checksum, change.from_port, change.to_port,
				   sizeof(__be16)) ||
	       bpf_skb_store_bytes(skb, port, &change.to_port, sizeof(__be16), 0);
}

#define TO_REAL_SERVER 0x100 /* no verdict of TC's */

/*
 * From the client's side: a verdict, or TO_REAL_SERVER once the error is ready.
 * To send it on is left to the caller: a tunnel's stack would not fit on ours.
 */
__attribute__((noinline)) int prepare_error(struct __sk_buff *skb, const struct related *related,
					    __u32 slot)
{
	struct connection *entry = conn_at(slot);
	struct destination *destination;
	__u32 index;
	int is_here;

	if (!related || !entry || has_ended(entry, ticks_now()))
		return NOT_OURS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return NOT_OURS;
	refresh(skb, destination, index);
	if (!(destination->reach & REACH_VIRTUAL_LOCAL))
		return NOT_OURS;
	is_here = !(destination->reach & REACH_ROUTE);
	if (!is_here && related->outer.own == OWN_LEAVING)
		return send_round(skb);
	if (control_method(load_control(entry)) == METHOD_MASQUERADE && is_damaged(skb, related))
		return TC_ACT_SHOT;
	count_inbound(destination, index, related->outer.bytes);
	if (is_here && !(destination->flags & DESTINATION_LOCAL))
		return TC_ACT_SHOT;
	if (!is_here && related->outer.ttl <= 1) {
		COUNT_EVENT(ttl_exceeded);
		return TC_ACT_SHOT;
	}
	if (control_method(load_control(entry)) == METHOD_MASQUERADE &&
	    translate_error(skb, related, slot, NAT_DESTINATION))
		return TC_ACT_SHOT;
	if (is_here)
		return NOT_OURS;
	COUNT_EVENT(forwarded);
	return TO_REAL_SERVER;
}

/* From a masqueraded real server's side, to the client. */
__attribute__((noinline)) int answer_error(struct __sk_buff *skb, const struct related *related,
					   __u32 slot)
{
	struct connection *reply = conn_at(slot), *entry;
	struct destination *destination;
	struct way way = {};
	__u32 index;

	if (!related || !reply)
		return NOT_OURS;
	entry = conn_of_reply(reply);
	if (!entry || has_ended(entry, ticks_now()))
		return NOT_OURS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return NOT_OURS;
	if (is_routed(&related->outer, entry)) {
		if (related->outer.ttl <= 1)
			return NOT_OURS;
		if (find_way(skb, &entry->flow.virtual, &entry->flow.client,
			     family_and_length(related->flow.family, 1), &way)) {
			COUNT_EVENT(unroutable);
			return TC_ACT_SHOT;
		}
	}
	if (is_damaged(skb, related))
		return TC_ACT_SHOT;
	count_outbound(destination, index, related->outer.bytes);
	if (translate_error(skb, related, slot, NAT_SOURCE))
		return TC_ACT_SHOT;
	return send_answer(skb, &related->outer, entry, &way);
}

/*
 * A frame that is no TCP, UDP or SCTP packet: forward it if it is an error about one.
 * `own` says whether the director made it (enum own_packet).
 */
__attribute__((noinline)) int follow_error(struct __sk_buff *skb, __u32 own)
{
	struct destination *destination;
	struct related related = {};
	struct connection *entry;
	__u32 index;
	int slot, verdict;

	if (parse_error((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, &related))
		return NOT_OURS;
	related.outer.own = own;
	slot = conn_find(&related.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (!entry || is_template(entry))
		return NOT_OURS;
	if (is_reply(entry))
		return answer_error(skb, &related, slot);
	if (own == OWN_LEAVING && skb->ifindex != LOOPBACK_INDEX)
		return NOT_OURS;
	verdict = prepare_error(skb, &related, slot);
	if (verdict != TO_REAL_SERVER)
		return verdict;
	index = entry->destination;
	if (control_method(load_control(entry)) == METHOD_TUNNEL)
		return tc_tunnel(skb, &related.outer, index, 0);
	destination = bpf_map_lookup_elem(&destinations, &index);
	return destination ? tc_to_destination(skb, related.flow.family, destination) :
			     TC_ACT_SHOT;
}

#endif
