/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * FTP under NAT (RFC 959, 2428; kernel: net/netfilter/ipvs/ip_vs_ftp.c).
 *
 * Client and server agree on their data connections in the text of the control
 * connection, at port 21.  What they agree on is entered in the connection table
 * before its first packet: passive, a connection from whatever port of the client
 * (PASV and 227, EPSV and 229); active, one of the real server's port 20 to the
 * port that the client named (PORT, EPRT), by whatever address: only the client's
 * own is expected.  The control connection lives as long as those connections do.
 *
 * Only a 227 names an address, which has to become the VIP's.  The text keeps its
 * length, so sequence numbers need no adjustment: the numbers keep their end, and
 * what is before them is filled up with spaces, or loses words.
 */
#ifndef XLVS_FTP_H
#define XLVS_FTP_H

#include "admit.h"
#include "conn.h"
#include "nat.h"
#include "parse.h"
#include "run.h"
#include "state.h"

#define FTP_TEXT 128   /* how much of a segment is looked at; a power of two */
#define FTP_CODE 4     /* letters of a command; digits of an answer's code, and a space */
#define FTP_NUMBERS 6  /* of an address and a port */
#define FTP_DIGITS 24  /* that those take at most, with commas */
#define FTP_PORT_FIELD 3 /* delimiters before the port of EPRT and 229 */

enum ftp_line {
	FTP_OTHER,
	FTP_PASSIVE, /* PASV or EPSV */
	FTP_ACTIVE,  /* PORT */
	FTP_ACTIVE_EXTENDED, /* EPRT */
	FTP_ENTERING,        /* 227 */
	FTP_ENTERING_EXTENDED, /* 229 */
};

struct ftp_text {
	__u8 before[FTP_TEXT];
	__u8 after[FTP_TEXT];
	__u8 digits[FTP_DIGITS + 8]; /* more than 24 for the mask of indices */
	/* What was found: */
	__u64 numbers;  /* address and port, a byte each; or the port */
	__u32 start;    /* where its line starts, */
	__u32 begin;    /* its first digit is, */
	__u32 end;      /* and what follows the last one */
	__u32 offset;   /* of the text in the frame */
	__u32 length;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ftp_text);
} ftp_texts SEC(".maps");

static __always_inline struct ftp_text *ftp_text_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ftp_texts, &zero);
}

#define FTP_WORD(a, b, c, d) ((__u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static __always_inline __u8 upper_case(__u8 letter)
{
	return letter >= 'a' && letter <= 'z' ? letter - ('a' - 'A') : letter;
}

static __always_inline int is_digit(__u8 letter)
{
	return letter >= '0' && letter <= '9';
}

/* What a line is that begins with `word`, followed by `next`. */
static __always_inline __u32 line_kind(__u32 word, __u8 next)
{
	if (word == FTP_WORD('P', 'A', 'S', 'V') && next == '\r')
		return FTP_PASSIVE;
	if (word == FTP_WORD('E', 'P', 'S', 'V') && (next == '\r' || next == ' '))
		return FTP_PASSIVE;
	if (word == FTP_WORD('P', 'O', 'R', 'T') && next == ' ')
		return FTP_ACTIVE;
	if (word == FTP_WORD('E', 'P', 'R', 'T') && next == ' ')
		return FTP_ACTIVE_EXTENDED;
	if (word == FTP_WORD('2', '2', '7', ' '))
		return FTP_ENTERING;
	if (word == FTP_WORD('2', '2', '9', ' '))
		return FTP_ENTERING_EXTENDED;
	return FTP_OTHER;
}

struct ftp_reading {
	__u64 numbers;
	__u32 word;
	__u32 column;
	__u32 kind;
	__u32 field;  /* numbers, or delimiters, so far */
	__u32 number;
	__u32 digits; /* of this number so far */
	__u32 delimiter;
	__u32 found;  /* the kind, when the line says all that it has to */
	__u32 start;
	__u32 begin;
	__u32 end;
	__u32 pad;
};

static __always_inline void read_digit(struct ftp_reading *reading, __u8 letter)
{
	reading->number = reading->number * 10 + (letter - '0');
	/* Six digits are no port any more, and no number. */
	if (reading->digits < 6)
		reading->digits++;
	else
		reading->number = 0x10000;
}

/* "h1,h2,h3,h4,p1,p2", from the first digit after the code: a client has to look
 * for it (RFC 1123, 4.1.2.6).  Returns whether the line is done with. */
static __always_inline int read_numbers(struct ftp_reading *reading, __u32 i, __u8 letter)
{
	if (is_digit(letter)) {
		if (reading->digits == 0 && reading->field == 0)
			reading->begin = i;
		read_digit(reading, letter);
		return 0;
	}
	if (reading->digits && reading->number <= 0xff) {
		reading->numbers = reading->numbers << 8 | reading->number;
		reading->field++;
		if (reading->field == FTP_NUMBERS) {
			reading->end = i;
			return 1;
		}
	}
	if (letter != ',' || !reading->digits || reading->number > 0xff)
		reading->field = 0; /* it was other text */
	reading->number = 0;
	reading->digits = 0;
	return 0;
}

/* "|||port|", after a parenthesis in an answer, or "|family|address|port|", the
 * delimiter being whatever comes first (RFC 2428). */
static __always_inline int read_delimited(struct ftp_reading *reading, __u8 letter)
{
	if (reading->delimiter == 0) {
		if (reading->kind == FTP_ACTIVE_EXTENDED)
			reading->delimiter = letter;
		else if (letter == '(')
			reading->delimiter = '(';
	} else if (reading->delimiter == '(') {
		reading->delimiter = letter;
	} else if (letter == reading->delimiter) {
		if (reading->field == FTP_PORT_FIELD - 1 && reading->digits) {
			reading->numbers = reading->number;
			return reading->number <= 0xffff;
		}
		reading->field++;
		reading->number = 0;
		reading->digits = 0;
	} else if (is_digit(letter)) {
		read_digit(reading, letter);
	} else {
		reading->number = 0;
		reading->digits = 0;
	}
	return 0;
}

/* Have the verifier forget what it knows of these values: it would walk the loop
 * for each that they may come to have. */
static __always_inline void forget_values(struct ftp_reading *reading)
{
	__u32 zero = always_zero;

	reading->column += zero;
	reading->kind += zero;
	reading->field += zero;
	reading->number += zero;
	reading->digits += zero;
	reading->delimiter += zero;
	reading->start += zero;
	reading->begin += zero;
}

static __always_inline int take_letter(struct ftp_reading *reading, __u32 i, __u8 letter)
{
	int done;

	if (letter == '\n') {
		reading->column = 0;
		reading->start = i + 1;
		return 0;
	}
	if (reading->column < FTP_CODE) {
		reading->word = reading->word << 8 | upper_case(letter);
		reading->column++;
		return 0;
	}
	if (reading->column == FTP_CODE) {
		reading->column++;
		reading->kind = line_kind(reading->word, letter);
		reading->field = 0;
		reading->number = 0;
		reading->digits = 0;
		reading->delimiter = 0;
		if (reading->kind == FTP_PASSIVE) {
			reading->found = FTP_PASSIVE;
			return 1;
		}
		/* A command's is the space before what it says, an answer's is that already. */
		if (reading->kind == FTP_ACTIVE_EXTENDED)
			return 0;
	}
	if (reading->kind == FTP_ENTERING || reading->kind == FTP_ACTIVE)
		done = read_numbers(reading, i, letter);
	else if (reading->kind == FTP_OTHER)
		return 0;
	else
		done = read_delimited(reading, letter);
	if (done)
		reading->found = reading->kind;
	return done;
}

static long read_letter(__u32 i, void *data)
{
	struct ftp_reading *reading = data;
	struct ftp_text *text = ftp_text_here();

	if (!text || take_letter(reading, i, text->before[i & (FTP_TEXT - 1)]))
		return 1;
	forget_values(reading);
	return 0;
}

/* Bring the beginning of a segment's payload into `text`; 0, or -1 if there is none. */
static __always_inline int load_text(struct __sk_buff *skb, const struct packet *packet,
				     struct ftp_text *text)
{
	__u32 offset = packet->transport + offsetof(struct tcp_header, offset);
	__u32 end = sizeof(struct ethhdr) + packet->bytes;
	__u64 size, least = 1;
	__u8 words;

	if (bpf_skb_load_bytes(skb, offset, &words, sizeof(words)))
		return -1;
	offset = packet->transport + (words >> 4) * 4;
	if (offset >= end)
		return -1;
	text->offset = offset;
	size = end - offset;
	/* For the verifier of Linux 6.1: see sum_next_chunk(). */
	asm volatile("" : "+r"(size));
	if (size > FTP_TEXT)
		size = FTP_TEXT;
	asm volatile("" : "+r"(size), "+r"(least));
	if (size < least)
		return -1;
	text->length = size;
	return bpf_skb_load_bytes(skb, offset, text->before, size) ? -1 : 0;
}

/*
 * Look for what a segment has to say of data connections: the kind of the first
 * such line, with the rest in `ftp_texts`; FTP_OTHER for other text; -1 for none.
 */
__attribute__((noinline)) int read_ftp(struct __sk_buff *skb, const struct packet *packet)
{
	struct ftp_text *text = ftp_text_here();
	struct ftp_reading reading;

	if (!packet || !text || packet->fragment || load_text(skb, packet, text))
		return -1;
	reading.numbers = 0;
	reading.word = unseen(0);
	reading.column = unseen(0);
	reading.kind = unseen(FTP_OTHER);
	reading.field = unseen(0);
	reading.number = unseen(0);
	reading.digits = unseen(0);
	reading.delimiter = unseen(0);
	reading.found = unseen(FTP_OTHER);
	reading.start = unseen(0);
	reading.begin = unseen(0);
	reading.end = unseen(0);
	reading.pad = 0;
	bpf_loop(loop_count(text->length), read_letter, &reading, 0);
	text->numbers = reading.numbers;
	text->start = reading.start;
	text->begin = reading.begin;
	text->end = reading.end;
	return reading.found;
}

/*
 * Enter a data connection that the control connection in `slot` has agreed on: to
 * the real server's `port`, or from its port 20 to the client's.  One of that flow that
 * is there listens again; but what is expected of another real server gives way (kernel:
 * ip_vs_ftp_in(), ip_vs_ftp_out()).
 */
__attribute__((noinline)) int expect_data(__u32 slot, __u32 port, __u32 active)
{
	struct connection *controller = conn_at(slot), *entry;
	struct destination *destination;
	struct new_connection new = {};
	__u64 over = 0;
	__u32 now = ticks_now();
	int found;

	if (!controller)
		return -1;
	new.destination = controller->destination;
	destination = bpf_map_lookup_elem(&destinations, &new.destination);
	if (!destination)
		return -1;
	new.flow.client = controller->flow.client;
	new.flow.virtual = controller->flow.virtual;
	new.flow.protocol = PROTOCOL_TCP;
	new.flow.family = controller->flow.family;
	if (active) {
		new.flow.client_port = bpf_htons(port);
		new.flow.virtual_port = bpf_htons(FTP_DATA_PORT);
		new.destination_port = bpf_htons(bpf_ntohs(controller->destination_port) - 1);
	} else {
		new.flow.apart = FLOW_EXPECTED;
		new.flow.virtual_port = bpf_htons(port);
		new.destination_port = bpf_htons(port);
	}
	new.expires = now + timeout_of(TCP_LISTEN);
	new.flags = CONNECTION_INACTIVE | METHOD_MASQUERADE << CONNECTION_METHOD_SHIFT |
		    (control_flags(load_control(controller)) & CONNECTION_CLIENT_HERE);
	new.link = LINK_TO_FTP | (slot + 1);
	found = conn_find(&new.flow);
	entry = found >= 0 ? conn_at(found) : 0;
	if (entry && !has_ended(entry, now) &&
	    (active || entry->destination == new.destination)) {
		conn_set_state(entry, TCP_LISTEN);
		conn_refresh(entry, now, timeout_of(TCP_LISTEN));
		return 0;
	}
	if (entry)
		new.replaces = over = load_control(entry);
	if (!keep_alive(controller))
		return -1;
	found = conn_insert(&new);
	if (found < 0 || !(found & SLOT_IS_NEW)) {
		release_template(new.link);
		return -1;
	}
	if (found & SLOT_IS_REPLACED) {
		release_template(new.replaced.link);
		uncount(new.replaced.destination, over);
	}
	found &= SLOT_MASK;
	count_new(destination, new.destination, new.flags);
	entry = conn_at(found);
	if (!entry)
		return -1;
	conn_set_state(entry, TCP_LISTEN);
	if (active && admit_reply(found, &new, destination)) {
		conn_kill(entry, found, now);
		return -1;
	}
	return 0;
}

/* The established control connection in `slot`, or null. */
static __always_inline struct connection *ftp_control_at(__u32 slot)
{
	struct connection *entry = conn_at(slot);
	__u64 control;

	if (!entry)
		return 0;
	control = load_control(entry);
	if (control_state(control) != TCP_ESTABLISHED ||
	    control_method(control) != METHOD_MASQUERADE ||
	    entry->flow.protocol != PROTOCOL_TCP)
		return 0;
	return entry;
}

/* A client's packet to port 21, whose connection is in `slot`. */
__attribute__((noinline)) int ftp_request(struct __sk_buff *skb, const struct packet *packet,
					  __u32 slot)
{
	struct connection *entry = ftp_control_at(slot);
	struct ftp_text *text = ftp_text_here();
	__u32 port;
	int kind;

	if (!packet || !entry || !text)
		return 0;
	kind = read_ftp(skb, packet);
	if (kind == FTP_PASSIVE)
		conn_set_flags(entry, CONNECTION_PASSIVE, 0);
	if (kind != FTP_ACTIVE && kind != FTP_ACTIVE_EXTENDED)
		return 0;
	conn_set_flags(entry, 0, CONNECTION_PASSIVE);
	port = (__u16)text->numbers;
	if (port)
		expect_data(slot, port, 1);
	return 0;
}

struct ftp_digits {
	__u64 numbers; /* the next one in the upper byte of 48 bits */
	__u32 length;
	__u32 pad;
};

static __always_inline void write_digit(struct ftp_text *text, struct ftp_digits *digits,
					__u8 letter)
{
	text->digits[digits->length & 31] = letter;
	digits->length++;
}

static long write_number(__u32 i, void *data)
{
	struct ftp_digits *digits = data;
	struct ftp_text *text = ftp_text_here();
	__u32 number = digits->numbers >> 40 & 0xff;

	if (!text)
		return 1;
	if (i)
		write_digit(text, digits, ',');
	if (number >= 100)
		write_digit(text, digits, '0' + number / 100);
	if (number >= 10)
		write_digit(text, digits, '0' + number / 10 % 10);
	write_digit(text, digits, '0' + number % 10);
	digits->numbers <<= 8;
	return 0;
}

/* The numbers that a client should read instead, into `digits`; returns their length. */
__attribute__((noinline)) int write_numbers(__be32 address, __u32 port)
{
	struct ftp_digits digits = { .numbers = (__u64)bpf_ntohl(address) << 16 | (__u16)port };

	digits.length = unseen(0);
	bpf_loop(FTP_NUMBERS, write_number, &digits, 0);
	return digits.length;
}

struct ftp_writing {
	__u32 first;  /* where the free text starts */
	__u32 begin;  /* where the numbers go */
	__u32 longer; /* by how much they are longer; wraps around where they are shorter */
	__u32 cut;    /* a word was cut: blank what is left of it */
};

static long write_letter(__u32 i, void *data)
{
	struct ftp_writing *writing = data;
	struct ftp_text *text = ftp_text_here();
	__u32 to = writing->first + i, from = to + writing->longer;
	__u8 letter;

	if (!text)
		return 1;
	if (to >= writing->begin) {
		letter = text->digits[(to - writing->begin) & 31];
	} else if ((__s32)from < (__s32)writing->first) {
		letter = ' ';
	} else {
		letter = text->before[from & (FTP_TEXT - 1)];
		if (letter == ' ')
			writing->cut = 0;
		/* What stands before the numbers stays, a parenthesis most often, if there is
		 * room: clients need it not. */
		else if (writing->cut && to + 1 != writing->begin)
			letter = ' ';
	}
	text->after[to & (FTP_TEXT - 1)] = letter;
	return 0;
}

/* Write `address` and port over those that were read; 0, or -1 if they don't fit. */
__attribute__((noinline)) int rewrite_numbers(struct __sk_buff *skb, const struct packet *packet,
					      __be32 address)
{
	struct ftp_text *text = ftp_text_here();
	struct ftp_writing writing;
	__u64 size, least = 1;
	__u32 length;
	__s64 difference;

	if (!packet || !text)
		return -1;
	length = write_numbers(address, text->numbers);
	writing.first = text->start + FTP_CODE;
	writing.begin = text->end - length;
	writing.longer = length - (text->end - text->begin);
	writing.cut = unseen((__s32)writing.longer > 0);
	if (text->end > FTP_TEXT || text->begin < writing.first ||
	    text->end < writing.first + length)
		return -1;
	__builtin_memcpy(text->after, text->before, sizeof(text->after));
	bpf_loop(loop_count(text->end - writing.first), write_letter, &writing, 0);
	difference = bpf_csum_diff((__be32 *)text->before, sizeof(text->before),
				   (__be32 *)text->after, sizeof(text->after), 0);
	size = text->length;
	asm volatile("" : "+r"(size));
	if (size > FTP_TEXT)
		size = FTP_TEXT;
	asm volatile("" : "+r"(size), "+r"(least));
	if (difference < 0 || size < least)
		return -1;
	if (bpf_l4_csum_replace(skb, packet->transport + TCP_CHECKSUM_OFFSET, 0, difference, 0))
		return -1;
	return bpf_skb_store_bytes(skb, text->offset, text->after, size, 0);
}

/* A real server's answer, before it is translated; `slot` has the entry of its flow. */
__attribute__((noinline)) int ftp_answer(struct __sk_buff *skb, const struct packet *packet,
					 __u32 slot)
{
	struct connection *reply = conn_at(slot), *entry;
	struct ftp_text *text = ftp_text_here();
	__be32 address;
	__u32 port;
	int kind;

	if (!packet || !reply || !text || !conn_of_reply(reply))
		return 0;
	slot = reply->link - 1;
	entry = ftp_control_at(slot);
	if (!entry || has_ended(entry, ticks_now()) ||
	    !(control_flags(load_control(entry)) & CONNECTION_PASSIVE))
		return 0;
	kind = read_ftp(skb, packet);
	if (kind != FTP_ENTERING && kind != FTP_ENTERING_EXTENDED)
		return 0;
	port = (__u16)text->numbers;
	if (port < FIRST_UNPRIVILEGED_PORT)
		return 0;
	if (kind == FTP_ENTERING) {
		address = bpf_htonl(text->numbers >> 16);
		/* A server may have been told to name the VIP. */
		if (entry->flow.family != AF_INET || (address != packet->flow.client.v4 &&
						      address != entry->flow.virtual.v4))
			return 0;
		if (address != entry->flow.virtual.v4 &&
		    rewrite_numbers(skb, packet, entry->flow.virtual.v4))
			return 0;
	}
	expect_data(slot, port, 0);
	return 0;
}

#endif
