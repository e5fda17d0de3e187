/* SPDX-License-Identifier: GPL-2.0-only */
/* A connection's state and lifetime, from packet to packet
 * (kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_udp.c, ip_vs_proto_sctp.c). */
#ifndef XLVS_STATE_H
#define XLVS_STATE_H

#include "conn.h"
#include "defense.h"
#include "persist.h"
#include "parse.h"
#include "sctp.h"
#include "tcp.h"

#define NEW_CONNECTION_SECONDS 3 /* until its first packet sets a state's timeout */

static __always_inline __u32 timeout_of(__u32 index)
{
	/* What the compiler knows of it, and leaves the mask out for, verifiers may not know. */
	if (!__builtin_constant_p(index))
		asm volatile("" : "+r"(index));
	return settings.timeout[index & (TIMEOUT_COUNT - 1)];
}

/*
 * How long an entry lives that nothing is heard of, in ticks: what `index` names in
 * the table of timeouts, or for an established connection and UDP what its service
 * says.
 */
static __always_inline __u32 idle_timeout_of(const struct connection *entry, __u32 index)
{
	__u32 place = entry->destination;
	struct destination *destination;

	if (settings.idle_services &&
	    (index == TIMEOUT_UDP || index == TCP_ESTABLISHED ||
	     index == TIMEOUT_SCTP + SCTP_ESTABLISHED)) {
		destination = bpf_map_lookup_elem(&destinations, &place);
		if (destination && destination->idle_timeout)
			return destination->idle_timeout;
	}
	return timeout_of(index);
}

/* The same of data in an established connection, or of UDP, to a destination at hand. */
static __always_inline __u32 data_timeout(const struct destination *destination, __u32 index)
{
	return destination->idle_timeout ? destination->idle_timeout : timeout_of(index);
}

/* Whether the stricter transitions of TCP are in force. */
static __always_inline int is_secure(void)
{
	__s32 mode;

	mode = settings.sysctl[SYSCTL_SECURE_TCP];
	return mode != DEFENSE_OFF && acts(mode);
}

/* The state and flags that a packet brings a connection to which has this control word. */
static __always_inline __u32 next_state(__u64 control, const struct packet *packet,
					__u32 direction, __u32 *flags)
{
	int is_sctp = packet->flow.protocol == PROTOCOL_SCTP;
	__u32 before = control_state(control), state;

	/* One register for it, which is compared with the tables' size and leads into them:
	 * the compiler would compare the control word, and the verifier not see why. */
	asm volatile("" : "+r"(before));
	*flags = control_flags(control);
	if (*flags & CONNECTION_NO_OUTPUT) {
		if (direction == DIRECTION_OUTPUT)
			*flags &= ~CONNECTION_NO_OUTPUT;
		else
			direction = DIRECTION_INPUT_ONLY;
	}
	state = is_sctp ? sctp_next_state(direction, before, packet->sctp_event) :
			  tcp_next_state(direction, before, packet->tcp_flags, is_secure());
	if (state == before)
		return state;
	if ((is_sctp ? SCTP_ACTIVE_STATES : TCP_ACTIVE_STATES) & (1u << (state & 31)))
		*flags &= ~CONNECTION_INACTIVE;
	else
		*flags |= CONNECTION_INACTIVE;
	return state;
}

/* Move a connection on by a packet that changes its state, as it is by now; returns the state. */
__attribute__((noinline)) int change_state(struct connection *entry, const struct packet *packet,
					   __u32 direction)
{
	__u32 state = TCP_NONE, flags;

	if (!entry || !packet)
		return TCP_NONE;
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 control = load_control(entry);

		state = next_state(control, packet, direction, &flags);
		if (!conn_move(entry, control, state, flags))
			continue;
		if (state != control_state(control) &&
		    state == (packet->flow.protocol == PROTOCOL_SCTP ? SCTP_ESTABLISHED :
								       TCP_ESTABLISHED))
			assure_template(entry->link);
		break;
	}
	return state;
}

/* Whether a packet is one that leaves its connection's state as it is, whatever that is: a
 * datagram, or data in an established connection.  Its lifetime then begins again. */
static __always_inline int keeps_alive(struct connection *entry, __u64 control,
				       const struct packet *packet, __u32 direction, __u32 now)
{
	__u32 timeout = TCP_ESTABLISHED;

	if (packet->flow.protocol == PROTOCOL_UDP)
		timeout = TIMEOUT_UDP;
	/* No table has another state for it. */
	else if (packet->flow.protocol != PROTOCOL_TCP || control_state(control) != TCP_ESTABLISHED ||
		 (packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK ||
		 (direction != DIRECTION_INPUT && control_flags(control) & CONNECTION_NO_OUTPUT))
		return 0;
	conn_refresh(entry, now, idle_timeout_of(entry, timeout));
	return 1;
}

/* What any other packet makes of a connection's state and lifetime. */
static __always_inline void move_on(struct connection *entry, __u64 control,
				    const struct packet *packet, __u32 direction, __u32 now)
{
	int is_sctp = packet->flow.protocol == PROTOCOL_SCTP;
	__u32 state = control_state(control), flags;

	if (!is_sctp || packet->sctp_event != SCTP_NO_CHUNK) {
		state = next_state(control, packet, direction, &flags);
		if (state != control_state(control) || flags != control_flags(control))
			state = change_state(entry, packet, direction);
	}
	conn_refresh(entry, now, idle_timeout_of(entry, (is_sctp ? TIMEOUT_SCTP : 0) + state));
}

/* Move a connection's state by one packet, from its client or its real server. */
static __always_inline void follow(struct connection *entry, const struct packet *packet,
				   __u32 direction, __u32 now)
{
	__u64 control = load_control(entry);

	if (direction == DIRECTION_INPUT)
		count_in_packet(entry);
	else if (packet->flow.protocol == PROTOCOL_UDP)
		assure_template(entry->link);
	if (!keeps_alive(entry, control, packet, direction, now))
		move_on(entry, control, packet, direction, now);
}

/* The kernel's conn_reuse_mode. */
enum reuse_mode {
	REUSE_CLOSED = 1,   /* any bit, that is */
	REUSE_FIN_WAIT = 2, /* also what only the client has closed, as far as one can see */
};

/*
 * A SYN or an INIT that meets the remains of an earlier connection, or one to a real
 * server that is quiesced, whatever the mode: it begins a new one (kernel:
 * is_new_conn_expected(), ip_vs_in()).
 */
static __always_inline int reopens(const struct connection *entry, __u64 control,
				   const struct packet *packet)
{
	__u32 state = control_state(control), mode = settings.sysctl[SYSCTL_CONN_REUSE_MODE];
	struct destination *destination;
	__u32 index = entry->destination;

	if (!asks(packet))
		return 0;
	if (settings.sysctl[SYSCTL_EXPIRE_NODEST_CONN]) {
		destination = bpf_map_lookup_elem(&destinations, &index);
		if (destination && destination->weight == 0)
			return 1;
	}
	/* A controlled one stays with its template's real server. */
	if (mode == 0 || entry->link)
		return 0;
	if (packet->flow.protocol == PROTOCOL_SCTP)
		return state == SCTP_CLOSED;
	return state == TCP_TIME_WAIT || state == TCP_CLOSE ||
	       (mode & REUSE_FIN_WAIT && state == TCP_FIN_WAIT &&
		control_flags(control) & CONNECTION_NO_OUTPUT);
}

/* Whether the real server of an entry is gone, and its connections with it. */
static __always_inline int lost_its_server(const struct connection *entry)
{
	__u32 index = entry->destination;
	struct destination *destination;

	if (!settings.sysctl[SYSCTL_EXPIRE_NODEST_CONN])
		return 0;
	destination = bpf_map_lookup_elem(&destinations, &index);
	return !destination || !(destination->flags & DESTINATION_AVAILABLE);
}

/* Whether a UDP flow leaves a real server that is gone or quiesced for another. */
static __always_inline int is_rehomed(const struct connection *entry, const struct packet *packet)
{
	__u32 index = entry->destination;
	struct destination *destination;

	if (!settings.rehoming_services || packet->flow.protocol != PROTOCOL_UDP)
		return 0;
	destination = bpf_map_lookup_elem(&destinations, &index);
	return destination && destination->flags & DESTINATION_REHOMES &&
	       (!(destination->flags & DESTINATION_AVAILABLE) || destination->weight == 0);
}

/* Whether a packet can no longer use an entry. */
static __always_inline int is_over(const struct connection *entry, __u64 control,
				   const struct packet *packet, __u32 now)
{
	if (has_ended(entry, now))
		return 1;
	return reopens(entry, control, packet) || lost_its_server(entry) || is_rehomed(entry, packet);
}

#endif
