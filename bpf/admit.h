/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * New connections: which packets may begin one, of which service they are, and
 * the entry (kernel: ip_vs_schedule(), net/netfilter/ipvs/ip_vs_core.c).
 */
#ifndef XLVS_ADMIT_H
#define XLVS_ADMIT_H

#include "conn.h"
#include "mark.h"
#include "parse.h"
#include "reach.h"
#include "sched.h"
#include "state.h"
#include "stats.h"

#define FTP_DATA_PORT 20

/* What admit() returns for a packet that gets no connection: this, and the
 * index of the destination that was chosen for it. */
#define ONE_PACKET 0x40000000

static __always_inline int may_be_scheduled(const struct packet *packet)
{
	if (packet->flow.client_port == bpf_htons(FTP_DATA_PORT))
		return 0;
	if (packet->flow.protocol != PROTOCOL_TCP)
		return 1;
	return packet->tcp_flags & TCP_SYN && !(packet->tcp_flags & TCP_RST);
}

/* The service of the packet's firewall mark, else of its protocol, address and
 * port (kernel: ip_vs_service_find()). */
static __always_inline int service_of(const struct __sk_buff *skb, const struct packet *packet)
{
	struct service_key key = { .family = packet->flow.family };
	__u32 *index;

	key.fwmark = mark_of(skb, packet);
	if (key.fwmark) {
		index = bpf_map_lookup_elem(&service_index, &key);
		if (index)
			return *index;
		key.fwmark = 0;
	}
	key.address = packet->flow.virtual;
	key.port = packet->flow.virtual_port;
	key.protocol = packet->flow.protocol;
	index = bpf_map_lookup_elem(&service_index, &key);
	return index ? (int)*index : NOT_FOUND;
}

/* Sources from which the kernel's input routing takes no packet. */
static __always_inline int is_martian(const struct flow *flow)
{
	if (flow->family == AF_INET) {
		__u8 first = bpf_ntohl(flow->client.v4) >> 24;

		return first == 0 || first == 127 || first >= 224 ||
		       flow->client.v4 == flow->virtual.v4;
	}
	/* Multicast; then ::, ::1 and the VIP itself. */
	if ((bpf_ntohl(flow->client.word[0]) >> 24) == 0xff)
		return 1;
	if (flow->client.half[0] == 0 && flow->client.word[2] == 0 &&
	    bpf_ntohl(flow->client.word[3]) <= 1)
		return 1;
	return flow->client.half[0] == flow->virtual.half[0] &&
	       flow->client.half[1] == flow->virtual.half[1];
}

enum admission {
	REFUSED = -1, /* drop it */
	NOT_A_SERVICE = -2,
	NO_SERVER = -3, /* drop it, and tell the client */
	NOT_YET = -4,   /* when it was sent round: it gets no entry that would remember the choice */
};

/* Enter the way back of the masqueraded connection in `slot`, which `new` was: it
 * becomes the other's, for there is no stack for two.  0, or -1 when there is no room. */
static __always_inline int admit_reply(__u32 slot, struct new_connection *new,
				       const struct destination *destination)
{
	struct connection *entry, *reply;
	int found;

	new->flow.virtual = new->flow.client;
	new->flow.virtual_port = new->flow.client_port;
	new->flow.client = destination->address;
	new->flow.client_port = new->destination_port;
	new->destination_port = 0;
	new->flags = CONNECTION_REPLY;
	new->link = slot + 1;
	new->replaces = 0;
	found = conn_insert(new);
	if (found < 0)
		return -1;
	reply = conn_at(found & SLOT_MASK);
	entry = conn_at(slot);
	if (!reply || !entry || !is_reply(reply))
		return -1;
	/* One client port on two VIPs, one real server: the newest gets the answers. */
	reply->link = slot + 1;
	entry->link = (found & SLOT_MASK) + 1;
	return 0;
}

/* The port at a real server; 0 is the packet's own: one service of a mark has many. */
static __always_inline __be16 port_at(const struct packet *packet,
				      const struct destination *destination)
{
	return destination->port ? destination->port : packet->flow.virtual_port;
}

/* A connection for `packet`, to `destination`, in the place of the one that `over` was. */
static __always_inline int enter(const struct packet *packet, struct destination *destination,
				 __u32 service, __u32 index, __u64 over)
{
	struct new_connection new = {};
	struct connection *entry;
	__u32 now = ticks_now();
	int found;

	new.destination = index;
	new.flow = packet->flow;
	new.destination_port = port_at(packet, destination);
	new.expires = now + NEW_CONNECTION_SECONDS * TICKS_PER_SECOND;
	new.flags = CONNECTION_INACTIVE | destination->method << CONNECTION_METHOD_SHIFT;
	if (destination->method != METHOD_MASQUERADE)
		new.flags |= CONNECTION_NO_OUTPUT;
	if (packet->own)
		new.flags |= CONNECTION_CLIENT_HERE;
	new.replaces = over;
	found = conn_insert(&new);
	if (found < 0) {
		COUNT_EVENT(table_full);
		return REFUSED;
	}
	if (found & SLOT_IS_REPLACED)
		uncount(new.replaced_destination, new.replaces);
	if (!(found & SLOT_IS_NEW))
		return found;
	found &= SLOT_MASK;
	__sync_fetch_and_add(&destination->inactive, 1);
	if (destination->method == METHOD_MASQUERADE && admit_reply(found, &new, destination)) {
		entry = conn_at(found);
		if (entry)
			conn_kill(entry, found, now);
		COUNT_EVENT(table_full);
		return REFUSED;
	}
	count_connection(service, index);
	return found;
}

/*
 * Choose a real server for a packet that has no connection, if it is for a
 * service, and make one.  `over` is the control word of an entry of its flow as
 * it was when it was found to be over, or 0: the new one takes its place, unless
 * another CPU was first.  Returns the new slot, ONE_PACKET and a destination, or
 * an `enum admission`.
 */
__attribute__((noinline)) int admit(struct __sk_buff *skb, const struct packet *packet, __u64 over)
{
	struct destination *destination;
	struct service *service;
	__u32 index, chosen;
	int found, one_packet;

	if (!packet)
		return REFUSED;
	if (!may_be_scheduled(packet) || (!packet->own && is_martian(&packet->flow)))
		return NOT_A_SERVICE;
	found = service_of(skb, packet);
	if (found < 0 || !virtual_is_local(skb, found))
		return NOT_A_SERVICE;
	index = found;
	service = bpf_map_lookup_elem(&services, &index);
	if (!service)
		return NOT_A_SERVICE;

	one_packet = service->flags & SERVICE_ONE_PACKET && packet->flow.protocol == PROTOCOL_UDP;
	if (one_packet && packet->own == OWN_LEAVING)
		return NOT_YET;
	found = schedule(index);
	if (found < 0) {
		COUNT_EVENT(no_destination);
		return NO_SERVER;
	}
	chosen = found;
	destination = bpf_map_lookup_elem(&destinations, &chosen);
	if (!destination)
		return REFUSED;
	if (one_packet) {
		count_connection(index, chosen);
		return ONE_PACKET | chosen;
	}
	return enter(packet, destination, index, chosen, over);
}

#endif
