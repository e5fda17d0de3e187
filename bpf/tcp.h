/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP states as IPVS sees them, and its transition tables
 * (kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c).
 */
#ifndef XLVS_TCP_H
#define XLVS_TCP_H

#include "parse.h"

enum tcp_state {
	TCP_NONE,
	TCP_ESTABLISHED,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_SYNACK,
	TCP_STATES,
};

enum tcp_direction {
	DIRECTION_INPUT,
	DIRECTION_OUTPUT,
	DIRECTION_INPUT_ONLY,
	DIRECTIONS,
};

enum tcp_event {
	EVENT_SYN,
	EVENT_FIN,
	EVENT_ACK,
	EVENT_RST,
	EVENTS,
};

#define NO TCP_NONE
#define ES TCP_ESTABLISHED
#define SS TCP_SYN_SENT
#define SR TCP_SYN_RECV
#define FW TCP_FIN_WAIT
#define TW TCP_TIME_WAIT
#define CL TCP_CLOSE
#define CW TCP_CLOSE_WAIT
#define LA TCP_LAST_ACK
#define LI TCP_LISTEN
#define SA TCP_SYNACK

static const __u8 tcp_transitions[DIRECTIONS][EVENTS][TCP_STATES] = {
	[DIRECTION_INPUT] = {
		/*               NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR },
	},
	[DIRECTION_OUTPUT] = {
		[EVENT_SYN] = { SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR },
		[EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[DIRECTION_INPUT_ONLY] = {
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR },
		[EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
};

/* The stricter ones, while secure_tcp acts. */
static const __u8 secure_tcp_transitions[DIRECTIONS][EVENTS][TCP_STATES] = {
	[DIRECTION_INPUT] = {
		/*               NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[EVENT_SYN] = { SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA },
		[EVENT_FIN] = { CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA },
		[EVENT_ACK] = { ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
	[DIRECTION_OUTPUT] = {
		[EVENT_SYN] = { SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA },
		[EVENT_FIN] = { TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES },
		[EVENT_RST] = { CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL },
	},
	[DIRECTION_INPUT_ONLY] = {
		[EVENT_SYN] = { SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA },
		[EVENT_FIN] = { CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW },
		[EVENT_ACK] = { ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES },
		[EVENT_RST] = { CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL },
	},
};

#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

/* States that count as ActiveConn. */
#define TCP_ACTIVE_STATES                                       \
	(1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT |           \
	 1u << TCP_SYN_RECV | 1u << TCP_SYNACK)

/* The state after a segment; one with no flag of interest closes, as in the kernel. */
static __always_inline __u32 tcp_next_state(__u32 direction, __u32 state, __u8 flags, int secure)
{
	const __u8 *table = secure ? &secure_tcp_transitions[0][0][0] : &tcp_transitions[0][0][0];
	__u32 event, place;

	if (flags & TCP_RST)
		event = EVENT_RST;
	else if (flags & TCP_SYN)
		event = EVENT_SYN;
	else if (flags & TCP_FIN)
		event = EVENT_FIN;
	else if (flags & TCP_ACK)
		event = EVENT_ACK;
	else
		return TCP_CLOSE;
	if (state >= TCP_STATES)
		return TCP_CLOSE;
	place = (direction * EVENTS + event) * TCP_STATES + state;
	/* What is compared must be what is used: 6.1's verifier forgets a bound across copies. */
	asm volatile("" : "+r"(place));
	return place < sizeof(tcp_transitions) ? table[place] : TCP_CLOSE;
}

#endif
