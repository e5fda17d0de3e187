/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What happens by time: one timer in the kernel walks the connection table once
 * a second, a sixty-fourth at a time, leaving out shares in which there is
 * nothing; over services and real servers every two seconds, for their rates;
 * and once a minute over what lblc and lblcr remember.  It lives as long as its
 * map is pinned; no process has to.
 */
#ifndef XLVS_SWEEP_H
#define XLVS_SWEEP_H

#include "conn.h"
#include "defense.h"
#include "estimate.h"
#include "locality.h"
#include "overload.h"
#include "persist.h"
#include "state.h"

#ifndef CLOCK_MONOTONIC
#define CLOCK_MONOTONIC 1
#endif

struct sweep {
	__u32 first;
	__u32 now;
	__u32 seen;
	__u32 occupied;
	__u32 drop_entries;   /* drop_entry acts */
	__u32 expire_nodest;  /* the setting expire_nodest_conn */
	__u32 full;           /* what is half open goes */
	__u32 pad;
};

/* Whether drop_entry takes an entry, were it not for the draw of lots: what is half
 * open, and some of what is idle (kernel: ip_vs_random_dropentry()). */
__attribute__((noinline)) int is_in_the_way(__u32 slot, __u32 now)
{
	struct connection *entry = conn_at(slot);
	__u64 control;

	if (!entry)
		return 0;
	control = load_control(entry);
	if (entry->flow.protocol == PROTOCOL_UDP)
		return may_spare(entry, idle_timeout_of(entry, TIMEOUT_UDP), now);
	if (entry->flow.protocol == PROTOCOL_SCTP) {
		switch (control_state(control)) {
		case SCTP_INIT1:
		case SCTP_INIT:
			return 1;
		case SCTP_ESTABLISHED:
			return may_spare(entry,
					 idle_timeout_of(entry, TIMEOUT_SCTP + SCTP_ESTABLISHED), now);
		}
		return 0;
	}
	switch (control_state(control)) {
	case TCP_SYN_RECV:
	case TCP_SYNACK:
		return 1;
	case TCP_ESTABLISHED:
		return may_spare(entry, idle_timeout_of(entry, TCP_ESTABLISHED), now);
	}
	return 0;
}

/* The same of a template that controls nothing: one that never had a connection that was
 * established; those of one-packet scheduling control nothing ever. */
static __always_inline int is_template_in_the_way(const struct connection *entry, __u64 control,
						  __u32 now)
{
	struct destination *destination;
	struct service *service = 0;
	__u32 index = entry->destination;

	destination = bpf_map_lookup_elem(&destinations, &index);
	if (destination) {
		index = destination->service;
		service = bpf_map_lookup_elem(&services, &index);
	}
	if (service && service->flags & SERVICE_ONE_PACKET)
		return may_spare(entry, entry->link, now);
	return control_state(control) != TEMPLATE_ASSURED;
}

/* Whether the real server of an entry was removed. */
static __always_inline int is_orphan(const struct connection *entry)
{
	__u32 index = entry->destination;
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	return destination && !(destination->flags & DESTINATION_AVAILABLE);
}

/* Whether a setting ends an entry before its time. */
static __always_inline int ends_early(const struct connection *entry, __u32 slot, __u64 control,
				      const struct sweep *sweep)
{
	if (sweep->expire_nodest && is_orphan(entry))
		return 1;
	if (!sweep->drop_entries || bpf_get_prandom_u32() % SCAN_SHARE)
		return 0;
	if (control_flags(control) & CONNECTION_TEMPLATE)
		return is_template_in_the_way(entry, control, sweep->now);
	return is_in_the_way(slot, sweep->now);
}

/* End a connection before its time, and its template with it if that was for nothing else. */
static __always_inline void end_early(struct connection *entry, __u32 slot,
				      const struct sweep *sweep)
{
	__u32 link = entry->link;
	struct connection *template = template_at(link);
	int orphan = sweep->expire_nodest && is_orphan(entry);
	__u64 control;

	conn_kill(entry, slot, sweep->now);
	if (!template)
		return;
	control = load_control(template);
	if (control_phase(control) == PHASE_LIVE && control_flags(control) & CONNECTION_TEMPLATE &&
	    (orphan || control_state(control) != TEMPLATE_ASSURED))
		end_template(template, link - 1, control, sweep->now);
}

/* End a connection if it is half open, for there to be room.  Its template ends with it only
 * if that says that none of its was ever established: of UDP it knows no such thing under DR. */
__attribute__((noinline)) int make_room(__u32 slot, __u32 now)
{
	struct connection *entry = conn_at(slot), *template;
	__u64 control;
	__u32 link;

	if (!entry || !is_half_open(slot, now))
		return 0;
	link = entry->flow.protocol == PROTOCOL_UDP ? 0 : entry->link;
	if (!conn_kill(entry, slot, now))
		return 0;
	COUNT_EVENT(evicted);
	template = template_at(link);
	if (!template)
		return 0;
	control = load_control(template);
	if (control_phase(control) == PHASE_LIVE && control_flags(control) & CONNECTION_TEMPLATE &&
	    control_state(control) != TEMPLATE_ASSURED)
		end_template(template, link - 1, control, now);
	return 0;
}

/* What is to be done about a slot in use.  A function of its own, verified once, not eight
 * times in a row. */
__attribute__((noinline)) int sweep_slot(__u32 slot, const struct sweep *sweep)
{
	struct connection *entry = conn_at(slot);
	__u64 control;
	__u32 phase;

	if (!entry || !sweep)
		return 0;
	control = load_control(entry);
	phase = control_phase(control);
	if (phase == PHASE_LIVE && control_flags(control) & CONNECTION_REPLY) {
		/* It goes with its connection; this finds what a race left over, or a connection
		 * whose place another one took. */
		if (has_passed(entry->expires, sweep->now) && !conn_of_reply(entry) &&
		    !hand_back(slot, entry->link - 1))
			bury(entry, sweep->now);
	} else if (phase == PHASE_LIVE && control_flags(control) & CONNECTION_TEMPLATE) {
		if (has_passed(entry->expires, sweep->now))
			extend_template(entry, slot, control, sweep->now);
		else if (control_controlled(control) == 0 && ends_early(entry, slot, control, sweep))
			end_template(entry, slot, control, sweep->now);
	} else if (phase == PHASE_LIVE) {
		if (has_passed(entry->expires, sweep->now)) {
			if (controls(control)) {
				entry->expires = sweep->now + EXTENSION_TICKS;
				return 0;
			}
			conn_kill(entry, slot, sweep->now);
			COUNT_EVENT(expired);
		} else if (!controls(control) && ends_early(entry, slot, control, sweep)) {
			end_early(entry, slot, sweep);
		} else if (sweep->full) {
			make_room(slot, sweep->now);
		}
	} else if (phase == PHASE_DEAD &&
		   has_passed(entry->expires + QUARANTINE_TICKS, sweep->now)) {
		swap_control(entry, control,
			     control_with(control, PHASE_FREE, FREE_AFTER_USE, 0));
	}
	return 0;
}

/*
 * Let the places of a bucket, in which every one has been free for a second, be unused ones.
 * Who enters something meanwhile sees them free, so takes its first one.
 */
__attribute__((noinline)) int renew_bucket(__u32 index)
{
	struct connection_bucket *bucket = bpf_map_lookup_elem(&connections, &index);

	if (!bucket)
		return 0;
	for (int slot = 0; slot < SLOTS_PER_BUCKET; slot++) {
		struct connection *entry = &bucket->slot[slot];
		__u64 control = load_control(entry);

		if (control_phase(control) == PHASE_FREE && !is_unused(control))
			swap_control(entry, control,
				     control_with(control, PHASE_FREE, FREE_UNUSED, 0));
	}
	return 0;
}

static long sweep_bucket(__u32 i, void *data)
{
	struct sweep *sweep = data;
	__u32 index = (sweep->first + i) & (limits.buckets - 1);
	struct connection_bucket *bucket = bpf_map_lookup_elem(&connections, &index);
	__u64 all = 0; /* of their control words */

	if (!bucket)
		return 1;
	for (int slot = 0; slot < SLOTS_PER_BUCKET; slot++) {
		__u64 control = load_control(&bucket->slot[slot]);

		all |= control;
		if (control_phase(control) == PHASE_FREE)
			continue;
		sweep->seen = 1;
		sweep->occupied++;
		sweep_slot(index * SLOTS_PER_BUCKET + slot, sweep);
	}
	if (control_phase(all) == PHASE_FREE && !is_unused(all))
		renew_bucket(index);
	return 0;
}

/* How long until the next run, so that they keep their pace however late one is. */
static __always_inline __u64 until_next_sweep(struct sweeper *sweeper)
{
	const __u64 pace = NS_PER_SECOND / SWEEPS_PER_SECOND;
	__u64 now = bpf_ktime_get_ns();

	sweeper->due += pace;
	if ((__s64)(now - sweeper->due) > (__s64)NS_PER_SECOND)
		sweeper->due = now + pace; /* the first time, or after a long halt */
	return sweeper->due > now ? sweeper->due - now : 0;
}

static __always_inline void read_settings(struct sweep *sweep)
{
	sweep->expire_nodest = !!settings.sysctl[SYSCTL_EXPIRE_NODEST_CONN];
	sweep->drop_entries = acts(settings.sysctl[SYSCTL_DROP_ENTRY]);
	sweep->full = is_full(sweep->now);
}

/* What was counted in one walk over the whole table. */
static __always_inline void note_occupied(__u32 occupied)
{
	if (settings.occupied != occupied)
		settings.occupied = occupied;
	/* Before ticks come round. */
	if (settings.full_at && ticks_now() - settings.full_at > FORGOTTEN_TICKS)
		settings.full_at = 0;
}

static int sweep_table(void *map, __u32 *key, struct sweeper *sweeper)
{
	__u32 share = sweeper->next_share & (SWEEPS_PER_SECOND - 1);
	struct sweep sweep = { .first = share * share_size(), .now = ticks_now() };

	read_settings(&sweep);
	if (share == 0) {
		note_occupied(sweeper->occupied);
		sweeper->occupied = 0;
	}
	sweeper->next_share = share + 1;
	if (sweeper->share_used[share]) {
		/* Cleared first: whoever enters something behind our back sets it again.
		 * An exchange, because a plain store could become visible after the
		 * walk's loads, and undo what note_used() did or saw in between. */
		__sync_lock_test_and_set(&sweeper->share_used[share], 0);
		bpf_loop(share_size(), sweep_bucket, &sweep, 0);
		sweeper->occupied += sweep.occupied;
		if (sweep.seen)
			sweeper->share_used[share] = 1;
	}
	sweeper->localities = sweep_localities(sweep.now, sweeper->localities);
	estimate_rates(sweeper->next_estimates++ & (ESTIMATE_SHARES - 1));
	bpf_timer_start(&sweeper->timer, until_next_sweep(sweeper), 0);
	return 0;
}

/* Start the timer, or have it call this program's sweep_table() from now on. */
static __always_inline int start_sweeper(void)
{
	struct sweeper *sweeper;
	__u32 zero = 0;

	sweeper = bpf_map_lookup_elem(&sweepers, &zero);
	if (!sweeper)
		return -1;
	/* -EBUSY where it runs already: only the callback changes then. */
	bpf_timer_init(&sweeper->timer, &sweepers, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&sweeper->timer, sweep_table))
		return -1;
	return bpf_timer_start(&sweeper->timer, 0, 0);
}

#endif
