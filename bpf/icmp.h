/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors that the director sends to a client, at TC, as the kernel words
 * them (net/ipv4/icmp.c, net/ipv6/icmp.c; RFC 1812, RFC 4443): from the VIP,
 * quoting what fits, limited for each client.
 */
#ifndef XLVS_ICMP_H
#define XLVS_ICMP_H

#include <stddef.h>
#include "checksum.h"
#include "clock.h"
#include "forward.h"
#include "maps.h"
#include "parse.h"
#include "reach.h"

enum icmp_error {
	ERROR_PORT_UNREACHABLE,
	ERROR_HOST_UNREACHABLE,
	ERROR_TIME_EXCEEDED,
	ERROR_TOO_BIG,
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 detail; /* the MTU where there is one */
};

#define ICMP_QUOTE_IPV4 548  /* RFC 1812: the whole error at most 576 bytes */
#define ICMP_QUOTE_IPV6 1232 /* RFC 4443: at most the least IPv6 MTU, 1280 */
#define ICMP_TOS_MASK 0x1e
#define ICMP_TOS_CONTROL 0xc0 /* "internetwork control" precedence */
#define ICMP_TTL 64
#define ICMP_BURST 6          /* kernel: XRLIM_BURST_FACTOR */
#define SUM_CHUNKS 3

#define QUOTE_MASK 0x7ff

/* The quoted packet, while its checksum is made. */
struct quote {
	__u8 bytes[QUOTE_MASK + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct quote);
} quotes SEC(".maps");

struct error_budget {
	__u32 ticks; /* saved up, at most ICMP_BURST times the interval */
	__u32 since;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, union address);
	__type(value, struct error_budget);
} error_budgets SEC(".maps");

/* One error for each icmp_ratelimit, after a burst (kernel: inet_peer_xrlim_allow()). */
static __always_inline int may_send_error(union address client, __u32 now)
{
	struct error_budget fresh = { .since = now }, *budget;
	__u32 interval, saved;

	interval = settings.icmp_interval;
	if (interval == 0)
		return 1;
	budget = bpf_map_lookup_elem(&error_budgets, &client);
	if (!budget) {
		fresh.ticks = (ICMP_BURST - 1) * interval;
		bpf_map_update_elem(&error_budgets, &client, &fresh, BPF_ANY);
		return 1;
	}
	saved = budget->ticks + (now - budget->since);
	if (saved > ICMP_BURST * interval)
		saved = ICMP_BURST * interval;
	budget->since = now;
	budget->ticks = saved < interval ? saved : saved - interval;
	return saved >= interval;
}

/* The one's complement sum of the first `length` bytes, of which there are at
 * most ICMP_QUOTE_IPV6. */
static __always_inline __u64 sum_quote(struct quote *quote, __u32 length)
{
	__u64 sum = 0;

	/* bpf_csum_diff() takes words: the last one is filled up with zeros. */
	for (int i = 0; i < 3; i++)
		quote->bytes[(length + i) & QUOTE_MASK] = 0;
#pragma unroll
	for (__u32 i = 0; i < SUM_CHUNKS; i++) {
		__u32 start = i * SUM_CHUNK;
		__u64 size = length > start ? (length - start + 3) & ~3u : 0;

		/* Bounded where the verifier can see it, not where the compiler thinks fit. */
		asm volatile("" : "+r"(size));
		if (size > SUM_CHUNK)
			size = SUM_CHUNK;
		sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)(quote->bytes + start), size, 0);
	}
	return sum;
}

static __always_inline void word_error(enum icmp_error error, __u8 family, __u32 mtu,
				       struct icmp_header *icmp)
{
	int v4 = family == AF_INET;

	switch (error) {
	case ERROR_PORT_UNREACHABLE:
		icmp->type = v4 ? 3 : 1;
		icmp->code = v4 ? 3 : 4;
		break;
	case ERROR_HOST_UNREACHABLE:
		icmp->type = v4 ? 3 : 1;
		icmp->code = v4 ? 1 : 3;
		break;
	case ERROR_TIME_EXCEEDED:
		icmp->type = v4 ? 11 : 3;
		break;
	case ERROR_TOO_BIG:
		icmp->type = v4 ? 3 : 2;
		icmp->code = v4 ? 4 : 0;
		icmp->detail = bpf_htonl(mtu);
		break;
	}
}

static __always_inline int write_ipv4_error(struct __sk_buff *skb, const struct packet *packet,
					    struct icmp_header *icmp, __u32 quoted, __u64 sum)
{
	struct {
		struct iphdr ip;
		struct icmp_header icmp;
	} header = { .icmp = *icmp };

	header.ip.version = 4;
	header.ip.ihl = sizeof(header.ip) / 4;
	header.ip.tos = (packet->tos & ICMP_TOS_MASK) | ICMP_TOS_CONTROL;
	header.ip.tot_len = bpf_htons(sizeof(header) + quoted);
	header.ip.id = bpf_get_prandom_u32();
	header.ip.ttl = ICMP_TTL;
	header.ip.protocol = PROTOCOL_ICMP;
	header.ip.saddr = packet->flow.virtual.v4;
	header.ip.daddr = packet->flow.client.v4;
	header.ip.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&header.ip,
						     sizeof(header.ip), 0));
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)&header.icmp, sizeof(header.icmp), 0);
	header.icmp.checksum = ~fold(sum);
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &header, sizeof(header),
				   BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int write_ipv6_error(struct __sk_buff *skb, const struct packet *packet,
					    struct icmp_header *icmp, __u32 quoted, __u64 sum)
{
	struct {
		struct ipv6hdr ip;
		struct icmp_header icmp;
	} header = { .icmp = *icmp };
	__u32 length = sizeof(header.icmp) + quoted;

	header.ip.version = 6;
	header.ip.payload_len = bpf_htons(length);
	header.ip.nexthdr = PROTOCOL_ICMPV6;
	header.ip.hop_limit = ICMP_TTL;
	__builtin_memcpy(&header.ip.saddr, &packet->flow.virtual, sizeof(header.ip.saddr));
	__builtin_memcpy(&header.ip.daddr, &packet->flow.client, sizeof(header.ip.daddr));
	/* Both addresses, the length and the protocol are the pseudo-header. */
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)&header.ip.saddr, 32, 0);
	sum += bpf_htonl(length) + (__u64)bpf_htonl(PROTOCOL_ICMPV6);
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)&header.icmp, sizeof(header.icmp), 0);
	header.icmp.checksum = ~fold(sum);
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &header, sizeof(header),
				   BPF_F_RECOMPUTE_CSUM);
}

/*
 * Turn the packet into an ICMP error to its sender and send it; returns the
 * verdict.  `mtu` is for ERROR_TOO_BIG.
 */
__attribute__((noinline)) int send_error(struct __sk_buff *skb, const struct packet *packet,
					 enum icmp_error error, __u32 mtu)
{
	const __u32 ip = sizeof(struct ethhdr);
	struct icmp_header icmp = {};
	struct quote *quote;
	__u32 zero = 0, quoted, field, room;
	__u16 pending = 0;
	int partial = 0, v4;
	__u64 sum, own;

	if (!packet)
		return TC_ACT_SHOT;
	v4 = packet->flow.family == AF_INET;
	if (error != ERROR_TOO_BIG && !may_send_error(packet->flow.client, ticks_now()))
		return TC_ACT_SHOT;
	quote = bpf_map_lookup_elem(&quotes, &zero);
	if (!quote)
		return TC_ACT_SHOT;
	quoted = packet->bytes;
	if (quoted > (v4 ? ICMP_QUOTE_IPV4 : ICMP_QUOTE_IPV6))
		quoted = v4 ? ICMP_QUOTE_IPV4 : ICMP_QUOTE_IPV6;
	field = packet->transport +
		(packet->flow.protocol == PROTOCOL_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
	/* That of SCTP is none that could be made up for. */
	partial = packet->flow.protocol != PROTOCOL_SCTP && checksum_is_partial(skb, field);

	if (bpf_skb_change_tail(skb, ip + quoted, 0))
		return TC_ACT_SHOT;
	/* Both bounds, each where the verifier of Linux 6.1 sees it by itself. */
	asm volatile("" : "+r"(quoted));
	if (quoted > ICMP_QUOTE_IPV6)
		return TC_ACT_SHOT;
	asm volatile("" : "+r"(quoted));
	if (quoted < sizeof(struct iphdr))
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ip, quote->bytes, quoted))
		return TC_ACT_SHOT;
	sum = sum_quote(quote, quoted);
	if (partial) {
		/* The device will write there what completes the quoted packet. */
		__u32 header = (packet->transport - ip) & 0xff;

		if (bpf_skb_load_bytes(skb, field, &pending, sizeof(pending)))
			return TC_ACT_SHOT;
		own = sum;
		if (header >= sizeof(struct iphdr))
			own += (__u16)~fold((__u32)bpf_csum_diff(
				0, 0, (__be32 *)quote->bytes, header & ~3u, 0));
		sum += (__u16)~fold(own) + (__u16)~pending;
	}

	room = sizeof(icmp) + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	word_error(error, packet->flow.family, mtu, &icmp);
	if (v4 ? write_ipv4_error(skb, packet, &icmp, quoted, sum) :
		 write_ipv6_error(skb, packet, &icmp, quoted, sum))
		return TC_ACT_SHOT;
	if (packet->own)
		return tc_to_self(skb);
	return tc_to(skb, &packet->flow.virtual, &packet->flow.client, packet->flow.family);
}

#endif
