/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fragments.  TC runs before the kernel puts datagrams together, so the first
 * fragment, which has the ports, goes as any packet does and leaves a note
 * which entry it used; the others follow the note.
 */
#ifndef XLVS_FRAGMENT_H
#define XLVS_FRAGMENT_H

#include "admit.h"
#include "conn.h"
#include "forward.h"
#include "parse.h"
#include "tunnel.h"

#define DATAGRAMS_UNDER_WAY 4096
#define NOTE_TICKS (30 * TICKS_PER_SECOND) /* kernel: net.ipv4.ipfrag_time */

/* A note's choice, for the others of a first one that was sent round (loopback.h). */
#define GOES_ROUND 0x20000000

struct datagram {
	union address source;
	union address destination;
	__be32 id;
	__u8 protocol;
	__u8 family;
	__u16 pad;
};

struct fragment_note {
	__u32 choice; /* the slot of the first one's entry, or as admit() returns it */
	__u32 written;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DATAGRAMS_UNDER_WAY);
	__type(key, struct datagram);
	__type(value, struct fragment_note);
} fragments SEC(".maps");

static __always_inline struct datagram datagram_of(const struct packet *packet)
{
	struct datagram datagram = {
		.source = packet->flow.client,
		.destination = packet->flow.virtual,
		.id = packet->fragment_id,
		.family = packet->flow.family,
	};

	/* In IPv6 each fragment may name another header as the next (RFC 8200, 4.5). */
	if (packet->flow.family == AF_INET)
		datagram.protocol = packet->flow.protocol;
	return datagram;
}

/* Note which entry, or which destination, a first fragment uses. */
__attribute__((noinline)) int note_fragment(const struct packet *packet, __u32 choice)
{
	struct fragment_note note = { .choice = choice, .written = ticks_now() };
	struct datagram datagram;

	if (!packet)
		return 0;
	datagram = datagram_of(packet);
	return bpf_map_update_elem(&fragments, &datagram, &note, BPF_ANY);
}

/* A packet of the director's own, which goes on once it comes in by lo. */
static __always_inline int go_round(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->fragment)
		note_fragment(packet, GOES_ROUND);
	return send_round(skb);
}

/* Whether the noted entry is still one between the packet's ends: its slot may
 * have been given to another connection. */
static __always_inline int is_entry_of(const struct connection *entry, const struct packet *packet)
{
	return control_phase(load_control(entry)) == PHASE_LIVE &&
	       entry->flow.client.half[0] == packet->flow.client.half[0] &&
	       entry->flow.client.half[1] == packet->flow.client.half[1] &&
	       entry->flow.virtual.half[0] == packet->flow.virtual.half[0] &&
	       entry->flow.virtual.half[1] == packet->flow.virtual.half[1];
}

/* A later fragment from a client, whose first went to that destination. */
static __always_inline int forward_fragment(struct __sk_buff *skb, const struct packet *packet,
					    __u32 index, __u32 method)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);
	int is_here;

	if (!destination)
		return TC_ACT_SHOT;
	is_here = !(destination->reach & REACH_ROUTE);
	if (is_here && !(destination->flags & DESTINATION_LOCAL))
		return TC_ACT_SHOT;
	if (!is_here && packet->own == OWN_LEAVING)
		return send_round(skb);
	if (!is_here && packet->ttl <= 1)
		return TC_ACT_SHOT;
	count_inbound(destination, index, packet->bytes);
	if (method == METHOD_MASQUERADE &&
	    translate_address(skb, packet, &destination->address, NAT_DESTINATION))
		return TC_ACT_SHOT;
	if (is_here)
		return NOT_OURS;
	if (method == METHOD_TUNNEL)
		return tc_tunnel(skb, packet, index, 0);
	return tc_to_destination(skb, packet->flow.family, destination);
}

/* A later fragment of a masqueraded real server's answer, which leaves as the VIP's;
 * `here` tells that its client is the director. */
static __always_inline int answer_fragment(struct __sk_buff *skb, const struct packet *packet,
					   __u32 index, const union address *virtual, int here)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	if (!destination)
		return TC_ACT_SHOT;
	if (!packet->own && !here && packet->ttl <= 1)
		return TC_ACT_SHOT;
	count_outbound(destination, index, packet->bytes);
	if (translate_address(skb, packet, virtual, NAT_SOURCE))
		return TC_ACT_SHOT;
	if (packet->own)
		return NOT_OURS;
	if (here)
		return tc_to_self(skb);
	if (take_hop(skb, packet->flow.family))
		return TC_ACT_SHOT;
	return tc_to(skb, virtual, &packet->flow.virtual, packet->flow.family);
}

/* A later fragment of what has no entry. */
static __always_inline int follow_one_packet(struct __sk_buff *skb, const struct packet *packet,
					     __u32 choice)
{
	struct destination *destination;
	struct service *service;
	__u32 index = choice & CHOSEN_DESTINATION, service_index;

	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return TC_ACT_SHOT;
	if (!(choice & ONE_ANSWER))
		return forward_fragment(skb, packet, index, destination->method);
	service_index = destination->service;
	service = bpf_map_lookup_elem(&services, &service_index);
	return service ? answer_fragment(skb, packet, index, &service->key.address, 0) :
			 TC_ACT_SHOT;
}

/* A later fragment goes the way of its first. */
__attribute__((noinline)) int follow_fragment(struct __sk_buff *skb, const struct packet *packet)
{
	struct connection *entry;
	struct fragment_note *note;
	struct datagram datagram;
	__u32 choice;

	if (!packet)
		return NOT_OURS;
	datagram = datagram_of(packet);
	note = bpf_map_lookup_elem(&fragments, &datagram);
	if (!note || has_passed(note->written + NOTE_TICKS, ticks_now()))
		return NOT_OURS;
	choice = note->choice;
	if (choice == GOES_ROUND)
		return packet->own == OWN_LEAVING ? send_round(skb) : TC_ACT_SHOT;
	if (choice & ONE_PACKET)
		return follow_one_packet(skb, packet, choice);
	entry = conn_at(choice);
	if (!entry || !is_entry_of(entry, packet))
		return TC_ACT_SHOT;
	if (!is_reply(entry))
		return forward_fragment(skb, packet, entry->destination,
					control_method(load_control(entry)));
	entry = conn_of_reply(entry);
	return entry ? answer_fragment(skb, packet, entry->destination, &entry->flow.virtual,
				       control_flags(load_control(entry)) &
					       CONNECTION_CLIENT_HERE) :
		       TC_ACT_SHOT;
}

#endif
