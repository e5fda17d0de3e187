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
#include "fragment.h"
#include "state.h"

/*
 * Ways to clients, as they were found within the last eighth of a second: asking the
 * routing table costs half as much as all the rest of an answer, in IPv6 twice as much.
 * Each CPU has its own, so that none reads what another is writing.
 */
#define CLIENT_WAYS 4096
#define CLIENT_WAY_TICKS (TICKS_PER_SECOND / 8)

struct client_way {
	union address client;
	union address virtual; /* the answers' source */
	struct way way;
	__u32 found;           /* tick; 0: nothing here */
	__u8 family;
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLIENT_WAYS);
	__type(key, __u32);
	__type(value, struct client_way);
} client_ways SEC(".maps");

static __always_inline struct client_way *client_way_of(const union address *client)
{
	__u64 hash = client->half[0] * limits.hash_factor[0] + client->half[1] * limits.hash_factor[1];
	__u32 index;

	hash ^= hash >> 32;
	index = (hash * limits.hash_factor[2] >> 32) & (CLIENT_WAYS - 1);
	return bpf_map_lookup_elem(&client_ways, &index);
}

/* The way to a packet's client, as the VIP's; 0, or what bpf_fib_lookup() returns where there is
 * none for it. */
static __always_inline int way_to_client(struct __sk_buff *skb, const struct packet *packet,
					 const union address *virtual, __u32 now, struct way *way)
{
	const union address *client = &packet->flow.virtual;
	__u32 longest = packet->whole && !skb->gso_size ? packet->bytes : 1;
	struct client_way *known = client_way_of(client);
	int refused;

	if (known && known->found && now - known->found < CLIENT_WAY_TICKS &&
	    known->family == packet->flow.family &&
	    known->client.half[0] == client->half[0] && known->client.half[1] == client->half[1] &&
	    known->virtual.half[0] == virtual->half[0] && known->virtual.half[1] == virtual->half[1] &&
	    longest <= known->way.mtu) {
		*way = known->way;
		return 0;
	}
	refused = find_way(skb, virtual, client, family_and_length(packet->flow.family, longest), way);
	if (!refused && way->mtu && known) {
		known->client = *client;
		known->virtual = *virtual;
		known->family = packet->flow.family;
		known->way = *way;
		known->found = now;
	}
	return refused;
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
	if (take_hop(skb, packet->flow.family))
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
	struct way way = {};
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
		refused = way_to_client(skb, packet, &entry->flow.virtual, now, &way);
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
	return send_answer(skb, packet, entry, &way);
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
