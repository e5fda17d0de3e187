# SPDX-License-Identifier: GPL-2.0-only
"""Netfilter rules in the words of iptables-save, and what becomes of a packet by them.

Only what the common matches say is understood (addresses, protocol, ports,
interfaces, ICMP types, connection states of new packets); a rule with any
other match counts as one that may not match, and decides nothing.  Rules of
nft(8) are put into these words by `xlvs.doctor.nftables`.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from struct import Struct

Run = Callable[[list[str]], str | None]

INET, IPV4, ARP, NETDEV, IPV6 = 1, 2, 3, 5, 10
"""Families of nftables."""
NOT_UNDERSTOOD = "nft"
"""Behind ``-m`` in a rule's words: what nft asks there is not understood."""
Tables = frozenset[tuple[int, str]]
"""Tables of nftables by family and name."""
_NETLINK_NETFILTER = 12
_GET_TABLE = 10 << 8 | 1
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_HEADER = Struct("=IHHII")
_GENERIC = Struct("=BBH")
_ATTRIBUTE = Struct("=HH")
_NFTA_TABLE_NAME = 1

DROPS = ("DROP", "REJECT")
_ENDS = (*DROPS, "ACCEPT")
_PROTOCOLS = {
    "6": "tcp", "17": "udp", "132": "sctp", "1": "icmp", "112": "vrrp", "47": "gre",
    "4": "ipencap", "ipip": "ipencap", "ipv4": "ipencap", "41": "ipv6",
    "58": "icmpv6", "ipv6-icmp": "icmpv6",
}  # fmt: skip
_ICMP_TYPES = {
    "destination-unreachable": "3", "fragmentation-needed": "3/4", "packet-too-big": "2",
    "neighbour-solicitation": "135", "neighbor-solicitation": "135", "nd-neighbor-solicit": "135",
    "neighbour-advertisement": "136", "neighbor-advertisement": "136", "nd-neighbor-advert": "136",
}  # fmt: skip
_WAYS = {
    "INPUT": ("PREROUTING", "INPUT"),
    "FORWARD": ("PREROUTING", "FORWARD", "POSTROUTING"),
    "OUTPUT": ("OUTPUT", "POSTROUTING"),
}
"""The hooks that a packet passes which is for the host, for others, or of the host."""
_NO_FILTERS = ("nat",)
"""Tables that see the first packet of a connection only, to translate it."""
_PROGRAMS = (
    ("tables-nft-save", ""),
    ("tables-legacy-save", "/proc/thread-self/net/{}_tables_names"),
    ("tables-save", ""),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its table, chain and words.  A chain's policy is a rule without matches, the last one.

    ``program`` is the command that made it and can take it away.  Of nft's, ``place`` is the base
    chain by which a packet comes to it (family, table, chain), ``shown`` what nft prints, ``mark``
    the firewall mark that it gives.
    """

    program: str
    table: str
    chain: str
    words: tuple[str, ...]
    target: str
    policy: bool = False
    place: str = ""
    shown: str = ""
    mark: int = 0

    @property
    def understood(self) -> bool:
        """Whether all that the rule asks could be put into words."""
        return NOT_UNDERSTOOD not in self.matches

    def may_see(self, version: int) -> bool:
        """Whether packets of an IP version come to it at all, as far as its program says."""
        if self.place:
            family = self.place.partition(" ")[0]
            return family == "inet" or family == ("ip" if version == 4 else "ip6")
        return self.program.startswith("ip6") == (version == 6)

    @property
    def matches(self) -> tuple[str, ...]:
        """What the rule asks of a packet: its words in front of -j."""
        for option in ("-j", "-g"):
            if option in self.words:
                return self.words[: self.words.index(option)]
        return self.words

    @property
    def text(self) -> str:
        """The rule as one types it behind ``iptables``, without -A."""
        return shlex.join((self.chain, *self.words))

    def __str__(self) -> str:
        if self.place:
            return f"{self.program}: {self.shown}"
        if self.policy:
            return f"{self.program} -t {self.table} -P {self.chain} {self.target}"
        return f"{self.program} -t {self.table} -A {self.text}"

    def change(self, option: str) -> str:
        """The command that adds (-A), inserts (-I) or removes (-D) this rule."""
        return f"{self.program} -t {self.table} {option} {self.text}"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that rules are asked about; empty is what nobody knows."""

    protocol: str
    destination: IPv4Address | IPv6Address | None
    port: int = 0
    source: IPv4Address | IPv6Address | None = None
    source_port: int = 0
    interface: str = ""
    """By which it comes."""
    leaves_by: str = ""
    icmp: str = ""
    """Type, or type/code."""
    state: str = ""
    """What connection tracking says of it; where nothing is said NEW, of an ICMP error RELATED."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The rule that drops a packet, and the hook at which it came to it: INPUT, PREROUTING, …"""

    rule: Rule
    hook: str

    def __str__(self) -> str:
        return f"{self.hook}: {self.rule}"


@dataclass(slots=True)
class _Walk:
    rules: tuple[Rule, ...]
    packet: Packet
    seen: set[str] = field(default_factory=set)


def tables() -> Tables:
    """The tables that nftables has here, by family (kernel: ``NFPROTO_*``); empty where it has none.

    iptables-nft keeps its rules in tables of `IPV4`, so without one there are none.
    """
    found: set[tuple[int, str]] = set()
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
        link.bind((0, 0))
        body = _GENERIC.pack(0, 0, 0)
        link.send(_HEADER.pack(_HEADER.size + len(body), _GET_TABLE, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data, offset = link.recv(1 << 16), 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
                if kind in (_DONE, _ERROR) or length < _HEADER.size:
                    return frozenset(found)
                attributes = offset + _HEADER.size + _GENERIC.size
                found.add((data[offset + _HEADER.size], _name(data[attributes : offset + length])))
                offset += (length + 3) & ~3
    return frozenset(found)


def _name(attributes: bytes) -> str:
    """A table's name among its attributes."""
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _NFTA_TABLE_NAME:
            return attributes[_ATTRIBUTE.size : length].rstrip(b"\0").decode(errors="replace")
        attributes = attributes[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
    return ""


def observe_both(run: Run, there: Tables) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules for IPv4 and those for IPv6, each command run once; see `observe`."""
    printed: dict[tuple[str, ...], str | None] = {}

    def once(command: list[str]) -> str | None:
        words = tuple(command)
        if words not in printed:
            printed[words] = run(command)
        return printed[words]

    return observe(once, there, IPV4), observe(once, there, IPV6)


def observe(run: Run, there: Tables, family: int = IPV4) -> tuple[Rule, ...]:
    """Every rule for an address family here, of both kinds of iptables and of nft; ``there``: `tables`.

    ``family`` is `IPV4` or `IPV6`.  ``run`` gives what a command prints, None where it fails.
    """
    word = "ip" if family == IPV4 else "ip6"
    found: tuple[Rule, ...] = ()
    for ending, needs in _PROGRAMS:
        program = f"{word}{ending}"
        if ending == "tables-nft-save" and not any(each == family for each, _ in there):
            continue
        if needs:
            try:
                with open(needs.format(word)) as names:
                    if not names.read().strip():
                        continue
            except OSError:
                continue
        if ending == "tables-save" and (found or _has(f"{word}tables-nft-save")):
            continue
        text = run([program])
        with suppress(ValueError):  # a quotation that shlex does not understand
            found += parse(text or "", program.removesuffix("-save"))
    return found + observe_nft(run, there, found, family)


def observe_nft(
    run: Run, there: Tables, of_iptables: tuple[Rule, ...], family: int = IPV4
) -> tuple[Rule, ...]:
    """The rules that nft has made for an address family (`IPV4`, `IPV6`), but not those of iptables."""
    from xlvs.doctor import nftables

    word = "ip" if family == IPV4 else "ip6"
    taken = {rule.table for rule in of_iptables if "legacy" not in rule.program}
    if not any(each == INET or (each == family and name not in taken) for each, name in there):
        return ()
    ruleset = run(["nft", "-j", "list", "ruleset"])
    if not ruleset:
        return ()
    without = frozenset((word, name) for name in taken)
    try:
        listing = run(["nft", "-a", "list", "ruleset"]) or ""
        return nftables.parse(ruleset, listing, without=without, families=("inet", word))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()  # a version of nft that says it otherwise


def parse(text: str, program: str) -> tuple[Rule, ...]:
    """The rules that ``PROGRAM-save`` printed."""
    found: list[Rule] = []
    policies: list[Rule] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            chain, target = line[1:].split()[:2]
            if target != "-":
                policies.append(Rule(program, table, chain, (), target, policy=True))
        elif line.startswith("-A "):
            _, chain, *words = shlex.split(line)
            target = next(
                (words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-j", "-g")), ""
            )
            found.append(Rule(program, table, chain, tuple(words), target))
    return tuple(found + policies)


def fate(rules: tuple[Rule, ...], chain: str, packet: Packet) -> Drop | None:
    """The rule that drops or rejects such a packet on its way to INPUT, FORWARD or OUTPUT.

    None where none surely does.
    Each kind of iptables, each of its tables, and each base chain of nft, is asked by itself: any may drop.
    """
    for hook in _WAYS[chain]:
        for firewall in dict.fromkeys((rule.program, rule.table, rule.place) for rule in rules):
            if firewall[1] in _NO_FILTERS:
                continue
            here = tuple(rule for rule in rules if (rule.program, rule.table, rule.place) == firewall)
            try:
                decided = _ask(_Walk(here, packet), hook)
            except _Undecided:
                continue
            if decided is not None and decided.target in DROPS:
                return Drop(decided, hook)
    return None


def keeps_out(rule: Rule, protocol: str, address: IPv4Address | IPv6Address, port: int) -> bool:
    """Whether a rule of INPUT speaks of clients of such a service, and drops or rejects their packets.

    What has other matches besides (a limit, a set) counts: some of them it keeps out.
    """
    if rule.policy or rule.table != "filter" or rule.chain != "INPUT" or rule.target not in DROPS:
        return False
    if not rule.understood or not {"-d", "--dport", "--dports", "-s"} & set(rule.matches):
        return False  # of everything: the usual last rule, for the director's own ports
    sources = [rule.matches[place + 1] for place, word in enumerate(rule.matches[:-1]) if word == "-s"]
    client = None
    with suppress(ValueError):
        client = ip_address(sources[0].split(",")[0].partition("/")[0]) if sources else None
    return covers(rule, Packet(protocol, address, port, source=client)) is not False


class _Undecided(Exception):
    """Nobody can say what becomes of the packet."""


def _ask(walk: _Walk, chain: str) -> Rule | None:
    if chain in walk.seen:
        return None
    walk.seen.add(chain)
    chains = {rule.chain for rule in walk.rules}
    policy = None
    for rule in walk.rules:
        if rule.chain != chain:
            continue
        if rule.policy:
            policy = rule
            continue
        verdict = covers(rule, walk.packet)
        if verdict is None and rule.target not in (*DROPS, "LOG", "MARK", ""):
            raise _Undecided  # it may let the packet pass
        if not verdict:
            continue
        if rule.target in _ENDS:
            return rule
        if rule.target == "RETURN":
            break
        if rule.target in chains:
            decided = _ask(walk, rule.target)
            if decided is not None:
                return decided
    return policy if policy is not None and covers(policy, walk.packet) else None


def covers(rule: Rule, packet: Packet) -> bool | None:
    """Whether a rule matches a new packet; None where that cannot be said."""
    words = list(rule.matches)
    negated = unknown = False
    while words:
        word = words.pop(0)
        if word == "!":
            negated = True
            continue
        if word == "-m" and words and words[0] in _IMPLIED:
            words.pop(0)
            continue
        judge = _JUDGES.get(word)
        if judge is None or not words:
            return None
        verdict = judge(words.pop(0), packet)
        if verdict is None:
            unknown = True  # what comes behind may say no all the same
        elif verdict == negated:
            return False
        negated = False
    return None if unknown else True


_IMPLIED = (
    "tcp", "udp", "icmp", "icmp6", "multiport", "conntrack", "state", "comment", "sctp",
)  # fmt: skip


def _within(text: str, address: IPv4Address | IPv6Address | None) -> bool | None:
    if address is None:
        return None
    try:
        return any(address in ip_network(each, strict=False) for each in text.split(","))
    except ValueError:
        return None  # a mask with holes


def _protocol(text: str, packet: Packet) -> bool:
    return text == "all" or packet.protocol in [_PROTOCOLS.get(each, each) for each in text.split(",")]


def _family(text: str, packet: Packet) -> bool | None:
    address = packet.destination or packet.source
    if address is None:
        return text == ("ipv6" if packet.protocol == "icmpv6" else "ipv4")
    return text == f"ipv{address.version}"


def _interface(text: str, name: str) -> bool | None:
    if not name:
        return False if text == "lo" else None  # whoever is asked about comes from another host
    if text.endswith("+"):
        return name.startswith(text[:-1])
    return name == text


def _ports(text: str, port: int) -> bool | None:
    if not port:
        return None
    for part in text.split(","):
        first, _, last = part.partition(":")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return None
        if int(first) <= port <= int(last or first):
            return True
    return False


def _icmp(text: str, packet: Packet) -> bool | None:
    if text == "any":
        return True
    if not packet.icmp:
        return None
    asked = [_ICMP_TYPES.get(each, each) for each in text.split(",")]
    return any(packet.icmp == each or packet.icmp.startswith(f"{each}/") for each in asked)


def _states(text: str, packet: Packet) -> bool:
    return (packet.state or ("RELATED" if packet.icmp else "NEW")) in text.split(",")


_JUDGES: dict[str, Callable[[str, Packet], bool | None]] = {
    "-s": lambda text, packet: _within(text, packet.source),
    "-d": lambda text, packet: _within(text, packet.destination),
    "-p": _protocol,
    "--family": _family,
    "-i": lambda text, packet: _interface(text, packet.interface),
    "-o": lambda text, packet: _interface(text, packet.leaves_by),
    "--dport": lambda text, packet: _ports(text, packet.port),
    "--dports": lambda text, packet: _ports(text, packet.port),
    "--sport": lambda text, packet: _ports(text, packet.source_port),
    "--sports": lambda text, packet: _ports(text, packet.source_port),
    "--icmp-type": _icmp,
    "--icmpv6-type": _icmp,
    "--ctstate": _states,
    "--state": _states,
    "--comment": lambda _text, _packet: True,
}


def _has(program: str) -> bool:
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in folders)
