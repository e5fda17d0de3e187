/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters: each CPU has its own row, so nothing here is atomic. */
#ifndef XLVS_STATS_H
#define XLVS_STATS_H

#include "maps.h"

/* A CPU that came online after loading shares the last row: two CPUs may then
 * lose each other's counts, nothing worse. */
static __always_inline __u32 row_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return cpu < limits.cpus ? cpu : limits.cpus - 1;
}

static __always_inline struct events *events_in(__u32 row)
{
	return bpf_map_lookup_elem(&events, &row);
}

#define COUNT_EVENT_IN(cpu, name)                      \
	do {                                           \
		struct events *row = events_in(cpu);   \
		if (row)                               \
			row->name++;                   \
	} while (0)

#define COUNT_EVENT(name) COUNT_EVENT_IN(row_here(), name)

static __always_inline struct traffic *service_traffic_in(__u32 row, __u32 service)
{
	__u32 index = row * limits.services + service;

	return bpf_map_lookup_elem(&service_traffic, &index);
}

static __always_inline struct traffic *destination_traffic_in(__u32 row, __u32 destination)
{
	__u32 index = row * limits.destinations + destination;

	return bpf_map_lookup_elem(&destination_traffic, &index);
}

/* The first record of a service, which its counters go by (see `settings.table`). */
static __always_inline __u32 first_record(__u32 service)
{
	return service >= limits.services ? service - limits.services : service;
}

static __always_inline void count_connection(__u32 service, __u32 destination)
{
	__u32 cpu = row_here();
	struct traffic *row = service_traffic_in(cpu, first_record(service));

	if (row)
		row->connections++;
	row = destination_traffic_in(cpu, destination);
	if (row)
		row->connections++;
}

/* Returns how many packets of the destination's that makes in this row. */
static __always_inline __u64 count_inbound_in(__u32 cpu, __u32 service, __u32 index, __u32 bytes)
{
	struct traffic *row = service_traffic_in(cpu, service);

	if (row) {
		row->in_packets++;
		row->in_bytes += bytes;
	}
	row = destination_traffic_in(cpu, index);
	if (!row)
		return 0;
	row->in_bytes += bytes;
	return ++row->in_packets;
}

/* What still passes for a real server that left its service is not counted
 * (kernel: ip_vs_in_stats(), ip_vs_out_stats()). */
static __always_inline void count_inbound(const struct destination *destination, __u32 index,
					  __u32 bytes)
{
	if (destination->flags & DESTINATION_AVAILABLE)
		count_inbound_in(row_here(), destination->service, index, bytes);
}

static __always_inline void count_outbound_in(__u32 cpu, __u32 service, __u32 index, __u32 bytes)
{
	struct traffic *row = service_traffic_in(cpu, service);

	if (row) {
		row->out_packets++;
		row->out_bytes += bytes;
	}
	row = destination_traffic_in(cpu, index);
	if (row) {
		row->out_packets++;
		row->out_bytes += bytes;
	}
}

static __always_inline void count_outbound(const struct destination *destination, __u32 index,
					   __u32 bytes)
{
	if (destination->flags & DESTINATION_AVAILABLE)
		count_outbound_in(row_here(), destination->service, index, bytes);
}

#endif
