/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters: each CPU has its own row, so nothing here is atomic. */
#ifndef XLVS_STATS_H
#define XLVS_STATS_H

#include "maps.h"

/* The row of this CPU.  One that came online after loading shares the last row: two CPUs may
 * then lose each other's counts, nothing worse. */
static __always_inline void *row_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	void *row = bpf_map_lookup_elem(&counters, &cpu);

	if (!row) {
		cpu = limits.cpus - 1;
		row = bpf_map_lookup_elem(&counters, &cpu);
	}
	return row;
}

static __always_inline struct events *events_in(void *row)
{
	return row;
}

#define COUNT_EVENT(name)                                  \
	do {                                               \
		struct events *here = events_in(row_here()); \
		if (here)                                  \
			here->name++;                      \
	} while (0)

/* Run a statement with what a row counts of one of so many records, which begin `at` some byte, in `its`.
 * The barrier keeps the compiler from working out where that is before it knows that it is there,
 * which verifiers refuse. */
#define WITH_TRAFFIC(row, index, count, at, its, statement)            \
	do {                                                           \
		__u64 its_place = (index);                             \
		if (its_place < (count)) {                             \
			struct traffic *its;                           \
			asm volatile("" : "+r"(its_place));            \
			its = (row) + (at) + its_place * sizeof(*its); \
			statement;                                     \
		}                                                      \
	} while (0)

#define WITH_DESTINATION(row, index, its, statement) \
	WITH_TRAFFIC(row, index, limits.destinations, EVENTS_ROOM, its, statement)

#define WITH_SERVICE(row, index, its, statement) \
	WITH_TRAFFIC(row, index, limits.services, limits.services_at, its, statement)

/* The first record of a service, which its counters go by (see `settings.table`). */
static __always_inline __u32 first_record(__u32 service)
{
	return service >= limits.services ? service - limits.services : service;
}

static __always_inline void count_connection(__u32 service, __u32 destination)
{
	void *row = row_here();

	if (!row)
		return;
	WITH_SERVICE(row, first_record(service), its, its->connections++);
	WITH_DESTINATION(row, destination, its, its->connections++);
}

static __always_inline __u64 add_inbound(struct traffic *its, __u64 bytes)
{
	its->in_bytes += bytes;
	return ++its->in_packets;
}

static __always_inline void add_outbound(struct traffic *its, __u64 bytes)
{
	its->out_bytes += bytes;
	its->out_packets++;
}

/* Returns how many packets of the destination's that makes in this row. */
static __always_inline __u64 count_inbound_in(void *row, __u32 service, __u32 destination, __u64 bytes)
{
	__u64 packets = 0;

	WITH_SERVICE(row, service, its, add_inbound(its, bytes));
	WITH_DESTINATION(row, destination, its, packets = add_inbound(its, bytes));
	return packets;
}

/* What still passes for a real server that left its service is not counted
 * (kernel: ip_vs_in_stats(), ip_vs_out_stats()). */
static __always_inline void count_inbound(const struct destination *destination, __u32 index,
					  __u32 bytes)
{
	void *row = destination->flags & DESTINATION_AVAILABLE ? row_here() : 0;

	if (row)
		count_inbound_in(row, destination->service, index, bytes);
}

static __always_inline void count_outbound_in(void *row, __u32 service, __u32 destination, __u64 bytes)
{
	WITH_SERVICE(row, service, its, add_outbound(its, bytes));
	WITH_DESTINATION(row, destination, its, add_outbound(its, bytes));
}

static __always_inline void count_outbound(const struct destination *destination, __u32 index,
					   __u32 bytes)
{
	void *row = destination->flags & DESTINATION_AVAILABLE ? row_here() : 0;

	if (row)
		count_outbound_in(row, destination->service, index, bytes);
}

#endif
