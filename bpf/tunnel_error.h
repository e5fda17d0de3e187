/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors from between the director and a tunnelled real server: they come
 * to the tunnel's source, and quote its packet with the client's inside
 * (kernel: ip_vs_in_icmp(); RFC 2003, section 4; RFC 2473, section 8).  The
 * client is told what concerns it, in its own family, by the VIP.
 */
#ifndef XLVS_TUNNEL_ERROR_H
#define XLVS_TUNNEL_ERROR_H

#include "clock.h"
#include "conn.h"
#include "icmp.h"
#include "related.h"
#include "tunnel.h"
#include "tunnel_checksum.h"

/* net.ipv4.route.mtu_expires and IPv6's: 600 seconds */
#define PATH_MTU_TICKS ((__u32)(600 * 1000000000ull >> TICK_SHIFT))
#define LEAST_PATH_MTU_IPV4 552                  /* net.ipv4.route.min_pmtu */
#define LEAST_PATH_MTU_IPV6 1280

#define GUE_VERSION_AND_CONTROL 0xe0
#define GUE_LENGTH 0x1f

struct tunnel_error {
	struct packet inner; /* the client's; `bytes` as far as it is quoted */
	struct icmp_header icmp;
	__u16 message;       /* offsets from the frame's start */
	__u16 quoted;
	__u16 end;
	__be16 port;         /* GUE */
	__u8 family;         /* of the tunnel */
	__u8 kind;
	__u16 start;         /* of the client's packet */
};

/* The IP header at `offset`, of the error or of what it quotes: its protocol and its size. */
struct header {
	__u32 protocol;
	__u32 size;
	__u32 total;
};

static __always_inline int read_header(struct __sk_buff *skb, __u32 offset, __u8 family,
				       struct header *header)
{
	if (family == AF_INET) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl * 4 < sizeof(ip) || ip.frag_off & bpf_htons(IPV4_OFFSET_MASK))
			return -1;
		header->protocol = ip.protocol;
		header->size = ip.ihl * 4;
		header->total = bpf_ntohs(ip.tot_len);
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		header->protocol = ip.nexthdr;
		header->size = sizeof(ip);
		header->total = sizeof(ip) + bpf_ntohs(ip.payload_len);
	}
	return 0;
}

/* What stands between the quoted tunnel's IP header and the client's packet:
 * its size, and `protocol` becomes that of what follows; or -1. */
static __always_inline int read_wrapping(struct __sk_buff *skb, __u32 offset,
					 struct tunnel_error *error, __u32 *protocol)
{
	if (*protocol == PROTOCOL_IPIP || *protocol == PROTOCOL_IPV6) {
		error->kind = TUNNEL_IPIP;
		return 0;
	}
	if (*protocol == PROTOCOL_UDP) {
		struct {
			struct udp_header udp;
			struct gue_header gue;
		} header;

		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)) ||
		    header.gue.version_length & GUE_VERSION_AND_CONTROL)
			return -1;
		error->kind = TUNNEL_GUE;
		error->port = header.udp.ports.destination;
		*protocol = header.gue.protocol;
		return sizeof(header) + (header.gue.version_length & GUE_LENGTH) * 4;
	}
	if (*protocol == PROTOCOL_GRE) {
		struct {
			__be16 flags;
			__be16 protocol;
		} header;

		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)) ||
		    header.flags & bpf_htons((__u16)~GRE_CHECKSUM))
			return -1;
		error->kind = TUNNEL_GRE;
		if (header.protocol == bpf_htons(ETH_P_IP))
			*protocol = PROTOCOL_IPIP;
		else if (header.protocol == bpf_htons(ETH_P_IPV6))
			*protocol = PROTOCOL_IPV6;
		return header.flags ? sizeof(struct gre_header) : GRE_PLAIN_SIZE;
	}
	return -1;
}

static __always_inline int read_client_packet(struct __sk_buff *skb, __u32 offset,
					      struct packet *packet)
{
	__u32 transport;

	if (packet->flow.family == AF_INET) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl * 4 < sizeof(ip) || ip.frag_off & bpf_htons(IPV4_OFFSET_MASK))
			return -1;
		transport = offset + ip.ihl * 4;
		packet->flow.protocol = ip.protocol;
		packet->flow.client.v4 = ip.saddr;
		packet->flow.virtual.v4 = ip.daddr;
		packet->tos = ip.tos;
		packet->whole = !!(ip.frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		transport = offset + sizeof(ip);
		packet->flow.protocol = ip.nexthdr;
		__builtin_memcpy(&packet->flow.client, &ip.saddr, sizeof(ip.saddr));
		__builtin_memcpy(&packet->flow.virtual, &ip.daddr, sizeof(ip.daddr));
		packet->whole = 1;
	}
	if (!has_ports(packet->flow.protocol))
		return -1;
	packet->transport = transport;
	/* Both ports, source first: `client_port` and `virtual_port` are neighbours. */
	return bpf_skb_load_bytes(skb, transport, &packet->flow.client_port,
				  sizeof(struct ports));
}

/* Fill `error` (zeroed by the caller) from a frame; -1 where it is no error about a tunnel's packet. */
__attribute__((noinline)) int read_tunnel_error(struct __sk_buff *skb, struct tunnel_error *error)
{
	struct header header;
	__u32 protocol;
	int size;

	if (!error)
		return -1;
	error->family = skb->protocol == bpf_htons(ETH_P_IP) ? AF_INET : AF_INET6;
	if (read_header(skb, sizeof(struct ethhdr), error->family, &header) ||
	    header.protocol != (error->family == AF_INET ? PROTOCOL_ICMP : PROTOCOL_ICMPV6))
		return -1;
	error->message = sizeof(struct ethhdr) + header.size;
	error->end = sizeof(struct ethhdr) + header.total;
	error->quoted = error->message + sizeof(error->icmp);
	if (error->end > skb->len ||
	    bpf_skb_load_bytes(skb, error->message, &error->icmp, sizeof(error->icmp)) ||
	    !(error->family == AF_INET ? is_ipv4_error(error->icmp.type) :
					 is_ipv6_error(error->icmp.type)))
		return -1;

	if (read_header(skb, error->quoted, error->family, &header))
		return -1;
	protocol = header.protocol;
	size = read_wrapping(skb, error->quoted + header.size, error, &protocol);
	if (size < 0 || (protocol != PROTOCOL_IPIP && protocol != PROTOCOL_IPV6))
		return -1;
	error->start = error->quoted + header.size + size;
	error->inner.flow.family = protocol == PROTOCOL_IPIP ? AF_INET : AF_INET6;
	if (read_client_packet(skb, error->start, &error->inner) ||
	    error->inner.transport + sizeof(struct ports) > error->end)
		return -1;
	error->inner.bytes = error->end - error->start;
	return 0;
}

/* Whether an address stands at `offset` in the frame. */
static __always_inline int is_there(struct __sk_buff *skb, __u32 offset, __u8 family,
				    const union address *address)
{
	union address found = {};

	if (family == AF_INET ? bpf_skb_load_bytes(skb, offset, &found, sizeof(found.v4)) :
				bpf_skb_load_bytes(skb, offset, &found, sizeof(found)))
		return 0;
	return found.half[0] == address->half[0] && found.half[1] == address->half[1];
}

/* Whether the error came to the tunnel's source and quotes a packet from there to the real server. */
__attribute__((noinline)) int is_about_tunnel(struct __sk_buff *skb,
					      const struct tunnel_error *error,
					      __u32 destination_index)
{
	const __u32 ip = sizeof(struct ethhdr);
	struct destination *destination =
		bpf_map_lookup_elem(&destinations, &destination_index);
	__u32 source = offsetof(struct iphdr, saddr), target = offsetof(struct iphdr, daddr);

	if (!error || !destination || destination->method != METHOD_TUNNEL ||
	    destination->family != error->family || destination->tunnel_kind != error->kind ||
	    (error->kind == TUNNEL_GUE && destination->tunnel_port != error->port))
		return 0;
	if (error->family == AF_INET6) {
		source = offsetof(struct ipv6hdr, saddr);
		target = offsetof(struct ipv6hdr, daddr);
	}
	return is_there(skb, ip + target, error->family, &destination->own_address) &&
	       is_there(skb, error->quoted + source, error->family, &destination->own_address) &&
	       is_there(skb, error->quoted + target, error->family, &destination->address);
}

/* ICMPv6 has a pseudo-header, ICMP none. */
static __always_inline int is_intact(struct __sk_buff *skb, const struct tunnel_error *error)
{
	__u32 length = error->end - error->message;
	int message = sum_frame(skb, error->message, length), addresses;

	if (message < 0)
		return 0;
	if (error->family == AF_INET)
		return message == 0xffff;
	addresses = sum_frame(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, saddr), 32);
	return addresses >= 0 &&
	       fold((__u64)message + addresses + bpf_htonl(length) +
		    (__u64)bpf_htonl(PROTOCOL_ICMPV6)) == 0xffff;
}

/* In ICMP the MTU is the second half of the word. */
static __always_inline int says_too_big(const struct tunnel_error *error)
{
	if (error->family == AF_INET)
		return error->icmp.type == 3 && error->icmp.code == 4;
	return error->icmp.type == 2;
}

/* Note what a router said of the way (kernel: __ip_rt_update_pmtu(), __ip6_rt_update_pmtu()). */
static __always_inline void learn_path_mtu(const struct tunnel_error *error,
					   struct destination *destination)
{
	int v4 = error->family == AF_INET;
	__u32 mtu = bpf_ntohl(error->icmp.detail) & (v4 ? 0xffff : ~0u);
	__u32 least = v4 ? LEAST_PATH_MTU_IPV4 : LEAST_PATH_MTU_IPV6;

	if (mtu < least)
		mtu = least;
	if (destination->mtu && destination->mtu < mtu)
		return;
	destination->path_mtu_until = ticks_now() + PATH_MTU_TICKS;
	destination->path_mtu = mtu;
	destination->mtu = mtu;
}

/*
 * Word an error about the client's packet; -1 where the client is to hear
 * nothing.  Between IPv4 and IPv4 it stays as it is; for others, whatever kept
 * a packet from the tunnel's end makes the VIP unreachable (RFC 2473, 8.2, 8.3).
 */
static __always_inline int word_for_client(struct tunnel_error *error,
					   const struct destination *destination)
{
	__u8 family = error->inner.flow.family;

	if (says_too_big(error)) {
		__u32 mtu = destination->mtu - (error->start - error->quoted);

		__builtin_memset(&error->icmp, 0, sizeof(error->icmp));
		word_error(ERROR_TOO_BIG, family, mtu, &error->icmp);
		return error->inner.whole ? 0 : -1;
	}
	error->icmp.checksum = 0;
	if (error->family == AF_INET && family == AF_INET)
		return 0;
	if (error->family == AF_INET && error->icmp.type == 4)
		return -1;
	error->icmp.type = family == AF_INET ? 3 : 1;
	error->icmp.code = family == AF_INET ? 1 : 3;
	error->icmp.detail = 0;
	return 0;
}

/* Make the frame an error to the client that quotes its packet from `start` on; 0 or -1. */
__attribute__((noinline)) int quote_to_client(struct __sk_buff *skb, const struct packet *packet,
					      const struct icmp_header *words, __u32 start)
{
	const __u32 ip = sizeof(struct ethhdr);
	struct icmp_header icmp;
	struct quote *quote;
	__u32 zero = 0, quoted, header = sizeof(icmp);
	__be16 protocol;
	__u64 sum;
	int v4;

	quote = bpf_map_lookup_elem(&quotes, &zero);
	if (!packet || !words || !quote)
		return -1;
	icmp = *words;
	v4 = packet->flow.family == AF_INET;
	quoted = packet->bytes;
	if (quoted > (v4 ? ICMP_QUOTE_IPV4 : ICMP_QUOTE_IPV6))
		quoted = v4 ? ICMP_QUOTE_IPV4 : ICMP_QUOTE_IPV6;
	/* Both bounds, each where the verifier of Linux 6.1 sees it by itself. */
	asm volatile("" : "+r"(quoted));
	if (quoted > ICMP_QUOTE_IPV6)
		return -1;
	asm volatile("" : "+r"(quoted));
	if (quoted < sizeof(struct iphdr))
		return -1;
	if (bpf_skb_load_bytes(skb, start, quote->bytes, quoted))
		return -1;
	sum = sum_quote(quote, quoted);
	header += v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	protocol = bpf_htons(v4 ? ETH_P_IP : ETH_P_IPV6);
	if ((skb->protocol != protocol && bpf_skb_change_proto(skb, protocol, 0)) ||
	    bpf_skb_change_tail(skb, ip + header + quoted, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol,
				sizeof(protocol), 0) ||
	    (v4 ? write_ipv4_error(skb, packet, &icmp, quoted, sum) :
		  write_ipv6_error(skb, packet, &icmp, quoted, sum)))
		return -1;
	asm volatile("" : "+r"(quoted));
	if (quoted > ICMP_QUOTE_IPV6)
		return -1;
	asm volatile("" : "+r"(quoted));
	if (quoted < sizeof(struct iphdr))
		return -1;
	return bpf_skb_store_bytes(skb, ip + header, quote->bytes, quoted, 0);
}

/* A frame that is no TCP or UDP packet, nor an error about one: is it about a tunnel's? */
__attribute__((noinline)) int follow_tunnel_error(struct __sk_buff *skb)
{
	struct tunnel_error error = {};
	struct destination *destination;
	struct connection *entry;
	__u32 index, limited;
	__u64 control;
	int slot;

	if (read_tunnel_error(skb, &error))
		return NOT_OURS;
	slot = conn_find(&error.inner.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (!entry || has_passed(entry->expires, ticks_now()))
		return NOT_OURS;
	control = load_control(entry);
	if (control_flags(control) & (CONNECTION_REPLY | CONNECTION_TEMPLATE) || control_method(control) != METHOD_TUNNEL)
		return NOT_OURS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !is_about_tunnel(skb, &error, index))
		return NOT_OURS;
	if (!is_intact(skb, &error))
		return TC_ACT_SHOT;
	limited = !says_too_big(&error);
	if (!limited)
		learn_path_mtu(&error, destination);
	if (word_for_client(&error, destination))
		return TC_ACT_SHOT;
	count_outbound(destination, index, error.inner.bytes);
	if (limited && !may_send_error(error.inner.flow.client, ticks_now()))
		return TC_ACT_SHOT;
	if (quote_to_client(skb, &error.inner, &error.icmp, error.start))
		return TC_ACT_SHOT;
	COUNT_EVENT(forwarded);
	return tc_to(skb, &error.inner.flow.virtual, &error.inner.flow.client,
		     error.inner.flow.family);
}

#endif
