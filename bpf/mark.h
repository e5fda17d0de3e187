/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The firewall mark of a packet that begins a connection.  Netfilter gives
 * marks after TC ingress, so the director has rules of its own that give one
 * (`xlvs mark`): a list in the operator's order, of which the first that
 * matches says it.  A mark that the packet has already, of a program attached
 * before ours, goes first.
 *
 * The list is walked for packets without a connection alone; without rules
 * that is one load.  A rule is two cache lines, of which the second is read
 * only when addresses and protocol are the packet's.
 */
#ifndef XLVS_MARK_H
#define XLVS_MARK_H

#include <bpf/bpf_endian.h>
#include "maps.h"
#include "parse.h"
#include "sched.h"

struct mark_walk {
	struct flow flow; /* ports in host order here */
	__u32 first;
	__u32 mark;
};

/* An IPv4 address is the beginning of sixteen bytes: both families compare alike. */
static __always_inline int in_prefix(const union address *address, const union address *prefix,
				     __u32 length)
{
	__u64 upper = bpf_be64_to_cpu(address->half[0] ^ prefix->half[0]);
	__u64 lower = bpf_be64_to_cpu(address->half[1] ^ prefix->half[1]);

	if (length <= 64)
		return length == 0 || upper >> ((64 - length) & 63) == 0;
	return upper == 0 && lower >> ((128 - length) & 63) == 0;
}

/* Whether the ports are in one of a rule's ranges of each kind, if it has any.  Without
 * branches, of which the verifier would follow every combination: masks are all ones or 0. */
static __always_inline int ports_match(const struct mark_rule *rule, const struct flow *flow)
{
	__s32 ends = rule->destination_ranges, count = ends + rule->source_ranges;
	__s32 destination = 0, source = 0;

	for (__s32 i = 0; i < MARK_RANGES; i++) {
		const struct port_range *range = &rule->range[i];
		__s32 is_destination = (i - ends) >> 31;
		__s32 port = (is_destination & flow->virtual_port) | (~is_destination & flow->client_port);
		__s32 inside = ~((port - range->first) | (range->last - port)) >> 31;

		if (i >= count)
			break;
		destination |= inside & is_destination;
		source |= inside & ~is_destination;
	}
	return (ends == 0 || destination) && (count == ends || source);
}

static long mark_step(__u32 i, void *data)
{
	struct mark_walk *walk = data;
	struct mark_rule *rule;
	__u32 index = walk->first + i;

	rule = bpf_map_lookup_elem(&mark_rules, &index);
	if (!rule)
		return 1;
	if (rule->family != walk->flow.family ||
	    (rule->protocol && rule->protocol != walk->flow.protocol) ||
	    !in_prefix(&walk->flow.virtual, &rule->destination, rule->destination_prefix) ||
	    !in_prefix(&walk->flow.client, &rule->source, rule->source_prefix) ||
	    !ports_match(rule, &walk->flow))
		return 0;
	walk->mark = rule->mark;
	return 1;
}

/* The mark of the first rule that matches; `set` is `settings.mark_set`. */
__attribute__((noinline)) __u32 walk_marks(const struct packet *packet, __u32 set)
{
	struct mark_walk walk = {};

	if (!packet)
		return 0;
	walk.flow = packet->flow;
	walk.flow.client_port = bpf_ntohs(packet->flow.client_port);
	walk.flow.virtual_port = bpf_ntohs(packet->flow.virtual_port);
	walk.first = (set >> MARK_HALF_SHIFT & 1) * MARK_RULES;
	bpf_loop(loop_count(set & ((1u << MARK_HALF_SHIFT) - 1)), mark_step, &walk, 0);
	return walk.mark;
}

/* The packet's firewall mark, or 0. */
static __always_inline __u32 mark_of(const struct __sk_buff *skb, const struct packet *packet)
{
	__u32 set;

	if (skb->mark)
		return skb->mark;
	set = *(volatile __u32 *)&settings.mark_set;
	return set ? walk_marks(packet, set) : 0;
}

#endif
