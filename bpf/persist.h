/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Persistence: a template remembers which real server a client, or a network of
 * clients, has with a service, and outlives the connections that it controls
 * (kernel: ip_vs_sched_persist(), ip_vs_check_template(), ip_vs_conn_expire()).
 *
 * A template stands in the connection table under a flow that no packet has: the
 * client's network, port 0.  The upper half of its control word counts the
 * connections that it controls, so that whoever ends it knows, by the same
 * compare-and-swap, that there are none.
 *
 * Where the persistence engine "sip" asks for it, a template is also for one Call-ID
 * alone.  Its flow has a hash of it, `call_ids` the text, from when it is made until
 * it ends; its slot is nobody else's for a second more, so that no text is another's.
 */
#ifndef XLVS_PERSIST_H
#define XLVS_PERSIST_H

#include "conn.h"
#include "parse.h"
#include "sched.h"
#include "sip.h"

#define EXTENSION_TICKS (60 * TICKS_PER_SECOND) /* for what still controls connections */
#define ANY_SERVER (-1)
#define NO_TEMPLATE (-2)
#define CALL_CHOICES 2 /* flows for a Call-ID, in case that two have one hash */

static __always_inline __u32 control_controlled(__u64 control)
{
	return control >> CONTROL_CONTROLLED_SHIFT;
}

static __always_inline int is_template(const struct connection *entry)
{
	return control_flags(load_control(entry)) & CONNECTION_TEMPLATE;
}

static __always_inline __u64 keep_bits(__u64 half, __s32 bits)
{
	if (bits <= 0)
		return 0;
	return bits >= 64 ? half : half & bpf_cpu_to_be64(~0ULL << (64 - bits));
}

/* The network of `length` bits that an address is in. */
static __always_inline void mask_address(union address *address, __s32 length)
{
	address->half[0] = keep_bits(address->half[0], length);
	address->half[1] = keep_bits(address->half[1], length - 64);
}

/*
 * Under which flow the template for a packet stands.  A service of one port has
 * it in its templates; FTP's and those of all ports have 0, for whatever belongs
 * together; those of a firewall mark have the mark for an address, and no protocol.
 */
static __always_inline void template_flow(const struct packet *packet,
					  const struct service *service, struct flow *flow)
{
	flow->family = packet->flow.family;
	flow->client = packet->flow.client;
	mask_address(&flow->client, service->netmask);
	if (packet->flow.virtual_port == service->key.port) {
		if (service->key.port != bpf_htons(FTP_PORT))
			flow->virtual_port = service->key.port;
	} else if (service->key.fwmark) {
		flow->virtual.word[0] = bpf_htonl(service->key.fwmark);
		return;
	}
	flow->protocol = packet->flow.protocol;
	flow->virtual = packet->flow.virtual;
}

/* End a template that controls nothing; false if it does by now. */
static __always_inline int end_template(struct connection *entry, __u32 slot, __u64 control,
					__u32 now)
{
	if (control_controlled(control) != 0 ||
	    !swap_control(entry, control, control_with(control, PHASE_DEAD, 0, 0)))
		return 0;
	entry->expires = now;
	if (control_flags(control) & CONNECTION_SPILLED)
		count_spilled(&entry->flow, -1);
	uncount(entry->destination, control);
	if (is_flow_of_call(&entry->flow)) {
		struct call_id_key key = call_id_key(slot);

		bpf_map_delete_elem(&call_ids, &key);
	}
	return 1;
}

/*
 * What happens to a template whose time is over: it ends if it controls nothing,
 * else it lives on by a minute.  Returns whether it lives.
 */
static __always_inline int extend_template(struct connection *entry, __u32 slot, __u64 control,
					   __u32 now)
{
	if (control_controlled(control) == 0)
		return !end_template(entry, slot, control, now);
	entry->link = EXTENSION_TICKS;
	entry->expires += ((now - entry->expires) / EXTENSION_TICKS + 1) * EXTENSION_TICKS;
	return 1;
}

/* Whether a template may still be used, for `server` or for any; one that may not, with
 * its real server gone, is put aside until what it controls has ended. */
static __always_inline int check_template(struct connection *entry, __u32 expire_quiescent,
					  int server)
{
	struct destination *destination;
	__u32 index = entry->destination;

	destination = bpf_map_lookup_elem(&destinations, &index);
	if (destination && destination->flags & DESTINATION_AVAILABLE &&
	    !(expire_quiescent && (__s32)destination->weight <= 0) &&
	    (server == ANY_SERVER || (__u32)server == index))
		return 1;
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(entry);
		__u64 aside = old | (__u64)CONNECTION_ASIDE << CONTROL_FLAGS_SHIFT;

		if (control_phase(old) != PHASE_LIVE || swap_control(entry, old, aside))
			break;
	}
	return 0;
}

/* One connection more that a template controls; 0 if it came to its end meanwhile. */
static __always_inline int hold(struct connection *entry)
{
	__u64 old = __sync_fetch_and_add(&entry->control, 1ULL << CONTROL_CONTROLLED_SHIFT);

	if (is_findable(old) && control_flags(old) & CONNECTION_TEMPLATE)
		return 1;
	__sync_fetch_and_add(&entry->control, -(1ULL << CONTROL_CONTROLLED_SHIFT));
	return 0;
}

/* The flow of a Call-ID's template, its n-th choice of CALL_CHOICES. */
static __always_inline void choose_call_flow(struct flow *flow, __u32 hash, __u32 n)
{
	hash += n;
	flow->client_port = hash;
	flow->apart = FLOW_OF_CALL | hash >> 16;
}

/*
 * The slot of the template of the Call-ID that was read, NOT_FOUND or NO_TEMPLATE;
 * where there is none, `flow` is one that it may have.
 */
static __always_inline int find_call(struct flow *flow, __u32 hash)
{
	int slot, free = NOT_FOUND;

	for (int n = CALL_CHOICES - 1; n >= 0; n--) {
		choose_call_flow(flow, hash, n);
		slot = conn_find(flow);
		if (slot < 0) {
			free = n;
			continue;
		}
		switch (has_call_id(slot)) {
		case 1:
			return slot;
		case -1:
			return NO_TEMPLATE;
		}
	}
	if (free == NOT_FOUND)
		return NO_TEMPLATE;
	choose_call_flow(flow, hash, free);
	return NOT_FOUND;
}

/*
 * The slot of the template in force for a packet of a persistent service, which holds
 * one more connection now; NOT_FOUND, or NO_TEMPLATE where there can be none.  `call`
 * is the hash of the Call-ID that was read, where the template has to be of that, or
 * NO_CALL_ID.  `server` is the destination that it has to be for, or ANY_SERVER.
 */
__attribute__((noinline)) int find_template(const struct packet *packet, __u32 service_index,
					    int call, int server)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct connection *entry;
	struct flow flow = {};
	__u32 now = ticks_now();
	int slot, leaves_quiesced;

	if (!packet || !service)
		return NO_TEMPLATE;
	template_flow(packet, service, &flow);
	slot = call == NO_CALL_ID ? conn_find(&flow) : find_call(&flow, call);
	if (slot < 0)
		return slot;
	entry = conn_at(slot);
	if (!entry || !is_template(entry))
		return NOT_FOUND;
	if (has_passed(entry->expires, now) &&
	    !extend_template(entry, slot, load_control(entry), now))
		return NOT_FOUND;
	leaves_quiesced = settings.sysctl[SYSCTL_EXPIRE_QUIESCENT_TEMPLATE] ||
			  (service->flags & SERVICE_REHOMES && packet->flow.protocol == PROTOCOL_UDP);
	return check_template(entry, leaves_quiesced, server) &&
			       hold(entry) ?
		       slot :
		       NOT_FOUND;
}

/* A new template for `server`, else as find_template(); its slot, or NO_TEMPLATE where there is
 * no room.  Another CPU's, made at the same time, will do as well. */
__attribute__((noinline)) int make_template(const struct packet *packet, __u32 service_index,
					    int call, __u32 server)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct destination *destination = bpf_map_lookup_elem(&destinations, &server);
	struct new_connection new = {};
	struct connection *entry;
	int found;

	if (!packet || !service || !destination)
		return NO_TEMPLATE;
	template_flow(packet, service, &new.flow);
	if (call != NO_CALL_ID && find_call(&new.flow, call) == NO_TEMPLATE)
		return NO_TEMPLATE;
	new.destination = server;
	new.flags = CONNECTION_TEMPLATE | destination->method << CONNECTION_METHOD_SHIFT;
	new.link = (__u64)service->persistence * NS_PER_SECOND >> TICK_SHIFT;
	new.expires = ticks_now() + new.link;
	if (new.flow.virtual_port)
		new.destination_port = destination->port;
	found = conn_insert(&new);
	entry = found >= 0 ? conn_at(found & SLOT_MASK) : 0;
	if (!entry)
		return NO_TEMPLATE;
	if (found & SLOT_IS_NEW) {
		found &= SLOT_MASK;
		__sync_fetch_and_add(&destination->persistent, 1);
		if (call == NO_CALL_ID || !store_call_id(found))
			return found;
		release_template(found + 1);
		end_template(entry, found, load_control(entry), ticks_now());
		return NO_TEMPLATE;
	}
	if (call != NO_CALL_ID && has_call_id(found) != 1)
		return NO_TEMPLATE;
	return is_template(entry) && hold(entry) ? found : NO_TEMPLATE;
}

/* The slot of the template for a packet, in force or new; NO_DESTINATION if there is none
 * to choose, or NO_TEMPLATE. */
static __always_inline int hold_template(const struct packet *packet, __u32 service_index,
					 int call, int server)
{
	int found = find_template(packet, service_index, call, server);

	if (found != NOT_FOUND)
		return found;
	if (server == ANY_SERVER)
		server = schedule(service_index, packet);
	if (server < 0)
		return NO_DESTINATION;
	return make_template(packet, service_index, call, server);
}

/* A connection was established: its template is worth keeping. */
static __always_inline void assure_template(__u32 link)
{
	struct connection *template = template_at(link);
	const __u64 assured = (__u64)TEMPLATE_ASSURED << CONTROL_STATE_SHIFT;

	if (template && !(load_control(template) & assured) && is_template(template))
		__sync_fetch_and_or(&template->control, assured);
}

#endif
