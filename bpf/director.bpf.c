// SPDX-License-Identifier: GPL-2.0-only
/*
 * The director's packet path.
 *
 *   xlvs_tc     TC ingress: the complete path.
 *   xlvs_xdp    XDP: packets of established connections, where the way to the
 *               real server is known; everything else passes on to xlvs_tc,
 *               and XDP has then written nothing, so that nothing is counted
 *               or scheduled twice.
 *   xlvs_start  run once by user space: starts the timer that expires
 *               connections.
 *
 * A packet goes parse -> connection -> (service -> schedule -> new
 * connection) -> count -> state -> forward, in the order of the kernel's
 * ip_vs_in() (net/netfilter/ipvs/ip_vs_core.c).  What belongs to no virtual
 * service continues into the stack untouched.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"
#include "clock.h"
#include "parse.h"
#include "stats.h"
#include "tcp.h"
#include "conn.h"
#include "sched.h"
#include "reach.h"
#include "forward.h"
#include "sweep.h"

char director_license[] SEC("license") = "GPL";

/* TC: on to the next program, then into the stack. */
#define NOT_OURS TC_ACT_UNSPEC

#define PACKET_HOST 0
#define FTP_DATA_PORT 20
#define LONGEST_HEADERS 128 /* what must be readable: Ethernet, IP with options, TCP */
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

/* Move a connection's state by one packet from its client. */
static __always_inline void follow_client(struct connection *entry, const struct packet *packet,
					  __u32 now)
{
	__u64 control = load_control(entry);
	__u32 flags = control_flags(control), state, direction;

	if (packet->flow.protocol != PROTOCOL_TCP) {
		conn_refresh(entry, now, timeout_of(TIMEOUT_UDP));
		return;
	}
	direction = flags & CONNECTION_NO_OUTPUT ? DIRECTION_INPUT_ONLY : DIRECTION_INPUT;
	state = tcp_next_state(direction, control_state(control), packet->tcp_flags);
	if (state != control_state(control)) {
		if (TCP_ACTIVE_STATES & (1u << (state & 31)))
			conn_set_state(entry, state, 0, CONNECTION_INACTIVE);
		else
			conn_set_state(entry, state, CONNECTION_INACTIVE, 0);
	}
	conn_refresh(entry, now, timeout_of(state));
}

/* A SYN that meets the remains of an earlier connection (conn_reuse_mode 1). */
static __always_inline int reopens(const struct connection *entry, const struct packet *packet)
{
	__u32 state = control_state(load_control(entry));

	return packet->flow.protocol == PROTOCOL_TCP && packet->tcp_flags & TCP_SYN &&
	       (state == TCP_TIME_WAIT || state == TCP_CLOSE);
}

/* The live entry of the packet's flow, which may be over for this packet; or null. */
static __always_inline struct connection *connection_of(const struct packet *packet)
{
	int slot = conn_find(&packet->flow);

	return slot >= 0 ? conn_at(slot) : 0;
}

/* Whether a packet can no longer use an entry: it expired, or the packet reopens it. */
static __always_inline int is_over(const struct connection *entry, const struct packet *packet,
				   __u32 now)
{
	return has_passed(entry->expires, now) || reopens(entry, packet);
}

static __always_inline int may_be_scheduled(const struct packet *packet)
{
	if (packet->flow.client_port == bpf_htons(FTP_DATA_PORT))
		return 0;
	if (packet->flow.protocol != PROTOCOL_TCP)
		return 1;
	return packet->tcp_flags & TCP_SYN && !(packet->tcp_flags & TCP_RST);
}

static __always_inline int service_of(const struct packet *packet)
{
	struct service_key key = {
		.address = packet->flow.virtual,
		.port = packet->flow.virtual_port,
		.protocol = packet->flow.protocol,
		.family = packet->flow.family,
	};
	__u32 *index = bpf_map_lookup_elem(&service_index, &key);

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
	ADMITTED,
	REFUSED,      /* drop it */
	NOT_A_SERVICE,
};

/*
 * Make a connection for a packet that has none, if it is for a service.  `old`
 * is an entry of its flow that is over, or null: the new one takes its slot.
 * Returns an `enum admission`; *slot is the entry's when ADMITTED.
 */
static __always_inline int admit(struct __sk_buff *skb, const struct packet *packet, __u32 now,
				 const struct connection *old, __u32 *slot)
{
	struct new_connection new = {};
	struct destination *destination;
	int service, found;

	if (!may_be_scheduled(packet) || is_martian(&packet->flow))
		return NOT_A_SERVICE;
	service = service_of(packet);
	if (service < 0 || !virtual_is_local(skb, service))
		return NOT_A_SERVICE;

	found = schedule(service);
	if (found < 0) {
		COUNT_EVENT(no_destination);
		return REFUSED;
	}
	new.destination = found;
	destination = bpf_map_lookup_elem(&destinations, &new.destination);
	if (!destination)
		return REFUSED;
	new.flow = packet->flow;
	new.destination_port = destination->port;
	new.expires = now + NEW_CONNECTION_SECONDS * TICKS_PER_SECOND;
	new.flags = CONNECTION_INACTIVE;
	if (destination->method != METHOD_MASQUERADE)
		new.flags |= CONNECTION_NO_OUTPUT;
	new.replaces = old ? load_control(old) : 0;
	found = conn_insert(&new);
	if (found < 0) {
		COUNT_EVENT(table_full);
		return REFUSED;
	}
	if (found & SLOT_IS_REPLACED)
		uncount(new.replaced_destination, new.replaces);
	if (found & SLOT_IS_NEW) {
		__sync_fetch_and_add(&destination->inactive, 1);
		count_connection(service, new.destination);
	}
	*slot = found & SLOT_MASK;
	return ADMITTED;
}

SEC("tc")
int xlvs_tc(struct __sk_buff *skb)
{
	struct destination *destination;
	struct packet packet = {};
	struct connection *entry;
	__u32 now, slot, index, linear;
	int verdict;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return NOT_OURS;
	linear = skb->data_end - skb->data;
	if (linear < LONGEST_HEADERS && linear < skb->len)
		bpf_skb_pull_data(skb, skb->len < LONGEST_HEADERS ? skb->len : LONGEST_HEADERS);
	if (parse_frame((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, &packet))
		return NOT_OURS;

	now = ticks_now();
	entry = connection_of(&packet);
	if (!entry || is_over(entry, &packet, now)) {
		verdict = admit(skb, &packet, now, entry, &slot);
		if (verdict != ADMITTED && entry)
			conn_kill(entry, now);
		if (verdict == NOT_A_SERVICE)
			return NOT_OURS;
		if (verdict == REFUSED)
			return TC_ACT_SHOT;
		entry = conn_at(slot);
		if (!entry)
			return TC_ACT_SHOT;
	}
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return TC_ACT_SHOT;
	if (!(destination->flags & DESTINATION_AVAILABLE)) {
		COUNT_EVENT(unavailable);
		return TC_ACT_SHOT;
	}
	refresh(skb, index);
	if (!(destination->reach & REACH_VIRTUAL_LOCAL))
		return NOT_OURS;

	count_inbound(destination->service, index, packet.bytes);
	follow_client(entry, &packet, now);

	if (!(destination->reach & REACH_ROUTE)) {
		/* No way out because it is the director itself? */
		if (destination->flags & DESTINATION_LOCAL)
			return NOT_OURS;
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	if (packet.ttl <= 1) {
		COUNT_EVENT(ttl_exceeded);
		return TC_ACT_SHOT;
	}
	COUNT_EVENT(forwarded);
	return tc_direct_route(skb, destination, packet.flow.family);
}

static __always_inline int is_for_interface(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	__u32 index = context->ingress_ifindex;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);

	return interface && interface->known && (void *)(ethernet + 1) <= end &&
	       *(__u32 *)ethernet->h_dest == *(__u32 *)interface->mac &&
	       *(__u16 *)(ethernet->h_dest + 4) == *(__u16 *)(interface->mac + 4);
}

SEC("xdp")
int xlvs_xdp(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	const __u32 wanted = REACH_VIRTUAL_LOCAL | REACH_ROUTE | REACH_MAC;
	struct destination *destination;
	struct packet packet = {};
	struct connection *entry;
	__u32 now, index;

	if (!is_for_interface(context) || parse_frame(data, end, end - data, &packet))
		return XDP_PASS;
	now = ticks_now();
	entry = connection_of(&packet);
	if (!entry || is_over(entry, &packet, now))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	/* A packet a second takes the long way: the kernel's neighbour entry is
	 * confirmed by it, and the way to the real server looked up again. */
	if (!destination || destination->flags != (DESTINATION_USED | DESTINATION_AVAILABLE) ||
	    (destination->reach & wanted) != wanted || is_stale(destination->refreshed, now) ||
	    packet.ttl <= 1)
		return XDP_PASS;

	count_inbound(destination->service, index, packet.bytes);
	follow_client(entry, &packet, now);
	COUNT_EVENT(xdp_forwarded);
	return xdp_direct_route(context, destination, packet.flow.family);
}

SEC("tc")
int xlvs_start(struct __sk_buff *skb)
{
	return start_sweeper();
}
