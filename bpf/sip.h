/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The Call-ID of a SIP message in a UDP datagram (RFC 3261, 20.8), by which the
 * persistence engine "sip" knows what belongs together.
 *
 * Read as the kernel reads it, so that both take the same messages (ip_vs_pe_sip.c,
 * and ct_sip_get_header() in nf_conntrack_sip.c): the name in whatever case or as
 * "i", spaces and folded lines around the colon, then a word, or two with an "@".
 * The line has to end there.  The start line is not looked at.
 */
#ifndef XLVS_SIP_H
#define XLVS_SIP_H

#include "maps.h"
#include "parse.h"
#include "run.h"

#define SIP_CHUNK 256 /* letters that are fetched at once; a power of two */
#define SIP_NAME_LENGTH 7
#define NO_CALL_ID (-1)

/* A trie of whole keys: it takes memory for what is in it alone, where a hash has a head for each
 * element that it may have, and most tables never have one. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct call_id_key);
	__type(value, struct call_id);
} call_ids SEC(".maps");

static __always_inline struct call_id_key call_id_key(__u32 slot)
{
	struct call_id_key key = { .bits = 32, .slot = slot };

	return key;
}

struct sip_text {
	struct call_id call; /* what was found, for the rest of the packet's way */
	__u8 chunk[SIP_CHUNK];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sip_text);
} sip_texts SEC(".maps");

static __always_inline struct sip_text *sip_text_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sip_texts, &zero);
}

/* What the next letter is part of. */
enum sip_place {
	SIP_LINE,         /* a line without interest */
	SIP_LINE_END,     /* a CR was it: an LF may belong to it */
	SIP_LINE_START,
	SIP_NAME,         /* a name that has begun like "Call-ID" */
	SIP_SHORT_NAME,   /* one that begins with "i" */
	SIP_BLANK,        /* spaces before the colon, or after it */
	SIP_FOLD_END,     /* a line ended there, by a CR */
	SIP_FOLD_START,   /* and goes on in the next one, if that begins with a blank */
	SIP_FOLD_BLANK,
	SIP_VALUE,
	SIP_FOUND,
	SIP_NOT_FOUND,
};

struct sip_reading {
	struct __sk_buff *skb;
	__u64 hash;
	__u32 offset; /* of the text in the frame */
	__u32 length; /* of the text */
	__u32 place;
	__u32 column; /* letters of the name so far */
	__u32 colon;  /* it was there */
	__u32 letters; /* of the value so far */
	__u32 at;     /* an "@" was there */
	__u32 host;   /* letters behind it */
};

/* Letters and digits as the kernel has them: of ISO 8859-1. */
static __always_inline int is_letter(__u8 letter)
{
	__u8 lower = letter | 0x20;

	if (letter >= 0xc0)
		return letter != 0xd7 && letter != 0xf7;
	return lower >= 'a' && lower <= 'z';
}

/* `word` of RFC 3261, 25.1; the kernel knows these: iswordc(). */
static __always_inline int is_word(__u8 letter)
{
	/* ! " % ( ) * + , - . / 0-9 : < > ?, by their places from the space on */
	const __u32 signs = 1u << 1 | 1u << 2 | 1u << 5 | 0xffu << 8 | 0x3ffu << 16 | 1u << 26 |
			    1u << 28 | 1u << 30 | 1u << 31;

	if (letter >= ' ' && letter <= '?')
		return signs >> (letter - ' ') & 1;
	return is_letter(letter) || (letter >= '[' && letter <= ']') || letter == '_' ||
	       letter == '`' || letter == '{' || letter == '}' || letter == '~';
}

static __always_inline __u8 lower_case(__u8 letter)
{
	return letter >= 'A' && letter <= 'Z' ? letter + ('a' - 'A') : letter;
}

/* The n-th letter of "call-id". */
static __always_inline __u8 name_letter(__u32 n)
{
	const __u64 name = 0x64692d6c6c6163ULL;

	return name >> ((n & 7) * 8);
}

static __always_inline void take_line_letter(struct sip_reading *reading, __u8 letter)
{
	reading->place = letter == '\r' ? SIP_LINE_END :
			 letter == '\n' ? SIP_LINE_START :
					  SIP_LINE;
}

static __always_inline void take_first_letter(struct sip_reading *reading, __u8 letter)
{
	__u8 lower = lower_case(letter);

	reading->column = 1;
	reading->place = lower == 'c' ? SIP_NAME : lower == 'i' ? SIP_SHORT_NAME : SIP_LINE;
}

static __always_inline int is_blank(__u8 letter)
{
	return letter == ' ' || letter == '\t';
}

/* The first letter that is not blank: the colon, or of the value. */
static __always_inline void end_blanks(struct sip_reading *reading, __u8 letter)
{
	reading->place = reading->colon ? SIP_VALUE : letter == ':' ? SIP_BLANK : SIP_NOT_FOUND;
	reading->colon = 1;
}

/* A letter around the colon, where the line may be folded once. */
static __always_inline void take_blank(struct sip_reading *reading, __u8 letter)
{
	reading->place = SIP_BLANK;
	if (letter == '\r')
		reading->place = SIP_FOLD_END;
	else if (letter == '\n')
		reading->place = SIP_FOLD_START;
	else if (!is_blank(letter))
		end_blanks(reading, letter);
}

/* Whether a letter is one of the value; else that is done with. */
static __always_inline int take_value_letter(struct sip_reading *reading, struct sip_text *text,
					     __u8 letter)
{
	__u32 letters = reading->letters;

	if (is_word(letter)) {
		reading->host += reading->at;
	} else if (letter == '@' && letters && !reading->at) {
		reading->at = 1;
	} else {
		return 0;
	}
	if (letters < CALL_ID_LIMIT) {
		/* The mask leaves one place more, in the chunk; it is for the verifier. */
		asm volatile("" : "+r"(letters));
		((__u8 *)text)[1 + (letters & 0xff)] = letter;
	}
	reading->letters = letters + 1;
	reading->hash = (reading->hash ^ letter) * 0x9e3779b97f4a7c15ULL;
	reading->hash ^= reading->hash >> 32;
	return 1;
}

static __always_inline void begin_reading(struct sip_reading *reading, struct sip_text *text)
{
	__builtin_memset(&text->call, 0, sizeof(text->call));
	reading->hash = limits.hash_seed;
	reading->place = unseen(SIP_LINE);
	reading->column = unseen(0);
	reading->colon = unseen(0);
	reading->letters = unseen(0);
	reading->at = unseen(0);
	reading->host = unseen(0);
}

/* What follows the value. */
static __always_inline void end_value(struct sip_reading *reading, struct sip_text *text,
				      __u8 letter)
{
	if (!reading->letters || (reading->at && !reading->host)) {
		/* It is none; there may be another. */
		begin_reading(reading, text);
		take_line_letter(reading, letter);
		return;
	}
	reading->place = reading->letters <= CALL_ID_LIMIT && (letter == '\r' || letter == '\n') ?
				 SIP_FOUND :
				 SIP_NOT_FOUND;
}

static __always_inline void take_sip_letter(struct sip_reading *reading, struct sip_text *text,
					    __u8 letter)
{
	__u32 place = reading->place;

	if (place == SIP_LINE_END)
		place = letter == '\n' ? SIP_LINE : SIP_LINE_START;
	if (place == SIP_FOLD_END && letter != '\n')
		place = SIP_FOLD_START;

	if (place == SIP_LINE) {
		take_line_letter(reading, letter);
	} else if (place == SIP_LINE_START) {
		take_first_letter(reading, letter);
	} else if (place == SIP_NAME) {
		if (lower_case(letter) != name_letter(reading->column))
			take_line_letter(reading, letter);
		else if (++reading->column == SIP_NAME_LENGTH)
			reading->place = SIP_BLANK;
	} else if (place == SIP_SHORT_NAME) {
		if (is_letter(letter))
			reading->place = SIP_LINE;
		else
			take_blank(reading, letter);
	} else if (place == SIP_BLANK) {
		take_blank(reading, letter);
	} else if (place == SIP_FOLD_END) {
		reading->place = SIP_FOLD_START;
	} else if (place == SIP_FOLD_START) {
		reading->place = is_blank(letter) ? SIP_FOLD_BLANK : SIP_NOT_FOUND;
	} else if (place == SIP_FOLD_BLANK && !is_blank(letter)) {
		end_blanks(reading, letter);
	}
	if (reading->place == SIP_VALUE && !take_value_letter(reading, text, letter))
		end_value(reading, text, letter);
}

/* Have the verifier forget what it knows: see forget_values() in ftp.h. */
static __always_inline void forget_place(struct sip_reading *reading)
{
	__u32 zero = always_zero;

	reading->place += zero;
	reading->column += zero;
	reading->colon += zero;
	reading->letters += zero;
	reading->at += zero;
	reading->host += zero;
}

/* Fetch the next letters, from the i-th on; 0, or -1 if they can't be read. */
static __always_inline int fetch_chunk(struct sip_reading *reading, struct sip_text *text, __u32 i)
{
	__u64 size = reading->length - i, least = 1;

	/* For the verifier of Linux 6.1: see sum_next_chunk(). */
	asm volatile("" : "+r"(size));
	if (size > SIP_CHUNK)
		size = SIP_CHUNK;
	asm volatile("" : "+r"(size), "+r"(least));
	if (size < least)
		return -1;
	return bpf_skb_load_bytes(reading->skb, reading->offset + i, text->chunk, size);
}

static long read_sip_letter(__u32 i, struct sip_reading *reading)
{
	struct sip_text *text = sip_text_here();

	if (!text || ((i & (SIP_CHUNK - 1)) == 0 && fetch_chunk(reading, text, i)))
		return 1;
	take_sip_letter(reading, text, text->chunk[i & (SIP_CHUNK - 1)]);
	if (reading->place >= SIP_FOUND)
		return 1;
	forget_place(reading);
	return 0;
}

/*
 * Read the Call-ID of a packet into `sip_texts`; a hash of it, 31 bits, or NO_CALL_ID
 * where there is none that the kernel would take.
 */
__attribute__((noinline)) int read_call_id(struct __sk_buff *skb, const struct packet *packet)
{
	struct sip_text *text = sip_text_here();
	struct sip_reading reading = { .skb = skb };
	__u32 end;

	if (!packet || !text || packet->flow.protocol != PROTOCOL_UDP)
		return NO_CALL_ID;
	reading.offset = packet->transport + UDP_HEADER_SIZE;
	end = sizeof(struct ethhdr) + packet->bytes;
	if (end <= reading.offset || end > 0x10000 + sizeof(struct ethhdr))
		return NO_CALL_ID;
	reading.length = end - reading.offset;
	begin_reading(&reading, text);
	bpf_loop(loop_count(reading.length), read_sip_letter, &reading, 0);
	if (reading.place != SIP_FOUND)
		return NO_CALL_ID;
	text->call.length = reading.letters;
	return reading.hash >> 33;
}

/* Whether a flow is that of a template with a Call-ID. */
static __always_inline int is_flow_of_call(const struct flow *flow)
{
	return flow->apart >= FLOW_OF_CALL;
}

/* Whether the template in `slot` has the Call-ID that was read: 1, 0, or -1 where it
 * has none yet, because another CPU has only begun to make it. */
static __always_inline int has_call_id(__u32 slot)
{
	struct sip_text *text = sip_text_here();
	struct call_id_key key = call_id_key(slot);
	struct call_id *call = bpf_map_lookup_elem(&call_ids, &key);
	const __u64 *x = (const __u64 *)call, *y = (const __u64 *)text;

	if (!text || !call)
		return -1;
#pragma unroll
	for (__u32 i = 0; i < sizeof(*call) / sizeof(__u64); i++) {
		if (x[i] != y[i])
			return 0;
	}
	return 1;
}

/* Let the template in `slot` have the Call-ID that was read; 0, or -1 where there is no
 * room for one more. */
static __always_inline int store_call_id(__u32 slot)
{
	struct call_id_key key = call_id_key(slot);
	struct sip_text *text = sip_text_here();

	return text && !bpf_map_update_elem(&call_ids, &key, &text->call, BPF_ANY) ? 0 : -1;
}

#endif
