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
 */
#ifndef XLVS_PERSIST_H
#define XLVS_PERSIST_H

#include "conn.h"
#include "parse.h"
#include "sched.h"

#define FTP_PORT 21
#define EXTENSION_TICKS (60 * TICKS_PER_SECOND) /* for what still controls connections */

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
static __always_inline int end_template(struct connection *entry, __u64 control, __u32 now)
{
	if (control_controlled(control) != 0 ||
	    !swap_control(entry, control, control_with(control, PHASE_DEAD, 0, 0)))
		return 0;
	entry->expires = now;
	if (control_flags(control) & CONNECTION_SPILLED)
		count_spilled(&entry->flow, -1);
	uncount(entry->destination, control);
	return 1;
}

/*
 * What happens to a template whose time is over: it ends if it controls nothing,
 * else it lives on by a minute.  Returns whether it lives.
 */
static __always_inline int extend_template(struct connection *entry, __u64 control, __u32 now)
{
	if (control_controlled(control) == 0)
		return !end_template(entry, control, now);
	entry->link = EXTENSION_TICKS;
	entry->expires += ((now - entry->expires) / EXTENSION_TICKS + 1) * EXTENSION_TICKS;
	return 1;
}

/* Whether a template may still be used; one that may not, with its real server
 * gone, is put aside until what it controls has ended. */
static __always_inline int check_template(struct connection *entry, __u32 expire_quiescent)
{
	struct destination *destination;
	__u32 index = entry->destination;

	destination = bpf_map_lookup_elem(&destinations, &index);
	if (destination && destination->flags & DESTINATION_AVAILABLE &&
	    !(expire_quiescent && (__s32)destination->weight <= 0))
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

/* The slot of the template in force for a flow, which holds one more connection now,
 * or NOT_FOUND. */
static __always_inline int find_template(const struct flow *flow, __u32 expire_quiescent,
					 __u32 now)
{
	int slot = conn_find(flow);
	struct connection *entry = slot >= 0 ? conn_at(slot) : 0;

	if (!entry || !is_template(entry))
		return NOT_FOUND;
	if (has_passed(entry->expires, now) && !extend_template(entry, load_control(entry), now))
		return NOT_FOUND;
	return check_template(entry, expire_quiescent) && hold(entry) ? slot : NOT_FOUND;
}

/* A new template for a destination, under the flow in `new`; its slot, or NOT_FOUND where there is no room.
 * Another CPU's, made at the same time, will do as well. */
static __always_inline int make_template(struct new_connection *new,
					 const struct service *service,
					 struct destination *destination, __u32 now)
{
	struct connection *entry;
	int found;

	new->flags = CONNECTION_TEMPLATE | destination->method << CONNECTION_METHOD_SHIFT;
	new->link = (__u64)service->persistence * NS_PER_SECOND >> TICK_SHIFT;
	new->expires = now + new->link;
	if (new->flow.virtual_port)
		new->destination_port = destination->port;
	found = conn_insert(new);
	if (found < 0)
		return NOT_FOUND;
	if (found & SLOT_IS_NEW) {
		__sync_fetch_and_add(&destination->persistent, 1);
		return found & SLOT_MASK;
	}
	entry = conn_at(found);
	return entry && is_template(entry) && hold(entry) ? found : NOT_FOUND;
}

/*
 * The slot of the template for a packet of a persistent service, which holds one
 * more connection from now on; NO_DESTINATION if there is none to choose, or
 * NO_TEMPLATE if the table has no room for one.
 */
#define NO_TEMPLATE (-2)

__attribute__((noinline)) int hold_template(const struct packet *packet, __u32 service_index)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct settings *current;
	struct destination *destination;
	struct new_connection new = {};
	__u32 now = ticks_now(), zero = 0;
	int found;

	current = bpf_map_lookup_elem(&settings, &zero);
	if (!packet || !service || !current)
		return NO_TEMPLATE;
	template_flow(packet, service, &new.flow);
	found = find_template(&new.flow, current->sysctl[SYSCTL_EXPIRE_QUIESCENT_TEMPLATE], now);
	if (found >= 0)
		return found;
	found = schedule(service_index, packet);
	if (found < 0)
		return NO_DESTINATION;
	new.destination = found;
	destination = bpf_map_lookup_elem(&destinations, &new.destination);
	if (!destination)
		return NO_TEMPLATE;
	found = make_template(&new, service, destination, now);
	return found < 0 ? NO_TEMPLATE : found;
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
