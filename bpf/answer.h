/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answers of real servers to their clients.  Those of masqueraded ones come
 * through the director and leave as the VIP's; those of servers on the director
 * itself are seen as they leave it (kernel: handle_response(), ip_vs_core.c).
 */
#ifndef XLVS_ANSWER_H
#define XLVS_ANSWER_H

#include "conn.h"
#include "forward.h"
#include "headers.h"
#include "fragment.h"
#include "state.h"

/*
 * Ways to clients, as they were found within the last eighth of a second: asking the
 * routing table costs half as much as all the rest of an answer, in IPv6 twice as much.
 * Each CPU has its own, so that none reads what another is writing.
 */
#define CLIENT_WAY_BITS 12
#define CLIENT_WAYS (1 << CLIENT_WAY_BITS)
#define CLIENT_WAY_TICKS (TICKS_PER_SECOND / 8)

/* What an answer by the express way needs is the first cache line. */
struct client_way {
	union address client;
	union address virtual; /* the answers' source */
	__u32 found;           /* tick; 0: holds for the packet at hand alone */
	__u8 family;
	__u8 pad[3];
	/* While it holds, of the next hop and of the interface: what the express ways send by.
	 * Once it does not, a packet goes by `way`, which confirms the kernel's neighbour entry. */
	__u8 macs[2 * ETH_ALEN];
	__u32 more_pad;
	struct way way;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLIENT_WAYS);
	__type(key, __u32);
	__type(value, struct client_way);
} client_ways SEC(".maps");

/* Its upper bits depend on all of the address, its lower ones do not. */
static __always_inline __u64 address_hash(__u8 family, const union address *address)
{
	__u64 hash = address->half[0] * limits.hash_factor[0];

	return family == AF_INET ? hash : hash + address->half[1] * limits.hash_factor[1];
}

static __always_inline struct client_way *client_way_of(__u8 family, const union address *client)
{
	__u32 index = address_hash(family, client) >> (64 - CLIENT_WAY_BITS);

	return bpf_map_lookup_elem(&client_ways, &index);
}

/*
 * Next hops on ways to clients, and when a packet last went to them by TC.  That lets the
 * kernel confirm its neighbour entry, which frames of XDP do not: where it was not within
 * the last second, XDP leaves a packet to TC.
 */
#define NEXT_HOP_BITS 10
#define NEXT_HOPS (1 << NEXT_HOP_BITS)

struct next_hop {
	union address address;
	__u32 interface;
	__u32 used; /* tick */
	__u64 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEXT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

static __always_inline struct next_hop *next_hop_at(const struct way *way)
{
	__u32 index = address_hash(way->family, &way->next_hop) >> (64 - NEXT_HOP_BITS);

	return bpf_map_lookup_elem(&next_hops, &index);
}

/* A packet goes that way by TC. */
static __always_inline void note_next_hop(const struct way *way, __u32 now)
{
	struct next_hop *next = next_hop_at(way);

	if (!next)
		return;
	next->address = way->next_hop;
	next->interface = way->interface;
	next->used = now;
}

/* Whether a record is of this client and VIP, and holds for packets of up to `length` bytes. */
static __always_inline int leads_to(const struct client_way *known, const union address *virtual,
				    const union address *client, __u32 family, __u32 length, __u32 now)
{
	return now - known->found < CLIENT_WAY_TICKS && known->family == family &&
	       known->client.half[0] == client->half[0] && known->virtual.half[0] == virtual->half[0] &&
	       (family == AF_INET || (known->client.half[1] == client->half[1] &&
				      known->virtual.half[1] == virtual->half[1])) &&
	       length <= known->way.mtu;
}

static __always_inline void remember_client_way(struct client_way *known, const union address *virtual,
						const union address *client, __u8 family,
						const struct bpf_fib_lookup *query)
{
	known->client = *client;
	known->virtual = *virtual;
	known->family = family;
	__builtin_memcpy(known->macs, query->dmac, ETH_ALEN);
	__builtin_memcpy(known->macs + ETH_ALEN, query->smac, ETH_ALEN);
}

/* Ask for the way to a client, as the VIP's, and write its record; 0, or what bpf_fib_lookup()
 * returns where there is none for a packet of that length: the record is as it was then. */
__attribute__((noinline)) int learn_client_way(struct __sk_buff *skb, const union address *virtual,
					       const union address *client, __u32 asked)
{
	struct client_way *known = client ? client_way_of(family_in(asked), client) : 0;
	struct bpf_fib_lookup query = {};
	int refused;

	if (!known || !virtual)
		return BPF_FIB_LKUP_RET_UNREACHABLE;
	refused = ask_way(skb, &query, virtual, client, asked, &known->way);
	if (refused)
		return refused;
	remember_client_way(known, virtual, client, family_in(asked), &query);
	known->found = known->way.mtu ? ticks_now() : 0;
	if (known->found) {
		learn_interface(skb);
		note_next_hop(&known->way, known->found);
	}
	return 0;
}

/* The same, if it is not known. */
static __always_inline int way_to_client(struct __sk_buff *skb, const struct packet *packet,
					 const union address *virtual, __u32 now)
{
	const union address *client = &packet->flow.virtual;
	__u32 longest = packet->whole && !skb->gso_size ? packet->bytes : 1;
	struct client_way *known = client_way_of(packet->flow.family, client);

	if (known && leads_to(known, virtual, client, packet->flow.family, longest, now))
		return 0;
	return learn_client_way(skb, virtual, client, family_and_length(packet->flow.family, longest));
}

/* What a connection must not have, besides its method, for an answer to go express. */
#define FLAGS_OF_ANSWERED                                                           \
	(CONNECTION_REPLY | CONNECTION_TEMPLATE | CONNECTION_NO_OUTPUT |            \
	 CONNECTION_CLIENT_HERE | CONNECTION_METHOD_MASK << CONNECTION_METHOD_SHIFT)

/* Whether a reply's entry led to its connection, as conn_of_reply() tells, and that is in a state
 * which an answer leaves as it is; `flow` and `ports` are the answer's. */
static __always_inline int is_answered_by(__u8 family, const struct connection *entry, const struct flow *flow,
					  const struct ports *ports, __u32 state,
					  const struct connection *reply)
{
	const flow_word *word = (const flow_word *)&entry->flow;

	return ((__u32)load_control(entry) & (__u32)CONTROL_BITS(0xff, 0xff, FLAGS_OF_ANSWERED)) ==
		       (__u32)CONTROL_BITS(PHASE_LIVE, state,
					   METHOD_MASQUERADE << CONNECTION_METHOD_SHIFT) &&
	       *(const flow_half *)&entry->flow.protocol == ((__u32)family << 8 | flow->protocol) &&
	       entry->flow.client_port == ports->destination &&
	       word[0] == flow->virtual.half[0] &&
	       (family == AF_INET || word[1] == flow->virtual.half[1]) &&
	       entry->destination == reply->destination && entry->destination_port == ports->source;
}

/* That connection, or null. */
static __always_inline struct connection *conn_of_answer(__u8 family, const struct headers *headers,
							 __u32 state, const struct connection *reply)
{
	struct connection *entry = reply->link ? conn_at(reply->link - 1) : 0;

	if (!entry)
		return 0;
	asm volatile("" : "+r"(entry));
	return is_answered_by(family, entry, &headers->flow, headers->transport, state, reply) ? entry : 0;
}

/* Between a real server and a client the director is a router, but for those on itself. */
static __always_inline int is_routed(const struct packet *packet, const struct connection *entry)
{
	return !packet->own &&
	       !(control_flags(load_control(entry)) & CONNECTION_CLIENT_HERE);
}

/* On to the client: `way` is that of a routed packet. */
static __always_inline int send_answer(struct __sk_buff *skb, const struct packet *packet,
				       const struct connection *entry, const struct way *way)
{
	if (packet->own)
		return NOT_OURS;
	COUNT_EVENT(forwarded);
	if (!is_routed(packet, entry))
		return tc_to_self(skb);
	if (!way || take_hop(skb, packet->flow.family))
		return TC_ACT_SHOT;
	return send_on(way);
}

/*
 * A packet from a masqueraded real server, whose entry is in `slot`.  What its
 * router has to refuse, for its TTL or its size, is left to the stack, which is
 * that router and tells the real server.
 */
__attribute__((noinline)) int answer(struct __sk_buff *skb, const struct packet *packet,
				     __u32 slot)
{
	struct connection *reply = conn_at(slot), *entry;
	struct destination *destination;
	struct translation change = { .side = NAT_SOURCE };
	__u32 index, now = ticks_now();
	struct client_way *known;
	int refused;

	if (!packet || !reply)
		return NOT_OURS;
	entry = conn_of_reply(reply);
	if (!entry || has_ended(entry, now))
		return NOT_OURS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return NOT_OURS;
	if (is_routed(packet, entry)) {
		if (packet->ttl <= 1)
			return NOT_OURS;
		refused = way_to_client(skb, packet, &entry->flow.virtual, now);
		if (refused == BPF_FIB_LKUP_RET_FRAG_NEEDED)
			return NOT_OURS;
		if (refused) {
			COUNT_EVENT(unroutable);
			return TC_ACT_SHOT;
		}
	}
	count_outbound(destination, index, packet->bytes);
	follow(entry, packet, DIRECTION_OUTPUT, now);
	if (packet->fragment)
		note_fragment(packet, slot);
	change.from = packet->flow.client;
	change.to = entry->flow.virtual;
	change.from_port = packet->flow.client_port;
	change.to_port = entry->flow.virtual_port;
	if (translate(skb, packet, &change))
		return TC_ACT_SHOT;
	known = client_way_of(packet->flow.family, &packet->flow.virtual);
	return send_answer(skb, packet, entry, known ? &known->way : 0);
}

/*
 * A packet that leaves the director for a client of a real server here that is
 * not masqueraded: nothing to change, but it counts, and moves the state.
 */
__attribute__((noinline)) int note_local_answer(const struct packet *packet)
{
	struct destination *destination;
	struct connection *entry;
	struct flow asked = {};
	__u32 index, now = ticks_now();
	int slot;

	if (!packet)
		return 0;
	asked.client = packet->flow.virtual;
	asked.virtual = packet->flow.client;
	asked.client_port = packet->flow.virtual_port;
	asked.virtual_port = packet->flow.client_port;
	asked.protocol = packet->flow.protocol;
	asked.family = packet->flow.family;
	slot = conn_find(&asked);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (!entry || is_reply(entry) || is_template(entry) || has_passed(entry->expires, now) ||
	    control_method(load_control(entry)) == METHOD_MASQUERADE)
		return 0;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return 0;
	count_outbound(destination, index, packet->bytes);
	follow(entry, packet, DIRECTION_OUTPUT, now);
	return 1;
}

#endif
