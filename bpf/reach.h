/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Is an address ours, and how is a real server reached?  The kernel's routing
 * table answers, about once a second for each service and destination, from
 * the packet path itself: no process has to be alive for it.
 *
 * The look-ups ask as if the packet came from `lo`, as IPVS routes to a real
 * server the way the director's own packets go.  What leaves with the VIP as its
 * source asks with that: rules of routing may go by it (`ip rule add from`).  bpf_fib_lookup() refuses to
 * answer where the asked interface does not forward; user space turns
 * net.ipv4.conf.lo.forwarding on for that, which lets nothing through that
 * ip_forward=0 keeps out.  If somebody turned it off again, the incoming
 * interface is asked.  If that does not answer either, the last way to a real
 * server stays, and a VIP counts as ours: with ip_forward=0 nobody else can
 * get what was sent to our MAC.
 */
#ifndef XLVS_REACH_H
#define XLVS_REACH_H

#include "clock.h"
#include "maps.h"
#include "parse.h"
#include "sysctl.h"

#define LOOPBACK_INDEX 1
#define FIB_LOOKUP_SOURCE 16 /* BPF_FIB_LOOKUP_SRC, since Linux 6.7 */

static __always_inline void ask_for(struct bpf_fib_lookup *query, const union address *address,
				    __u8 family, __u16 length)
{
	query->family = family;
	query->tot_len = length;
	if (family == AF_INET)
		query->ipv4_dst = address->v4;
	else
		__builtin_memcpy(query->ipv6_dst, address, sizeof(*address));
}

/* Rules of routing may go by a packet's source. */
static __always_inline void set_source(struct bpf_fib_lookup *query, const union address *source,
				       __u8 family)
{
	if (family == AF_INET)
		query->ipv4_src = source->v4;
	else
		__builtin_memcpy(query->ipv6_src, source, sizeof(*source));
}

/* The route for a packet of `length` bytes, from the source that `query` names or from any.
 * A length of 0 would mean the packet at hand, which need not be the one that goes there. */
static __always_inline int look_up_route_for(struct __sk_buff *skb, struct bpf_fib_lookup *query,
					     const union address *address, __u8 family,
					     __u16 length)
{
	int answer;

	ask_for(query, address, family, length);
	query->ifindex = LOOPBACK_INDEX;
	answer = bpf_fib_lookup(skb, query, sizeof(*query), 0);
	if (answer != BPF_FIB_LKUP_RET_FWD_DISABLED)
		return answer;
	ask_for(query, address, family, length);
	query->ifindex = skb->ifindex;
	return bpf_fib_lookup(skb, query, sizeof(*query), 0);
}

static __always_inline int look_up_route(struct __sk_buff *skb, struct bpf_fib_lookup *query,
					 const union address *address, __u8 family)
{
	return look_up_route_for(skb, query, address, family, 1);
}

/*
 * The next hop that `query` found, whose family may be another than the route's: an IPv4 route
 * may have an IPv6 gateway (RFC 8950).  Where there is no gateway it is the address itself.
 */
static __always_inline __u8 next_hop_of(const struct bpf_fib_lookup *query, union address *next_hop)
{
	if (query->family == AF_INET)
		next_hop->v4 = query->ipv4_dst;
	else
		__builtin_memcpy(next_hop, query->ipv6_dst, sizeof(*next_hop));
	return query->family;
}

static __always_inline int is_stale(__u32 stamp, __u32 now)
{
	return stamp == 0 || now - stamp >= TICKS_PER_SECOND;
}

/* Whether the service's VIP is an address of the director.  A firewall mark's
 * service has none: what the operator has marked is for the director. */
__attribute__((noinline)) int virtual_is_local(struct __sk_buff *skb, __u32 service_index)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct bpf_fib_lookup query = {};
	__u32 now = ticks_now();
	int answer;

	if (!service)
		return 0;
	if (service->key.fwmark)
		return 1;
	if (!is_stale(service->virtual_checked, now))
		return service->virtual_local;
	answer = look_up_route(skb, &query, &service->key.address, service->key.family);
	service->virtual_local = answer == BPF_FIB_LKUP_RET_NOT_FWDED ||
				 answer == BPF_FIB_LKUP_RET_FWD_DISABLED;
	service->virtual_checked = now;
	return service->virtual_local;
}

static __always_inline void learn_interface(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct interface *interface;
	__u32 index = skb->ifindex;

	if ((void *)(ethernet + 1) > end)
		return;
	interface = interface_at(index);
	if (!interface)
		return;
	__builtin_memcpy(interface->mac, ethernet->h_dest, sizeof(interface->mac));
	interface->known |= INTERFACE_KNOWN;
}

/* Whether routers on the way may fragment a tunnel's packets: with pmtu_disc 0 those of
 * IPv4 clients leave without DF (kernel: ensure_mtu_is_adequate()). */
static __always_inline int may_be_fragmented(const struct destination *destination)
{
	return destination->method == METHOD_TUNNEL && destination->owner.family == AF_INET &&
	       !is_set(SYSCTL_PMTU_DISC);
}

/* The MTU of the way that `query` found: asked for more than any way takes,
 * bpf_fib_lookup() says how much it does.  A router may have said that it is less. */
static __always_inline __u32 mtu_of(struct __sk_buff *skb, struct bpf_fib_lookup *query,
				    const struct destination *destination, __u32 now)
{
	__u32 mtu = 0, path = destination->path_mtu;

	if (look_up_route_for(skb, query, &destination->address, destination->family, 0xffff) ==
	    BPF_FIB_LKUP_RET_FRAG_NEEDED)
		mtu = query->mtu_result;
	if (path && !has_passed(destination->path_mtu_until, now) && (!mtu || path < mtu) &&
	    !may_be_fragmented(destination))
		return path;
	return mtu;
}

/* Whether the director's own address on the way to a destination is needed. */
static __always_inline int is_spoken_to(const struct destination *destination)
{
	return destination->method == METHOD_TUNNEL ||
	       (destination->method == METHOD_MASQUERADE && is_set(SYSCTL_NAT_ICMP_SEND));
}

/* That address.
 * Before Linux 6.7 it stays what it was at adding or editing. */
static __always_inline void refresh_source(struct __sk_buff *skb, struct bpf_fib_lookup *query,
					   struct destination *destination)
{
	union address source = {};
	int answer;

	ask_for(query, &destination->address, destination->family, 1);
	query->ifindex = LOOPBACK_INDEX;
	answer = bpf_fib_lookup(skb, query, sizeof(*query), FIB_LOOKUP_SOURCE);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return;
	if (destination->family == AF_INET)
		source.v4 = query->ipv4_src;
	else
		__builtin_memcpy(&source, query->ipv6_src, sizeof(source));
	if (source.half[0] != destination->own_address.half[0] ||
	    source.half[1] != destination->own_address.half[1])
		destination->own_address = source;
}

/*
 * Nobody has said yet what MAC the next hop has.  The kernel asks three times, a second
 * apart, for each packet that waits for it, and tells its sender then (kernel:
 * neigh_timer_handler(), arp_error_report()); of packets that a program has sent it tells nobody.
 * So whoever has been asked for so long without an answer is out of reach, as clients are
 * told every other second; what they send in between is what asks again.
 * A look-up for which none came before within that time speaks of another question: the answer to
 * the first may have come, and been forgotten, since.
 */
#define ASKING_TICKS (TICKS_PER_SECOND * 29 / 10)

static __always_inline __u32 asking(struct destination *destination, __u32 now)
{
	__u32 before = destination->reach;

	if (!(before & REACH_ASKED) || now - destination->refreshed >= ASKING_TICKS) {
		destination->asked = now;
		return REACH_ASKED;
	}
	if (now - destination->asked < ASKING_TICKS)
		return REACH_ASKED;
	return REACH_ASKED | (~before & REACH_UNANSWERED);
}

/* Look the way to a destination up again. */
__attribute__((noinline)) int look_up_way(struct __sk_buff *skb, __u32 destination_index,
					  int virtual_local)
{
	struct destination *destination =
		bpf_map_lookup_elem(&destinations, &destination_index);
	struct bpf_fib_lookup query = {};
	__u32 now = ticks_now(), reach;
	int answer;

	if (!destination)
		return 0;
	learn_interface(skb);
	reach = virtual_local ? REACH_VIRTUAL_LOCAL : 0;
	answer = look_up_route(skb, &query, &destination->address, destination->family);
	if (answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH) {
		reach |= REACH_ROUTE;
		destination->interface = query.ifindex;
		if (next_hop_of(&query, &destination->next_hop) == AF_INET6)
			reach |= REACH_BY_IPV6;
	}
	if (answer == BPF_FIB_LKUP_RET_SUCCESS) {
		reach |= REACH_MAC;
		__builtin_memcpy(destination->mac, query.dmac, sizeof(destination->mac));
		__builtin_memcpy(destination->source_mac, query.smac,
				 sizeof(destination->source_mac));
	}
	if (answer == BPF_FIB_LKUP_RET_NO_NEIGH)
		reach |= asking(destination, now);
	if (answer == BPF_FIB_LKUP_RET_FWD_DISABLED)
		reach |= destination->reach & (REACH_ROUTE | REACH_BY_IPV6);
	destination->mtu = mtu_of(skb, &query, destination, now);
	if (is_spoken_to(destination))
		refresh_source(skb, &query, destination);
	destination->reach = reach;
	destination->refreshed = now;
	return 0;
}

/* The same, if that was a second ago. */
static __always_inline void refresh(struct __sk_buff *skb, const struct destination *destination,
				    __u32 index)
{
	if (is_stale(destination->refreshed, ticks_now()))
		look_up_way(skb, index, virtual_is_local(skb, destination->service));
}

#endif
