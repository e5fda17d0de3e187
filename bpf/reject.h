/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the client of a real server that is gone is told, where its service says
 * so (--reject-gone): a TCP reset, made as of a host that knows no such
 * connection (RFC 9293, 3.10.7.1), or that the port is unreachable.
 */
#ifndef XLVS_REJECT_H
#define XLVS_REJECT_H

#include "checksum.h"
#include "icmp.h"
#include "parse.h"

#define TCP_WORDS (sizeof(struct tcp_header) / 4)

/* The reset of a packet that has this header and so many bytes of data. */
static __always_inline void word_reset(const struct tcp_header *asked, __u32 data,
				       struct tcp_header *reset)
{
	reset->ports.source = asked->ports.destination;
	reset->ports.destination = asked->ports.source;
	reset->offset = TCP_WORDS << 4;
	if (asked->flags & TCP_ACK) {
		reset->sequence = asked->acknowledged;
		reset->flags = TCP_RST;
		return;
	}
	data += !!(asked->flags & TCP_SYN) + !!(asked->flags & TCP_FIN);
	reset->acknowledged = bpf_htonl(bpf_ntohl(asked->sequence) + data);
	reset->flags = TCP_RST | TCP_ACK;
}

/* The checksum of a reset; of its pseudo-header alone where a device finishes it. */
static __always_inline __u16 checksum_reset(const struct packet *packet,
					    struct tcp_header *reset, int partial)
{
	int length = packet->flow.family == AF_INET ? 4 : 16;
	__u64 sum = bpf_htonl(sizeof(*reset)) + (__u64)bpf_htonl(PROTOCOL_TCP);
	union address ends[2] = { packet->flow.virtual, packet->flow.client };

	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)&ends[0], length, 0);
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)&ends[1], length, 0);
	if (partial)
		return fold(sum);
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)reset, sizeof(*reset), 0);
	return ~fold(sum);
}

/* The IP header of a reset, over that of the packet, which has no options. */
static __always_inline int write_reset_ip(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->flow.family == AF_INET) {
		struct iphdr ip = { .version = 4, .ihl = 5, .ttl = ICMP_TTL, .protocol = PROTOCOL_TCP };

		ip.tot_len = bpf_htons(sizeof(ip) + sizeof(struct tcp_header));
		ip.frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
		ip.saddr = packet->flow.virtual.v4;
		ip.daddr = packet->flow.client.v4;
		ip.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
		return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip),
					   BPF_F_RECOMPUTE_CSUM);
	}
	struct ipv6hdr ip = { .version = 6, .nexthdr = PROTOCOL_TCP, .hop_limit = ICMP_TTL };

	ip.payload_len = bpf_htons(sizeof(struct tcp_header));
	__builtin_memcpy(&ip.saddr, &packet->flow.virtual, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &packet->flow.client, sizeof(ip.daddr));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip),
					   BPF_F_RECOMPUTE_CSUM);
}

/* Turn a client's TCP packet into the reset that it gets, and send that. */
__attribute__((noinline)) int send_reset(struct __sk_buff *skb, const struct packet *packet)
{
	struct tcp_header asked, reset = {};
	__u32 transport, headers;
	int partial;

	if (!packet || packet->tcp_flags & TCP_RST || packet->fragment)
		return TC_ACT_SHOT;
	transport = packet->transport;
	headers = sizeof(struct ethhdr) +
		  (packet->flow.family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	if (bpf_skb_load_bytes(skb, transport, &asked, sizeof(asked)))
		return TC_ACT_SHOT;
	word_reset(&asked,
		   sizeof(struct ethhdr) + packet->bytes - transport - (asked.offset >> 4) * 4, &reset);
	partial = checksum_is_partial(skb, transport + TCP_CHECKSUM_OFFSET);
	/* Options go; where a device counts on them, so does the packet. */
	if (transport != headers && partial)
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(skb, headers + sizeof(reset), 0))
		return TC_ACT_SHOT;
	reset.checksum = checksum_reset(packet, &reset, partial);
	if (write_reset_ip(skb, packet) ||
	    bpf_skb_store_bytes(skb, headers, &reset, sizeof(reset), BPF_F_RECOMPUTE_CSUM))
		return TC_ACT_SHOT;
	if (packet->own)
		return tc_to_self(skb);
	return tc_to(skb, &packet->flow.virtual, &packet->flow.client, packet->flow.family);
}

/* Tell the client of a connection that its real server is gone; returns the verdict. */
static __always_inline int reject(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->flow.protocol == PROTOCOL_TCP)
		return send_reset(skb, packet);
	return send_error(skb, packet, ERROR_PORT_UNREACHABLE, 0);
}

#endif
