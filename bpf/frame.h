/* SPDX-License-Identifier: GPL-2.0-only */
/* Frames at XDP: whose they are, and how they are sent. */
#ifndef XLVS_FRAME_H
#define XLVS_FRAME_H

#include "headers.h"
#include "maps.h"
#include "parse.h"

static __always_inline int is_to(const struct ethernet_words *ethernet, const __u8 *mac)
{
	const struct ethernet_words *its = (const struct ethernet_words *)mac;

	return ethernet->destination == its->destination && ethernet->destination_end == its->destination_end;
}

/* XDP_PASS, in its own instruction where it is returned: what is often returned is
 * else set beforehand, for all who never need it. */
static __always_inline int pass(void)
{
	int verdict = XDP_PASS;

	asm volatile("" : "+r"(verdict));
	return verdict;
}

/* What is known of the interface that a frame came in by, or 0 if it is not for that one. */
static __always_inline __u32 interface_of(const struct ethernet_words *ethernet, __u32 index)
{
	const struct interface *interface = interface_at(index);

	if (!interface || !is_to(ethernet, interface->mac))
		return 0;
	return interface->known & INTERFACE_KNOWN ? interface->known : 0;
}

/* Whether a frame is for an interface that it came in by natively: MAC and flags are one word. */
static __always_inline int is_native(const struct ethernet_words *ethernet, __u32 index)
{
	const struct interface *interface = interface_at(index);
	const __u32 flags = INTERFACE_KNOWN | INTERFACE_NATIVE;
	__u64 record;

	if (!interface)
		return 0;
	record = *(const flow_word *)interface;
	return ethernet->destination == (__u32)record &&
	       (flags << 16 | ethernet->destination_end) == (__u32)(record >> 32);
}

/* Whether frames that came in natively may leave by another interface.  Where there is no
 * native XDP most drivers lose them, without a word. */
static __always_inline int takes_frames(__u32 index)
{
	const struct interface *interface = interface_at(index);

	return interface && interface->known & INTERFACE_NATIVE;
}

static __always_inline int send_by(const struct xdp_md *context, __u32 interface)
{
	return interface == context->ingress_ifindex ? XDP_TX : bpf_redirect(interface, 0);
}

/* How a frame leaves by an interface: XDP_TX, XDP_REDIRECT, or XDP_PASS where it has to go by TC or
 * was for somebody else. */
static __always_inline int leave(const struct xdp_md *context, const struct ethernet_words *ethernet,
				 __u32 interface)
{
	__u32 from = context->ingress_ifindex, known = interface_of(ethernet, from);

	if (!known || (interface != from && known & INTERFACE_NATIVE && !takes_frames(interface)))
		return XDP_PASS;
	return send_by(context, interface);
}

#endif
