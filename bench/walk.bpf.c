// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the benchmark runs around the programs that it measures.
 *
 *   walk_xdp, walk_tc   make the frame at hand that of the next flow, undo what the last
 *                       run did to it, and go on to the program to be measured by a
 *                       tail call: so one call of BPF_PROG_TEST_RUN sees many flows.
 *   floor_*             the programs that the packet path is compared with.
 *
 * Every program pays for the walk alike.
 */
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char walk_license[] SEC("license") = "GPL";

#define PORTS_SHIFT 15 /* so many bits of a flow's number are in the client's port */
#define FIRST_PORT 1024
#define PROTOCOL_TCP 6

/* Python's copy: bench/walk.py.  Addresses, ports and the MAC in network order. */
struct control {
	__u32 next;       /* place of the program to be measured */
	__u32 position;   /* number of the flow that was last */
	__u32 mask;       /* flows - 1; a power of two they are */
	__u32 multiplier; /* of the walk, a linear congruence of full period; 1 for numeric order */
	__u32 increment;
	__u32 first;      /* added to each flow's number */
	__u32 sum;        /* of IPv4's header without the client's address and the checksum */
	__u32 length;     /* of the frame */
	__u32 reverse;    /* the client is where it goes to, not where it comes from */
	__u32 pad;
	__u32 word[4];    /* of the client's address; the last one (IPv4: the first) in host order */
	__u64 other[2];   /* address */
	__u32 ports;      /* with the client's 0 */
	__u32 hop;        /* the header's word that has the TTL or hop limit, IPv4's checksum 0 */
	__u32 type;       /* EtherType and the packet's first two bytes: what programs read in one */
	__u8 mac[6];
	__u16 end_pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} controls SEC(".maps");

#define PROGRAMS(map)                                \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY); \
		__uint(max_entries, 8);              \
		__uint(key_size, sizeof(__u32));     \
		__uint(value_size, sizeof(__u32));   \
	} map SEC(".maps")

PROGRAMS(xdp_programs);
PROGRAMS(tc_programs);

struct floor_key {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol;
};

struct floor_value {
	__u8 mac[6];
	__u8 rest[58];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct floor_key);
	__type(value, struct floor_value);
} floor_flows SEC(".maps");

/* As large as a connection table for those flows, which is half full: see floor_line. */
struct line {
	__u64 word[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct line);
} floor_lines SEC(".maps");

static __always_inline struct control *control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&controls, &zero);
}

/*
 * Write the next flow's frame; 0, or -1.  In stores that are as wide as the loads that
 * follow: else a load waits until the stores before it have left the processor.
 */
static __always_inline int walk(void *data, void *end, struct control *control)
{
	struct ethhdr *ethernet = data;
	void *ip = data + sizeof(*ethernet);
	__u32 flow, port;

	if (ip + sizeof(struct iphdr) + sizeof(__u32) > end)
		return -1;
	flow = (control->position * control->multiplier + control->increment) & control->mask;
	control->position = flow;
	flow += control->first;
	port = bpf_htons(FIRST_PORT + (flow & ((1 << PORTS_SHIFT) - 1)));
	port = control->ports | port << (control->reverse ? 16 : 0);
	*(__u32 *)ethernet->h_dest = *(__u32 *)control->mac;
	*(__u16 *)(ethernet->h_dest + 4) = *(__u16 *)(control->mac + 4);
	*(__u32 *)(data + offsetof(struct ethhdr, h_proto)) = control->type;
	if ((__be16)control->type == bpf_htons(ETH_P_IP)) {
		__u32 client = bpf_htonl(control->word[0] + (flow >> PORTS_SHIFT));
		__u32 other = control->other[0], sum;
		__u32 *header = ip;

		sum = control->sum + (client & 0xffff) + (client >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		header[2] = control->hop | (~sum & 0xffff) << 16;
		header[3] = control->reverse ? other : client;
		header[4] = control->reverse ? client : other;
		header[5] = port;
	} else {
		__u32 client = bpf_htonl(control->word[3] + (flow >> PORTS_SHIFT));
		__u64 upper = control->word[0] | (__u64)control->word[1] << 32;
		__u64 lower = control->word[2] | (__u64)client << 32;
		__u64 *address = ip + 8;

		if (ip + sizeof(struct ipv6hdr) + sizeof(__u32) > end)
			return -1;
		*(__u8 *)(ip + 7) = control->hop;
		address[0] = control->reverse ? control->other[0] : upper;
		address[1] = control->reverse ? control->other[1] : lower;
		address[2] = control->reverse ? upper : control->other[0];
		address[3] = control->reverse ? lower : control->other[1];
		*(__u32 *)(ip + 40) = port;
	}
	return 0;
}

/* A place known when it is compiled is a direct jump; else it goes by a retpoline. */
#define GO_ON(context, programs, place)                      \
	do {                                                 \
		if ((place) == 0)                            \
			bpf_tail_call_static(context, programs, 0); \
		else if ((place) == 1)                       \
			bpf_tail_call_static(context, programs, 1); \
		else if ((place) == 2)                       \
			bpf_tail_call_static(context, programs, 2); \
		else if ((place) == 3)                       \
			bpf_tail_call_static(context, programs, 3); \
		else if ((place) == 4)                       \
			bpf_tail_call_static(context, programs, 4); \
		else if ((place) == 5)                       \
			bpf_tail_call_static(context, programs, 5); \
		else if ((place) == 6)                       \
			bpf_tail_call_static(context, programs, 6); \
		else                                         \
			bpf_tail_call_static(context, programs, 7); \
	} while (0)

SEC("xdp")
int walk_xdp(struct xdp_md *context)
{
	struct control *its = control();
	__u32 length = context->data_end - context->data;

	if (!its)
		return XDP_ABORTED;
	if (length != its->length && bpf_xdp_adjust_head(context, (int)(length - its->length)))
		return XDP_ABORTED;
	if (walk((void *)(long)context->data, (void *)(long)context->data_end, its))
		return XDP_ABORTED;
	GO_ON(context, &xdp_programs, its->next);
	return XDP_ABORTED;
}

SEC("tc")
int walk_tc(struct __sk_buff *skb)
{
	struct control *its = control();

	if (!its)
		return TC_ACT_SHOT;
	if (skb->len != its->length &&
	    bpf_skb_adjust_room(skb, (int)(its->length - skb->len), BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	if (walk((void *)(long)skb->data, (void *)(long)skb->data_end, its))
		return TC_ACT_SHOT;
	GO_ON(skb, &tc_programs, its->next);
	return TC_ACT_SHOT;
}

SEC("xdp")
int floor_drop(struct xdp_md *context)
{
	return XDP_DROP;
}

SEC("xdp")
int floor_tx(struct xdp_md *context)
{
	return XDP_TX;
}

/* A TCP packet over IPv4, as little as is needed to find its flow; 0, or -1. */
static __always_inline int floor_parse(struct xdp_md *context, struct floor_key *key)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	__be16 *ports = (void *)(ip + 1);

	if ((void *)ports + 20 > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != PROTOCOL_TCP)
		return -1;
	key->source = ip->saddr;
	key->destination = ip->daddr;
	key->source_port = ports[0];
	key->destination_port = ports[1];
	key->protocol = ip->protocol;
	return 0;
}

static __always_inline int floor_send(struct xdp_md *context, const __u8 *mac)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return XDP_ABORTED;
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
	return XDP_TX;
}

/* F0: parse, rewrite a MAC, send. */
SEC("xdp")
int floor_0(struct xdp_md *context)
{
	static const __u8 mac[ETH_ALEN] = { 2, 0, 0, 0, 1, 11 };
	struct floor_key key = {};

	if (floor_parse(context, &key) || key.source == 0 || key.destination_port == 0)
		return XDP_PASS;
	return floor_send(context, mac);
}

/* F1: F0 and one look-up in a hash of the kernel's. */
SEC("xdp")
int floor_1(struct xdp_md *context)
{
	struct floor_value *value;
	struct floor_key key = {};

	if (floor_parse(context, &key))
		return XDP_PASS;
	value = bpf_map_lookup_elem(&floor_flows, &key);
	return value ? floor_send(context, value->mac) : XDP_PASS;
}

/*
 * F0 and one cache line, which is each flow's own: the least that a table of them touches.  The
 * next packet waits for it (the line is zero, but the processor does not know): else several are
 * fetched at a time, as by no program with more to do than this one.
 */
SEC("xdp")
int floor_line(struct xdp_md *context)
{
	static const __u8 mac[ETH_ALEN] = { 2, 0, 0, 0, 1, 11 };
	struct control *its = control();
	struct floor_key key = {};
	struct line *line;
	__u32 place;

	if (!its || floor_parse(context, &key))
		return XDP_PASS;
	place = bpf_ntohl(key.source) << PORTS_SHIFT | (bpf_ntohs(key.source_port) - FIRST_PORT);
	place = (place * 0x9e3779b1u) & (2 * its->mask + 1);
	line = bpf_map_lookup_elem(&floor_lines, &place);
	if (!line)
		return XDP_PASS;
	its->position += line->word[0];
	return floor_send(context, mac);
}

/* Room in front of the packet, as for a tunnel's header, which the walk takes away again: two
 * calls of the same helper, of which one is the walk's. */
SEC("xdp")
int floor_room(struct xdp_md *context)
{
	return bpf_xdp_adjust_head(context, -(int)sizeof(struct iphdr)) ? XDP_ABORTED : XDP_TX;
}

/* A new flow in the same hash: looked for, not there, entered. */
SEC("xdp")
int floor_insert(struct xdp_md *context)
{
	struct floor_value value = {};
	struct floor_key key = {};

	if (floor_parse(context, &key))
		return XDP_ABORTED;
	if (bpf_map_lookup_elem(&floor_flows, &key))
		return XDP_TX;
	return bpf_map_update_elem(&floor_flows, &key, &value, BPF_NOEXIST) ? XDP_ABORTED : XDP_TX;
}
