/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What masqueraded real servers of a service with a persistence engine send, where no
 * connection knows it (kernel: __ip_vs_rs_conn_out(), ip_vs_new_conn_out()): a call that
 * one of them begins, or its answer to a client of one-packet scheduling.  It leaves as
 * the VIP's, and the rest of the call comes to that real server.  A client's port has
 * one connection with a service: that of the real server that sent last.
 */
#ifndef XLVS_OUTWARD_H
#define XLVS_OUTWARD_H

#include "admit.h"
#include "answer.h"
#include "conn.h"
#include "forward.h"
#include "fragment.h"
#include "persist.h"
#include "sip.h"

/* Whether there is anybody who might have sent it. */
static __always_inline int may_reach_out(const struct packet *packet)
{
	if (packet->flow.protocol != PROTOCOL_UDP)
		return 0;
	return settings.callers;
}

/* Whether the reply in `slot` has lost its connection: to another real server, or to time. */
static __always_inline int is_stray(__u32 slot)
{
	struct connection *reply = conn_at(slot), *entry = reply ? conn_of_reply(reply) : 0;

	return !entry || has_ended(entry, ticks_now());
}

/* The destination that sent a packet, if that is one to be known, or NOT_FOUND. */
static __always_inline int sender_of(const struct packet *packet)
{
	struct sender sender = {};
	__u32 *index;

	sender.address = packet->flow.client;
	sender.port = packet->flow.client_port;
	sender.family = packet->flow.family;
	sender.protocol = packet->flow.protocol;
	index = bpf_map_lookup_elem(&senders, &sender);
	if (!index) {
		sender.protocol = 0; /* of a firewall mark's service */
		index = bpf_map_lookup_elem(&senders, &sender);
	}
	return index ? (int)*index : NOT_FOUND;
}

/* Whether a packet is on its way through the director, or out of it, and can go on. */
static __always_inline int leads_on(struct __sk_buff *skb, const struct packet *packet)
{
	struct way way = {};

	if (packet->own)
		return 1;
	return packet->ttl > 1 &&
	       !find_way(skb, ANY_SOURCE, &packet->flow.virtual,
			 family_and_length(packet->flow.family,
					   packet->whole && !skb->gso_size ? packet->bytes : 1),
			 &way);
}

/* What the client would have sent, for its packet to come to that service. */
static __always_inline void ask_service(struct packet *request, const struct packet *packet,
					const struct service *service)
{
	request->flow.client = packet->flow.virtual;
	request->flow.client_port = packet->flow.virtual_port;
	request->flow.virtual = service->key.address;
	request->flow.virtual_port = service->key.port;
	request->flow.protocol = packet->flow.protocol;
	request->flow.family = packet->flow.family;
}

/* The connection for a packet of a destination: the slot of its reply, ONE_PACKET and the
 * destination where it gets none, or NOT_A_SERVICE. */
__attribute__((noinline)) int connect_outward(struct __sk_buff *skb, const struct packet *packet,
					      __u32 index)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);
	struct entrance entrance = { .destination = index };
	struct connection *template, *entry;
	struct packet request = {};
	struct service *service;
	int found, call;

	if (!packet || !destination)
		return NOT_A_SERVICE;
	call = read_call_id(skb, packet);
	if (call == NO_CALL_ID)
		return NOT_A_SERVICE;
	entrance.service = destination->service;
	service = bpf_map_lookup_elem(&services, &entrance.service);
	if (!service)
		return NOT_A_SERVICE;
	ask_service(&request, packet, service);
	if (service->flags & SERVICE_PERSISTENT) {
		found = find_template(&request, entrance.service, call, index);
		if (found == NOT_FOUND)
			found = make_template(&request, entrance.service, call, index);
		template = found >= 0 ? conn_at(found) : 0;
		if (!template)
			return NOT_A_SERVICE;
		template->expires = ticks_now() + template->link;
		entrance.link = found + 1;
	}
	if (service->flags & SERVICE_ONE_PACKET) {
		assure_template(entrance.link);
		release_template(entrance.link);
		count_connection(entrance.service, index);
		return ONE_PACKET | index;
	}
	found = conn_find(&request.flow);
	entry = found >= 0 ? conn_at(found) : 0;
	if (entry)
		entrance.over = load_control(entry);
	entrance.port = packet->flow.client_port;
	if (make_connection(&request, &entrance) < 0)
		return NOT_A_SERVICE;
	found = conn_find(&packet->flow);
	return found < 0 ? NOT_A_SERVICE : found;
}

/* Whether a destination is the packet's sender still, and of a service that lets it call.
 * What goes to port 0 has the flow of a template. */
static __always_inline int may_call(const struct destination *destination,
				    const struct packet *packet)
{
	__u32 index = destination->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	return destination->flags & DESTINATION_AVAILABLE &&
	       destination->method == METHOD_MASQUERADE &&
	       destination->port == packet->flow.client_port && packet->flow.virtual_port &&
	       destination->address.half[0] == packet->flow.client.half[0] &&
	       destination->address.half[1] == packet->flow.client.half[1] && service &&
	       service->flags & SERVICE_SIP && !service->key.fwmark && service->key.port;
}

/* The destination that sent a datagram which belongs to nothing, if it may begin a call by it; else
 * NOT_A_SERVICE.  `reply` is 1 + the slot of an entry that says which one, or 0. */
__attribute__((noinline)) int caller_of(struct __sk_buff *skb, const struct packet *packet,
					__u32 reply)
{
	struct connection *entry = reply ? conn_at(reply - 1) : 0;
	struct destination *destination;
	__u32 index;
	int found;

	if (!packet)
		return NOT_A_SERVICE;
	found = entry ? (int)entry->destination : sender_of(packet);
	if (found < 0)
		return NOT_A_SERVICE;
	index = found;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || !may_call(destination, packet) || !leads_on(skb, packet))
		return NOT_A_SERVICE;
	return index;
}

/* A datagram that belongs to nothing: as connect_outward(), if a real server sent it. */
static __always_inline int call_out(struct __sk_buff *skb, const struct packet *packet, __u32 reply)
{
	int index = caller_of(skb, packet, reply);

	return index < 0 ? NOT_A_SERVICE : connect_outward(skb, packet, index);
}

/* Send a datagram of a destination, which has no entry, on as its VIP's. */
__attribute__((noinline)) int answer_one_packet(struct __sk_buff *skb, const struct packet *packet,
						__u32 index)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);
	struct translation change = { .side = NAT_SOURCE };
	struct service *service;
	__u32 service_index;

	if (!packet || !destination)
		return NOT_OURS;
	service_index = destination->service;
	service = bpf_map_lookup_elem(&services, &service_index);
	if (!service)
		return NOT_OURS;
	count_outbound(destination, index, packet->bytes);
	if (packet->fragment)
		note_fragment(packet, ONE_PACKET | ONE_ANSWER | index);
	change.from = packet->flow.client;
	change.to = service->key.address;
	change.from_port = packet->flow.client_port;
	change.to_port = service->key.port;
	if (translate(skb, packet, &change))
		return TC_ACT_SHOT;
	if (packet->own)
		return NOT_OURS;
	COUNT_EVENT(forwarded);
	if (take_hop(skb, packet->flow.family))
		return TC_ACT_SHOT;
	return tc_to(skb, &change.to, &packet->flow.virtual, packet->flow.family);
}

/* Send on what call_out() found a connection for, or a destination. */
static __always_inline int send_call(struct __sk_buff *skb, const struct packet *packet, int choice)
{
	if (choice & ONE_PACKET)
		return answer_one_packet(skb, packet, choice & CHOSEN_DESTINATION);
	return answer(skb, packet, choice);
}

#endif
