/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the express ways of XDP (express.h) and TC (express_tc.h) begin with: the connection of a
 * packet in headers of the usual form (headers.h), whether it may go on, and what is noted of it.
 *
 * Each instruction here is paid for by each packet.  So each family and protocol has a copy of
 * its own, in which nothing is asked that is known; many things are tested by one comparison;
 * and what a header says is read again after a look-up, rather than kept on the stack.
 */
#ifndef XLVS_EXPRESS_FRONT_H
#define XLVS_EXPRESS_FRONT_H

#include "conn.h"
#include "headers.h"
#include "reach.h"
#include "state.h"
#include "stats.h"

/* Whether a packet is TCP data, in an established connection: no table has another state for it. */
static __always_inline int is_tcp_data(__u8 family, const void *header, const void *end, __u32 bytes)
{
	__u32 size = header_size(family);
	const struct tcp_header *tcp = header + size;

	return protocol_in(family, header) == PROTOCOL_TCP && (void *)(tcp + 1) <= end &&
	       bytes >= size + sizeof(*tcp) &&
	       (tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK;
}

static __always_inline int is_udp(__u8 family, const void *header, __u32 bytes)
{
	return protocol_in(family, header) == PROTOCOL_UDP && bytes >= header_size(family) + UDP_HEADER_SIZE;
}

/* What of a connection's control word says what becomes of its packets. */
#define CONTROL_THAT_MATTERS                                                              \
	((__u32)CONTROL_BITS(0xff, 0xff,                                                  \
			     CONNECTION_REPLY | CONNECTION_TEMPLATE | CONNECTION_FTP |    \
				     CONNECTION_METHOD_MASK << CONNECTION_METHOD_SHIFT))

/* Whether it is that of a live connection of this forwarding method, in this state. */
static __always_inline int is_control_of(__u64 control, __u32 state, __u32 method)
{
	return ((__u32)control & CONTROL_THAT_MATTERS) ==
	       (__u32)CONTROL_BITS(PHASE_LIVE, state, method << CONNECTION_METHOD_SHIFT);
}

/* Whether it is that of a live reply, of no FTP connection. */
static __always_inline int is_control_of_reply(__u64 control)
{
	return ((__u32)control & CONTROL_THAT_MATTERS) ==
	       (__u32)CONTROL_BITS(PHASE_LIVE, 0, CONNECTION_REPLY);
}

#define PLACES_AT_ONCE 2

/*
 * The entry of a packet's flow, or null.  `state` tells the protocol.  What stands in its first or second
 * place is found at once, and may be one that is over: who has no use for it asks conn_find().
 */
static __always_inline struct connection *find_usual(__u8 family, __u32 state,
						     struct ethernet_words **frame)
{
	struct flow flow = flow_of(family, protocol_of(state), ip_header(*frame)), asked;
	__u64 hash = flow_hash(&flow);
	__u32 home = bucket_choice(hash, 0);
	struct connection_bucket *bucket = bpf_map_lookup_elem(&connections, &home);
	struct connection *entry;
	int slot;

	if (!bucket)
		return 0;
	asm volatile("" : "+r"(bucket));
	read_anew(*frame);
	flow = flow_of(family, protocol_of(state), ip_header(*frame));
#pragma unroll
	for (__u32 n = 0; n < PLACES_AT_ONCE; n++) {
		entry = &bucket->slot[nth_place(hash, n)];
		/* One address, instead of one worked out for each of its fields. */
		asm volatile("" : "+r"(entry));
		if (flow_equal(&entry->flow, &flow))
			return entry;
	}
	/* A copy, so that the other need not stand in memory. */
	asked = flow;
	slot = conn_find(&asked);
	return slot >= 0 ? conn_at(slot) : 0;
}

/*
 * Whether the way to a destination was looked up within the last second.  A packet a second takes
 * the long way, by TC: the kernel's neighbour entry is confirmed by it, and the way looked up
 * again.  Before it was looked up for the first time there is none.
 */
static __always_inline int is_way_known(const struct destination *destination, __u32 now)
{
	const __u32 wanted = REACH_VIRTUAL_LOCAL | REACH_ROUTE | REACH_MAC;

	return (destination->reach & wanted) == wanted && now - destination->refreshed < TICKS_PER_SECOND;
}

/* Whether packets may go to a destination; `bytes` is one's length with what is put before it. */
static __always_inline int may_go_to(const struct destination *destination, __u32 bytes, __u32 now)
{
	return (destination->flags &
		(DESTINATION_AVAILABLE | DESTINATION_LOCAL | DESTINATION_REHOMES)) ==
		       DESTINATION_AVAILABLE &&
	       is_way_known(destination, now) && bytes <= destination->mtu;
}

enum hook { AT_TC, AT_XDP };

static __always_inline void note_forwarded(enum hook hook, void *row)
{
	struct events *events = row;

	if (hook == AT_XDP)
		events->xdp_forwarded++;
	else
		events->forwarded++;
}

/* How long a connection in that state lives on when data has come. */
static __always_inline __u32 lifetime_of(__u32 state, const struct destination *destination)
{
	return data_timeout(destination, state == TCP_NONE ? TIMEOUT_UDP : state);
}

/* A client's packet is about to go on: its connection lives, and all count it.  Returns the how
 * manieth of its destination's it is on this CPU. */
static __always_inline __u64 note_request(enum hook hook, __u32 state, struct connection *entry,
					  const struct destination *destination, __u32 now, __u64 bytes)
{
	__u64 count = 0;
	void *row;

	conn_refresh(entry, now, lifetime_of(state, destination));
	count_in_packet(entry);
	row = row_here();
	if (likely(row)) {
		count = count_inbound_in(row, destination->service, entry->destination, bytes);
		note_forwarded(hook, row);
	}
	return count;
}

/* An answer is about to go on. */
static __always_inline void note_answer(enum hook hook, __u8 family, __u32 state, const void *header,
					struct connection *entry, const struct destination *destination,
					__u32 now)
{
	void *row;

	conn_refresh(entry, now, lifetime_of(state, destination));
	row = row_here();
	if (likely(row)) {
		count_outbound_in(row, destination->service, entry->destination, bytes_of(family, header));
		note_forwarded(hook, row);
	}
}

#endif
