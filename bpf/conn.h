/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The connection table: an array of buckets, eight cache-line slots each.
 *
 * A flow's hash names its home bucket; when that is full it spills to one of
 * seven others, derived from the same hash, and the home's guard counts it so
 * that look-ups of flows with no spilled neighbour stop at the home bucket.
 * In a table that is half full, where one bucket in twenty is, one connection
 * in a hundred stands elsewhere, and that all eight are full does not happen
 * (about twice in ten million fillings; with four it is one in eleven).
 *
 * Concurrency
 *   look-up   takes no lock.  It compares the flow, then the phase.
 *   insert    holds the home's lock, so two CPUs cannot insert a flow twice;
 *             claims its slot by compare-and-swap, because flows of
 *             other homes may spill into the same bucket; publishes by
 *             compare-and-swap, after the fields are written.
 *   change    of state, flags or phase is a compare-and-swap of `control`.
 *             Who succeeds moves the destination's counters.  So they always
 *             add up to the live entries.
 *   reuse     A dead slot stays unused for a second.  No program runs that
 *             long, so whoever found an entry may use it to the end.  A client
 *             that opens the same flow again takes its old slot over at once:
 *             whoever else holds it has a packet of that flow, too.
 */
#ifndef XLVS_CONN_H
#define XLVS_CONN_H

#include <stddef.h>

#include "clock.h"
#include "maps.h"
#include "stats.h"

#define NOT_FOUND (-1)

/* What conn_insert() adds to the slot that it returns. */
#define SLOT_IS_NEW 0x40000000
#define SLOT_IS_REPLACED 0x20000000
#define SLOT_MASK 0x1fffffff

#define QUARANTINE_TICKS TICKS_PER_SECOND
#define CONTROL_RETRIES 8

static __always_inline __u32 control_phase(__u64 control)
{
	return (__u8)(control >> CONTROL_PHASE_SHIFT);
}

static __always_inline __u32 control_state(__u64 control)
{
	return (__u8)(control >> CONTROL_STATE_SHIFT);
}

static __always_inline __u32 control_flags(__u64 control)
{
	return (__u16)(control >> CONTROL_FLAGS_SHIFT);
}

/* The forwarding method of an entry, whatever its destination's is by now. */
static __always_inline __u32 control_method(__u64 control)
{
	return control_flags(control) >> CONNECTION_METHOD_SHIFT & CONNECTION_METHOD_MASK;
}

static __always_inline __u64 control_with(__u64 control, __u32 phase, __u32 state, __u32 flags)
{
	return (control >> CONTROL_GENERATION_SHIFT << CONTROL_GENERATION_SHIFT) |
	       (__u64)(flags & 0xffff) << CONTROL_FLAGS_SHIFT |
	       (__u64)(state & 0xff) << CONTROL_STATE_SHIFT | (phase & 0xff);
}

/* Parts of a connection's control word. */
#define CONTROL_BITS(phase, state, flags)                                              \
	((__u64)(phase) << CONTROL_PHASE_SHIFT | (__u64)(state) << CONTROL_STATE_SHIFT | \
	 (__u64)(flags) << CONTROL_FLAGS_SHIFT)

#define FTP_PORT 21
#define FTP_DATA_LIMIT 0xffff

/* How many FTP data connections a connection controls: it lives as long as they do
 * (kernel: ip_vs_conn_expire(), n_control). */
static __always_inline __u32 controls(__u64 control)
{
	return control_flags(control) & CONNECTION_TEMPLATE ? 0 :
							      control >> CONTROL_FTP_DATA_SHIFT;
}

static __always_inline int swap_control(struct connection *entry, __u64 old, __u64 new)
{
	return __sync_val_compare_and_swap(&entry->control, old, new) == old;
}

static __always_inline __u64 load_control(const struct connection *entry)
{
	return *(const volatile __u64 *)&entry->control;
}

#define FAMILY_IPV4 2 /* AF_INET, which parse.h defines */

static __always_inline int flow_equal(const struct flow *a, const struct flow *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	/* The last word has the ports, which differ first, and the family: IPv4 has nothing
	 * in the second word of its addresses. */
	return x[4] == y[4] && x[0] == y[0] && x[2] == y[2] &&
	       (b->family == FAMILY_IPV4 || (x[1] == y[1] && x[3] == y[3]));
}

/*
 * A sum of products, which do not wait for each other, stirred so that neighbouring
 * ports do not fill some buckets more often than chance does.  Who does not know the
 * factors, random ones, finds no flows that collide.  IPv4 has nothing in the second
 * word of its addresses.
 */
static __always_inline __u64 flow_hash(const struct flow *flow)
{
	const __u64 *word = (const __u64 *)flow;
	__u64 hash = word[0] * limits.hash_factor[0] + word[2] * limits.hash_factor[2] +
		     word[4] * limits.hash_factor[4];

	if (flow->family != FAMILY_IPV4)
		hash += word[1] * limits.hash_factor[1] + word[3] * limits.hash_factor[3];
	hash ^= hash >> 32;
	return hash * 0x9e3779b97f4a7c15ULL; /* its upper half is the one to use */
}

/* The bucket of a flow's n-th choice; 0 is its home. */
static __always_inline __u32 bucket_choice(__u64 hash, __u32 n)
{
	__u32 step = (__u32)(hash >> 8) | 1;

	return ((__u32)(hash >> 32) + n * step) & (limits.buckets - 1);
}

/*
 * Where in a bucket a flow's entry stands, by preference: in a table that is half full
 * four in five have their first choice, so a look-up mostly reads one line, and its
 * neighbour, which processors fetch along with it, is the second.
 */
static __always_inline __u32 nth_place(__u64 hash, __u32 n)
{
	__u32 first = hash >> 61;

	if (n == 0)
		return first; /* below SLOTS_PER_BUCKET, as verifiers know */
	/* Not worked out beforehand for all n: there is no stack for that. */
	asm volatile("" : "+r"(first));
	return (first ^ n) & (SLOTS_PER_BUCKET - 1);
}

static __always_inline struct connection *conn_at(__u32 slot)
{
	__u32 index = slot / SLOTS_PER_BUCKET;
	struct connection_bucket *bucket = bpf_map_lookup_elem(&connections, &index);

	if (!bucket)
		return 0;
	/* Keeps the compiler from moving the arithmetic before the test for
	 * null, which the verifier refuses. */
	asm volatile("" : "+r"(bucket));
	return &bucket->slot[slot & (SLOTS_PER_BUCKET - 1)];
}

/* The guard of a home. */
static __always_inline struct bucket_guard *guard_of(__u32 home)
{
	__u32 index = home / GUARDED_BUCKETS;

	return bpf_map_lookup_elem(&bucket_guards, &index);
}

/* Where in a guard a home's count begins. */
static __always_inline __u32 spilled_shift(__u32 home)
{
	return home % GUARDED_BUCKETS * 8;
}

static __always_inline int has_spilled(const struct bucket_guard *guard, __u32 home)
{
	return *(const volatile __u32 *)&guard->spilled >> spilled_shift(home) & 0xff;
}

/* Live, and no template that was put aside. */
static __always_inline int is_findable(__u64 control)
{
	const __u64 mask = 0xffULL << CONTROL_PHASE_SHIFT |
			   (__u64)CONNECTION_ASIDE << CONTROL_FLAGS_SHIFT;

	return (control & mask) == (__u64)PHASE_LIVE << CONTROL_PHASE_SHIFT;
}

static __always_inline int is_unused(__u64 control)
{
	return (control & CONTROL_BITS(0xff, 0xff, 0)) == CONTROL_BITS(PHASE_FREE, FREE_UNUSED, 0);
}

/*
 * The place of a flow's live entry, or NOT_FOUND.  Who enters a flow takes its first free place,
 * so it does not stand behind one that was never used: that spares those who look for what
 * is not there most of the lines.  A bucket in which all places are free is renewed (sweep.h).
 */
static __always_inline int search_bucket(const struct connection_bucket *bucket,
					 const struct flow *flow, __u64 hash)
{
	for (__u32 n = 0; n < SLOTS_PER_BUCKET; n++) {
		__u32 place = nth_place(hash, n);
		const struct connection *entry = &bucket->slot[place];
		__u64 control = load_control(entry);

		if (is_unused(control))
			break;
		if (flow_equal(&entry->flow, flow) && is_findable(control))
			return place;
	}
	return NOT_FOUND;
}

/* The slot of a flow's live entry, expired or not, or NOT_FOUND. */
__attribute__((noinline)) int conn_find(const struct flow *flow)
{
	struct connection_bucket *bucket;
	struct bucket_guard *guard;
	__u32 home, index;
	__u64 hash;
	int slot;

	if (!flow)
		return NOT_FOUND;
	hash = flow_hash(flow);
	home = bucket_choice(hash, 0);
	for (int n = 0; n < BUCKET_CHOICES; n++) {
		if (n == 1) {
			guard = guard_of(home);
			if (!guard || !has_spilled(guard, home))
				return NOT_FOUND;
		}
		index = bucket_choice(hash, n);
		bucket = bpf_map_lookup_elem(&connections, &index);
		if (!bucket)
			return NOT_FOUND;
		slot = search_bucket(bucket, flow, hash);
		if (slot >= 0)
			return index * SLOTS_PER_BUCKET + slot;
	}
	return NOT_FOUND;
}

/*
 * A destination has less load than before, or takes connections again: its service's
 * tree of loads (load_tree.h) has to look at it.  What is more than before is noticed
 * when it is chosen.
 */
__attribute__((noinline)) int mark_lighter(__u32 index)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);
	struct service *service;
	__u32 leaf, place;
	__u64 *word, bit;

	leaf = destination ? *(volatile __u32 *)&destination->leaf : 0;
	if (!leaf)
		return 0;
	place = destination->service;
	service = bpf_map_lookup_elem(&services, &place);
	if (!service)
		return 0;
	leaf = (leaf - 1) / LOAD_FANOUT;
	bit = 1ULL << (leaf % 64);
	word = &service->lighter[leaf / 64 & (LOAD_MARKS / 64 - 1)];
	if (!(*(volatile __u64 *)word & bit))
		__sync_fetch_and_or(word, bit);
	return 0;
}

/* One less of what `counter` counts of a destination. */
static __always_inline void count_down(struct destination *destination, __u32 index, __s32 *counter)
{
	/* A full barrier: who takes the mark off sees the count. */
	__s32 before = __sync_fetch_and_add(counter, -1);

	asm volatile("" : : "r"(before));
	if (*(volatile __u32 *)&destination->leaf)
		mark_lighter(index);
}

/* A connection of a destination's has become active, or inactive.  It is marked in either
 * case: somebody may have read the two counters in between. */
static __always_inline void destination_moves(__u32 index, int is_active)
{
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);

	if (!destination)
		return;
	__sync_fetch_and_add(is_active ? &destination->active : &destination->inactive, 1);
	count_down(destination, index, is_active ? &destination->inactive : &destination->active);
}

static __always_inline void count_spilled(const struct flow *flow, __u32 change)
{
	__u32 home = bucket_choice(flow_hash(flow), 0);
	struct bucket_guard *guard = guard_of(home);

	if (guard)
		__sync_fetch_and_add(&guard->spilled, change << spilled_shift(home));
}

/* A destination that has all the connections it may have takes no more until it
 * is below its lower threshold, or three quarters of the upper one, rounded up
 * (kernel: ip_vs_bind_dest(), ip_vs_unbind_dest()). */
static __always_inline void update_overload(struct destination *destination, __u32 index)
{
	__u32 upper = destination->upper_threshold, lower = destination->lower_threshold;
	__u32 total = destination->active + destination->inactive;

	if (upper && total >= upper) {
		__sync_fetch_and_or(&destination->overload, OVERLOADED);
		return;
	}
	if (!lower)
		lower = upper - upper / 4;
	if (upper && total >= lower)
		return;
	if (!(*(volatile __u32 *)&destination->overload & OVERLOADED))
		return;
	total = __sync_fetch_and_and(&destination->overload, ~OVERLOADED);
	asm volatile("" : : "r"(total)); /* a full barrier, as in count_down() */
	mark_lighter(index);
}

/* A new connection with such flags is a destination's. */
static __always_inline void count_new(struct destination *destination, __u32 index, __u32 flags)
{
	__sync_fetch_and_add(flags & CONNECTION_INACTIVE ? &destination->inactive : &destination->active,
			     1);
	if (destination->upper_threshold)
		update_overload(destination, index);
}

/* Something of a destination's is about to end: of a removed one that is noted, for its
 * last one says since when it is idle (kernel: ip_vs_dest_trash_expire()). */
static __always_inline void note_end(struct destination *destination)
{
	if (!(destination->flags & DESTINATION_AVAILABLE))
		destination->removed = ticks_now();
}

/* Take an entry with this control word off its destination's counters
 * (kernel: ip_vs_unbind_dest()). */
static __always_inline void uncount(__u32 destination, __u64 control)
{
	struct destination *record = bpf_map_lookup_elem(&destinations, &destination);

	if (!record)
		return;
	note_end(record);
	if (control_flags(control) & CONNECTION_TEMPLATE)
		__sync_fetch_and_add(&record->persistent, -1);
	else
		count_down(record, destination,
			   control_flags(control) & CONNECTION_INACTIVE ? &record->inactive :
									  &record->active);
	if (*(volatile __u32 *)&record->overload & OVERLOADED)
		update_overload(record, destination);
}

/* From PHASE_LIVE, with this control word, to PHASE_DEAD; 0 if it has another by now. */
static __always_inline int bury_as(struct connection *entry, __u64 control, __u32 now)
{
	if (!swap_control(entry, control, control_with(control, PHASE_DEAD, 0, 0)))
		return 0;
	entry->expires = now; /* the quarantine counts from here */
	if (control_flags(control) & CONNECTION_SPILLED)
		count_spilled(&entry->flow, -1);
	return 1;
}

/* The same whatever its control word is, but for one that controls others; returns the
 * control word it had, or 0. */
static __always_inline __u64 bury(struct connection *entry, __u32 now)
{
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(entry);

		if (control_phase(old) != PHASE_LIVE || controls(old))
			return 0;
		if (bury_as(entry, old, now))
			return old;
	}
	return 0;
}

static __always_inline int is_reply(const struct connection *entry)
{
	return control_flags(load_control(entry)) & CONNECTION_REPLY;
}

/* Whether a live masqueraded connection has the ends of a reply's entry, but for the real server's
 * address. */
static __always_inline int has_ends_of(const struct connection *entry, const struct connection *reply)
{
	__u64 control = load_control(entry);

	return control_phase(control) == PHASE_LIVE &&
	       !(control_flags(control) & (CONNECTION_REPLY | CONNECTION_TEMPLATE)) &&
	       control_method(control) == METHOD_MASQUERADE &&
	       entry->destination_port == reply->flow.client_port &&
	       entry->flow.client_port == reply->flow.virtual_port &&
	       entry->flow.protocol == reply->flow.protocol &&
	       entry->flow.client.half[0] == reply->flow.virtual.half[0] &&
	       entry->flow.client.half[1] == reply->flow.virtual.half[1];
}

/* The connection whose replies an entry stands for; null if it is gone.  Its slot
 * may be another's by now: of one with the same ends the answers are the same. */
static __always_inline struct connection *conn_of_reply(const struct connection *reply)
{
	struct connection *entry = reply->link ? conn_at(reply->link - 1) : 0;

	return entry && has_ends_of(entry, reply) && entry->destination == reply->destination ? entry : 0;
}

/* Give a reply's entry that had this control word another generation, and kind: whoever is about to
 * change it for the connection that it was of sees it.  0 if somebody else was first. */
static __always_inline int renew_reply(struct connection *reply, __u64 old, __u32 kind)
{
	const __u64 generation = 1ULL << CONTROL_GENERATION_SHIFT;
	__u32 flags = (control_flags(old) & ~CONNECTION_FTP) | kind;

	/* It counts no FTP data: what the generation carries goes nowhere that matters. */
	return swap_control(reply, old, control_with(old, PHASE_LIVE, control_state(old), flags) + generation);
}

/*
 * Whose a reply is, and whose it was before another connection took it over (0: nobody's): `link`, and
 * before it the `link` of then.  They change together, by compare-and-swap; its destination
 * follows them.
 */
struct owners {
	__u32 earlier;
	__u32 now;
};

#define OWNERS_AT offsetof(struct connection, destination_port)
_Static_assert(OWNERS_AT % sizeof(struct owners) == 0 &&
	       offsetof(struct connection, link) == OWNERS_AT + offsetof(struct owners, now),
	       "a reply's two owners are no longer one word");

static __always_inline struct owners owners_of(const struct connection *reply)
{
	__u64 word = *(const volatile __u64 *)((const void *)reply + OWNERS_AT);
	struct owners owners = { .earlier = word, .now = word >> 32 };

	return owners;
}

static __always_inline int swap_owners(struct connection *reply, struct owners old, struct owners new)
{
	__u64 *word = (void *)reply + OWNERS_AT;
	__u64 before = (__u64)old.now << 32 | old.earlier;

	return __sync_val_compare_and_swap(word, before, (__u64)new.now << 32 | new.earlier) == before;
}

/* The destination of the owner that was just set.  Who set one at the same time writes his as well: the
 * last of the two to look at whose it is writes the right one. */
static __always_inline void set_destination(struct connection *reply, __u32 link, __u32 destination)
{
	struct connection *owner;
	__u32 now;

	reply->destination = destination;
	now = __sync_fetch_and_add(&reply->link, 0); /* a full barrier */
	owner = now != link && now ? conn_at(now - 1) : 0;
	if (owner)
		reply->destination = owner->destination;
}

static __always_inline __u32 kind_of_reply(__be16 virtual_port)
{
	return virtual_port == bpf_htons(FTP_PORT) ? CONNECTION_FTP : 0;
}

/* Whether a reply's entry is that of the connection in `slot`; then this is its control word, else 0.
 * The link is read after that, with a full barrier: take_reply() writes it before. */
static __always_inline __u64 control_of_reply(struct connection *reply, __u32 slot)
{
	__u64 control = load_control(reply);
	__u32 link = __sync_fetch_and_add(&reply->link, 0);

	return control_flags(control) & CONNECTION_REPLY && control_phase(control) == PHASE_LIVE &&
			       link == slot + 1 ?
		       control :
		       0;
}

/* The reply's entry in `place`, of the connection in `slot`, goes back to the one that had it before;
 * 0 if that is gone. */
__attribute__((noinline)) int hand_back(__u32 place, __u32 slot)
{
	struct connection *reply = conn_at(place), *earlier;
	struct destination *destination;
	struct owners owners, back = {};
	__u64 control;
	__u32 index;

	control = reply ? control_of_reply(reply, slot) : 0;
	if (!control)
		return 0;
	owners = owners_of(reply);
	if (!owners.earlier || owners.now != slot + 1)
		return 0;
	earlier = conn_at(owners.earlier - 1);
	if (!earlier || !has_ends_of(earlier, reply))
		return 0;
	index = earlier->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination || destination->address.half[0] != reply->flow.client.half[0] ||
	    destination->address.half[1] != reply->flow.client.half[1])
		return 0;
	back.now = owners.earlier;
	if (!swap_owners(reply, owners, back))
		return 0;
	set_destination(reply, back.now, index);
	return renew_reply(reply, control, kind_of_reply(earlier->flow.virtual_port));
}

/* Forget the replies' entry of the masqueraded connection that was in `slot`, unless a later
 * connection with the same ends took it over, or the one that had it before is still there. */
__attribute__((noinline)) int bury_reply(__u32 slot)
{
	struct connection *entry = conn_at(slot), *reply;
	struct destination *destination;
	struct flow flow = {};
	__u32 index;
	int found;

	if (!entry)
		return 0;
	index = entry->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return 0;
	flow.client = destination->address;
	flow.client_port = entry->destination_port;
	flow.virtual = entry->flow.client;
	flow.virtual_port = entry->flow.client_port;
	flow.protocol = entry->flow.protocol;
	flow.family = entry->flow.family;
	found = conn_find(&flow);
	reply = found >= 0 ? conn_at(found) : 0;
	if (!reply)
		return 0;
	if (hand_back(found, slot))
		return 0;
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 control = control_of_reply(reply, slot);

		if (!control || bury_as(reply, control, ticks_now()))
			break;
	}
	return 0;
}

/* Make the reply's entry in `place` that of the connection in `slot`; 0 if its end came first. */
__attribute__((noinline)) int take_reply(__u32 place, __u32 slot, __u32 destination, __u32 kind)
{
	struct connection *reply = conn_at(place);

	if (!reply)
		return 0;
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		struct owners old = owners_of(reply), new = { .earlier = old.now, .now = slot + 1 };

		if (old.now == new.now || swap_owners(reply, old, new))
			break;
	}
	set_destination(reply, slot + 1, destination);
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(reply);

		if (control_phase(old) != PHASE_LIVE)
			return 0;
		if (renew_reply(reply, old, kind))
			return 1;
	}
	return 0;
}

/* Whether a connection's time is over. */
static __always_inline int has_ended(const struct connection *entry, __u32 now)
{
	return has_passed(entry->expires, now) && !controls(load_control(entry));
}

/* One FTP data connection more for its control connection; 0 if that can't be. */
static __always_inline int keep_alive(struct connection *entry)
{
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(entry);

		if (control_phase(old) != PHASE_LIVE || controls(old) == FTP_DATA_LIMIT)
			return 0;
		if (swap_control(entry, old, old + (1ULL << CONTROL_FTP_DATA_SHIFT)))
			return 1;
	}
	return 0;
}

/* A connection's template, or null; `link` is the connection's. */
static __always_inline struct connection *template_at(__u32 link)
{
	return link && !(link & LINK_TO_FTP) ? conn_at(link - 1) : 0;
}

/* One connection less that a template, or an FTP control connection, controls;
 * `link` is the connection's. */
static __always_inline void release_template(__u32 link)
{
	struct connection *controller = link ? conn_at((link & ~LINK_TO_FTP) - 1) : 0;

	if (controller && link & LINK_TO_FTP)
		__sync_fetch_and_add(&controller->control, -(1ULL << CONTROL_FTP_DATA_SHIFT));
	else if (controller)
		__sync_fetch_and_add(&controller->control, -(1ULL << CONTROL_CONTROLLED_SHIFT));
}

/* What else has to be done when a connection was buried that had this control word. */
static __always_inline void conn_settle(struct connection *entry, __u32 slot, __u64 control)
{
	if (!(control_flags(control) & CONNECTION_TEMPLATE)) {
		if (control_method(control) == METHOD_MASQUERADE)
			bury_reply(slot);
		release_template(entry->link);
	}
	uncount(entry->destination, control);
}

/* Forget the connection in a slot, unless it controls others; once, whoever else
 * tries at the same time.  Returns whether it was this one. */
static __always_inline int conn_kill(struct connection *entry, __u32 slot, __u32 now)
{
	__u64 control = bury(entry, now);

	if (!control)
		return 0;
	conn_settle(entry, slot, control);
	return 1;
}

/* The same, if it still has this control word: it is neither another by now, nor in use again. */
static __always_inline void conn_kill_as(struct connection *entry, __u32 slot, __u64 control,
					 __u32 now)
{
	if (control_phase(control) == PHASE_LIVE && !controls(control) &&
	    bury_as(entry, control, now))
		conn_settle(entry, slot, control);
}

/* Set the state and flags of an entry that had this control word, and count it as active or
 * inactive; 0 if it has another by now. */
static __always_inline int conn_move(struct connection *entry, __u64 old, __u32 state, __u32 after)
{
	__u32 before = control_flags(old);
	__u64 new = control_with(old, PHASE_LIVE, state, after);

	if (control_phase(old) != PHASE_LIVE || new == old)
		return 1;
	if (!swap_control(entry, old, new))
		return 0;
	if ((before ^ after) & CONNECTION_INACTIVE)
		destination_moves(entry->destination, !(after & CONNECTION_INACTIVE));
	return 1;
}

/* Set an entry's state, whatever it was. */
static __always_inline void conn_set_state(struct connection *entry, __u32 state)
{
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(entry);

		if (conn_move(entry, old, state, control_flags(old)))
			return;
	}
}

/* Set and clear flags of an entry that nothing is counted by. */
static __always_inline void conn_set_flags(struct connection *entry, __u32 set, __u32 clear)
{
	for (int i = 0; i < CONTROL_RETRIES; i++) {
		__u64 old = load_control(entry), new;

		new = control_with(old, PHASE_LIVE, control_state(old),
				   (control_flags(old) | set) & ~clear);
		if (control_phase(old) != PHASE_LIVE || new == old || swap_control(entry, old, new))
			return;
	}
}

/*
 * Let an entry live until `lifetime` ticks from now.  Flows with many packets
 * would dirty the line at each one: a quarter of a second may be missing.
 */
static __always_inline void conn_refresh(struct connection *entry, __u32 now, __u32 lifetime)
{
	__u32 expires = now + lifetime, gain = expires - entry->expires;

	/* What is less than nothing is a large number. */
	if (gain >= TICKS_PER_SECOND / 4)
		entry->expires = expires;
}

/* The control word while a slot is being written: of its next generation; what the one
 * that is replaced controls stays in its care. */
static __always_inline __u64 claimed(__u64 control)
{
	__u64 generation = (__u16)((control >> CONTROL_GENERATION_SHIFT) + 1);

	return (__u64)controls(control) << CONTROL_FTP_DATA_SHIFT |
	       generation << CONTROL_GENERATION_SHIFT | PHASE_CLAIMED;
}

static __always_inline int claim_slot(struct connection_bucket *bucket, __u64 hash)
{
	for (__u32 n = 0; n < SLOTS_PER_BUCKET; n++) {
		__u32 place = nth_place(hash, n);
		struct connection *entry = &bucket->slot[place];
		__u64 old = load_control(entry);

		if (control_phase(old) == PHASE_FREE && swap_control(entry, old, claimed(old)))
			return place;
	}
	return NOT_FOUND;
}

/* Buckets in one share of the sweeper; see sweep.h. */
static __always_inline __u32 share_size(void)
{
	return limits.buckets / SWEEPS_PER_SECOND;
}

/* Tell the sweeper that there is something in a bucket; after publishing it. */
static __always_inline void note_used(__u32 bucket)
{
	struct sweeper *sweeper;
	__u32 zero = 0, share;

	sweeper = bpf_map_lookup_elem(&sweepers, &zero);
	share = bucket / share_size() & (SWEEPS_PER_SECOND - 1);
	if (sweeper && !*(volatile __u32 *)&sweeper->share_used[share])
		sweeper->share_used[share] = 1;
}

/* Somebody found no room: what happens then is in overload.h. */
static __always_inline void note_full(void)
{
	__u32 now = ticks_now();

	if (*(volatile __u32 *)&settings.full_at != now)
		settings.full_at = now ? now : 1;
}

struct new_connection {
	struct flow flow;
	__u32 destination;
	__u32 expires;
	__be16 destination_port;
	__u16 flags;
	__u32 link;
	__u32 state;
	union {
		__u64 replaces; /* in: control word of an entry of this flow that is over, or 0 */
		struct {        /* out, where one was replaced: whose it was, and its link */
			__u32 destination;
			__u32 link;
		} replaced;
	};
};

static __always_inline void publish(struct connection_bucket *bucket, int slot,
				    const struct new_connection *new, __u32 flags)
{
	struct connection *entry = &bucket->slot[slot & (SLOTS_PER_BUCKET - 1)];
	__u64 control = load_control(entry), live;

	live = control_with(control, PHASE_LIVE, new->state, flags);
	/* A template is made for a connection, which is the first that it controls. */
	if (flags & CONNECTION_TEMPLATE)
		live = (__u32)live | 1ULL << CONTROL_CONTROLLED_SHIFT;
	entry->flow = new->flow;
	entry->destination = new->destination;
	entry->destination_port = new->destination_port;
	entry->expires = new->expires;
	entry->in_packets = 0;
	entry->reserved = 0;
	entry->link = new->link;
	/* A full barrier: the fields are there before the phase.  An addition, because those
	 * who count in the upper half (release_template(), hold()) may come in between: an
	 * exchange would fail then, and the slot stay claimed for ever. */
	control = __sync_fetch_and_add(&entry->control, live - control);
	asm volatile("" : : "r"(control));
}

/* Put a connection in the place of one of the same flow; true if that was still the same. */
static __always_inline int replace(struct connection_bucket *bucket, int slot,
				   struct new_connection *new, __u32 flags)
{
	struct connection *entry = &bucket->slot[slot & (SLOTS_PER_BUCKET - 1)];

	if (!new->replaces || !swap_control(entry, new->replaces, claimed(new->replaces)))
		return 0;
	new->replaced.destination = entry->destination;
	new->replaced.link = entry->link;
	publish(bucket, slot, new, flags);
	return 1;
}

/* Enter a connection in one of its buckets, where its flow has no entry; its place, or NOT_FOUND. */
static __always_inline int enter(struct connection_bucket *bucket, struct new_connection *new,
				 __u64 hash, __u32 flags)
{
	int slot = claim_slot(bucket, hash);

	if (slot >= 0)
		publish(bucket, slot, new, flags);
	return slot;
}

/* Enter a connection in its home bucket, if none of that home stands elsewhere: as
 * conn_insert(), but NOT_FOUND where another has to be looked at. */
__attribute__((noinline)) int insert_at_home(struct new_connection *new)
{
	struct connection_bucket *bucket;
	struct bucket_guard *guard;
	int slot = NOT_FOUND, added = 0;
	__u32 home;
	__u64 hash;

	if (!new)
		return NOT_FOUND;
	hash = flow_hash(&new->flow);
	home = bucket_choice(hash, 0);
	bucket = bpf_map_lookup_elem(&connections, &home);
	guard = guard_of(home);
	if (!bucket || !guard)
		return NOT_FOUND;
	asm volatile("" : "+r"(bucket));
	bpf_spin_lock(&guard->lock);
	if (!has_spilled(guard, home)) {
		slot = search_bucket(bucket, &new->flow, hash);
		if (slot < 0) {
			slot = enter(bucket, new, hash, new->flags);
			added = SLOT_IS_NEW;
		} else if (replace(bucket, slot, new, new->flags)) {
			added = SLOT_IS_NEW | SLOT_IS_REPLACED;
		}
	}
	bpf_spin_unlock(&guard->lock);
	if (slot < 0)
		return NOT_FOUND;
	note_used(home);
	return (home * SLOTS_PER_BUCKET + slot) | added;
}

/* The same in any of its buckets. */
__attribute__((noinline)) int insert_anywhere(struct new_connection *new)
{
	struct connection_bucket *bucket[BUCKET_CHOICES];
	struct bucket_guard *guard;
	int slot, result = NOT_FOUND;
	__u32 index, home;
	__u64 hash;

	if (!new)
		return NOT_FOUND;
	hash = flow_hash(&new->flow);
	home = bucket_choice(hash, 0);
#pragma unroll
	for (int n = 0; n < BUCKET_CHOICES; n++) {
		index = bucket_choice(hash, n);
		bucket[n] = bpf_map_lookup_elem(&connections, &index);
		if (!bucket[n])
			return NOT_FOUND;
	}
	guard = guard_of(home);
	if (!guard)
		return NOT_FOUND;

	bpf_spin_lock(&guard->lock);
#pragma unroll
	for (int n = 0; n < BUCKET_CHOICES; n++) {
		if (n == 1 && !has_spilled(guard, home))
			break;
		slot = search_bucket(bucket[n], &new->flow, hash);
		if (slot >= 0) {
			result = bucket_choice(hash, n) * SLOTS_PER_BUCKET + slot;
			if (replace(bucket[n], slot, new,
				    new->flags | (n ? CONNECTION_SPILLED : 0)))
				result |= SLOT_IS_NEW | SLOT_IS_REPLACED;
			goto unlock;
		}
	}
#pragma unroll
	for (int n = 0; n < BUCKET_CHOICES; n++) {
		/* Count it before it is there: a look-up must not stop at home. */
		if (n == 1)
			__sync_fetch_and_add(&guard->spilled, 1u << spilled_shift(home));
		slot = enter(bucket[n], new, hash, new->flags | (n ? CONNECTION_SPILLED : 0));
		if (slot >= 0) {
			result = (bucket_choice(hash, n) * SLOTS_PER_BUCKET + slot) | SLOT_IS_NEW;
			goto unlock;
		}
	}
	__sync_fetch_and_add(&guard->spilled, -(1u << spilled_shift(home)));
unlock:
	bpf_spin_unlock(&guard->lock);
	if (result >= 0)
		note_used((result & SLOT_MASK) / SLOTS_PER_BUCKET);
	else
		note_full();
	return result;
}

/*
 * Enter a connection.  Returns its slot plus SLOT_IS_NEW, and SLOT_IS_REPLACED
 * if it stands where `replaces` was; the slot alone of an entry that another
 * CPU made for the same flow meanwhile; or NOT_FOUND when no bucket of its
 * choice has room.  The caller moves the destinations' counters.
 */
static __always_inline int conn_insert(struct new_connection *new)
{
	int result = insert_at_home(new);

	return result < 0 ? insert_anywhere(new) : result;
}

#endif
