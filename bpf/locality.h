/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lblc and lblcr: connections to one address keep to one real server, or to a
 * set of them (kernel: net/netfilter/ipvs/ip_vs_{lblc,lblcr}.c).
 *
 * What a service remembers of an address is a `struct locality`; lblcr's set is
 * a list of `struct replica`, the newest member first, as the kernel walks it.
 * The key has the service's `binding`, so all is forgotten at once when a
 * scheduler is bound anew.  A destination counts in `cached` how often it is
 * remembered: a removed one is not given away while somebody may ask for it.
 *
 * Look-ups take no lock.  A set changes under `busy`; who finds it taken lets
 * the change be, as the kernel does when it has no memory for one.
 */
#ifndef XLVS_LOCALITY_H
#define XLVS_LOCALITY_H

#include "clock.h"
#include "maps.h"
#include "run.h"
#include "sched_least.h"

#define NOBODY 0xffffffffu
#define LOCALITY_LIMIT 65536
#define LOCALITY_CROWD (LOCALITY_LIMIT / 2) /* more than that, and idle ones go early */
#define LOCALITY_CHECK_TICKS (60 * TICKS_PER_SECOND)  /* CHECK_EXPIRE_INTERVAL */
#define LOCALITY_IDLE_TICKS (6 * 60 * TICKS_PER_SECOND) /* ENTRY_TIMEOUT */
#define REPLICA_LIMIT (2 * LOCALITY_LIMIT)

struct locality_key {
	union address address;
	__u32 service;
	__u32 binding;
};

struct locality {
	__u32 first;    /* lblc: its destination; lblcr: the newest member of its set, or NOBODY */
	__u32 size;     /* of the set; 0: lblc */
	__u32 used;     /* tick of the last use */
	__u32 modified; /* tick of the set's last change */
	__u32 busy;
	__u32 pad;
};

struct replica_key {
	struct locality_key locality;
	__u32 destination;
	__u32 pad;
};

struct replica {
	__u32 next; /* the member entered before it, or NOBODY */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LOCALITY_LIMIT);
	__type(key, struct locality_key);
	__type(value, struct locality);
} localities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, REPLICA_LIMIT);
	__type(key, struct replica_key);
	__type(value, struct replica);
} replicas SEC(".maps");

static __always_inline void count_cached(__u32 index, __s32 change)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	if (!destination)
		return;
	if (change < 0)
		note_end(destination);
	__sync_fetch_and_add(&destination->cached, change);
}

/* A destination that is remembered, if it is still the service's; else null. */
static __always_inline struct destination *remembered(__u32 index, __u32 service)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	return destination && destination->service == service ? destination : 0;
}

static __always_inline __s32 weight_of(const struct destination *destination)
{
	return *(const volatile __u32 *)&destination->weight;
}

struct crowd_walk {
	__u32 start;
	__u32 found;
};

static long crowd_step(__u32 i, void *data)
{
	struct crowd_walk *walk = data;
	struct pick pick = pick_at(walk->start, i + 1);
	struct destination *destination = bpf_map_lookup_elem(&destinations, &pick.destination);

	walk->found = destination && destination->active * 2 < (__s32)pick.weight;
	return walk->found;
}

/* Whether a destination has more active connections than weight, while another
 * has less than half as many (kernel: is_overloaded()). */
static __always_inline int is_crowded(const struct destination *destination, const struct run *run)
{
	struct crowd_walk walk = { .start = run->start };

	if (destination->active <= weight_of(destination))
		return 0;
	bpf_loop(loop_count(run->count), crowd_step, &walk, 0);
	return walk.found;
}

static __always_inline void key_of(struct locality_key *key, const struct run *run,
				   const union address *address)
{
	key->address = *address;
	key->service = run->service;
	key->binding = low_half(pool_read(run->start + 3));
}

/*
 * Both schedulers come in two steps, so that the stack holds one at a time: what
 * is remembered of an address is recalled; where that gives no destination, the
 * least loaded of all is chosen as by wlc, and remembered.
 */

/* lblc: the destination of an address, or NO_DESTINATION. */
__attribute__((noinline)) int recall_server(const struct run *run, const union address *address)
{
	struct destination *destination;
	struct locality_key key;
	struct locality *entry;
	__u32 index;

	if (!run || !address)
		return NO_DESTINATION;
	key_of(&key, run, address);
	entry = bpf_map_lookup_elem(&localities, &key);
	if (!entry)
		return NO_DESTINATION;
	entry->used = ticks_now();
	index = *(volatile __u32 *)&entry->first;
	destination = remembered(index, run->service);
	/* An overload by thresholds does not count here. */
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE) ||
	    weight_of(destination) <= 0 || is_crowded(destination, run))
		return NO_DESTINATION;
	return index;
}

/* lblc: let an address have that destination from now on. */
__attribute__((noinline)) int remember_server(const struct run *run, const union address *address,
					      __u32 index)
{
	struct locality new = { .first = index };
	struct locality_key key;
	struct locality *entry;

	if (!run || !address)
		return 0;
	key_of(&key, run, address);
	entry = bpf_map_lookup_elem(&localities, &key);
	/* Counted before it is remembered: it must not be given away in between. */
	count_cached(index, 1);
	if (entry) {
		count_cached(__sync_lock_test_and_set(&entry->first, index), -1);
		return 0;
	}
	new.used = ticks_now();
	if (bpf_map_update_elem(&localities, &key, &new, BPF_NOEXIST))
		count_cached(index, -1);
	return 0;
}

/* lblcr */

struct replica_walk {
	struct replica_key key; /* of the member that is looked at */
	__s32 found;
	__s32 load;
	__u32 weight;
	__u32 most;             /* look for the most loaded, not for the least */
	__u32 wanted;           /* stop at this one */
	__u32 before;           /* the member ahead of it in the list */
};

static long replica_step(__u32 i, void *data)
{
	struct replica_walk *walk = data;
	struct destination *destination;
	struct replica *member;
	__u32 index = walk->key.destination;
	__s32 load, weight;

	if (index == walk->wanted)
		return 1;
	member = bpf_map_lookup_elem(&replicas, &walk->key);
	if (!member)
		return 1;
	walk->before = index;
	walk->key.destination = member->next;
	destination = remembered(index, walk->key.locality.service);
	if (!destination)
		return 0;
	load = overhead(destination);
	weight = weight_of(destination);
	if (weight <= 0)
		return 0;
	if (!walk->most && (destination->overload & OVERLOADED ||
			    !(destination->flags & DESTINATION_AVAILABLE)))
		return 0;
	if (walk->found < 0 ||
	    (walk->most ? is_less(walk->load, walk->weight, load, weight) :
			  is_less(load, weight, walk->load, walk->weight))) {
		walk->found = index;
		walk->load = load;
		walk->weight = weight;
	}
	return 0;
}

/* Walk over a set: for its least or most loaded, until its end or `wanted`. */
static __always_inline void walk_set(struct replica_walk *walk, const struct locality *entry)
{
	walk->key.destination = *(const volatile __u32 *)&entry->first;
	walk->key.pad = 0;
	walk->found = unseen(NO_DESTINATION);
	walk->load = walk->weight = unseen(0);
	walk->before = NOBODY;
	/* One step more than it has members, to arrive at the end of the list. */
	bpf_loop(loop_count((entry->size & (REPLICA_LIMIT - 1)) + 1), replica_step, walk, 0);
}

static __always_inline int take(struct locality *entry)
{
	return __sync_val_compare_and_swap(&entry->busy, 0, 1) == 0;
}

static __always_inline void let_go(struct locality *entry)
{
	__sync_lock_test_and_set(&entry->busy, 0);
}

/* Put a destination at the head of a set; the caller has taken the set. */
static __always_inline void enter_replica(struct locality *entry, struct replica_key *key, __u32 index)
{
	struct replica member = { .next = entry->first };

	key->destination = index;
	key->pad = 0;
	count_cached(index, 1);
	if (bpf_map_update_elem(&replicas, key, &member, BPF_NOEXIST)) {
		count_cached(index, -1);
		/* There already: a remnant of a set that was swept.  Or no memory. */
		if (bpf_map_update_elem(&replicas, key, &member, BPF_EXIST))
			return;
	}
	entry->first = index;
	entry->size++;
	entry->modified = ticks_now();
}

/* Add a destination to a set, unless it is a member. */
static __always_inline void add_replica(struct locality *entry, struct replica_walk *walk, __u32 index)
{
	if (!take(entry))
		return;
	walk->wanted = index;
	walk_set(walk, entry);
	if (walk->key.destination != index)
		enter_replica(entry, &walk->key, index);
	let_go(entry);
}

/* Take the most loaded destination out of a set of two or more. */
static __always_inline void drop_replica(struct locality *entry, struct replica_walk *walk)
{
	struct replica *member;
	__u32 next, dropped;

	if (!take(entry))
		return;
	walk->most = 1;
	walk->wanted = NOBODY;
	walk_set(walk, entry);
	dropped = walk->found;
	if (entry->size > 1 && walk->found >= 0) {
		walk->wanted = dropped;
		walk_set(walk, entry);
		walk->key.destination = dropped;
		member = bpf_map_lookup_elem(&replicas, &walk->key);
		if (member) {
			next = member->next;
			walk->key.destination = walk->before;
			member = walk->before == NOBODY ? 0 : bpf_map_lookup_elem(&replicas, &walk->key);
			if (member)
				member->next = next;
			else
				entry->first = next;
			walk->key.destination = dropped;
			bpf_map_delete_elem(&replicas, &walk->key);
			count_cached(dropped, -1);
			entry->size--;
			entry->modified = ticks_now();
		}
	}
	walk->most = 0;
	let_go(entry);
}

static __always_inline __u32 lblcr_expiration(void)
{
	return settings.lblcr_expiration;
}

/* lblcr: the least loaded of an address's set, or NO_DESTINATION where another one has to join. */
__attribute__((noinline)) int recall_replica(const struct run *run, const union address *address)
{
	struct replica_walk walk = { .wanted = NOBODY };
	struct destination *destination;
	struct locality *entry;
	__u32 now = ticks_now();
	int found;

	if (!run || !address)
		return NO_DESTINATION;
	key_of(&walk.key.locality, run, address);
	entry = bpf_map_lookup_elem(&localities, &walk.key.locality);
	if (!entry)
		return NO_DESTINATION;
	entry->used = now;
	walk_set(&walk, entry);
	found = walk.found;
	if (entry->size > 1 && (__s32)(now - entry->modified - lblcr_expiration()) > 0)
		drop_replica(entry, &walk);
	if (found < 0)
		return NO_DESTINATION;
	destination = remembered(found, run->service);
	if (!destination || is_crowded(destination, run))
		return NO_DESTINATION;
	return found;
}

/* lblcr: let a destination be in an address's set. */
__attribute__((noinline)) int remember_replica(const struct run *run, const union address *address,
					       __u32 index)
{
	struct replica_walk walk = {};
	struct locality *entry;

	if (!run || !address)
		return 0;
	key_of(&walk.key.locality, run, address);
	entry = bpf_map_lookup_elem(&localities, &walk.key.locality);
	if (!entry) {
		struct locality new = { .first = NOBODY };

		new.used = ticks_now();
		if (bpf_map_update_elem(&localities, &walk.key.locality, &new, BPF_NOEXIST))
			return 0;
		entry = bpf_map_lookup_elem(&localities, &walk.key.locality);
		if (!entry)
			return 0;
	}
	add_replica(entry, &walk, index);
	return 0;
}

/* Forgetting */

/* Whether a service still has the scheduler that an entry is of. */
static __always_inline int is_bound(const struct locality_key *key)
{
	__u32 index = key->service, start;
	struct service *service = bpf_map_lookup_elem(&services, &index);

	start = service ? *(volatile __u32 *)&service->run : 0;
	return start && low_half(pool_read(start + 3)) == key->binding;
}

struct locality_sweep {
	__u32 now;
	__u32 expiration[2]; /* ticks, of lblc and of lblcr */
	__u32 crowded;
	__u32 seen;
};

static long sweep_locality(void *map, const struct locality_key *key, struct locality *entry,
			   struct locality_sweep *sweep)
{
	__u32 idle = sweep->now - entry->used;
	__u32 limit = entry->size ? sweep->expiration[1] : sweep->expiration[0];

	if (sweep->crowded && limit > LOCALITY_IDLE_TICKS)
		limit = LOCALITY_IDLE_TICKS;
	/* A use meanwhile is later than `now`. */
	if (is_bound(key) && (idle < limit || (__s32)idle < 0)) {
		sweep->seen++;
		return 0;
	}
	if (!entry->size)
		count_cached(entry->first, -1);
	bpf_map_delete_elem(map, key);
	return 0;
}

/* The members of a set go after it. */
static long sweep_replica(void *map, const struct replica_key *key, struct replica *member, void *data)
{
	__u32 destination = key->destination;

	if (bpf_map_lookup_elem(&localities, &key->locality))
		return 0;
	count_cached(destination, -1);
	bpf_map_delete_elem(map, key);
	return 0;
}

/* Once a minute, forget what is out of date; returns how many entries are left. */
static __always_inline __u32 sweep_localities(__u32 now, __u32 left_before)
{
	struct locality_sweep sweep = { .now = now, .crowded = left_before > LOCALITY_CROWD };

	if (!has_passed(settings.localities_checked + LOCALITY_CHECK_TICKS, now))
		return left_before;
	sweep.expiration[0] = settings.lblc_expiration;
	sweep.expiration[1] = settings.lblcr_expiration;
	bpf_for_each_map_elem(&localities, sweep_locality, &sweep, 0);
	bpf_for_each_map_elem(&replicas, sweep_replica, &sweep, 0);
	settings.localities_checked = now;
	return sweep.seen;
}

#endif
