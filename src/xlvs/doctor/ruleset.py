# SPDX-License-Identifier: GPL-2.0-only
"""Reading netfilter's rules: what iptables-save prints of either kind, and what nft lists."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable
from contextlib import suppress
from struct import Struct

from xlvs.doctor import nftables
from xlvs.doctor.rule import Rule

Run = Callable[[list[str]], str | None]

INET, IPV4, ARP, NETDEV, IPV6 = 1, 2, 3, 5, 10
"""Families of nftables."""
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
_PROGRAMS = (
    ("tables-nft-save", ""),
    ("tables-legacy-save", "/proc/thread-self/net/{}_tables_names"),
    ("tables-save", ""),
)


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


def _has(program: str) -> bool:
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in folders)
