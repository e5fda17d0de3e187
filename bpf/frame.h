/* SPDX-License-Identifier: GPL-2.0-only */
/* Frames at XDP: whose they are, and how they are sent. */
#ifndef XLVS_FRAME_H
#define XLVS_FRAME_H

#include "headers.h"
#include "maps.h"
#include "parse.h"

/* What is known of the interface that a frame came in by, or 0 if it is not for that one. */
static __always_inline __u32 interface_of(const struct ethernet_words *ethernet, __u32 index)
{
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);
	const struct ethernet_words *its;

	if (!interface)
		return 0;
	its = (const struct ethernet_words *)interface->mac;
	if (ethernet->destination != its->destination || ethernet->destination_end != its->destination_end)
		return 0;
	return interface->known & INTERFACE_KNOWN ? interface->known : 0;
}

/* Whether frames that came in natively may leave by another interface.  Where there is no
 * native XDP most drivers lose them, without a word. */
static __always_inline int takes_frames(__u32 index)
{
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);

	return interface && interface->known & INTERFACE_NATIVE;
}

/* Out of that interface, with these MACs: the next hop's, and behind it the director's. */
static __always_inline int send_frame(struct ethernet_words *ethernet, const __u8 *macs,
				      __u32 interface, __u32 from)
{
	set_macs(ethernet, macs);
	return interface == from ? XDP_TX : bpf_redirect(interface, 0);
}

/* A frame that may be one of an established connection. */
struct frame {
	struct ethernet_words *ethernet;
	struct headers headers;
	__u32 from;       /* the interface by which it came */
	__u32 known;      /* of that: enum interface_flag */
	__u32 state;      /* that its connection has if it is established: TCP's or, of UDP, none */
	__u32 now;        /* ticks */
	__u32 cpu;        /* once it is counted: in which row, */
	__u64 count;      /* and the how manieth of its destination's it is there */
};

/* Whether a frame may leave by an interface. */
static __always_inline int may_leave_by(__u32 interface, const struct frame *frame)
{
	return interface == frame->from || !(frame->known & INTERFACE_NATIVE) || takes_frames(interface);
}

#endif
