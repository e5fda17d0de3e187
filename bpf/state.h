/* SPDX-License-Identifier: GPL-2.0-only */
/* A connection's state and lifetime, from packet to packet
 * (kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_udp.c). */
#ifndef XLVS_STATE_H
#define XLVS_STATE_H

#include "conn.h"
#include "parse.h"
#include "tcp.h"

#define NEW_CONNECTION_SECONDS 3 /* until its first packet sets a state's timeout */

static __always_inline __u32 timeout_of(__u32 index)
{
	struct settings *current;
	__u32 zero = 0;

	current = bpf_map_lookup_elem(&settings, &zero);
	if (!current)
		return NEW_CONNECTION_SECONDS * TICKS_PER_SECOND;
	return current->timeout[index & (TIMEOUT_COUNT - 1)];
}

/* Move a connection's state by one packet, from its client or its real server. */
static __always_inline void follow(struct connection *entry, const struct packet *packet,
				   __u32 direction, __u32 now)
{
	__u64 control = load_control(entry);
	__u32 state, set = 0, clear = 0;

	if (packet->flow.protocol != PROTOCOL_TCP) {
		conn_refresh(entry, now, timeout_of(TIMEOUT_UDP));
		return;
	}
	if (control_flags(control) & CONNECTION_NO_OUTPUT) {
		if (direction == DIRECTION_OUTPUT)
			clear = CONNECTION_NO_OUTPUT;
		else
			direction = DIRECTION_INPUT_ONLY;
	}
	state = tcp_next_state(direction, control_state(control), packet->tcp_flags);
	if (state != control_state(control)) {
		if (TCP_ACTIVE_STATES & (1u << (state & 31)))
			clear |= CONNECTION_INACTIVE;
		else
			set = CONNECTION_INACTIVE;
	}
	if (state != control_state(control) || clear)
		conn_set_state(entry, state, set, clear);
	conn_refresh(entry, now, timeout_of(state));
}

/* A SYN that meets the remains of an earlier connection (conn_reuse_mode 1). */
static __always_inline int reopens(__u64 control, const struct packet *packet)
{
	__u32 state = control_state(control);

	return packet->flow.protocol == PROTOCOL_TCP && packet->tcp_flags & TCP_SYN &&
	       (state == TCP_TIME_WAIT || state == TCP_CLOSE);
}

/* Whether a packet can no longer use an entry: it expired, or the packet reopens it. */
static __always_inline int is_over(const struct connection *entry, __u64 control,
				   const struct packet *packet, __u32 now)
{
	return has_passed(entry->expires, now) || reopens(control, packet);
}

#endif
