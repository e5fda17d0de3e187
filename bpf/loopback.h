/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Clients on the director itself: their packets to a VIP, which is an address
 * of the director, go by `lo`, and so do the answers.
 *
 * A packet that leaves by lo holds the route to the VIP.  For a real server here
 * that is as it should be; but to another it would be sent by that route if the
 * neighbour has yet to be asked for.  Coming in by lo it has lost it: so it is
 * sent round once, and goes on from there.
 */
#ifndef XLVS_LOOPBACK_H
#define XLVS_LOOPBACK_H

#include <stddef.h>
#include <linux/pkt_cls.h>
#include "parse.h"
#include "reach.h"

/* TC: on to the next program, then into the stack. */
#define NOT_OURS TC_ACT_UNSPEC

/* The source MAC of what was sent round; all others on lo are zero. */
#define SENT_ROUND_MAC { 0x02, 'x', 'l', 'v', 's', 0 }

struct macs {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
};

static __always_inline int into_loopback(struct __sk_buff *skb, const struct macs *macs)
{
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(*macs), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(LOOPBACK_INDEX, BPF_F_INGRESS);
}

/* A packet of our own that leaves by lo: let it come in there, to be served. */
static __always_inline int send_round(struct __sk_buff *skb)
{
	struct macs macs = { .source = SENT_ROUND_MAC };

	return into_loopback(skb, &macs);
}

static __always_inline int was_sent_round(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u8 source[ETH_ALEN] = SENT_ROUND_MAC;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return 0;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		if (ethernet->h_source[i] != source[i])
			return 0;
	}
	return 1;
}

/*
 * To a client on the director itself.  What comes in by another interface with
 * an address of our own as its source counts as forged; by this one it need not
 * (net.ipv4.conf.lo.accept_local, which user space turns on).
 */
static __always_inline int tc_to_self(struct __sk_buff *skb)
{
	const struct macs none = {};

	return into_loopback(skb, &none);
}

#endif
