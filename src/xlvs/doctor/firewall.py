# SPDX-License-Identifier: GPL-2.0-only
"""Netfilter rules as iptables-save prints them, and what becomes of a packet by them.

Only what the common matches say is understood (addresses, protocol, ports,
interfaces, ICMP types, connection states of new packets); a rule with any
other match counts as one that may not match, and decides nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

Run = Callable[[list[str]], str | None]

DROPS = ("DROP", "REJECT")
_ENDS = (*DROPS, "ACCEPT")
_PROTOCOLS = {"6": "tcp", "17": "udp", "132": "sctp", "1": "icmp", "112": "vrrp"}
_ICMP_TYPES = {"destination-unreachable": "3", "fragmentation-needed": "3/4"}
_PROGRAMS = (
    ("iptables-nft-save", ""),
    ("iptables-legacy-save", "/proc/thread-self/net/ip_tables_names"),
    ("iptables-save", ""),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its table, chain and words.  A chain's policy is a rule without matches, the last one.

    ``program`` is the command that made it and can take it away.
    """

    program: str
    table: str
    chain: str
    words: tuple[str, ...]
    target: str
    policy: bool = False

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
    destination: IPv4Address | None
    port: int = 0
    source: IPv4Address | None = None
    source_port: int = 0
    interface: str = ""
    icmp: str = ""
    """Type, or type/code."""
    state: str = "NEW"
    """What connection tracking says of it; an ICMP error is RELATED."""


@dataclass(slots=True)
class _Walk:
    rules: tuple[Rule, ...]
    packet: Packet
    seen: set[str] = field(default_factory=set)


def observe(run: Run) -> tuple[Rule, ...]:
    """Every rule of IPv4 here, of both kinds of iptables where both are used."""
    found: tuple[Rule, ...] = ()
    for program, needs in _PROGRAMS:
        if needs:
            try:
                with open(needs) as names:
                    if not names.read().strip():
                        continue
            except OSError:
                continue
        if program == "iptables-save" and (found or _has("iptables-nft-save")):
            continue
        text = run([program])
        with suppress(ValueError):  # a quotation that shlex does not understand
            found += parse(text or "", program.removesuffix("-save"))
    return found


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


def fate(rules: tuple[Rule, ...], chain: str, packet: Packet) -> Rule | None:
    """The rule of the filter table that drops or rejects such a packet; None if none surely does.

    Tables of one kind of iptables are asked by themselves: each may drop.
    """
    for program in dict.fromkeys(rule.program for rule in rules):
        here = tuple(rule for rule in rules if rule.program == program and rule.table == "filter")
        try:
            decided = _ask(_Walk(here, packet), chain)
        except _Undecided:
            continue
        if decided is not None and decided.target in DROPS:
            return decided
    return None


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
    return policy


def covers(rule: Rule, packet: Packet) -> bool | None:
    """Whether a rule matches a new packet; None where that cannot be said."""
    words = list(rule.matches)
    negated = False
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
            return None
        if verdict == negated:
            return False
        negated = False
    return True


_IMPLIED = (
    "tcp", "udp", "icmp", "multiport", "conntrack", "state", "comment", "sctp",
)  # fmt: skip


def _within(text: str, address: IPv4Address | IPv6Address | None) -> bool | None:
    if address is None:
        return None
    try:
        return address in ip_network(text, strict=False)
    except ValueError:
        return None  # a mask with holes


def _protocol(text: str, packet: Packet) -> bool:
    return text == "all" or _PROTOCOLS.get(text, text) == packet.protocol


def _interface(text: str, packet: Packet) -> bool | None:
    if not packet.interface:
        return None
    if text.endswith("+"):
        return packet.interface.startswith(text[:-1])
    return packet.interface == text


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
    asked = _ICMP_TYPES.get(text, text)
    return packet.icmp == asked or packet.icmp.startswith(f"{asked}/") if packet.icmp else None


def _states(text: str, packet: Packet) -> bool:
    return ("RELATED" if packet.icmp else packet.state) in text.split(",")


_JUDGES: dict[str, Callable[[str, Packet], bool | None]] = {
    "-s": lambda text, packet: _within(text, packet.source),
    "-d": lambda text, packet: _within(text, packet.destination),
    "-p": _protocol,
    "-i": _interface,
    "--dport": lambda text, packet: _ports(text, packet.port),
    "--dports": lambda text, packet: _ports(text, packet.port),
    "--sport": lambda text, packet: _ports(text, packet.source_port),
    "--sports": lambda text, packet: _ports(text, packet.source_port),
    "--icmp-type": _icmp,
    "--ctstate": _states,
    "--state": _states,
    "--comment": lambda _text, _packet: True,
}


def _has(program: str) -> bool:
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in folders)
