# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a packet by netfilter's rules, which `xlvs.doctor.ruleset` reads.

Only what the common matches say is understood (addresses, protocol, ports,
interfaces, ICMP types, connection states of new packets); a rule with any
other match counts as one that may not match, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from xlvs.doctor.rule import Rule

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
