# SPDX-License-Identifier: GPL-2.0-only
"""Rules written with nft(8), in the words of iptables-save (`rule.Rule`), so that one judge asks both kinds.

Read from ``nft -j list ruleset`` (libnftables-json(5)): chains of the types filter
and route, of the families ip, ip6 and inet.  A packet
passes each such base chain by itself and any may drop it, so each comes with
the chains of its table as a firewall of its own.  What a rule asks beyond
addresses, protocol, ports, interface, ICMP types and states of connections is
marked as not understood, and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from xlvs.doctor.rule import NOT_UNDERSTOOD, Rule

PROGRAM = "nft"
_FAMILIES = {"ip": 4, "ip6": 6, "inet": 0}
_VERDICTS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT", "return": "RETURN"}
_WITHOUT_EFFECT = ("counter", "log", "mangle", "notrack")
"""Statements that neither choose packets nor end a packet's way."""
_ADDRESSES = {"saddr": "-s", "daddr": "-d"}
_PORTS = {"sport": "--sport", "dport": "--dport"}
_TYPES = ("filter", "route")
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_TRANSPORTS = ("tcp", "udp", "sctp")
_CHANGING = ("dynamic", "timeout")
_FRAGMENTATION_NEEDED = ("frag-needed", 4)
_UNREACHABLE = ("destination-unreachable", 3)


class _Strange(Exception):
    """An expression that is not understood."""


def parse(
    ruleset: str,
    listing: str = "",
    *,
    without: frozenset[tuple[str, str]] = frozenset(),
    families: tuple[str, ...] = ("inet", "ip"),
) -> tuple[Rule, ...]:
    """The rules of ``nft -j list ruleset``.

    ``listing`` is what ``nft -a list ruleset`` prints: the rules' own text.
    ``without`` names tables by (family, name) that iptables has made and prints itself;
    of other ``families`` than those nothing is said.
    Raises `ValueError` for what is no such document.
    """
    document = json.loads(ruleset)
    entries = document.get("nftables", []) if isinstance(document, dict) else []
    texts = _texts(listing)
    chains: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rules: dict[tuple[str, str], list[dict[str, Any]]] = {}
    sets: dict[tuple[str, str, str], Any] = {}
    for entry in entries:
        for kind, found in entry.items():
            if kind == "chain":
                chains.setdefault((found["family"], found["table"]), []).append(found)
            elif kind == "rule":
                rules.setdefault((found["family"], found["table"]), []).append(found)
            elif kind == "set" and not set(found.get("flags", ())) & set(_CHANGING):
                sets[found["family"], found["table"], found["name"]] = {"set": found.get("elem", [])}
    made: list[Rule] = []
    for table, its_chains in chains.items():
        if table in without or table[0] not in families:
            continue
        for base in its_chains:
            if base.get("type") not in _TYPES or base.get("hook") not in _HOOKS:
                continue
            made += _firewall(table, base, rules.get(table, []), sets, texts)
    return tuple(made)


def _firewall(
    table: tuple[str, str],
    base: dict[str, Any],
    rules: Iterable[dict[str, Any]],
    sets: dict[tuple[str, str, str], Any],
    texts: dict[tuple[str, str, int], str],
) -> Iterator[Rule]:
    """One base chain and all that it may jump to; a chain of the table is ``@NAME``, the base its hook."""
    place = " ".join((*table, base["name"]))
    hook = base["hook"].upper()
    for raw in rules:
        chain = hook if raw["chain"] == base["name"] else f"@{raw['chain']}"
        words, target = _translated(table, raw.get("expr", []), sets)
        text = texts.get((*table, raw["handle"]), f"rule with handle {raw['handle']}")
        yield Rule(
            PROGRAM, "filter", chain, (*words, "-j", target), target, place=place,
            shown=f"{table[0]} {table[1]} {raw['chain']} {text}", mark=_mark(raw.get("expr", [])),
        )  # fmt: skip
    policy = base.get("policy", "accept").upper()
    version = _FAMILIES[table[0]]
    asks = ("--family", f"ipv{version}") if version else ()
    yield Rule(
        PROGRAM, "filter", hook, asks, policy, policy=True, place=place,
        shown=f"{place}: policy {policy.lower()}",
    )  # fmt: skip


def _mark(expressions: list[dict[str, Any]]) -> int:
    """The firewall mark that a rule gives; 0 where it gives none, or not the same to all."""
    for expression in expressions:
        change = expression.get("mangle", {})
        if change.get("key") == {"meta": {"key": "mark"}} and isinstance(change.get("value"), int):
            return int(change["value"])
    return 0


def _translated(
    table: tuple[str, str], expressions: list[dict[str, Any]], sets: dict[tuple[str, str, str], Any]
) -> tuple[tuple[str, ...], str]:
    """The matches of a rule in iptables' words, and its target (empty: none)."""
    words: list[str] = []
    version = _FAMILIES[table[0]]
    if version:
        words += ["--family", f"ipv{version}"]
    icmp: dict[str, Any] = {}
    for expression in expressions:
        kind, content = next(iter(expression.items()))
        if kind in _VERDICTS:
            return (*words, *_icmp_words(icmp)), _VERDICTS[kind]
        if kind in ("jump", "goto"):
            return (*words, *_icmp_words(icmp)), f"@{content['target']}"
        if kind == "match":
            try:
                words += _match(table, content, sets, icmp)
            except (_Strange, KeyError, TypeError, AttributeError):
                words += ["-m", NOT_UNDERSTOOD]
        elif kind == "limit":
            words += ["-m", "limit"]
        elif kind not in _WITHOUT_EFFECT:
            # What ends a packet's way by other words (vmap, queue) may let it pass.
            return (*words, "-m", NOT_UNDERSTOOD), "?"
    return (*words, *_icmp_words(icmp)), ""


def _match(
    table: tuple[str, str],
    content: dict[str, Any],
    sets: dict[tuple[str, str, str], Any],
    icmp: dict[str, Any],
) -> list[str]:
    left, right = content["left"], content["right"]
    if content["op"] not in ("==", "!=", "in"):
        raise _Strange
    if isinstance(right, str) and right.startswith("@"):
        right = sets[(*table, right[1:])]
    negation = ["!"] if content["op"] == "!=" else []
    ((kind, asked),) = left.items()
    if kind == "ct" and asked["key"] == "state" and not asked.get("dir"):
        return [*negation, "--ctstate", ",".join(str(each).upper() for each in _values(right))]
    if content["op"] == "in":
        raise _Strange  # bits: flags of TCP
    if kind == "meta":
        return _meta(asked["key"], right, negation)
    if kind != "payload":
        raise _Strange
    protocol, field = asked["protocol"], asked["field"]
    if protocol in ("ip", "ip6"):
        family = ["--family", "ipv4" if protocol == "ip" else "ipv6"]
        if field in _ADDRESSES:
            return [*family, *negation, _ADDRESSES[field], ",".join(map(_address, _values(right)))]
        if field in ("protocol", "nexthdr"):
            return [*family, *negation, "-p", _protocols(right)]
    elif field in _PORTS and protocol in (*_TRANSPORTS, "th"):
        own = [] if protocol == "th" else ["-p", protocol]
        return [*own, *negation, _PORTS[field], ",".join(map(_port, _values(right)))]
    elif protocol in ("icmp", "icmpv6") and field in ("type", "code") and not negation:
        values = _values(right)
        if field == "type" and protocol == "icmpv6" and all(isinstance(each, str | int) for each in values):
            return ["--family", "ipv6", "-p", "icmpv6", "--icmpv6-type", ",".join(map(str, values))]
        if protocol == "icmpv6" or not isinstance(right, str | int):
            raise _Strange
        icmp[field] = right
        return ["--family", "ipv4", "-p", "icmp"]
    raise _Strange


def _meta(key: str, right: Any, negation: list[str]) -> list[str]:
    if key == "l4proto":
        return [*negation, "-p", _protocols(right)]
    if key in ("nfproto", "protocol") and right in ("ipv4", "ipv6", "ip", "ip6"):
        return [*negation, "--family", {"ip": "ipv4", "ip6": "ipv6"}.get(right, right)]
    if key in ("iifname", "iif", "oifname", "oif") and isinstance(right, str):
        option = "-i" if key.startswith("i") else "-o"
        return [*negation, option, f"{right[:-1]}+" if right.endswith("*") else right]
    raise _Strange


def _icmp_words(icmp: dict[str, Any]) -> tuple[str, ...]:
    """Type and code, which nft asks by two matches, as iptables' one."""
    if not icmp:
        return ()
    kind, code = icmp.get("type"), icmp.get("code")
    if kind in _UNREACHABLE and code in _FRAGMENTATION_NEEDED:
        return ("--icmp-type", "3/4")
    if kind is None or code is not None:
        return ("-m", NOT_UNDERSTOOD)
    return ("--icmp-type", "3" if kind in _UNREACHABLE else str(kind))


def _values(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    found = right if isinstance(right, list) else [right]
    return [each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each for each in found]


def _address(value: Any) -> str:
    if isinstance(value, dict):
        prefix = value["prefix"]
        return f"{prefix['addr']}/{prefix['len']}"
    if not isinstance(value, str):
        raise _Strange
    return value


def _port(value: Any) -> str:
    if isinstance(value, dict):
        first, last = value["range"]
        return f"{int(first)}:{int(last)}"
    if not isinstance(value, int):
        raise _Strange
    return str(value)


def _protocols(right: Any) -> str:
    values = _values(right)
    if not all(isinstance(each, str | int) for each in values):
        raise _Strange
    return ",".join(map(str, values))


def _texts(listing: str) -> dict[tuple[str, str, int], str]:
    """The text of each rule by (family, table, handle)."""
    found: dict[tuple[str, str, int], str] = {}
    table = ("", "")
    for line in listing.splitlines():
        if line.startswith("table "):
            _, family, name = line.split()[:3]
            table = (family, name)
            continue
        text, mark, handle = line.strip().rpartition(" # handle ")
        if mark and handle.isdecimal() and not text.endswith("{"):
            found[(*table, int(handle))] = text
    return found
