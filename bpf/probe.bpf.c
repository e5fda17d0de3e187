// SPDX-License-Identifier: GPL-2.0-only
/*
 * A real server asked as the VIP, past the live table (src/xlvs/doctor/probe.py).
 *
 * A process on the director connects to a real server's own address.  At TC
 * egress such a connection's packets get the VIP as their destination, and a
 * tunnel's headers where the real server is behind one: they leave as the
 * director would forward them.  At TC ingress the answers, which come from the
 * VIP, get the real server's address again, since answers from an address of
 * its own the director's stack would drop.  A connection is known by its local
 * port; the process writes it into `probes` before it connects, and reads there
 * who answered, and where.  Everybody else's packets pass by.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "checksum.h"

#define PROBES 4096
#define ENVELOPE 64
#define VERSION_4 4
#define VERSION_6 6

#define IP_HEADER ETH_HLEN
#define TCP_CHECKSUM 16
#define IPV4_FRAGMENT 0x3fff

/* One connection.  probe.py has the same layout. */
struct probe {
	__be32 real_server[4]; /* an IPv4 address is the first */
	__be32 virtual[4];
	__be16 real_port;
	__be16 virtual_port;
	__u8 envelope_size;    /* of the tunnel's headers; 0: there is no tunnel */
	__u8 envelope_version; /* of the outer IP header */
	__u8 udp;              /* where a UDP header begins in it; 0: there is none */
	__u8 answered_by_real; /* an answer came from the real server's own address */
	__u8 envelope[ENVELOPE];
	/* What was seen of the answers: */
	__u32 answers;
	__u32 interface;       /* by which the last one came */
	__u8 mac[ETH_ALEN];    /* from which it came */
	__u8 error_type;       /* of an ICMP error about the connection, with 1 in error_seen */
	__u8 error_code;
	__be32 error_from[4];
	__u8 error_seen;
	__u8 error_version;
	__u8 padding[2];
};

struct probe_key {
	__be16 local_port;
	__be16 version;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROBES);
	__type(key, struct probe_key);
	__type(value, struct probe);
} probes SEC(".maps");

char probe_license[] SEC("license") = "GPL";

struct ports {
	__be16 source;
	__be16 destination;
};

/* Whose header is looked at: addresses as in `struct probe`. */
struct flow_seen {
	__be32 source[4];
	__be32 destination[4];
	struct ports ports;
	__u32 header; /* where the IP header begins */
	__u32 tcp;    /* where the TCP header begins */
	__u16 version;
	__u8 protocol;
};

static __always_inline int same_address(const __be32 *one, const __be32 *other)
{
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

/* The IP header at `at`, and the two ports behind it; 0 if it is none that a probe can have. */
static __always_inline int look_at(struct __sk_buff *skb, __u32 at, int version,
				   struct flow_seen *seen)
{
	seen->header = at;
	seen->version = version;
	if (version == VERSION_4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
			return 0;
		if (ip.ihl != sizeof(ip) / 4 || ip.frag_off & bpf_htons(IPV4_FRAGMENT))
			return 0;
		seen->source[0] = ip.saddr;
		seen->destination[0] = ip.daddr;
		seen->protocol = ip.protocol;
		seen->tcp = at + sizeof(ip);
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return 0;
		__builtin_memcpy(seen->source, &ip.saddr, sizeof(seen->source));
		__builtin_memcpy(seen->destination, &ip.daddr, sizeof(seen->destination));
		seen->protocol = ip.nexthdr;
		seen->tcp = at + sizeof(ip);
	}
	return !bpf_skb_load_bytes(skb, seen->tcp, &seen->ports, sizeof(seen->ports));
}

static __always_inline struct probe *probe_at(__be16 local_port, __u16 version)
{
	struct probe_key key = {.local_port = local_port, .version = version};

	return bpf_map_lookup_elem(&probes, &key);
}

/* Another address and port in the headers; `port_field` is 0 for source, 2 for destination. */
static __always_inline int rewrite(struct __sk_buff *skb, const struct flow_seen *seen,
				   const __be32 *from, const __be32 *to, __u32 address_field,
				   __be16 from_port, __be16 to_port, __u32 port_field)
{
	__u32 checksum = seen->tcp + TCP_CHECKSUM;
	__be32 new[4] = {to[0], to[1], to[2], to[3]};
	__be32 old[4] = {from[0], from[1], from[2], from[3]};

	if (seen->version == VERSION_4) {
		if (bpf_l4_csum_replace(skb, checksum, old[0], new[0], BPF_F_PSEUDO_HDR | 4) ||
		    bpf_l3_csum_replace(skb, seen->header + offsetof(struct iphdr, check), old[0],
					new[0], 4) ||
		    bpf_skb_store_bytes(skb, seen->header + address_field, new, 4, 0))
			return 0;
	} else {
		__s64 difference = bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0);

		if (bpf_l4_csum_replace(skb, checksum, 0, difference, BPF_F_PSEUDO_HDR) ||
		    bpf_skb_store_bytes(skb, seen->header + address_field, new, sizeof(new), 0))
			return 0;
	}
	if (from_port == to_port)
		return 1;
	return !bpf_l4_csum_replace(skb, checksum, from_port, to_port, 2) &&
	       !bpf_skb_store_bytes(skb, seen->tcp + port_field, &to_port, sizeof(to_port), 0);
}

/* The tunnel's headers in front of the packet, their lengths filled in. */
static __always_inline int wrap(struct __sk_buff *skb, const struct probe *probe)
{
	__u8 envelope[ENVELOPE];
	__u64 flags = probe->envelope_version == VERSION_4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 :
							     BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	__u16 protocol = probe->envelope_version == VERSION_4 ? bpf_htons(ETH_P_IP) :
								bpf_htons(ETH_P_IPV6);
	__u64 size = probe->envelope_size;
	__u64 udp = probe->udp;
	__u16 length;

	asm volatile("" : "+r"(size));
	if (size < sizeof(struct iphdr) || size > ENVELOPE)
		return 0;
	__builtin_memcpy(envelope, probe->envelope, sizeof(envelope));
	length = skb->len - ETH_HLEN + size;
	if (probe->envelope_version == VERSION_4) {
		struct iphdr *ip = (struct iphdr *)envelope;

		ip->tot_len = bpf_htons(length);
		ip->check = 0;
		ip->check = ~fold(bpf_csum_diff(0, 0, (__be32 *)envelope, sizeof(*ip), 0));
	} else {
		((struct ipv6hdr *)envelope)->payload_len = bpf_htons(length - sizeof(struct ipv6hdr));
	}
	if (bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, envelope, size, 0))
		return 0;
	if (udp) {
		__be16 udp_length = bpf_htons(length - udp);

		return !bpf_skb_store_bytes(skb, ETH_HLEN + udp + 4, &udp_length, sizeof(udp_length), 0);
	}
	return 1;
}

static __always_inline int version_of(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return VERSION_4;
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? VERSION_6 : 0;
}

SEC("tc")
int xlvs_probe_out(struct __sk_buff *skb)
{
	struct flow_seen seen = {};
	int version = version_of(skb);
	struct probe *probe;

	/* What only passes through is nobody's probe. */
	if (!version || skb->ingress_ifindex || !look_at(skb, IP_HEADER, version, &seen))
		return TC_ACT_UNSPEC;
	if (seen.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	probe = probe_at(seen.ports.source, version);
	if (!probe || !same_address(seen.destination, probe->real_server) ||
	    seen.ports.destination != probe->real_port)
		return TC_ACT_UNSPEC;
	if (!same_address(probe->real_server, probe->virtual) &&
	    !rewrite(skb, &seen, probe->real_server, probe->virtual,
		     version == VERSION_4 ? offsetof(struct iphdr, daddr) :
					    offsetof(struct ipv6hdr, daddr),
		     probe->real_port, probe->virtual_port, 2))
		return TC_ACT_SHOT;
	if (probe->envelope_size && !wrap(skb, probe))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

/* An ICMP error about a probe: noted, and left to the stack. */
static __always_inline void note_error(struct __sk_buff *skb, const struct flow_seen *outer)
{
	struct flow_seen quoted = {};
	struct probe *probe;
	__u8 type_code[2];

	/* Both versions' error headers have 8 bytes, type and code first. */
	if (bpf_skb_load_bytes(skb, outer->tcp, type_code, sizeof(type_code)) ||
	    !look_at(skb, outer->tcp + 8, outer->version, &quoted) || quoted.protocol != IPPROTO_TCP)
		return;
	probe = probe_at(quoted.ports.source, outer->version);
	if (!probe || quoted.ports.destination != probe->virtual_port ||
	    !same_address(quoted.destination, probe->virtual))
		return;
	probe->error_type = type_code[0];
	probe->error_code = type_code[1];
	probe->error_version = outer->version;
	__builtin_memcpy(probe->error_from, outer->source, sizeof(probe->error_from));
	probe->error_seen = 1;
}

SEC("tc")
int xlvs_probe_in(struct __sk_buff *skb)
{
	struct flow_seen seen = {};
	int version = version_of(skb);
	struct probe *probe;

	if (!version || !look_at(skb, IP_HEADER, version, &seen))
		return TC_ACT_UNSPEC;
	if (seen.protocol == IPPROTO_ICMP || seen.protocol == IPPROTO_ICMPV6) {
		note_error(skb, &seen);
		return TC_ACT_UNSPEC;
	}
	if (seen.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	probe = probe_at(seen.ports.destination, version);
	if (!probe)
		return TC_ACT_UNSPEC;
	if (!same_address(seen.source, probe->virtual) || seen.ports.source != probe->virtual_port) {
		if (!same_address(seen.source, probe->real_server))
			return TC_ACT_UNSPEC;
		/* A client would not know the answer for one to its packet: it must not count. */
		probe->answered_by_real = 1;
		return TC_ACT_SHOT;
	}
	probe->interface = skb->ifindex;
	bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), probe->mac, sizeof(probe->mac));
	probe->answers++;
	if (!same_address(probe->real_server, probe->virtual) &&
	    !rewrite(skb, &seen, probe->virtual, probe->real_server,
		     version == VERSION_4 ? offsetof(struct iphdr, saddr) :
					    offsetof(struct ipv6hdr, saddr),
		     probe->virtual_port, probe->real_port, 0))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}
