/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rates: how many connections, packets and bytes a second each service and each
 * real server has, estimated every two seconds (kernel: ip_vs_est.c):
 *
 *     average += (counted in these two seconds / 2 - average) / 4
 *
 * in fixed point, 2^10 for connections and packets, 2^5 for bytes.  The sweeper's
 * timer does a 128th of the records each time, every 128th, so that each has its
 * turn every two seconds, and none takes long.
 */
#ifndef XLVS_ESTIMATE_H
#define XLVS_ESTIMATE_H

#include "maps.h"
#include "run.h"
#include "stats.h"

#define ESTIMATE_SHARES (2 * SWEEPS_PER_SECOND)

static __always_inline void add_traffic(struct traffic *sum, const struct traffic *row)
{
	if (!row)
		return;
	sum->connections += row->connections;
	sum->in_packets += row->in_packets;
	sum->out_packets += row->out_packets;
	sum->in_bytes += row->in_bytes;
	sum->out_bytes += row->out_bytes;
}

/* `scale` is that of the average, halved for the two seconds. */
static __always_inline void estimate_one(__u64 *average, __u64 *last, __u64 now, __u32 scale)
{
	__u64 rate = (now - *last) << scale;

	*last = now;
	*average += (__s64)(rate - *average) >> 2;
}

static __always_inline void estimate(struct estimate *estimate, const struct traffic *base,
				     const struct traffic *now)
{
	__u32 zeroed = *(volatile __u32 *)&estimate->zeroed;

	if (estimate->seen != zeroed) {
		struct traffic none = {};

		/* Counted since the zero counts already, as in ip_vs_zero_estimator(). */
		estimate->last = *base;
		estimate->rate = none;
		estimate->seen = zeroed;
	}
	estimate_one(&estimate->rate.connections, &estimate->last.connections, now->connections,
		     ESTIMATE_PACKET_SHIFT - 1);
	estimate_one(&estimate->rate.in_packets, &estimate->last.in_packets, now->in_packets,
		     ESTIMATE_PACKET_SHIFT - 1);
	estimate_one(&estimate->rate.out_packets, &estimate->last.out_packets, now->out_packets,
		     ESTIMATE_PACKET_SHIFT - 1);
	estimate_one(&estimate->rate.in_bytes, &estimate->last.in_bytes, now->in_bytes,
		     ESTIMATE_BYTE_SHIFT - 1);
	estimate_one(&estimate->rate.out_bytes, &estimate->last.out_bytes, now->out_bytes,
		     ESTIMATE_BYTE_SHIFT - 1);
}

static long estimate_service(__u32 i, void *data)
{
	__u32 index = *(__u32 *)data + i * ESTIMATE_SHARES;
	struct service *service = bpf_map_lookup_elem(&services, &index);
	struct estimate *entry = bpf_map_lookup_elem(&service_estimates, &index);
	struct traffic *base = bpf_map_lookup_elem(&service_base, &index);
	struct traffic now = {};

	if (!service || !entry || !base)
		return 1;
	if (!(service->flags & SERVICE_USED))
		return 0;
	for (__u32 cpu = 0; cpu < limits.cpus; cpu++) {
		/* A copy: verifiers do not follow a number whose address was taken. */
		__u32 key = cpu;
		void *row = bpf_map_lookup_elem(&counters, &key);

		if (row)
			WITH_SERVICE(row, index, its, add_traffic(&now, its));
	}
	estimate(entry, base, &now);
	return 0;
}

static long estimate_destination(__u32 i, void *data)
{
	__u32 index = *(__u32 *)data + i * ESTIMATE_SHARES;
	struct destination *destination = bpf_map_lookup_elem(&destinations, &index);
	struct estimate *entry = bpf_map_lookup_elem(&destination_estimates, &index);
	struct traffic *base = bpf_map_lookup_elem(&destination_base, &index);
	struct traffic now = {};

	if (!destination || !entry || !base)
		return 1;
	/* A removed one keeps its rate until it comes back (kernel: ip_vs_stop_estimator()). */
	if (!(destination->flags & DESTINATION_AVAILABLE))
		return 0;
	for (__u32 cpu = 0; cpu < limits.cpus; cpu++) {
		/* A copy: verifiers do not follow a number whose address was taken. */
		__u32 key = cpu;
		void *row = bpf_map_lookup_elem(&counters, &key);

		if (row)
			WITH_DESTINATION(row, index, its, add_traffic(&now, its));
	}
	estimate(entry, base, &now);
	return 0;
}

/* How many records below `top` a share has. */
static __always_inline __u32 share_of_records(__u32 top)
{
	return (top + ESTIMATE_SHARES - 1) / ESTIMATE_SHARES;
}

static __always_inline void estimate_rates(__u32 share)
{
	if (!settings.sysctl[SYSCTL_RUN_ESTIMATION])
		return;
	bpf_loop(loop_count(share_of_records(settings.services_top)), estimate_service, &share, 0);
	bpf_loop(loop_count(share_of_records(settings.destinations_top)), estimate_destination, &share, 0);
}

#endif
