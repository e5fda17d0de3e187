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
#include "icmp.h"
#include "tunnel.h"
#include "related.h"
#include "fragment.h"
#include "sweep.h"

char director_license[] SEC("license") = "GPL";

#define PACKET_HOST 0
#define FTP_DATA_PORT 20
#define LONGEST_HEADERS 160 /* what must be readable: Ethernet, IP with options, TCP; ICMP's quote */
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
	__u32 flags = control_flags(control), state;

	if (packet->flow.protocol != PROTOCOL_TCP) {
		conn_refresh(entry, now, timeout_of(TIMEOUT_UDP));
		return;
	}
	if (flags & CONNECTION_NO_OUTPUT)
		direction = DIRECTION_INPUT_ONLY;
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

static __always_inline int is_reply(const struct connection *entry)
{
	return control_flags(load_control(entry)) & CONNECTION_REPLY;
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
	REFUSED = -1, /* drop it */
	NOT_A_SERVICE = -2,
	NO_SERVER = -3, /* drop it, and tell the client */
};

/* Enter the way back of a masqueraded connection; 0, or -1 when there is no room. */
static __always_inline int admit_reply(__u32 slot, const struct new_connection *forward,
				       const struct destination *destination)
{
	struct new_connection new = {};
	struct connection *entry, *reply;
	int found;

	new.flow.client = destination->address;
	new.flow.client_port = forward->destination_port;
	new.flow.virtual = forward->flow.client;
	new.flow.virtual_port = forward->flow.client_port;
	new.flow.protocol = forward->flow.protocol;
	new.flow.family = forward->flow.family;
	new.destination = forward->destination;
	new.expires = forward->expires;
	new.flags = CONNECTION_REPLY;
	new.link = slot + 1;
	found = conn_insert(&new);
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

/*
 * Make a connection for a packet that has none, if it is for a service.  `over`
 * is the control word of an entry of its flow as it was when it was found to be
 * over, or 0: the new one takes its place, unless another CPU was first.  Returns the new slot, or an `enum admission`.
 */
__attribute__((noinline)) int admit(struct __sk_buff *skb, const struct packet *packet, __u64 over)
{
	struct new_connection new = {};
	struct destination *destination;
	struct connection *entry;
	__u32 now = ticks_now();
	int service, found;

	if (!packet)
		return REFUSED;
	if (!may_be_scheduled(packet) || is_martian(&packet->flow))
		return NOT_A_SERVICE;
	service = service_of(packet);
	if (service < 0 || !virtual_is_local(skb, service))
		return NOT_A_SERVICE;

	found = schedule(service, packet);
	if (found < 0) {
		COUNT_EVENT(no_destination);
		return NO_SERVER;
	}
	new.destination = found;
	destination = bpf_map_lookup_elem(&destinations, &new.destination);
	if (!destination)
		return REFUSED;
	new.flow = packet->flow;
	new.destination_port = destination->port;
	new.expires = now + NEW_CONNECTION_SECONDS * TICKS_PER_SECOND;
	new.flags = CONNECTION_INACTIVE | destination->method << CONNECTION_METHOD_SHIFT;
	if (destination->method != METHOD_MASQUERADE)
		new.flags |= CONNECTION_NO_OUTPUT;
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
	count_connection(service, new.destination);
	return found;
}

/* A packet from a masqueraded real server, whose entry is `reply`. */
static __always_inline int answer(struct __sk_buff *skb, const struct packet *packet,
				  const struct connection *reply, __u32 slot, __u32 now)
{
	struct connection *entry = conn_of_reply(reply, slot);
	struct destination *destination;
	__u32 index;

	if (!entry || has_passed(entry->expires, now))
		return NOT_OURS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return NOT_OURS;
	count_outbound(destination->service, index, packet->bytes);
	follow(entry, packet, DIRECTION_OUTPUT, now);
	if (packet->ttl <= 1) {
		COUNT_EVENT(ttl_exceeded);
		return TC_ACT_SHOT;
	}
	COUNT_EVENT(forwarded);
	return tc_answer(skb, packet, entry);
}

SEC("tc")
int xlvs_tc(struct __sk_buff *skb)
{
	struct destination *destination;
	struct packet packet = {};
	struct connection *entry;
	__u32 now, index, linear, overhead, method;
	__u64 control;
	int slot, old;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return NOT_OURS;
	linear = skb->data_end - skb->data;
	if (linear < LONGEST_HEADERS && linear < skb->len)
		bpf_skb_pull_data(skb, skb->len < LONGEST_HEADERS ? skb->len : LONGEST_HEADERS);
	if (parse_frame((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, &packet))
		return follow_error(skb);
	if (packet.fragment == LATER_FRAGMENT)
		return follow_fragment(skb, &packet);

	now = ticks_now();
	slot = conn_find(&packet.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (entry && is_reply(entry)) {
		if (packet.fragment)
			note_fragment(&packet, slot);
		return answer(skb, &packet, entry, slot, now);
	}
	control = entry ? load_control(entry) : 0;
	if (!entry || is_over(entry, control, &packet, now)) {
		old = slot;
		slot = admit(skb, &packet, control);
		if (slot < 0 && entry)
			conn_kill(entry, old, now);
		if (slot == NOT_A_SERVICE)
			return NOT_OURS;
		if (slot == NO_SERVER)
			return send_error(skb, &packet, ERROR_PORT_UNREACHABLE, 0);
		entry = slot >= 0 ? conn_at(slot) : 0;
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
	refresh(skb, destination, index);
	if (!(destination->reach & REACH_VIRTUAL_LOCAL))
		return NOT_OURS;

	if (packet.fragment)
		note_fragment(&packet, slot);
	count_inbound(destination->service, index, packet.bytes);
	follow(entry, &packet, DIRECTION_INPUT, now);

	if (!(destination->reach & REACH_ROUTE)) {
		/* No way out because it is the director itself? */
		if (destination->flags & DESTINATION_LOCAL)
			return NOT_OURS;
		COUNT_EVENT(unroutable);
		return TC_ACT_SHOT;
	}
	if (packet.ttl <= 1) {
		COUNT_EVENT(ttl_exceeded);
		return send_error(skb, &packet, ERROR_TIME_EXCEEDED, 0);
	}
	method = control_method(load_control(entry));
	overhead = method == METHOD_TUNNEL ? tunnel_overhead(destination) : 0;
	if (is_too_big(&packet, destination, overhead) && !skb->gso_size) {
		COUNT_EVENT(too_big);
		return send_error(skb, &packet, ERROR_TOO_BIG, destination->mtu - overhead);
	}
	COUNT_EVENT(forwarded);
	if (method == METHOD_TUNNEL)
		return tc_tunnel(skb, &packet, index);
	return tc_forward(skb, &packet, entry, destination);
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
	int slot;

	if (!is_for_interface(context) || parse_frame(data, end, end - data, &packet) ||
	    packet.fragment)
		return XDP_PASS;
	now = ticks_now();
	slot = conn_find(&packet.flow);
	entry = slot >= 0 ? conn_at(slot) : 0;
	if (!entry || is_reply(entry) || is_over(entry, load_control(entry), &packet, now))
		return XDP_PASS;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	/* A packet a second takes the long way: the kernel's neighbour entry is
	 * confirmed by it, and the way to the real server looked up again. */
	if (!destination || destination->flags != (DESTINATION_USED | DESTINATION_AVAILABLE) ||
	    control_method(load_control(entry)) != METHOD_ROUTE ||
	    (destination->reach & wanted) != wanted ||
	    is_stale(destination->refreshed, now) || is_too_big(&packet, destination, 0) || packet.ttl <= 1)
		return XDP_PASS;

	count_inbound(destination->service, index, packet.bytes);
	follow(entry, &packet, DIRECTION_INPUT, now);
	COUNT_EVENT(xdp_forwarded);
	return xdp_direct_route(context, destination, packet.flow.family);
}

SEC("tc")
int xlvs_start(struct __sk_buff *skb)
{
	return start_sweeper();
}
