// SPDX-License-Identifier: GPL-2.0-only
/*
 * A real server's VIPs kept silent at TC, and what its clients may send kept to
 * what fits a tunnel.  No part of the packet path: for the real server's side.
 *
 * Nobody is answered who asks for a silent VIP, by ARP (RFC 826) or neighbour
 * solicitation (RFC 4861), and nobody is told of it: the kernel asks for a
 * neighbour with the address as sender that the packet has which is to go
 * there, and who is asked notes that down.  Such questions leave as from the
 * interface's own address.
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2
#define MAX_VIPS 1024
#define MAX_INTERFACES 256

/* IPv4's as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2). */
struct address {
	__be32 word[4];
};

struct vip {
	__u16 mss;    /* the most that a client may be told; 0: whatever it is */
	__u16 silent; /* 1: keep it silent */
};

/* An interface's own addresses; all 0: it has none. */
struct own {
	__be32 address;
	struct address address6;
};

/* Filled before the programs are attached, and left alone from then on (realserver/programs.py). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct address);
	__type(value, struct vip);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, struct own);
} interfaces SEC(".maps");

#define HARDWARE_ETHERNET 1
#define ARP_REQUEST 1

/* struct arphdr with the addresses of IPv4 over Ethernet. */
struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136

/* Both kinds (RFC 4861, 4.3 and 4.4). */
struct neighbour {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct address target;
};

static __always_inline struct vip *vip_of(__be32 address)
{
	struct address key = { { 0, 0, bpf_htonl(0xffff), address } };

	return bpf_map_lookup_elem(&vips, &key);
}

static __always_inline int is_silent(const struct vip *vip)
{
	return vip && vip->silent;
}

/* Read an ARP packet of IPv4 over Ethernet; not 0 for others. */
static __always_inline int read_arp(struct __sk_buff *skb, struct arp *arp)
{
	return bpf_skb_load_bytes(skb, ETH_HLEN, arp, sizeof(*arp)) ||
	       arp->hardware != bpf_htons(HARDWARE_ETHERNET) || arp->protocol != bpf_htons(ETH_P_IP) ||
	       arp->hardware_size != ETH_ALEN || arp->protocol_size != sizeof(arp->target);
}

/* Read a neighbour solicitation or advertisement; not 0 for others. */
static __always_inline int read_neighbour(struct __sk_buff *skb, struct ipv6hdr *ip,
					  struct neighbour *neighbour)
{
	return bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)) ||
	       ip->nexthdr != IPPROTO_ICMPV6 ||
	       bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), neighbour, sizeof(*neighbour)) ||
	       (neighbour->type != NEIGHBOUR_SOLICITATION &&
		neighbour->type != NEIGHBOUR_ADVERTISEMENT);
}

SEC("tc")
int xlvs_silence_in(struct __sk_buff *skb)
{
	struct neighbour neighbour;
	struct ipv6hdr ip;
	struct arp arp;

	/* VLAN-tagged frames belong to the VLAN device above. */
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_ARP) && !read_arp(skb, &arp) &&
	    is_silent(vip_of(arp.target)))
		return TC_ACT_SHOT;
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && !read_neighbour(skb, &ip, &neighbour) &&
	    neighbour.type == NEIGHBOUR_SOLICITATION &&
	    is_silent(bpf_map_lookup_elem(&vips, &neighbour.target)))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

static __always_inline struct own *own_of(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex;

	return bpf_map_lookup_elem(&interfaces, &index);
}

static __always_inline int hush_arp(struct __sk_buff *skb)
{
	struct arp arp;
	struct own *own;

	if (read_arp(skb, &arp))
		return TC_ACT_UNSPEC;
	/* Somebody who announces or probes for it (RFC 5227). */
	if (arp.operation == bpf_htons(ARP_REQUEST) && is_silent(vip_of(arp.target)))
		return TC_ACT_SHOT;
	if (!is_silent(vip_of(arp.sender)))
		return TC_ACT_UNSPEC;
	own = own_of(skb);
	if (arp.operation != bpf_htons(ARP_REQUEST) || !own || !own->address)
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct arp, sender), &own->address,
				sizeof(own->address), 0))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

static __always_inline int is_unspecified(const struct address *address)
{
	return !(address->word[0] | address->word[1] | address->word[2] | address->word[3]);
}

static __always_inline int hush_neighbour(struct __sk_buff *skb)
{
	struct neighbour neighbour;
	struct address source, new;
	struct ipv6hdr ip;
	struct own *own;
	__s64 difference;

	if (read_neighbour(skb, &ip, &neighbour))
		return TC_ACT_UNSPEC;
	/* An advertisement, or duplicate address detection. */
	if (is_silent(bpf_map_lookup_elem(&vips, &neighbour.target)))
		return TC_ACT_SHOT;
	__builtin_memcpy(&source, &ip.saddr, sizeof(source));
	if (!is_silent(bpf_map_lookup_elem(&vips, &source)))
		return TC_ACT_UNSPEC;
	own = own_of(skb);
	if (neighbour.type != NEIGHBOUR_SOLICITATION || !own || is_unspecified(&own->address6))
		return TC_ACT_SHOT;
	new = own->address6;
	difference = bpf_csum_diff(source.word, sizeof(source), new.word, sizeof(new), 0);
	if (difference < 0 ||
	    bpf_l4_csum_replace(skb,
				ETH_HLEN + sizeof(ip) + offsetof(struct neighbour, checksum), 0,
				difference, BPF_F_PSEUDO_HDR) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &new,
				sizeof(new), 0))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

#define TCP_MSS 2
#define TCP_MSS_SIZE 4
#define TCP_NOTHING 1
#define TCP_END 0
#define MAX_OPTIONS 40

/* Have a SYN, whose TCP header begins at `tcp`, tell of no larger segment than `most`. */
static __always_inline void clamp(struct __sk_buff *skb, __u32 tcp, __u16 most)
{
	__u32 place, end;
	struct tcphdr header;

	if (bpf_skb_load_bytes(skb, tcp, &header, sizeof(header)) || !header.syn)
		return;
	place = tcp + sizeof(header);
	end = tcp + header.doff * 4;
	for (int i = 0; i < MAX_OPTIONS; i++) {
		__u8 option[TCP_MSS_SIZE];
		__be16 old, new;

		if (place + 2 > end || bpf_skb_load_bytes(skb, place, option, 2) ||
		    option[0] == TCP_END)
			return;
		if (option[0] == TCP_NOTHING) {
			place++;
			continue;
		}
		if (option[1] < 2)
			return;
		if (option[0] != TCP_MSS) {
			place += option[1];
			continue;
		}
		if (option[1] != TCP_MSS_SIZE || place + TCP_MSS_SIZE > end ||
		    bpf_skb_load_bytes(skb, place + 2, &old, sizeof(old)) || bpf_ntohs(old) <= most)
			return;
		new = bpf_htons(most);
		if (bpf_skb_store_bytes(skb, place + 2, &new, sizeof(new), 0))
			return;
		/* What stands at an odd place counts with its bytes exchanged. */
		if ((place - tcp) & 1) {
			old = __builtin_bswap16(old);
			new = __builtin_bswap16(new);
		}
		bpf_l4_csum_replace(skb, tcp + offsetof(struct tcphdr, check), old, new,
				    sizeof(new));
		return;
	}
}

static __always_inline void clamp_ipv4(struct __sk_buff *skb)
{
	struct iphdr ip;
	struct vip *vip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
		return;
	vip = vip_of(ip.saddr);
	if (vip && vip->mss)
		clamp(skb, ETH_HLEN + ip.ihl * 4, vip->mss);
}

static __always_inline void clamp_ipv6(struct __sk_buff *skb)
{
	struct address source;
	struct ipv6hdr ip;
	struct vip *vip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
		return;
	__builtin_memcpy(&source, &ip.saddr, sizeof(source));
	vip = bpf_map_lookup_elem(&vips, &source);
	if (vip && vip->mss)
		clamp(skb, ETH_HLEN + sizeof(ip), vip->mss);
}

SEC("tc")
int xlvs_silence_out(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return hush_arp(skb);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		clamp_ipv4(skb);
	if (skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	clamp_ipv6(skb);
	return hush_neighbour(skb);
}

char realserver_license[] SEC("license") = "GPL";
