/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Defence against floods: the settings drop_packet, drop_entry and secure_tcp
 * (kernel: update_defense_level(), ip_vs_todrop(), todrop_entry()).
 *
 * Their automatic modes ask whether room is scarce.  The kernel's connections
 * take memory, so it counts free pages; ours have a table of their own, and it is
 * the connections that still fit that are compared with amemthresh.  The sweeper
 * counts once a second, as often as the kernel does.
 */
#ifndef XLVS_DEFENSE_H
#define XLVS_DEFENSE_H

#include "clock.h"
#include "conn.h"
#include "maps.h"

enum defense_mode {
	DEFENSE_OFF,
	DEFENSE_AUTOMATIC,        /* off by now, or */
	DEFENSE_AUTOMATIC_ACTING, /* acting; which of the two is told by the room that is left */
	DEFENSE_ALWAYS,
};

#define SCAN_SHARE 32 /* of the table: drop_entry looks at one in so many entries each second */
#define IDLE_TICKS (60 * TICKS_PER_SECOND)

/* How many connections certainly still fit. */
static __always_inline __s32 room_left(void)
{
	__u32 capacity = limits.buckets * (SLOTS_PER_BUCKET / 2);

	return settings.occupied < capacity ? capacity - settings.occupied : 0;
}

static __always_inline int is_scarce(void)
{
	return room_left() < settings.sysctl[SYSCTL_AMEMTHRESH];
}

/* Whether a defence of this mode acts now. */
static __always_inline int acts(__s32 mode)
{
	return mode == DEFENSE_ALWAYS || (mode != DEFENSE_OFF && is_scarce());
}

/* One in how many new connections' packets is dropped; 0: none. */
static __always_inline __u32 drop_rate(void)
{
	__s32 mode = settings.sysctl[SYSCTL_DROP_PACKET];
	__s32 rate = settings.sysctl[SYSCTL_AM_DROPRATE], threshold;

	if (mode == DEFENSE_ALWAYS)
		return rate < 0 ? 1 : rate;
	if (mode == DEFENSE_OFF || !is_scarce())
		return 0;
	threshold = settings.sysctl[SYSCTL_AMEMTHRESH];
	return (__u32)threshold / (__u32)(threshold - room_left());
}

/* Whether a packet that would begin a connection is one of those to drop. */
static __always_inline int is_dropped_in_defense(void)
{
	__u32 rate;

	if (!settings.sysctl[SYSCTL_DROP_PACKET])
		return 0;
	rate = drop_rate();
	if (rate == 0)
		return 0;
	return __sync_fetch_and_add(&settings.drop_counter, 1) % rate == 0;
}

/* One packet more from an entry's client. */
static __always_inline void count_in_packet(struct connection *entry)
{
	if (entry->in_packets < IN_PACKETS_LIMIT)
		entry->in_packets++;
}

/*
 * Whether an entry that is not half open goes as well: one that was idle for a
 * minute and had few packets, one in as many as they were.  `lifetime` is what its
 * last packet gave it, in ticks.
 */
static __always_inline int may_spare(const struct connection *entry, __u32 lifetime, __u32 now)
{
	__u32 packets = entry->in_packets;

	if ((__s32)(now - (entry->expires - lifetime)) < (__s32)IDLE_TICKS)
		return 0;
	return packets >= 1 && packets < IN_PACKETS_LIMIT && bpf_get_prandom_u32() % packets == 0;
}

#endif
