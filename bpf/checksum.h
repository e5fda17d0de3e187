/* SPDX-License-Identifier: GPL-2.0-only */
/* The Internet checksum (RFC 1071). */
#ifndef XLVS_CHECKSUM_H
#define XLVS_CHECKSUM_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

static __always_inline __u16 fold(__u64 sum)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#endif
