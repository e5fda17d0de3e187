/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything the packet path and user space share: record layouts, numbers.
 *
 * This is the only place where a layout is written down.  Python's copy,
 * src/xlvs/kernel/abi.py, is generated from the compiled object's BTF
 * (`make abi`) and a test compares the two.  Whoever changes a layout also
 * raises ABI_VERSION: commands refuse pinned maps of another version.  Whoever
 * changes what a field means does so, too: while `xlvs upgrade` runs, programs
 * of two versions with the same number work on one table.
 *
 * Conventions: addresses and ports in network byte order; an IPv4 address
 * fills the first four of its sixteen bytes, the rest is zero; a time is in
 * ticks of 2^24 ns (16.8 ms) of the monotonic clock, 32 bits, compared by
 * signed difference (good for +-1.1 years).
 *
 * Who writes what.  A field has one kind of writer: "configuration" is written
 * by user space alone (aligned stores through a memory mapping), "live" by the
 * packet path alone (atomics where two CPUs may meet), once the record is used.
 */
#ifndef XLVS_ABI_H
#define XLVS_ABI_H

#include <linux/types.h>

#define CACHE_LINE 64

enum abi {
	ABI_VERSION = 9,
	TICK_SHIFT = 24,          /* ns >> TICK_SHIFT = ticks */
	SLOTS_PER_BUCKET = 8,
	BUCKET_CHOICES = 8,       /* buckets a connection may stand in */
	GUARDED_BUCKETS = 4,      /* that share a guard */
	INTERFACE_LIMIT = 4096,   /* XDP serves interfaces with a lower index */
	RUN_HEADER = 4,           /* pool elements before a run's first pick */
	HASH_SLOTS = 256,         /* of the tables of sh and dh */
	MH_SLOTS = 4093,          /* of mh's: the kernel's default, CONFIG_IP_VS_MH_TAB_INDEX=12 */
	LOAD_FANOUT = 8,          /* of trees of loads: load_tree.h */
	LOAD_HEIGHT = 6,          /* their highest level; the leaves have 0 */
	LOAD_FEWEST = 17,         /* with fewer real servers a service has no tree */
	LOAD_MARKS = 256,
	IN_PACKETS_LIMIT = 9,     /* that nobody counts further: see defense.h */
	TIMEOUT_COUNT = 32,       /* a power of two: indices are masked */
	TIMEOUT_UDP = 11,         /* TCP states take 0..10 */
	TIMEOUT_SCTP = 16,        /* of its first state; 14 there are */
	SWEEPS_PER_SECOND = 64,   /* the sweeper takes a 64th of the table each time */
	MARK_RULES = 2048,        /* rules that a set may have */
	MARK_RANGES = 20,         /* port ranges of a rule, destination and source together */
	MARK_HALF_SHIFT = 16,
	ESTIMATE_PACKET_SHIFT = 10, /* fixed point of estimated rates: connections and packets */
	ESTIMATE_BYTE_SHIFT = 5,
	OTHER_TABLE = 128,        /* see `settings.table` */
	CALL_ID_LIMIT = 255,      /* kernel: IP_VS_PEDATA_MAXLEN */
	FULL_SECONDS = 10,        /* after a connection found no room: see overload.h */
	EVENTS_ROOM = 128,        /* bytes, at the beginning of a row of counters */
	SETTLING_SECONDS = 70,    /* likewise; Linux sends its last SYN again after 63 */
};

union address {
	__be32 v4;
	__u32 word[4];
	__u64 half[2];
};

/* What identifies a connection; every byte counts, padding is zero. */
struct flow {
	union address client;
	union address virtual;
	__be16 client_port;
	__be16 virtual_port;
	__u8 protocol;
	__u8 family;              /* AF_INET or AF_INET6 */
	__u16 apart;              /* enum flow_apart: no packet is of such a flow; 0: packets may be */
};

enum flow_apart {
	FLOW_EXPECTED = 1,        /* FTP data from a client port that is not known yet, 0 */
	FLOW_OF_CALL = 0x8000,    /* a template of a Call-ID: with `client_port`, a hash of it */
};

/* A connection's `control` word: phase, TCP state, flags and generation
 * change together by compare-and-swap, so that whoever moves an entry also
 * knows which of its destination's counters to move. */
enum connection_phase {
	PHASE_FREE,               /* may be claimed; its state is an enum free_state */
	PHASE_CLAIMED,            /* being written by one CPU, invisible to look-ups */
	PHASE_LIVE,
	PHASE_DEAD,               /* unlinked at `expires`; free again a second later */
};

enum connection_flag {
	CONNECTION_INACTIVE = 1,  /* counted as InActConn, else as ActiveConn */
	CONNECTION_NO_OUTPUT = 2, /* only the client's direction is seen (DR, TUN) */
	CONNECTION_SPILLED = 4,   /* not in its home bucket */
	CONNECTION_REPLY = 8,     /* the real server's direction of the entry that `link` names */
	CONNECTION_CLIENT_HERE = 16, /* the client is the director itself */
	CONNECTION_TEMPLATE = 32, /* a persistence template: no packet is of its flow */
	CONNECTION_ASIDE = 64,    /* a template whose real server is gone: never found again */
	CONNECTION_FTP = 2048,    /* a reply: of an FTP control connection */
	CONNECTION_PASSIVE = 4096, /* FTP: the client asked for a port to connect to */
	CONNECTION_BY_HASH = 16384, /* its real server is the one that overload.h names for its flow */
};

/* In the same flags: the forwarding method that it began with, and keeps. */
enum connection_method {
	CONNECTION_METHOD_SHIFT = 8,
	CONNECTION_METHOD_MASK = 7,
};

enum connection_control {
	CONTROL_PHASE_SHIFT = 0,
	CONTROL_STATE_SHIFT = 8,
	CONTROL_FLAGS_SHIFT = 16,
	CONTROL_GENERATION_SHIFT = 32,
	/* An FTP control connection lives as long as the data connections counted here. */
	CONTROL_FTP_DATA_SHIFT = 48,
	/* A template's upper half counts the connections that it controls. */
	CONTROL_CONTROLLED_SHIFT = 32,
};

/* A free slot's `state`. */
enum free_state {
	FREE_UNUSED,              /* nothing ever stood there, or nothing that anybody stands behind */
	FREE_AFTER_USE,
};

/* A template's `state`. */
enum template_state {
	TEMPLATE_NONE,
	TEMPLATE_ASSURED,         /* a connection of its was established */
};

/* In `link` of a connection. */
#define LINK_TO_FTP 0x80000000u

struct connection {
	__u64 control;
	struct flow flow;
	__u32 expires;            /* tick at which it is forgotten, or was */
	__u32 destination;        /* index into `destinations` */
	/* Of a reply these three are the `link` that it had before another connection took it
	 * over: conn.h, struct owners. */
	__be16 destination_port;
	__u8 in_packets;          /* from the client, up to IN_PACKETS_LIMIT */
	__u8 reserved;
	/* Of a connection: 1 + the slot of its template, 0 = none; of FTP data: LINK_TO_FTP and
	 * 1 + the slot of its control connection.  Of a reply: 1 + the slot of its connection.
	 * Of a template: the ticks that it lives on. */
	__u32 link;
};

/* By which the Call-ID of a template is found. */
struct call_id_key {
	__u32 bits;               /* of `slot` that count: all, 32 */
	__u32 slot;               /* the template's */
};

/* The Call-ID of a template; zeros follow it. */
struct call_id {
	__u8 length;
	__u8 text[CALL_ID_LIMIT];
};

struct connection_bucket {
	struct connection slot[SLOTS_PER_BUCKET];
};

enum service_flag {
	SERVICE_USED = 1,
	SERVICE_PERSISTENT = 2,
	SERVICE_ONE_PACKET = 4,
	SERVICE_SCHED_1 = 8,
	SERVICE_SCHED_2 = 16,
	SERVICE_SCHED_3 = 32,
	SERVICE_REJECTS_GONE = 64, /* see `enum destination_flag` */
	SERVICE_REHOMES = 128,
	SERVICE_SIP = 256,        /* its persistence engine */
};

struct service_key {
	union address address;
	__u32 fwmark;
	__be16 port;
	__u8 protocol;
	__u8 family;
};

struct service {
	/* configuration */
	struct service_key key;
	__u32 flags;
	__u32 run;                /* where its scheduling run starts in the pool; 0 = none */
	__u32 persistence;        /* seconds */
	__u32 netmask;            /* prefix length */
	__u32 binding;            /* how often a scheduler was bound to this record, whosever it was */
	__u32 idle_timeout;       /* seconds; 0: as for all */
	__u32 begun;              /* how often a service began in this record */
	__u32 config_pad[3];
	/* live */
	__u32 virtual_checked;    /* tick of the last look whether the VIP is ours */
	__u32 virtual_local;
	/* its tree of loads (load_tree.h) */
	__u64 tree;               /* of which run it is: that one's element 2; 0: of none */
	__u64 lighter[LOAD_MARKS / 64]; /* where a load may be less than the tree says */
	__u32 tree_taken;         /* a CPU is at it */
	__u32 chosen;             /* 1 + the leaf that was chosen last: its load has risen; 0: none */
	__u32 live_pad[2];
};

/* Numbers of the schedulers, in the order of model.SCHEDULERS. */
enum scheduler {
	SCHEDULER_NONE,
	SCHEDULER_RR,
	SCHEDULER_WRR,
	SCHEDULER_LC,
	SCHEDULER_WLC,
	SCHEDULER_LBLC,
	SCHEDULER_LBLCR,
	SCHEDULER_DH,
	SCHEDULER_SH,
	SCHEDULER_SED,
	SCHEDULER_NQ,
	SCHEDULER_FO,
	SCHEDULER_OVF,
	SCHEDULER_MH,
	SCHEDULER_TWOS,
};

/*
 * A run is what a scheduler works on, prepared by user space: a service's
 * destinations in the kernel's list order, newest first.  Changing a service
 * means writing another run and then its number into `service.run`, one
 * 32-bit store; packets see the old run or the new one, never a mixture.
 *
 *   pool[run + 0]  cursor: position (low half) and wrr's current weight
 *   pool[run + 1]  number of picks (low half), scheduler
 *   pool[run + 2]  wrr: highest weight (low half), decrement;
 *                  sh, dh, mh: bits of a slot of the table, 0 if there is none;
 *                  lc, wlc, sed, nq, lblc, lblcr: first block of the tree of loads (low
 *                  half), 0 if there is none, and a number that no other tree had
 *   pool[run + 3]  `binding` of the service when its scheduler was bound
 *   pool[run + 4...]  picks, then the table of sh, dh or mh: positions of picks
 *                  from 0, packed from the low bits of each element upwards; a
 *                  slot's width is a power of two, so that none is split
 */
struct pick {
	__u32 destination;
	__u32 weight;
};

/* What a scheduler compares of some destinations, next to each other: load (upper half,
 * signed) and weight (lower half). */
struct load_block {
	__u64 load[LOAD_FANOUT];
};

enum destination_flag {
	DESTINATION_USED = 1,
	DESTINATION_AVAILABLE = 2, /* in its service's run; else in the trash */
	DESTINATION_LOCAL = 4,     /* was an address of the director when it was added */
	/* As its service says, or said when it was removed: */
	DESTINATION_REJECTS_GONE = 8, /* clients are told when it is not available any more */
	DESTINATION_REHOMES = 16,     /* UDP flows then go to another, as when its weight is 0 */
};

/* Forwarding methods, numbered as in the kernel (IP_VS_CONN_F_FWD_MASK). */
enum forwarding_method {
	METHOD_MASQUERADE = 0,
	METHOD_LOCAL = 1,
	METHOD_TUNNEL = 2,
	METHOD_ROUTE = 3,
	METHOD_BYPASS = 4,
};

enum reach_flag {
	REACH_ROUTE = 1,          /* `interface` and `next_hop` hold */
	REACH_MAC = 2,            /* `mac` and `source_mac` hold: XDP may send */
	REACH_VIRTUAL_LOCAL = 4,  /* the VIP is an address of the director */
	REACH_BY_IPV6 = 8,        /* `next_hop` is an IPv6 address, whatever the real server's is */
	REACH_ASKED = 16,         /* the next hop's MAC is asked for, since `asked` */
	REACH_UNANSWERED = 32,    /* in vain: clients are told, this second */
};

enum overload_flag {
	OVERLOADED = 1,
};

struct destination {
	/* configuration */
	__u32 flags;
	__u32 service;            /* index of its service */
	union address address;
	__be16 port;
	__u8 family;
	__u8 method;
	__u32 weight;
	/* live: the way to it, looked up again every second by the packet path */
	__u32 interface;
	__u32 refreshed;          /* tick of that look-up */
	__u32 reach;
	__u8 mac[6];
	__u8 source_mac[6];
	__u32 idle_timeout;       /* configuration: ticks, of its service; 0: as for all */
	__u32 mtu;                /* of that way; 0 = not known */
	/* second line, live: touched when a connection changes its state */
	__s32 active;
	__s32 inactive;
	__s32 persistent;
	__u32 overload;
	union address next_hop;
	__u32 leaf;               /* 1 + its place in the tree of loads that its service last had */
	/* configuration */
	__u32 upper_threshold;
	__u32 lower_threshold;
	__u32 begun;              /* of the service that it left: `begun` there */
	__u32 asked;              /* live: tick since when the next hop's MAC is asked for */
	__u32 last_weight;        /* configuration: the last one above 0 since it was added (mh) */
	__u32 line_pad[2];
	/* third line, configuration: the director's address on that way, for the outer headers
	 * of tunnels and errors to masqueraded real servers; live from Linux 6.7 on, as
	 * `next_hop` is */
	union address own_address;
	/* how packets to it are wrapped (METHOD_TUNNEL) */
	__u8 tunnel_kind;
	__u8 tunnel_checksum;
	__be16 tunnel_port;       /* GUE */
	/* the same for frames: the size of all outer headers, 0 where XDP cannot write them; and the
	 * protocol in the outer IP header, of what is IPv4 inside and of what is IPv6 */
	__u8 frame_overhead;
	__u8 frame_protocol[2];
	__u8 frame_pad;
	/* live: what an ICMP error said of the way, while it holds; goes into `mtu` */
	__u32 path_mtu;           /* 0 = nothing */
	__u32 path_mtu_until;     /* tick */
	__s32 cached;             /* live: how many entries of lblc and lblcr remember it */
	/* Configuration: tick at which it left its service; then live: the last at which
	 * something of its ended, so that of an idle one it is since when that is so. */
	__u32 removed;
	/* configuration, not read per packet: whose it was, for the trash */
	struct service_key owner;
};

enum tunnel_kind {
	TUNNEL_IPIP,
	TUNNEL_GUE,
	TUNNEL_GRE,
};

/* What stands between the outer IP header and the packet, without a checksum. */
enum tunnel_size {
	GUE_PLAIN_SIZE = 12,
	GRE_PLAIN_SIZE = 4,
};

enum tunnel_checksum {
	TUNNEL_NO_CHECKSUM,
	TUNNEL_CHECKSUM,
	TUNNEL_REMOTE_CHECKSUM,   /* GUE: besides, an open one inside is left to the real server */
};

/* Counters have a row for each CPU that was online at loading, which alone writes it: its
 * events, then the counters of destinations, then those of services.  Readers add the rows up. */
struct traffic {
	__u64 connections;
	__u64 in_packets;
	__u64 out_packets;
	__u64 in_bytes;
	__u64 out_bytes;
};

/* The rates of a service or destination: see estimate.h. */
struct estimate {
	__u32 zeroed;             /* configuration: how often its counters began anew; */
	__u32 seen;               /* live: that, when the rates were last estimated */
	struct traffic last;      /* live: the counters then */
	struct traffic rate;      /* live: each a second, in fixed point; void while `seen` is another */
};

/*
 * A rule that gives a packet a firewall mark.  `mark_rules` has room for two
 * sets of MARK_RULES; `settings.mark_set` says which half packets read (the
 * bit at MARK_HALF_SHIFT) and how many rules it has (the bits below), so that
 * another set is there from one packet to the next.
 */
struct port_range {
	__u16 first;              /* host order, both ends included */
	__u16 last;
};

struct mark_rule {
	/* configuration; bits of an address beyond its prefix are zero */
	union address destination;
	union address source;
	__u32 mark;
	__u8 family;
	__u8 protocol;            /* 0: any */
	__u8 destination_prefix;
	__u8 source_prefix;
	__u8 destination_ranges;  /* how many of `range`; 0: any port */
	__u8 source_ranges;       /* of those that follow */
	__u8 pad[6];
	struct port_range range[MARK_RANGES];
};

enum interface_flag {
	INTERFACE_KNOWN = 1,
	INTERFACE_NATIVE = 2,     /* it has native XDP, so its driver takes frames of others */
};

struct interface {
	__u8 mac[6];
	/* enum interface_flag */
	__u16 known;
};

/* A masqueraded real server of whose packets something is known: what it sends from. */
struct sender {
	union address address;
	__be16 port;
	__u8 family;
	__u8 protocol;
	__u32 pad; /* all of it is the key */
};

/* Constants of one load, in .rodata.limits: the verifier folds them in. */
struct limits {
	__u64 hash_seed;
	__u64 hash_factor[5];     /* of each word of a flow; odd */
	__u32 buckets;            /* a power of two */
	__u32 services;
	__u32 destinations;
	__u32 pool;
	__u32 cpus;
	__u32 loads;              /* blocks of trees of loads */
	__u32 services_at;        /* where in a row of counters those of services begin, bytes */
	__u32 pad;
};

/* The kernel's settings of /proc/sys/net/ipv4/vs that the packet path has, by
 * their names there. */
enum sysctl {
	SYSCTL_CONN_REUSE_MODE,
	SYSCTL_EXPIRE_NODEST_CONN,
	SYSCTL_EXPIRE_QUIESCENT_TEMPLATE,
	SYSCTL_SLOPPY_TCP,
	SYSCTL_SLOPPY_SCTP,
	SYSCTL_CACHE_BYPASS,
	SYSCTL_DROP_ENTRY,
	SYSCTL_DROP_PACKET,
	SYSCTL_SECURE_TCP,
	SYSCTL_AMEMTHRESH,
	SYSCTL_AM_DROPRATE,
	SYSCTL_SCHEDULE_ICMP,
	SYSCTL_NAT_ICMP_SEND,
	SYSCTL_PMTU_DISC,
	SYSCTL_IGNORE_TUNNELED,   /* what is done anyway: no packet comes from a tunnel's device */
	SYSCTL_RUN_ESTIMATION,
	SYSCTL_COUNT,
};

/* One record that says what is loaded, with the settings that may change. */
struct settings {
	__u32 abi_version;
	__u32 full_at;            /* live: tick at which a connection last found no room; 0: long ago */
	struct limits limits;
	__u8 program_version[16]; /* of the xlvs that loaded it, as text */
	__u64 loaded_at;          /* seconds since the epoch */
	__u32 timeout[TIMEOUT_COUNT]; /* ticks, by TCP state, TIMEOUT_UDP, by SCTP state */
	__u32 icmp_interval;      /* ticks between ICMP errors to one client; 0: no limit */
	__u32 loopback_set;       /* settings of lo that we turned on: bits as in loopback.py */
	__u32 lblc_expiration;    /* ticks: an entry unused for so long is forgotten */
	__u32 lblcr_expiration;   /* likewise; after so long without change a set loses one */
	__u32 localities_checked; /* live: tick of the last look for what lblc and lblcr may forget */
	__u32 services_top;       /* no service record from here on was ever used */
	__u32 destinations_top;
	__u32 activated;          /* loading went on to its end: attached, forwarding on */
	__u32 loopback_wanted;    /* bits as above: there is need of it */
	__u32 changing;           /* set while a command changes the table; if none does, one died */
	__u32 ftp_services;       /* how many there are at TCP port 21, */
	__u32 callers;            /* real servers that may begin calls, */
	__u32 any_port_services;  /* and without a port: look-ups ask for them only then */
	__u32 idle_services;      /* how many there are with an idle timeout of their own, */
	__u32 rehoming_services;  /* and whose UDP flows find another real server */
	__s32 sysctl[SYSCTL_COUNT];
	__u32 mark_set;           /* see `struct mark_rule`; 0: no rules */
	__u32 mark_set_changed;   /* tick of its last change */
	__u32 occupied;           /* live: slots in use at the sweeper's last walk over all */
	__u32 drop_counter;       /* live: packets that drop_packet has seen */
	__u32 trash_started;      /* tick at which a real server was removed while none was remembered */
	__u32 trees_made;         /* trees of loads so far, for each to have a number */
	/* The bit OTHER_TABLE: in which of two tables look-ups find services.  Keys of
	 * `service_index` have it in their `family`.  While one table takes the place of
	 * another, both are there; services that differ have a second record then, at
	 * `limits.services` and more, that only the new table leads to. */
	__u32 table;
	struct traffic total_base; /* configuration: what all services had when all were zeroed last */
};

/* Events that nobody else counts. */
struct events {
	__u64 table_full;         /* a new connection that needs a slot found none: dropped */
	__u64 no_destination;     /* no real server could be chosen: dropped */
	__u64 unavailable;        /* the connection's real server was removed: dropped */
	__u64 unroutable;         /* no way to the real server: dropped */
	__u64 ttl_exceeded;       /* TTL or hop limit used up: dropped */
	__u64 too_big;            /* over the MTU to the real server: dropped, the client told */
	__u64 expired;            /* connections that timed out */
	__u64 xdp_forwarded;      /* packets finished at XDP */
	__u64 forwarded;          /* packets finished at TC */
	__u64 no_call_id;         /* began a connection of a service that goes by Call-ID, and has none: dropped */
	__u64 defended;           /* drop_packet: a packet that would have begun a connection: dropped */
	__u64 strays;             /* nat_icmp_send: a real server's, of no connection: dropped, it is told */
	__u64 unchecked;          /* of several segments, so without the tunnel's checksum, or with one for most */
	__u64 stateless;          /* went by hash, without an entry, because the table is full or was */
	__u64 evicted;            /* half-open connections that made room in a full table */
};

#define SIZE_IS(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has changed size")
SIZE_IS(struct flow, 40);
SIZE_IS(struct connection, CACHE_LINE);
SIZE_IS(struct service, 2 * CACHE_LINE);
SIZE_IS(struct destination, 3 * CACHE_LINE);
SIZE_IS(struct load_block, CACHE_LINE);
SIZE_IS(struct traffic, 40);
SIZE_IS(struct estimate, 88);
SIZE_IS(struct call_id, 256);
SIZE_IS(struct mark_rule, 2 * CACHE_LINE);
_Static_assert(sizeof(struct events) <= EVENTS_ROOM, "no room for so many events");

#endif
