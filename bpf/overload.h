/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A full connection table.
 *
 * A connection that finds no room in any of its buckets says so in
 * `settings.full_at`, and the time since then says what is done:
 *
 *   FULL        New connections get no entry.  A hash of its flow names the real
 *               server of each packet, so all of a flow come to the same one.
 *               The sweeper ends what is half open (is_half_open()).
 *   SETTLING    New connections have entries again, but still go where the hash
 *               says: a SYN of theirs that is sent again may be the second one.
 *   REMEMBERED  Packets of no entry, other than SYN and INIT, may be of a
 *               connection that began without one: they go by the hash, and get
 *               an entry.  This lasts as long as an idle connection is
 *               remembered, so none is forgotten sooner than one with an entry.
 *               New connections go by their scheduler, but a persistent client's.
 *
 * An entry that stands where the hash says (CONNECTION_BY_HASH) can be lost any
 * time: the hash says the same again.  While a table is full, one packet in
 * eight asks for one, so that the flows with most packets get what room there is,
 * and a flood of single packets little.  A masqueraded connection cannot do
 * without: its answers would find no way back.
 *
 * The hash is a race: each real server draws, for this flow, a time from an
 * exponential distribution with its weight as the rate, and the first one wins
 * (weighted rendezvous hashing).  One that comes or goes moves no flow but its
 * own.  Thresholds are not looked at, because they would move flows.
 */
#ifndef XLVS_OVERLOAD_H
#define XLVS_OVERLOAD_H

#include "conn.h"
#include "persist.h"
#include "sched.h"
#include "state.h"

#define FULL_TICKS (FULL_SECONDS * TICKS_PER_SECOND)
#define SETTLING_TICKS (SETTLING_SECONDS * TICKS_PER_SECOND)
#define FORGOTTEN_TICKS (40U * 86400 * TICKS_PER_SECOND) /* longer than any timeout */
/* For a client to answer in, where a real server's SYN ACK was lost twice: it is sent again
 * after one second, and after three. */
#define HALF_OPEN_TICKS (4 * TICKS_PER_SECOND)
#define ENTERED_SHARE 8

enum overload_phase {
	ROOM,
	REMEMBERED,
	SETTLING,
	FULL,
};

/* When a connection last found no room; 0 where that cannot matter any more. */
static __always_inline __u32 full_at(void)
{
	return *(volatile __u32 *)&settings.full_at;
}

static __always_inline int is_full(__u32 now)
{
	__u32 since = full_at();

	return since && !has_passed(since + FULL_TICKS, now);
}

/* How long an idle connection of a service is remembered, in ticks. */
static __always_inline __u32 remembered_for(const struct service *service, __u8 protocol)
{
	if (service->idle_timeout)
		return (__u64)service->idle_timeout * NS_PER_SECOND >> TICK_SHIFT;
	if (protocol == PROTOCOL_UDP)
		return timeout_of(TIMEOUT_UDP);
	return timeout_of(protocol == PROTOCOL_SCTP ? TIMEOUT_SCTP + SCTP_ESTABLISHED :
						      TCP_ESTABLISHED);
}

static __always_inline enum overload_phase overload_phase(const struct service *service,
							  __u8 protocol)
{
	__u32 since = full_at(), now = ticks_now();

	if (!since)
		return ROOM;
	if (!has_passed(since + FULL_TICKS, now))
		return FULL;
	if (!has_passed(since + SETTLING_TICKS, now))
		return SETTLING;
	/* What made room in the last moment of FULL is remembered as long as others. */
	if (!has_passed(since + FULL_TICKS + remembered_for(service, protocol), now))
		return REMEMBERED;
	return ROOM;
}

static __always_inline __u64 mix(__u64 word)
{
	word = (word ^ word >> 32) * 0xd6e8feb86659fd93ULL;
	word = (word ^ word >> 32) * 0xd6e8feb86659fd93ULL;
	return word ^ word >> 32;
}

/* -ln(x / 2^32) in units of 2^-24, for an even draw of x from 1..2^32. */
static __always_inline __u64 exponential(__u32 draw)
{
	__u64 x = (__u64)draw + 1, halvings = 0, z, square;

#pragma unroll
	for (int bits = 16; bits; bits /= 2) {
		if (x <= 1ULL << (32 - bits)) {
			x <<= bits;
			halvings += bits;
		}
	}
	/* What is left is in (1/2, 1], or 2^-31: -ln(x) = 2 artanh((1 - x) / (1 + x)), three
	 * terms of its series, right to four digits. */
	z = (((1ULL << 32) - x) << 24) / ((1ULL << 32) + x);
	square = z * z >> 24;
	return halvings * 11629080 /* ln 2 */ +
	       2 * (z + (z * square >> 24) / 3 + ((z * square >> 24) * square >> 24) / 5);
}

#define RACE_ALL 64 /* with so many real servers all of them race, else as many chosen by hash */

struct race {
	__u64 hash;
	__u64 time;   /* the winner's, by its weight */
	__u32 weight;
	__u32 start;
	__u32 count;
	__u32 chosen; /* not all race */
	__s32 found;
	__u32 pad;
};

static long race_step(__u32 i, void *data)
{
	struct destination *destination;
	struct race *race = data;
	__u32 position = i;
	struct pick pick;
	__u64 time;

	if (race->chosen)
		position = (__u32)mix(race->hash + i) % race->count;
	pick = pick_at(race->start, position + 1);
	if ((__s32)pick.weight <= 0)
		return 0;
	destination = bpf_map_lookup_elem(&destinations, &pick.destination);
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE))
		return 0;
	time = exponential(mix(race->hash ^ mix(pick.destination + 1)));
	if (race->found < 0 || time * race->weight < race->time * pick.weight) {
		race->found = pick.destination;
		race->time = time;
		race->weight = pick.weight;
	}
	return 0;
}

__attribute__((noinline)) int run_race(const struct run *run, __u64 hash)
{
	struct race race = { .hash = hash, .found = NO_DESTINATION };

	if (!run)
		return NO_DESTINATION;
	race.start = run->start;
	race.count = run->count;
	race.found += unseen(0);
	race.chosen = unseen(run->count > RACE_ALL);
	bpf_loop(loop_count(race.chosen ? RACE_ALL : run->count), race_step, &race, 0);
	if (race.found < 0 && race.chosen) {
		/* Few of many may take connections. */
		race.chosen = unseen(0);
		bpf_loop(loop_count(run->count), race_step, &race, 0);
	}
	return race.found;
}

/*
 * The destination of all packets of a flow that has no entry, or NO_DESTINATION.
 * Schedulers by hash choose as ever, the highest weight stays the highest; a
 * persistent client's flows come to one real server.
 */
__attribute__((noinline)) int choose_by_hash(const struct packet *packet, __u32 service_index)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct flow flow = {};
	struct run run;
	__u64 header;

	if (!packet || !service)
		return NO_DESTINATION;
	run.service = service_index;
	run.start = *(volatile __u32 *)&service->run;
	if (run.start == 0)
		return NO_DESTINATION;
	header = pool_read(run.start + 1);
	run.count = low_half(header);
	run.scheduler = high_half(header);
	if (run.count == 0)
		return NO_DESTINATION;
	switch (run.scheduler) {
	case SCHEDULER_NONE:
		return NO_DESTINATION;
	case SCHEDULER_FO:
	case SCHEDULER_OVF:
		run.scheduler = SCHEDULER_FO;
		return schedule_highest(&run);
	case SCHEDULER_SH:
	case SCHEDULER_DH:
	case SCHEDULER_MH:
		if (!(service->flags & SERVICE_PERSISTENT))
			return schedule_hash(&run, service->flags, packet);
	}
	if (service->flags & SERVICE_PERSISTENT)
		template_flow(packet, service, &flow);
	else
		flow = packet->flow;
	return run_race(&run, flow_hash(&flow));
}

/*
 * Whether an entry goes when the table is full: what is half open for some
 * seconds; datagrams' flows with one packet so far, and connections that got
 * their entry in the middle and sent nothing since.
 */
__attribute__((noinline)) int is_half_open(__u32 slot, __u32 now)
{
	struct connection *entry = conn_at(slot);
	__u32 state, lifetime;
	__u64 control;

	if (!entry || entry->flow.apart)
		return 0;
	control = load_control(entry);
	state = control_state(control);
	if (entry->flow.protocol == PROTOCOL_UDP) {
		if (entry->in_packets > 1)
			return 0;
		lifetime = idle_timeout_of(entry, TIMEOUT_UDP);
	} else if (entry->flow.protocol == PROTOCOL_SCTP) {
		if (state != SCTP_INIT1 && state != SCTP_INIT)
			return 0;
		lifetime = timeout_of(TIMEOUT_SCTP + state);
	} else {
		if (state == TCP_SYN_RECV || state == TCP_SYNACK)
			lifetime = timeout_of(state);
		else if (state == TCP_ESTABLISHED && entry->in_packets <= 1 &&
			 control_flags(control) & CONNECTION_BY_HASH)
			lifetime = idle_timeout_of(entry, TCP_ESTABLISHED);
		else
			return 0;
	}
	return has_passed(entry->expires - lifetime + HALF_OPEN_TICKS, now);
}

#endif
