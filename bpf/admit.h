/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * New connections: which packets may begin one, of which service they are, and
 * the entry (kernel: ip_vs_schedule(), net/netfilter/ipvs/ip_vs_core.c).
 */
#ifndef XLVS_ADMIT_H
#define XLVS_ADMIT_H

#include "conn.h"
#include "defense.h"
#include "mark.h"
#include "overload.h"
#include "parse.h"
#include "persist.h"
#include "reach.h"
#include "sched.h"
#include "state.h"
#include "stats.h"
#include "sysctl.h"

#define FTP_DATA_PORT 20
#define FIRST_UNPRIVILEGED_PORT 1024

/* What admit() returns for a packet that gets no connection: this, and the
 * index of the destination that was chosen for it. */
#define ONE_PACKET 0x40000000
#define ONE_ANSWER 0x20000000 /* and it comes from that destination */
#define CHOSEN_DESTINATION 0x1fffffff

static __always_inline int may_be_scheduled(const struct packet *packet)
{
	/* From port 0 come no connections: it is that of templates. */
	if (packet->flow.client_port == bpf_htons(FTP_DATA_PORT) || packet->flow.client_port == 0)
		return 0;
	/* Whatever it says of its state (kernel: tcp_conn_schedule(), sctp_conn_schedule()). */
	if (packet->quoted)
		return 1;
	if (packet->flow.protocol == PROTOCOL_SCTP)
		return asks(packet) || (packet->sctp_event != SCTP_NO_CHUNK &&
					is_set(SYSCTL_SLOPPY_SCTP));
	if (packet->flow.protocol != PROTOCOL_TCP)
		return 1;
	if (packet->tcp_flags & TCP_RST)
		return 0;
	return packet->tcp_flags & TCP_SYN || is_set(SYSCTL_SLOPPY_TCP);
}

/* Whether a packet that begins no connection, or an error about one, may be of one that has
 * no entry, because it began in a full table. */
static __always_inline int may_have_no_entry(const struct packet *packet)
{
	return full_at() && (packet->quoted || packet->flow.protocol != PROTOCOL_UDP) &&
	       packet->flow.client_port != bpf_htons(FTP_DATA_PORT) && packet->flow.client_port != 0;
}

static __always_inline int may_be_ftp_data(const struct packet *packet)
{
	return packet->flow.protocol == PROTOCOL_TCP &&
	       (packet->flow.virtual_port == bpf_htons(FTP_DATA_PORT) ||
		bpf_ntohs(packet->flow.virtual_port) >= FIRST_UNPRIVILEGED_PORT);
}

/* The service of the packet's firewall mark, else of its protocol, address and
 * port, else of what an FTP server's data may be, else of all ports
 * (kernel: ip_vs_service_find()). */
static __always_inline int service_of(const struct __sk_buff *skb, const struct packet *packet)
{
	struct service_key key = { .family = packet->flow.family };
	__u32 *index = 0;

	/* Read once: one table for all that is asked for here. */
	key.family |= *(volatile __u32 *)&settings.table & OTHER_TABLE;
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
	if (index)
		return *index;
	if (settings.ftp_services && may_be_ftp_data(packet)) {
		key.port = bpf_htons(FTP_PORT);
		index = bpf_map_lookup_elem(&service_index, &key);
	}
	if (!index && settings.any_port_services) {
		key.port = 0;
		index = bpf_map_lookup_elem(&service_index, &key);
	}
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
	NO_CACHE = -5,  /* NO_SERVER, and cache_bypass is on: to where it was sent in the first place */
	NO_ROOM = -6,   /* the table is full; connection_for() makes REFUSED of it */
};

/* Enter the way back of the masqueraded connection in `slot`, which `new` was: it
 * becomes the other's, for there is no stack for two.  0, or -1 when there is no room. */
static __always_inline int admit_reply(__u32 slot, struct new_connection *new,
				       const struct destination *destination)
{
	__u32 kind = kind_of_reply(new->flow.virtual_port);
	struct connection *reply;
	int found;

	new->flow.virtual = new->flow.client;
	new->flow.virtual_port = new->flow.client_port;
	new->flow.client = destination->address;
	new->flow.client_port = new->destination_port;
	new->destination_port = 0;
	new->state = 0;
	new->flags = CONNECTION_REPLY | kind;
	new->link = slot + 1;
	new->replaces = 0;
	for (int i = 0; i < 2; i++) {
		found = conn_insert(new);
		reply = found >= 0 ? conn_at(found & SLOT_MASK) : 0;
		if (!reply || !is_reply(reply))
			return -1;
		if (found & SLOT_IS_NEW)
			return 0;
		/* One client port on two VIPs, one real server: the newest gets the answers,
		 * unless the older's end comes in between. */
		if (take_reply(found & SLOT_MASK, slot, new->destination, kind))
			return 0;
	}
	return -1;
}

/* The port at a real server, where it has one for all of its service's packets;
 * else the packet's own. */
static __always_inline __be16 port_at(const struct packet *packet, const struct service *service,
				      const struct destination *destination)
{
	if (service->flags & SERVICE_PERSISTENT && packet->flow.virtual_port != service->key.port)
		return packet->flow.virtual_port;
	return destination->port ? destination->port : packet->flow.virtual_port;
}

/* The same of a packet that gets no entry. */
static __always_inline __be16 port_of_one_packet(const struct packet *packet,
						 const struct destination *destination)
{
	__u32 index = destination->service;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	return service ? port_at(packet, service, destination) : packet->flow.virtual_port;
}

struct entrance {
	__u32 service;
	__u32 destination;
	__u32 link;    /* 1 + the slot of its template, or 0 */
	__be16 port;
	__u8 expected; /* not counted as a connection of its service */
	__u8 by_hash;  /* overload.h names its destination */
	__u64 over;
};

/*
 * The state that a SYN leads to, whatever is asked of it afterwards: entered with the
 * connection, it spares the packet another change of the entry and of the counters.
 */
static __always_inline void begin_state(struct new_connection *new, const struct packet *packet)
{
	__u32 direction = new->flags & CONNECTION_NO_OUTPUT ? DIRECTION_INPUT_ONLY : DIRECTION_INPUT;

	if (packet->flow.protocol != PROTOCOL_TCP || packet->quoted ||
	    (packet->tcp_flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		return;
	new->state = tcp_next_state(direction, TCP_NONE, packet->tcp_flags, is_secure());
	new->flags &= ~CONNECTION_INACTIVE;
}

/* A connection for `packet`, in the place of the one that `over` was; or NO_ROOM. */
__attribute__((noinline)) int make_connection(const struct packet *packet, const struct entrance *entrance)
{
	struct new_connection new = {};
	struct destination *destination;
	struct connection *entry;
	__u32 now = ticks_now();
	int found;

	if (!packet || !entrance)
		return REFUSED;
	new.destination = entrance->destination;
	destination = bpf_map_lookup_elem(&destinations, &new.destination);
	if (!destination)
		return REFUSED;
	new.flow = packet->flow;
	new.destination_port = entrance->port;
	new.expires = now + NEW_CONNECTION_SECONDS * TICKS_PER_SECOND;
	new.flags = CONNECTION_INACTIVE | destination->method << CONNECTION_METHOD_SHIFT;
	if (destination->method != METHOD_MASQUERADE)
		new.flags |= CONNECTION_NO_OUTPUT;
	if (packet->own)
		new.flags |= CONNECTION_CLIENT_HERE;
	if (entrance->by_hash)
		new.flags |= CONNECTION_BY_HASH;
	begin_state(&new, packet);
	new.link = entrance->link;
	new.replaces = entrance->over;
	found = conn_insert(&new);
	if (found < 0 || !(found & SLOT_IS_NEW)) {
		release_template(entrance->link);
		return found < 0 ? NO_ROOM : found;
	}
	if (found & SLOT_IS_REPLACED) {
		release_template(new.replaced.link);
		uncount(new.replaced.destination, entrance->over);
	}
	found &= SLOT_MASK;
	count_new(destination, new.destination, new.flags);
	if (destination->method == METHOD_MASQUERADE && admit_reply(found, &new, destination)) {
		entry = conn_at(found);
		if (entry)
			conn_kill(entry, found, now);
		return NO_ROOM;
	}
	if (!entrance->expected)
		count_connection(entrance->service, entrance->destination);
	return found;
}

/* Whether a service takes a packet to that port (kernel: ip_vs_schedule()). */
static __always_inline int takes_port(const struct service *service, const struct packet *packet)
{
	return service->key.fwmark || service->flags & SERVICE_PERSISTENT ||
	       service->key.port == packet->flow.virtual_port;
}

/* The virtual FTP service lends its address to others: what it has no server for
 * may be theirs (kernel: ip_vs_leave()). */
static __always_inline int no_server(const struct service *service, const struct packet *packet)
{
	if (service->key.port == bpf_htons(FTP_PORT) &&
	    packet->flow.virtual_port != bpf_htons(FTP_PORT))
		return NOT_A_SERVICE;
	if (service->key.fwmark && is_set(SYSCTL_CACHE_BYPASS))
		return NO_CACHE;
	COUNT_EVENT(no_destination);
	return NO_SERVER;
}

/* Choose a destination: sets `entrance`'s, and its template where there is one;
 * 0, or an `enum admission`. */
static __always_inline int choose(struct __sk_buff *skb, const struct packet *packet,
				  const struct service *service, struct entrance *entrance)
{
	struct connection *template;
	int found, call = NO_CALL_ID;

	if (!(service->flags & SERVICE_PERSISTENT)) {
		found = schedule(entrance->service, packet);
		if (found < 0)
			return no_server(service, packet);
		entrance->destination = found;
		return 0;
	}
	if (service->flags & SERVICE_SIP) {
		call = read_call_id(skb, packet);
		if (call == NO_CALL_ID) {
			COUNT_EVENT(no_call_id);
			return REFUSED;
		}
	}
	found = hold_template(packet, entrance->service, call, ANY_SERVER);
	if (found == NO_DESTINATION)
		return no_server(service, packet);
	template = found >= 0 ? conn_at(found) : 0;
	if (!template)
		return NO_ROOM;
	entrance->destination = template->destination;
	entrance->link = found + 1;
	/* Each connection lets it live its time anew. */
	template->expires = ticks_now() + template->link;
	return 0;
}

/* The template of a packet whose destination is to be chosen by hash: the one in force,
 * or, where there is room, a new one for `server`.  Its slot, or a negative number. */
static __always_inline int template_in_overload(const struct packet *packet, __u32 service,
						int server, int make)
{
	int found = find_template(packet, service, NO_CALL_ID, ANY_SERVER);

	if (found == NOT_FOUND && make && server >= 0)
		found = make_template(packet, service, NO_CALL_ID, server);
	return found;
}

/* Whether a packet that goes by hash asks for an entry, if it can do without. */
static __always_inline int is_to_be_entered(const struct packet *packet,
					    const struct entrance *entrance, __u32 phase)
{
	if (packet->quoted || packet->tcp_flags & TCP_RST)
		return 0;
	if (entrance->over)
		return 1;
	return phase != FULL ||
	       (!asks(packet) && bpf_get_prandom_u32() % ENTERED_SHARE == 0);
}

/*
 * A packet of no entry while the table is full, or not long after: as admit(), but
 * its destination is the one that overload.h names, or its template's.
 */
static __always_inline int admit_by_hash(const struct packet *packet, const struct service *service,
					 struct entrance *entrance)
{
	struct destination *destination;
	struct connection *template = 0;
	int found, chosen, late, enter, masqueraded;
	__u32 lifetime;

	late = packet->quoted || !may_be_scheduled(packet);
	enter = is_to_be_entered(packet, entrance,
				 overload_phase(service, packet->flow.protocol));
	chosen = choose_by_hash(packet, entrance->service);
	entrance->link = 0;
	if (service->flags & SERVICE_PERSISTENT) {
		found = template_in_overload(packet, entrance->service, chosen, enter);
		template = found >= 0 ? conn_at(found) : 0;
	}
	if (template) {
		/* It knows of no flow without an entry; but those go where it says. */
		lifetime = remembered_for(service, packet->flow.protocol);
		if (lifetime < template->link)
			lifetime = template->link;
		template->expires = ticks_now() + lifetime;
		entrance->link = found + 1;
		chosen = template->destination;
	}
	destination = chosen >= 0 ? bpf_map_lookup_elem(&destinations, &chosen) : 0;
	if (!destination)
		return late ? NOT_A_SERVICE : no_server(service, packet);
	entrance->destination = chosen;
	masqueraded = destination->method == METHOD_MASQUERADE;
	if (masqueraded && late) {
		release_template(entrance->link);
		return NOT_A_SERVICE; /* such a connection has an entry, or is none */
	}
	if (enter || masqueraded) {
		entrance->port = port_at(packet, service, destination);
		entrance->expected = late; /* it counted when it began */
		entrance->by_hash = 1;
		found = make_connection(packet, entrance);
		if (found != NO_ROOM || masqueraded)
			return found;
	} else {
		release_template(entrance->link);
	}
	if (packet->own == OWN_LEAVING)
		return NOT_YET;
	if (asks(packet) && !late)
		count_connection(entrance->service, entrance->destination);
	COUNT_EVENT(stateless);
	return ONE_PACKET | entrance->destination;
}

/* A packet that gets no entry of its own is one of its template's. */
static __always_inline void count_at_template(__u32 link)
{
	struct connection *template = template_at(link);

	if (template)
		count_in_packet(template);
}

/* Whether somebody may expect FTP data of a client's at a port. */
static __always_inline int may_be_expected(const struct packet *packet)
{
	if (!(packet->tcp_flags & TCP_SYN) || !may_be_ftp_data(packet))
		return 0;
	return settings.ftp_services || settings.any_port_services || settings.mark_set;
}

/*
 * An FTP client's first packet to the port that it was told: what was expected
 * ends, and the connection begins that goes where that would have (kernel:
 * ip_vs_conn_fill_cport()).  Fills in `entrance`; 0 if nothing is expected.
 */
__attribute__((noinline)) int take_expected(const struct packet *packet, struct entrance *entrance)
{
	struct connection *entry, *controller;
	struct flow flow;
	__u64 control;
	int slot;

	if (!packet || !entrance)
		return 0;
	flow = packet->flow;
	flow.client_port = 0;
	flow.apart = FLOW_EXPECTED;
	slot = conn_find(&flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (!entry || has_passed(entry->expires, ticks_now()))
		return 0;
	entrance->destination = entry->destination;
	entrance->link = entry->link;
	entrance->port = entry->destination_port;
	entrance->expected = 1;
	control = bury(entry, ticks_now());
	if (!control)
		return 0; /* another packet was first */
	uncount(entrance->destination, control);
	/* The answer has come that was asked for. */
	controller = conn_at((entrance->link & ~LINK_TO_FTP) - 1);
	if (controller)
		conn_set_flags(controller, 0, CONNECTION_PASSIVE);
	return 1;
}

/*
 * Choose a real server for a packet that has no connection, if it is for a
 * service, and make one.  `over` is the control word of an entry of its flow as
 * it was when it was found to be over, or 0: the new one takes its place, unless
 * another CPU was first.  Returns the new slot, ONE_PACKET and a destination, or
 * an `enum admission`.
 */
static __always_inline int admit(struct __sk_buff *skb, const struct packet *packet, __u64 over)
{
	struct entrance entrance = { .over = over };
	struct destination *destination;
	struct service *service;
	int found, one_packet, may_hash, late;
	enum overload_phase phase;

	late = !may_be_scheduled(packet) || (packet->quoted && !is_set(SYSCTL_SCHEDULE_ICMP));
	if ((late && !may_have_no_entry(packet)) || (!packet->own && is_martian(&packet->flow)))
		return NOT_A_SERVICE;
	if (may_be_expected(packet) && take_expected(packet, &entrance))
		return make_connection(packet, &entrance);
	found = service_of(skb, packet);
	if (found < 0 || !virtual_is_local(skb, found))
		return NOT_A_SERVICE;
	entrance.service = found;
	service = bpf_map_lookup_elem(&services, &entrance.service);
	if (!service || !takes_port(service, packet))
		return NOT_A_SERVICE;
	one_packet = service->flags & SERVICE_ONE_PACKET && packet->flow.protocol == PROTOCOL_UDP;
	if (one_packet && packet->own == OWN_LEAVING)
		return NOT_YET;
	if (one_packet && packet->quoted)
		return NOT_A_SERVICE; /* the error would find no entry that says where it belongs */
	/* What has no entries, or has an engine of its own, needs no hash. */
	may_hash = !one_packet && !(service->flags & SERVICE_SIP);
	phase = overload_phase(service, packet->flow.protocol);
	if (late && (phase == ROOM || !may_hash))
		return NOT_A_SERVICE;
	if (!late && is_dropped_in_defense()) {
		COUNT_EVENT(defended);
		return REFUSED;
	}
	/* A persistent client's new template must not lead its older flows elsewhere. */
	if (!may_hash || phase == ROOM ||
	    (phase == REMEMBERED && !late && asks(packet) &&
	     !(service->flags & SERVICE_PERSISTENT))) {
		found = choose(skb, packet, service, &entrance);
		if (found == 0 && one_packet) {
			count_at_template(entrance.link);
			release_template(entrance.link);
			count_connection(entrance.service, entrance.destination);
			return ONE_PACKET | entrance.destination;
		}
		if (found == 0) {
			destination = bpf_map_lookup_elem(&destinations, &entrance.destination);
			if (destination)
				entrance.port = port_at(packet, service, destination);
			found = make_connection(packet, &entrance);
		}
		if (found != NO_ROOM || !may_hash)
			return found;
	}
	return admit_by_hash(packet, service, &entrance);
}

/* Whether an entry that was to be rehomed can stay where it is. */
static __always_inline int has_quiesced_server(const struct connection *entry, __u32 now)
{
	__u32 index = entry->destination;
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	return destination && destination->flags & DESTINATION_REHOMES &&
	       destination->flags & DESTINATION_AVAILABLE && !has_ended(entry, now) &&
	       entry->flow.protocol == PROTOCOL_UDP;
}

/*
 * The connection of a client's packet, which may have an entry in `slot`: that, or
 * a new one.  Returns what admit() does.
 */
__attribute__((noinline)) int connection_for(struct __sk_buff *skb, const struct packet *packet,
					     int slot)
{
	struct connection *entry;
	__u32 now = ticks_now();
	__u64 control = 0;
	int found;

	if (!packet)
		return REFUSED;
	if (slot >= 0) {
		entry = conn_at(slot);
		if (!entry)
			return REFUSED;
		control = load_control(entry);
		if (control_flags(control) & CONNECTION_TEMPLATE)
			return NOT_A_SERVICE;
		if (!is_over(entry, control, packet, now))
			return slot;
	}
	found = admit(skb, packet, control);
	if (found < 0 && slot >= 0) {
		entry = conn_at(slot);
		/* A quiesced real server is better than none. */
		if (found == NO_SERVER && entry && has_quiesced_server(entry, now))
			return slot;
		if (entry)
			conn_kill_as(entry, slot, control, now);
	}
	if (found == NO_ROOM) {
		COUNT_EVENT(table_full);
		return REFUSED;
	}
	return found;
}

#endif
