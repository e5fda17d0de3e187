# SPDX-License-Identifier: GPL-2.0-only
"""The man pages' words that no table or parser has."""

from __future__ import annotations

XLVS = """\
The Linux Virtual Server: a director holds a virtual address and spreads its
connections over real servers. The packet path is in the kernel, as eBPF
programs; its table is filled by xlvsadm(8), which takes ipvsadm's commands.
Traffic, scheduling and expiry go on with no process alive.

Everything is of one network namespace: the one that a command runs in."""

FILES = {
    "/run/xlvs": "What is loaded, by network namespace; for root only.",
    "/var/lib/xlvs/table": "The table that comes back at boot: xlvs-save(8), xlvs-load(8).",
    "/etc/default/xlvs": "XLVS_LOAD: more words for xlvs load in the service of systemd.",
}

RELATED = {
    "attach": ["xlvs-detach(8)", "xlvs-status(8)"],
    "detach": ["xlvs-attach(8)", "xlvs-save(8)"],
    "save": ["xlvs-load(8)", "xlvs-run(8)", "xlvsadm-save(8)"],
    "load": ["xlvs-save(8)", "xlvs-run(8)", "xlvs-attach(8)", "xlvsadm-restore(8)"],
    "run": ["xlvs-save(8)", "xlvs-load(8)"],
}
"""By noun: the pages to go on with; xlvsadm(8) for others."""

XLVSADM = """\
Sets up, maintains and inspects the table of virtual services of this network
namespace, by the command line, the output and the exit statuses of ipvsadm
1.31. The first -A loads the packet path into the kernel and attaches it to
every Ethernet interface that is up; xlvs-attach(8) does that by hand.

A virtual service is a protocol, an address and a port, or a firewall mark. A
connection to it goes to one of its real servers, which the service's scheduler
chooses, by a forwarding method: Direct Routing, tunnelling or NAT.

Options are read as popt reads them: letters can be written as one word (-At),
a value may touch its letter or follow =, and long options are not shortened.
The command comes first. Without any argument the table is listed."""

COMMANDS = "Exactly one of these, and first."

VALUES = {
    "set": "tcp tcpfin udp",
    "start-daemon": "master|backup",
    "stop-daemon": "master|backup",
    "tcp-service": "host[:port]",
    "udp-service": "host[:port]",
    "sctp-service": "host[:port]",
    "fwmark-service": "mark",
    "persistent": "seconds",
    "real-server": "host[:port]",
    "u-threshold": "number",
    "l-threshold": "number",
    "mcast-interface": "interface",
    "mcast-group": "address",
    "mcast-port": "port",
    "mcast-ttl": "ttl",
    "sync-maxlen": "length",
    "syncid": "number",
    "pe": "engine",
    "sched-flags": "flags",
    "tun-type": "type",
    "tun-port": "port",
    "idle-timeout": "seconds",
    "only-service": "service",
    "only-server": "host[:port]",
    "only-client": "host[/length][:port]",
}
"""What stands for an option's value, where it is not called like the option."""

EXTENSIONS = (
    "atomic", "extended", "idle-timeout", "reject-gone", "rehome", "json", "only-service", "only-server",
    "only-client",
)  # fmt: skip
EXTENSIONS_TEXT = "These options are not ipvsadm's. They are long, and none of ipvsadm's begins like them."

OPTIONS = {
    "add-service": "Add a virtual service.",
    "edit-service": "Change a virtual service; what is not said gets its default.",
    "delete-service": "Delete a virtual service and its real servers.",
    "clear": "Delete every virtual service.",
    "list": "List the table, or one service, or with -c, --timeout or --daemon what these say.",
    "zero": "Let the counters of a service, or of all, begin at 0.",
    "add-server": "Add a real server to a virtual service.",
    "edit-server": "Change a real server; what is not said gets its default. Weight 0: it gets no\n"
    "new connections, and keeps those that it has.",
    "delete-server": "Delete a real server from a virtual service.",
    "set": "Change the timeouts of TCP connections, of those after a FIN, and of UDP, in\n"
    "seconds; 0 leaves one as it is.",
    "help": "Print a summary; with --extended, examples too.",
    "version": "Print the version of ipvsadm that this is equal to.",
    "restore": "Carry out commands from standard input, a line each.",
    "save": "Print the table as commands that restore it; with -n in numbers.",
    "start-daemon": "Start a connection synchronisation daemon. xlvs has none.",
    "stop-daemon": "Stop one.",
    "tcp-service": "A service of TCP. Port 0, or none, is every port of a persistent service. An IPv6\n"
    "address with a port stands in brackets.",
    "udp-service": "A service of UDP.",
    "sctp-service": "A service of SCTP.",
    "fwmark-service": "A service of what has a firewall mark, 1 to 4294967295: see xlvs-mark(8).",
    "scheduler": "How a real server is chosen: rr, wrr, lc, wlc (the default), lblc, lblcr, dh, sh, sed,\n"
    "nq, fo, ovf, mh.",
    "persistent": "A client's connections go to the real server of its last one, for so long after\n"
    "that; 360 seconds where no number is given.",
    "netmask": "Clients of the same network count as one: a mask such as 255.255.255.0, for IPv6 a\n"
    "prefix length. It comes after the service.",
    "real-server": "The real server. Under Direct Routing and tunnelling its port is the service's.",
    "masquerading": "NAT: addresses and ports are translated, both ways.",
    "ipip": "Tunnelling: packets go inside others to the real server; see --tun-type.",
    "gatewaying": "Direct Routing, the default: packets go as they are to the real server's MAC address.",
    "weight": "The real server's capacity beside others, 0 to 2147483647; 1 is the default.",
    "u-threshold": "No new connections from so many on; 0 is no bound.",
    "l-threshold": "New ones again below so many; 0 is three quarters of the upper bound.",
    "numeric": "Addresses and ports as numbers, without asking for names.",
    "connection": "List connections.",
    "mcast-interface": "Of a synchronisation daemon: the interface.",
    "syncid": "Of a synchronisation daemon: which it belongs to.",
    "timeout": "List the three timeouts of --set.",
    "daemon": "List synchronisation daemons.",
    "stats": "List counters: connections, packets and bytes. What passes from real servers to\n"
    "clients is seen under NAT only.",
    "rate": "List rates a second, as estimated over the last seconds.",
    "thresholds": "List the bounds of -x and -y.",
    "persistent-conn": "List how many persistence templates there are.",
    "nosort": "List in the order of the table.",
    "sort": "Does nothing; listings are sorted.",
    "exact": "Do not shorten large numbers.",
    "ipv6": "After -f: the mark of IPv6 packets.",
    "ops": "Schedule every packet by itself: UDP and firewall marks only.",
    "pe": "The persistence engine.",
    "sched-flags": "Of sh: sh-fallback, sh-port. Of mh: mh-fallback, mh-port. With commas between.",
    "mcast-group": "Of a synchronisation daemon: the multicast group.",
    "mcast-port": "Of a synchronisation daemon: the UDP port.",
    "mcast-ttl": "Of a synchronisation daemon: the TTL.",
    "sync-maxlen": "Of a synchronisation daemon: the longest message.",
    "tun-info": "List how tunnels wrap.",
    "tun-type": "The tunnel: ipip (the default), gue or gre.",
    "tun-port": "Of a gue tunnel: the real server's UDP port.",
    "tun-nocsum": "Of gue and gre: no checksum, the default.",
    "tun-csum": "Of gue and gre: with a checksum.",
    "tun-remcsum": "Of gue: with remote checksum offload.",
    "atomic": "With -R: all lines are carried out, or none.",
    "extended": "What ipvsadm does plainly wrong is mended: -S saves thresholds and timeouts, -R is\n"
    "atomic, -L sorts by all bits of a number.",
    "idle-timeout": "Of a service: an established connection, or a UDP flow, is forgotten after so many\n"
    "seconds without a packet. --set says it for all others.",
    "reject-gone": "Of a service: whoever still sends to a real server that was removed is told, by a TCP\n"
    "reset or an ICMP error, and can connect anew.",
    "rehome": "Of a service: UDP flows leave a real server that was removed or has weight 0 at once.",
    "json": "With -L: print one JSON object, described in docs/json.md.",
    "only-service": "With -Lc: connections to a virtual address only, [tcp:|udp:|sctp:]ADDRESS[:PORT], or\n"
    "of a mark's service, fwm:MARK.",
    "only-server": "With -Lc: connections of a real server only.",
    "only-client": "With -Lc: connections from a client or a network only.",
}
"""By long option: what it does.  Every option of the grammar is here; a test sees to it."""

STATUSES = {
    "0": "Done.",
    "1": "What was to be listed is not there.",
    "2": "The command line is wrong, or asks for what xlvs does not have; or the data plane\n"
    "cannot be reached.",
    "255": "The command line does not begin with a command, or has an unknown option; or the table\n"
    "does not allow what was asked.",
}

XLVSADM_EXAMPLES = """\
Two web servers by Direct Routing, the second with twice the capacity:

  xlvsadm -A -t 192.0.2.100:80 -s wlc
  xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.11 -g
  xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.12 -g -w 2

Let the first one drain, and see when it is empty:

  xlvsadm -e -t 192.0.2.100:80 -r 192.0.2.11 -g -w 0
  xlvsadm -Lcn --only-server 192.0.2.11

NAT to another port; a tunnel to another network:

  xlvsadm -a -t 192.0.2.100:443 -r 10.0.0.5:8443 -m
  xlvsadm -a -t 192.0.2.100:443 -r 203.0.113.7 -i --tun-type gue --tun-port 6080

What there is, what it has carried, and who is connected:

  xlvsadm -Ln
  xlvsadm -Ln --stats --exact
  watch -n 1 xlvsadm -Ln --rate
  xlvsadm -L --json | jq .services[].address

Keep a table, and bring it back:

  xlvsadm-save -n >rules
  xlvsadm-restore <rules"""

SCRIPTS = {
    "xlvsadm-save": (
        "save the table of virtual services",
        "xlvsadm-save [-n]",
        """\
Print the table to standard output as commands for xlvsadm-restore(8), as
ipvsadm-save does. With -n addresses and ports are numbers; without it, names.

Thresholds, timeouts and mark rules are not saved, because ipvsadm does not
save them: xlvs-save(8) does.""",
        "  xlvsadm-save -n >/etc/ipvsadm.rules",
    ),
    "xlvsadm-restore": (
        "restore the table of virtual services",
        "xlvsadm-restore <FILE",
        """\
Clear the table, then carry out the commands in standard input, as
ipvsadm-restore does. Lines that begin with # are left out. A line that is wrong
ends it, and leaves the table without what follows; xlvs-load(8) changes
nothing then, and lets connections of what stays live.""",
        "  xlvsadm-restore </etc/ipvsadm.rules",
    ),
}
"""By script: summary, synopsis, description, examples."""
