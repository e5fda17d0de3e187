/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SCTP (RFC 9260): its header, its associations' states as IPVS sees them, with
 * the transition tables (kernel: net/netfilter/ipvs/ip_vs_proto_sctp.c), and its
 * checksum.
 */
#ifndef XLVS_SCTP_H
#define XLVS_SCTP_H

#include <linux/types.h>

struct sctp_header {
	__be16 source;
	__be16 destination;
	__be32 tag;
	__le32 checksum;
};

struct sctp_chunk {
	__u8 type;
	__u8 flags;
	__be16 length; /* this header's four bytes included, padding left out */
};

/* As they are in client and real server; the names are of the kernel's listing. */
enum sctp_state {
	SCTP_NONE,
	SCTP_INIT1,
	SCTP_INIT,
	SCTP_COOKIE_SENT,
	SCTP_COOKIE_REPLIED,
	SCTP_COOKIE_WAIT,
	SCTP_COOKIE,
	SCTP_COOKIE_ECHOED,
	SCTP_ESTABLISHED,
	SCTP_SHUTDOWN_SENT,
	SCTP_SHUTDOWN_RECEIVED,
	SCTP_SHUTDOWN_ACK_SENT,
	SCTP_REJECTED,
	SCTP_CLOSED,
	SCTP_STATES,
};

/* What a packet's deciding chunk says; data and all that changes nothing is one. */
enum sctp_event {
	SCTP_NO_CHUNK,
	SCTP_GOES_ON,
	SCTP_ASKS,              /* INIT */
	SCTP_ASKS_ACKNOWLEDGED, /* INIT ACK */
	SCTP_ECHOES_COOKIE,
	SCTP_COOKIE_ACKNOWLEDGED,
	SCTP_SHUTS_DOWN,
	SCTP_SHUTDOWN_ACKNOWLEDGED,
	SCTP_SHUTDOWN_COMPLETED,
	SCTP_REPORTS_ERROR,
	SCTP_ABORTS,
	SCTP_EVENTS,
};

#define CHUNK_ABORT 6
#define CHUNK_TYPES 15

static const __u8 sctp_events[CHUNK_TYPES] = {
	SCTP_GOES_ON,               /* DATA */
	SCTP_ASKS,                  /* INIT */
	SCTP_ASKS_ACKNOWLEDGED,     /* INIT ACK */
	SCTP_GOES_ON,               /* SACK */
	SCTP_GOES_ON,               /* HEARTBEAT */
	SCTP_GOES_ON,               /* HEARTBEAT ACK */
	SCTP_ABORTS,                /* ABORT */
	SCTP_SHUTS_DOWN,            /* SHUTDOWN */
	SCTP_SHUTDOWN_ACKNOWLEDGED, /* SHUTDOWN ACK */
	SCTP_REPORTS_ERROR,         /* ERROR */
	SCTP_ECHOES_COOKIE,         /* COOKIE ECHO */
	SCTP_COOKIE_ACKNOWLEDGED,   /* COOKIE ACK */
	SCTP_GOES_ON,               /* ECNE */
	SCTP_GOES_ON,               /* CWR */
	SCTP_SHUTDOWN_COMPLETED,    /* SHUTDOWN COMPLETE */
};

static __always_inline __u8 sctp_event_of(__u8 type)
{
	return type < CHUNK_TYPES ? sctp_events[type] : SCTP_GOES_ON;
}

/* Whether an ABORT may stand behind that chunk, and decide instead of it. */
static __always_inline int sctp_may_hide_abort(__u8 event)
{
	return event == SCTP_ECHOES_COOKIE || event == SCTP_COOKIE_ACKNOWLEDGED;
}

#define NO SCTP_NONE
#define I1 SCTP_INIT1
#define IN SCTP_INIT
#define CS SCTP_COOKIE_SENT
#define CR SCTP_COOKIE_REPLIED
#define CW SCTP_COOKIE_WAIT
#define CO SCTP_COOKIE
#define CE SCTP_COOKIE_ECHOED
#define ES SCTP_ESTABLISHED
#define SS SCTP_SHUTDOWN_SENT
#define SR SCTP_SHUTDOWN_RECEIVED
#define SA SCTP_SHUTDOWN_ACK_SENT
#define RJ SCTP_REJECTED
#define CL SCTP_CLOSED

/* By direction (enum tcp_direction), event and state. */
static const __u8 sctp_transitions[3][SCTP_EVENTS][SCTP_STATES] = {
	{ /* from the client:            NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL */
		[SCTP_GOES_ON] =               { ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ASKS] =                  { I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN },
		[SCTP_ASKS_ACKNOWLEDGED] =     { CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ECHOES_COOKIE] =         { CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_COOKIE_ACKNOWLEDGED] =   { ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL },
		[SCTP_SHUTS_DOWN] =            { SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL },
		[SCTP_SHUTDOWN_ACKNOWLEDGED] = { CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL },
		[SCTP_SHUTDOWN_COMPLETED] =    { CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL },
		[SCTP_REPORTS_ERROR] =         { CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL },
		[SCTP_ABORTS] =                { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL },
	},
	{ /* from the real server:       NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL */
		[SCTP_GOES_ON] =               { ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ASKS] =                  { CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW },
		[SCTP_ASKS_ACKNOWLEDGED] =     { CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ECHOES_COOKIE] =         { CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_COOKIE_ACKNOWLEDGED] =   { ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL },
		[SCTP_SHUTS_DOWN] =            { SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL },
		[SCTP_SHUTDOWN_ACKNOWLEDGED] = { SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL },
		[SCTP_SHUTDOWN_COMPLETED] =    { CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_REPORTS_ERROR] =         { CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ABORTS] =                { CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL },
	},
	{ /* no answers are seen:        NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL */
		[SCTP_GOES_ON] =               { ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ASKS] =                  { I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN },
		[SCTP_ASKS_ACKNOWLEDGED] =     { CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ECHOES_COOKIE] =         { ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_COOKIE_ACKNOWLEDGED] =   { ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL },
		[SCTP_SHUTS_DOWN] =            { SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL },
		[SCTP_SHUTDOWN_ACKNOWLEDGED] = { CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL },
		[SCTP_SHUTDOWN_COMPLETED] =    { CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL },
		[SCTP_REPORTS_ERROR] =         { CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL },
		[SCTP_ABORTS] =                { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL },
	},
};

#undef NO
#undef I1
#undef IN
#undef CS
#undef CR
#undef CW
#undef CO
#undef CE
#undef ES
#undef SS
#undef SR
#undef SA
#undef RJ
#undef CL

/* States that count as ActiveConn. */
#define SCTP_ACTIVE_STATES (1u << SCTP_ESTABLISHED)

/* The state after a packet whose event is not SCTP_NO_CHUNK. */
static __always_inline __u32 sctp_next_state(__u32 direction, __u32 state, __u8 event)
{
	const __u8 *table = &sctp_transitions[0][0][0];
	__u32 place;

	if (state >= SCTP_STATES || event >= SCTP_EVENTS)
		return SCTP_CLOSED;
	place = (direction * SCTP_EVENTS + event) * SCTP_STATES + state;
	/* As in tcp_next_state(). */
	asm volatile("" : "+r"(place));
	return place < sizeof(sctp_transitions) ? table[place] : SCTP_CLOSED;
}

/*
 * The checksum is CRC32c over the SCTP packet alone: there is no pseudo-header, so
 * other addresses leave it as it is.  Other ports change it by what their difference
 * is times x^(8 * length), modulo the polynomial, whatever the rest of the packet
 * holds; a packet that was damaged on its way to us stays so.
 */
#define CRC32C_POLYNOMIAL 0x82f63b78 /* bits reflected: the highest is that of x^0 */
#define CRC32C_POWERS 16

/* x^(8 * 2^n) */
static const __u32 crc32c_powers[CRC32C_POWERS] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c,
	0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/* The product of two polynomials. */
__attribute__((noinline)) __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		b = (b >> 1) ^ (CRC32C_POLYNOMIAL & -(b & 1));
	}
	return product;
}

/* By what the checksum of a packet of `length` bytes changes, in the order of its
 * field, when its first four change by `difference`. */
__attribute__((noinline)) __u32 crc32c_change(__u32 difference, __u32 length)
{
	for (__u32 i = 0; i < CRC32C_POWERS; i++) {
		if (length >> i & 1)
			difference = crc32c_multiply(difference, crc32c_powers[i]);
	}
	return difference;
}

#endif
