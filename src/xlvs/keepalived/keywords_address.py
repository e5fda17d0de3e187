# SPDX-License-Identifier: GPL-2.0-only
"""Lines of addresses, routes and rules: virtual_ipaddress, static_routes and their like.

Routes and rules take iproute2's words.  What is understood here is what
decides over the line: addresses, families, interfaces and tables.  The rest is
kept as it is written, each option with its value.
"""

from __future__ import annotations

import os
import re
from typing import Any

from xlvs.keepalived.addresses import family_of
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.numbers import INT_MAX, UINT_MAX, read_unsigned
from xlvs.keepalived.redundancy import InterfaceAddress, NextHop, Route, Rule
from xlvs.keepalived.statements import Cursor
from xlvs.model import IPV4, IPV6

_SCOPES = {"global": 0, "nowhere": 255, "host": 254, "link": 253, "site": 200}
_MOST_LABEL = 15
_FLAGS = {
    "home": "home", "-nodad": "no_dad", "mngtmpaddr": "manage_temporary",
    "noprefixroute": "no_prefix_route", "autojoin": "auto_join", "no_track": "no_track",
}  # fmt: skip
_ROUTE_KINDS = frozenset(
    ("unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
     "throw", "nat", "xresolve")
)  # fmt: skip
_ROUTE_NUMBERS = {
    "metric": "Invalid metric {} specified for route", "hoplimit": "Invalid hoplimit {} specified for route",
    "window": "Invalid window value {} specified for route",
    "initcwnd": "Invalid initcwnd value {} specified for route",
    "initrwnd": "Invalid initrwnd value {} specified for route",
    "expires": "Invalid expires time {} specified for route",
    "quickack": "Invalid quickack value {} specified for route",
    "fastopen_no_cookie": "Invalid fastopen_no_cookie value {} specified for route",
    "mtu": "Invalid MTU {} specified for route", "advmss": "Invalid advmss {} specified for route",
    "reordering": "Invalid reordering value {} specified for route",
    "cwnd": "Invalid cwnd value {} specified for route",
    "ssthresh": "Invalid ssthresh value {} specified for route",
}  # fmt: skip
_LOCKABLE = frozenset(
    ("mtu", "advmss", "rtt", "rttvar", "reordering", "cwnd", "ssthresh", "rto_min", "congctl")
)
_ROUTE_WORDS = frozenset(
    ("tos", "dsfield", "protocol", "scope", "rtt", "rttvar", "realms", "rto_min", "features", "congctl",
     "pref", "ttl-propagate")
)  # fmt: skip
_LIMITS = {"hoplimit": 255, "quickack": 1, "fastopen_no_cookie": 1}
_TABLES = {"local": "local", "main": "main", "default": "default"}
_ROUTE_PROTOCOLS = frozenset(
    ("redirect", "kernel", "boot", "static", "gated", "ra", "mrt", "zebra", "bird", "dnrouted", "xorp",
     "ntk", "dhcp", "keepalived", "babel", "bgp", "isis", "ospf", "rip", "eigrp", "mrouted")
)  # fmt: skip


class _Unusable(Exception):
    """The line cannot be used; the message says why, and is reported."""


def _address(at: Cursor, text: str, *, prefix: bool) -> tuple[bytes, int]:
    """An address, with a prefix length if ``prefix`` allows one."""
    from xlvs.keepalived.addresses import read_address

    written, slash, length = text.partition("/") if prefix else (text, "", "")
    address = read_address(written) if not set(written) & set("-/") else b""
    if not address:
        at.report(f"VRRP parsed invalid IP {text}. skipping IP...")
        raise _Unusable("")
    bits = 8 * len(address)
    if slash:
        number = read_unsigned(at, length, 0, bits)
        if number is None:
            at.report(f"Invalid address prefix len {length} for address {text} - using {bits}")
        else:
            bits = number
    return address, bits


def known_interface(draft: Draft, at: Cursor, name: str) -> bool:
    """Is that interface there, or may it come later (dynamic_interfaces)?"""
    if name in at.surroundings.interfaces or draft.get("vrrp.dynamic_interfaces"):
        return True
    draft.missing_interface = True
    return False


def read_interface_address(draft: Draft, at: Cursor, *, static: bool) -> InterfaceAddress | None:
    """A line of virtual_ipaddress or static_ipaddress; None, reported, when it cannot be used."""
    try:
        return _interface_address(draft, at, static)
    except _Unusable as error:
        if str(error):
            at.report(str(error))
        return None


def _interface_address(draft: Draft, at: Cursor, static: bool) -> InterfaceAddress:
    first = at.words[0]
    address, bits = _address(at, first, prefix=True)
    fields: dict[str, Any] = {}
    broadcast = ""
    index = 1
    while index < len(at.words):
        word = at.words[index]
        index += 1
        if word in _FLAGS:
            fields[_FLAGS[word]] = True
            continue
        if word == "use_vmac" and not static:
            fields["use_vmac"] = True
            continue
        takes = ("dev", "scope", "broadcast", "brd", "label", "peer", "preferred_lft")
        if word not in takes and not (static and word == "track_group"):
            at.report(f"Unknown configuration entry '{word}' for ip address - ignoring")
            continue
        if index == len(at.words):
            raise _Unusable(f"No {word} parameter specified for {first}")
        value = at.words[index]
        index += 1
        if word == "dev":
            if "interface" in fields:
                raise _Unusable(f"Cannot specify ipaddress device more than once for {first}")
            if not known_interface(draft, at, value):
                raise _Unusable(f"WARNING - interface {value} for ip address {first} doesn't exist")
            fields["interface"] = value
        elif word == "scope":
            if value in _SCOPES or (value.isdigit() and int(value[:4]) < 256):
                fields["scope"] = _SCOPES[value] if value in _SCOPES else int(value)
            else:
                at.report(f"Invalid scope '{value}' specified for {first} - ignoring")
        elif word in ("broadcast", "brd"):
            if len(address) == 16:
                raise _Unusable(
                    f"VRRP is trying to assign a broadcast {value} to the IPv6 address {first}: there is"
                    " no broadcast in IPv6, skipping VIP..."
                )
            broadcast = value
        elif word == "label":
            if len(value) > _MOST_LABEL:
                raise _Unusable(
                    f"Address label {value} is longer than maximum length {_MOST_LABEL} - removing address"
                )
            fields["label"] = value
        elif word == "peer":
            bits = _peer(at, address, bits, value, fields)
        elif word == "preferred_lft":
            lifetime = None if value == "forever" else read_unsigned(at, value)
            if value != "forever" and lifetime is None:
                at.report(f"preferred_lft {value} is invalid")
            else:
                fields["preferred_lifetime"] = lifetime if lifetime is not None else UINT_MAX
        elif "track_group" in fields:
            at.report(f"track_group {value} is a duplicate")
        elif value not in draft.track_groups:
            at.report(f"track_group {value} not found")
        else:
            fields["track_group"] = value
    if broadcast:
        fields["broadcast"] = _broadcast(at, address, bits, broadcast, fields)
    if fields.get("track_group") and not fields.get("interface"):
        at.note(f"track_group on {first} means nothing without dev")
    return InterfaceAddress(address, bits, position=at.position, **fields)


def _peer(at: Cursor, address: bytes, bits: int, text: str, fields: dict[str, Any]) -> int:
    """Take a peer address; returns the prefix length, which is the peer's then."""
    if fields.get("peer"):
        at.report(f"Peer {text} - another peer has already been specified")
        return bits
    try:
        peer, peer_bits = _address(at, text, prefix=False)
    except _Unusable:
        at.report(f"Invalid peer address {text}")
        return bits
    if len(peer) != len(address):
        at.report(f"Peer address {text} does not match address family")
        return bits
    if bits != 8 * len(address):
        at.report("Cannot specify address prefix when specifying peer address - ignoring")
    fields["peer"] = peer
    return peer_bits


def _broadcast(at: Cursor, address: bytes, bits: int, text: str, fields: dict[str, Any]) -> bytes:
    """A broadcast address; ``+`` and ``-`` set all host bits or none."""
    from xlvs.keepalived.addresses import read_address

    if fields.get("peer"):
        at.report("Cannot specify broadcast and peer addresses - ignoring broadcast address")
        return b""
    if text in ("+", "-"):
        if bits > 30:
            at.report(f"Address prefix length {bits} too long for broadcast")
            return b""
        host = (1 << 32 - bits) - 1
        number = int.from_bytes(address, "big")
        return (number | host if text == "+" else number & ~host).to_bytes(4, "big")
    packed = read_address(text)
    if len(packed) != 4:
        raise _Unusable(f"VRRP is trying to assign invalid broadcast {text}. skipping VIP...")
    return packed


# Routes.


class _RouteDraft:
    """A route while its line is read."""

    def __init__(self, draft: Draft, at: Cursor) -> None:
        self.draft = draft
        self.at = at
        self.index = 0
        self.family = 0
        self.destination: tuple[bytes, int] | None = None
        self.shown = ""
        self.fields: dict[str, Any] = {}
        self.options: list[tuple[str, str]] = []
        self.hops: list[NextHop] = []

    def next_word(self) -> str:
        """The word after the one at hand."""
        self.index += 1
        return self.at.word(self.index)

    def settle(self, family: int, complaint: str) -> None:
        """The line is of that family, unless it is of the other one already."""
        if not self.family:
            self.family = family
        elif family and self.family != family:
            raise _Unusable(complaint)


_MIXED = "Cannot mix IPv4 and IPv6 addresses for route"


def read_route(draft: Draft, at: Cursor, *, static: bool) -> Route | None:
    """A line of static_routes or virtual_routes; None, reported, when it cannot be used."""
    route = _RouteDraft(draft, at)
    try:
        while route.index < len(at.words):
            if at.words[route.index] == "nexthop":
                if route.hops:
                    at.report('Cannot specify nexthops with "or" route')
                else:
                    _next_hops(route)
                break
            _route_word(route, at.words[route.index], static)
            route.index += 1
        if route.destination is None:
            raise _Unusable("Route must have a destination")
    except _Unusable as error:
        if str(error):
            at.report(str(error))
        return None
    if not route.fields.get("no_track") and not route.fields.get("interface"):
        at.report(
            f"Warning - cannot track route {_shown_route(route)} with no interface specified, not tracking"
        )
        route.fields["no_track"] = True
    destination, bits = route.destination
    return Route(
        route.family or IPV4, destination, bits, next_hops=tuple(route.hops),
        options=tuple(route.options), position=at.position, **route.fields,
    )  # fmt: skip


def _shown_route(route: _RouteDraft) -> str:
    return route.shown


def _route_word(route: _RouteDraft, word: str, static: bool) -> None:
    at, fields = route.at, route.fields
    if word in ("inet", "inet6"):
        family, other = (IPV4, "IPv6") if word == "inet" else (IPV6, "IPv4")
        route.settle(family, f"{word} specified for {other} route")
        # keepalived passes over the word after it, too.
        route.index += 1
    elif word == "src":
        fields["source"] = _route_address(route, route.next_word(), "invalid route src address {}")
    elif word in ("via", "gw"):
        if word == "gw":
            at.report('"gw" for routes is deprecated. Please use "via"')
        text = route.next_word()
        if text in ("inet", "inet6"):
            route.settle(IPV4 if text == "inet" else IPV6, _MIXED)
            text = route.next_word()
        fields["via"] = _route_address(route, text, "invalid route via address {}")
    elif word == "from":
        text = route.next_word()
        address = _route_destination(route, text, "invalid route from address {}")
        if len(address[0]) == 4:
            raise _Unusable(f"route from address only supported with IPv6 ({text})")
        route.options.append(("from", text))
    elif word in ("dev", "oif"):
        name = route.next_word()
        if not known_interface(route.draft, at, name):
            raise _Unusable(f"WARNING - interface {name} for VROUTE nexthop doesn't exist")
        fields["interface"] = name
    elif word == "table":
        text = route.next_word()
        if not is_table(text):
            raise _Unusable(f"Routing table {text} not found for route")
        fields["table"] = text
    elif word == "as":
        if route.next_word() == "to":
            route.index += 1
        at.report('"as to" for MPLS only - ignoring')
    elif word == "encap":
        _encapsulation(route)
    elif word == "onlink":
        route.options.append(("onlink", ""))
    elif word in ("add", "prepend", "append"):
        route.options.append((word, ""))
    elif word == "or":
        at.report('"or" for routes is deprecated. Please use "nexthop"')
        text = route.next_word()
        if route.hops:
            at.report('"or" route already specified - ignoring subsequent')
        else:
            route.hops.append(NextHop(fields.pop("via", b"")))
            route.hops.append(NextHop(_address(at, text, prefix=False)[0]))
    elif word == "no_track":
        fields["no_track"] = True
    elif word == "track_group" and static:
        _track_group(route.draft, at, fields, route.next_word())
    elif word == "vrf":
        name = route.next_word()
        if name not in at.surroundings.interfaces:
            raise _Unusable(f"VRF {name} not found for route")
        route.options.append(("vrf", name))
    elif word in ("metric", "priority", "preference"):
        _route_number(route, "metric")
    elif word in _ROUTE_NUMBERS:
        _route_number(route, word)
    elif word in _ROUTE_WORDS:
        _route_option(route, word)
    else:
        _route_target(route, word)


def _track_group(draft: Draft, at: Cursor, fields: dict[str, Any], name: str) -> None:
    if fields.get("track_group"):
        at.report(f"track_group {name} is a duplicate")
    elif name not in draft.track_groups:
        at.report(f"track_group {name} not found")
    else:
        fields["track_group"] = name


def _route_target(route: _RouteDraft, word: str) -> None:
    if word == "to":
        word = route.next_word()
    if word in _ROUTE_KINDS:
        route.fields["kind"] = word
        word = route.next_word()
    route.destination = _route_destination(route, word, "unknown route keyword {}")
    route.shown = word if "/" in word or not route.destination[0] else f"{word}/{route.destination[1]}"
    if not route.destination[0]:
        route.shown = "::/0" if route.family == IPV6 else "0.0.0.0/0"
    if "/" not in word and word not in ("default", "any", "all", "default6"):
        route.shown = word


def _route_destination(route: _RouteDraft, text: str, complaint: str) -> tuple[bytes, int]:
    """A destination: an address with prefix length, or default."""
    if text in ("default", "any", "all"):
        return b"", 0
    if text == "default6":
        route.at.note("'default6' is deprecated - please replace with 'inet6 default'")
        route.settle(IPV6, f"{_MIXED} ({text})")
        return b"", 0
    try:
        address, bits = _address(route.at, text, prefix=True)
    except _Unusable:
        raise _Unusable(complaint.format(text)) from None
    route.settle(family_of(address), f"{_MIXED} ({text})")
    return address, bits


def _route_address(route: _RouteDraft, text: str, complaint: str) -> bytes:
    try:
        address, _ = _address(route.at, text, prefix=False)
    except _Unusable:
        raise _Unusable(complaint.format(text)) from None
    route.settle(family_of(address), _MIXED)
    return address


def _route_number(route: _RouteDraft, name: str) -> None:
    text = route.next_word()
    lock = ""
    if name in _LOCKABLE and text == "lock":
        lock = "lock "
        text = route.next_word()
    number = read_number(text, _LIMITS.get(name, UINT_MAX))
    if number is None:
        raise _Unusable(_ROUTE_NUMBERS[name].format(text))
    if name == "expires":
        route.settle(IPV6, "expires is only valid for IPv6")
    route.options.append((name, f"{lock}{number}"))


def _route_option(route: _RouteDraft, name: str) -> None:
    """An option whose value is a word."""
    at = route.at
    text = route.next_word()
    lock = ""
    if name in _LOCKABLE and text == "lock":
        lock = "lock "
        text = route.next_word()
    if name in ("tos", "dsfield") and not is_tos(text):
        raise _Unusable(f"TOS value {text} is invalid")
    if name == "protocol":
        if text not in _ROUTE_PROTOCOLS and read_number(text, 255) is None:
            raise _Unusable(f"Protocol {text} not found or invalid for route")
        if not route.fields.get("no_track") and text not in ("keepalived", "18"):
            at.report("Route cannot be tracked if protocol is not RTPROT_KEEPALIVED(18), resetting protocol")
            text = "keepalived"
    if name == "scope" and text not in _SCOPES and read_number(text, 255) is None:
        raise _Unusable(f"Scope {text} not found or invalid for route")
    if name in ("rtt", "rttvar", "rto_min") and not re.fullmatch(r"[0-9]+(\.[0-9]+)?(s|ms|us|ns)?", text):
        words = (
            "Invalid rto_min value {} specified for route"
            if name == "rto_min"
            else f"Invalid {name} {{}} for route"
        )
        raise _Unusable(words.format(text))
    if name == "features" and text != "ecn":
        at.report(f"feature {text} not supported")
        return
    if name == "ttl-propagate" and text not in ("enabled", "disabled"):
        at.report(f"ttl-propagate value {text} not recognised")
    if name == "realms":
        if not re.fullmatch(r"[0-9]+(/[0-9]+)?", text):
            raise _Unusable(f"Invalid realms {text} for route")
        route.settle(IPV4, "realms are only valid for IPv4")
    if name == "pref":
        route.settle(IPV6, "pref is only valid for IPv6")
        if text not in ("low", "medium", "high") and read_number(text, 255) is None:
            raise _Unusable(f"Invalid pref value {text} specified for route")
    route.options.append((name, lock + text))


_ENCAPSULATIONS = {
    "ip": ("id", "dst", "src", "tos", "dsfield", "ttl"),
    "ip6": ("id", "dst", "src", "tc", "hoplimit"),
    "mpls": (),
    "ila": (),
}


def _encapsulation(route: _RouteDraft) -> None:
    """``encap ip|ip6|mpls|ila …``, kept as it is written."""
    at = route.at
    if route.index + 1 >= len(at.words):
        at.report("Missing encap type")
        return
    kind = route.next_word()
    names = _ENCAPSULATIONS.get(kind)
    if names is None:
        at.report(f"Unknown encap type - {kind}")
        return
    written = [kind]
    if not names:
        written.append(route.next_word())
    while route.index + 1 < len(at.words) and at.words[route.index + 1] in names:
        written += [route.next_word(), route.next_word()]
    route.options.append(("encap", " ".join(written)))


def _next_hops(route: _RouteDraft) -> None:
    """``nexthop via ADDRESS [dev IF] [weight N] [onlink] …``, one or more."""
    at = route.at
    while route.index < len(at.words) and at.words[route.index] == "nexthop":
        route.index += 1
        via, interface, weight = b"", "", 1
        before = len(route.options)
        while route.index < len(at.words):
            word = at.words[route.index]
            if word == "via":
                text = route.next_word()
                if text in ("inet", "inet6"):
                    route.settle(IPV4 if text == "inet" else IPV6, "IPv4/6 mismatch for nexthop")
                    text = route.next_word()
                try:
                    via = _address(at, text, prefix=False)[0]
                except _Unusable:
                    raise _Unusable(f"invalid nexthop address {text}") from None
                route.settle(family_of(via), "Address family mismatch for next hop")
            elif word == "dev":
                interface = route.next_word()
                if not known_interface(route.draft, at, interface):
                    raise _Unusable(f"WARNING - interface {interface} for VROUTE nexthop doesn't exist")
            elif word == "weight":
                number = read_number(route.next_word(), 256)
                if not number:
                    raise _Unusable(f"Invalid weight {at.words[route.index]} specified for route")
                weight = number
            elif word == "onlink":
                route.options.append(("onlink", ""))
            elif word == "encap":
                _encapsulation(route)
            elif word == "realms":
                _route_option(route, "realms")
            else:
                break
            route.index += 1
        options = tuple(route.options[before:])
        del route.options[before:]
        route.hops.append(NextHop(via, interface, weight, options))
    if route.index < len(at.words):
        raise _Unusable(f"Route has trailing nonsense after nexthops - {at.words[route.index]}")


def read_number(text: str, most: int) -> int | None:
    """A number as strtoul(3) reads it with base 0; None for anything else or more than ``most``."""
    found = re.fullmatch(r"\s*\+?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", text, re.ASCII)
    if not found:
        return None
    digits = found[1]
    try:
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)
    except ValueError:
        return None
    return number if number <= most else None


def is_table(text: str) -> bool:
    """Is that a routing table's number, or a name of /etc/iproute2/rt_tables?"""
    return text in _TABLES or read_number(text, UINT_MAX) is not None or text in _names("rt_tables")


def is_tos(text: str) -> bool:
    """Is that a type of service: a number, or a name of /etc/iproute2/rt_dsfield?"""
    return read_number("0x" + text.removeprefix("0x"), 255) is not None or text in _names("rt_dsfield")


def _names(file: str) -> set[str]:
    """The names that iproute2 knows for numbers."""
    names = set()
    for folder in ("/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"):
        path = os.path.join(folder, file)
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    words = line.partition("#")[0].split()
                    if len(words) == 2:
                        names.add(words[1])
    return names


# Rules.

_ACTIONS = frozenset(("blackhole", "unreachable", "prohibit"))
_ONE_ACTION = "Cannot specify more than one of table/nop/goto/blackhole/prohibit/unreachable for rule"


class _RuleDraft:
    """A policy rule while its line is read."""

    def __init__(self, draft: Draft, at: Cursor) -> None:
        self.draft = draft
        self.at = at
        self.index = 0
        self.family = 0
        self.action = ""
        self.fields: dict[str, Any] = {}
        self.options: list[tuple[str, str]] = []
        self.needs_table = False
        self.target: int | None = None

    def next_word(self) -> str:
        """The word after the one at hand."""
        self.index += 1
        return self.at.word(self.index)

    def act(self, action: str) -> None:
        """The rule does that, and does nothing else yet."""
        if self.action:
            raise _Unusable(_ONE_ACTION)
        self.action = action

    def settle(self, family: int, complaint: str) -> None:
        """The rule is of that family, unless it is of the other one already."""
        if not self.family:
            self.family = family
        elif family and family != self.family:
            raise _Unusable(complaint)


def read_rule(draft: Draft, at: Cursor, *, static: bool) -> Rule | None:
    """A line of static_rules or virtual_rules; None, reported, when it cannot be used."""
    rule = _RuleDraft(draft, at)
    try:
        while rule.index < len(at.words):
            _rule_word(rule, at.words[rule.index], static)
            rule.index += 1
        _check_rule(rule)
    except _Unusable as error:
        if str(error):
            at.report(str(error))
        return None
    family = rule.family or IPV4
    if rule.fields.get("preference") is None:
        preference = draft.next_rule_preference[family]
        draft.next_rule_preference[family] = preference - 1
        rule.fields["preference"] = preference
        at.report(
            f"Rule has no preference specified - setting to {preference}."
            " This is probably not what you want."
        )
    return Rule(family, rule.action, options=tuple(rule.options), position=at.position, **rule.fields)


def _rule_word(rule: _RuleDraft, word: str, static: bool) -> None:
    at, fields = rule.at, rule.fields
    if word in ("inet", "inet6"):
        family, other = (IPV4, "IPv6") if word == "inet" else (IPV6, "IPv4")
        rule.settle(family, f"{word} specified for {other} rule")
    elif word in ("from", "to"):
        text = rule.next_word()
        if text not in ("default", "any", "all"):
            try:
                address, _ = _address(at, text, prefix=True)
            except _Unusable:
                raise _Unusable(f"Invalid rule {word} address {text}") from None
            rule.settle(family_of(address), "rule specification has mixed IPv4 and IPv6")
        fields["source" if word == "from" else "destination"] = text
    elif word in ("table", "lookup"):
        text = rule.next_word()
        if not is_table(text):
            raise _Unusable(f"Routing table {text} not found for rule")
        if read_number(text, UINT_MAX) == 0:
            raise _Unusable("Table 0 is not valid")
        rule.act("table")
        fields["table"] = text
    elif word == "not":
        fields["invert"] = True
    elif word in ("preference", "order", "priority"):
        text = rule.next_word()
        number = read_number(text, UINT_MAX)
        if number is None:
            at.report(f"invalid number '{text}'", Severity.INVALID_NUMBER)
            raise _Unusable(f"Invalid rule preference {word} specified")
        fields["preference"] = number
    elif word in ("dev", "iif", "oif"):
        name = rule.next_word()
        if not known_interface(rule.draft, at, name):
            raise _Unusable(f"WARNING - interface {name} for rule doesn't exist")
        rule.options.append(("oif" if word == "oif" else "iif", name))
    elif word == "l3mdev":
        if rule.action:
            raise _Unusable("Cannot specify l3mdev with other action")
        rule.action = "table"
        rule.options.append(("l3mdev", ""))
    elif word == "no_track":
        fields["no_track"] = True
    elif word == "track_group" and static:
        _track_group(rule.draft, at, fields, rule.next_word())
    elif word in _RULE_OPTIONS:
        _rule_option(rule, word)
    else:
        _rule_action(rule, rule.next_word() if word == "type" else word)


_RULE_OPTIONS = frozenset(
    ("tos", "dsfield", "fwmark", "realms", "suppress_prefixlength", "sup_pl", "suppress_ifgroup",
     "sup_group", "tunnel-id", "uidrange", "protocol", "ipproto", "sport", "dport")
)  # fmt: skip


def _rule_option(rule: _RuleDraft, name: str) -> None:
    at = rule.at
    text = rule.next_word()
    if name in ("tos", "dsfield") and not is_tos(text):
        raise _Unusable(f"TOS value {text} is invalid")
    if name == "fwmark":
        mark, slash, mask = text.partition("/")
        if read_number(mark, UINT_MAX) is None or (slash and read_number(mask, UINT_MAX) is None):
            raise _Unusable(f"Invalid rule fwmark {text} specified")
    if name == "realms":
        if not re.fullmatch(r"[0-9]+(/[0-9]+)?", text):
            raise _Unusable(f"invalid realms {text} for rule")
        rule.settle(IPV4, "realms is only valid for IPv4")
        rule.needs_table = True
    if name in ("suppress_prefixlength", "sup_pl"):
        if read_unsigned(at, text, 0, INT_MAX, lenient=False) is None:
            raise _Unusable(f"Invalid suppress_prefixlength {name} specified")
        rule.needs_table = True
        name = "suppress_prefixlength"
    if name in ("suppress_ifgroup", "sup_group"):
        if read_number(text, UINT_MAX) is None and text not in _names("group"):
            raise _Unusable(f"suppress_group {text} is invalid")
        rule.needs_table = True
        name = "suppress_ifgroup"
    if name == "tunnel-id" and read_number(text, 2**64 - 1) is None:
        at.report(f"invalid number '{text}'", Severity.INVALID_NUMBER)
        raise _Unusable(f"Invalid tunnel-id {name} specified")
    if name == "uidrange" and not re.match(r"[0-9]+-[0-9]+", text):
        raise _Unusable(f"Invalid uidrange {name} specified")
    if name == "protocol" and read_unsigned(at, text, 0, 255, lenient=False) is None:
        at.report(f"Invalid protocol {text}")
        return
    if name == "ipproto" and not _is_protocol(text):
        at.report(f"Invalid ipproto {text}")
        return
    if name in ("sport", "dport") and not re.match(r"[0-9]+-[0-9]+", text):
        at.report(f"invalid {name} range {text}")
        return
    rule.options.append((name, text))


def _is_protocol(text: str) -> bool:
    import socket

    if read_number(text, 255) is not None:
        return True
    try:
        socket.getprotobyname(text)
    except (OSError, UnicodeError):
        return False
    return True


def _rule_action(rule: _RuleDraft, word: str) -> None:
    if word == "goto":
        text = rule.next_word()
        rule.target = read_unsigned(rule.at, text, lenient=False)
        if rule.target is None:
            raise _Unusable(f"Invalid target {word} specified")
        rule.act("goto")
        rule.options.append(("goto", text))
    elif word == "nop" or word in _ACTIONS:
        rule.act(word)
    elif word in _ROUTE_KINDS:
        raise _Unusable(f"Invalid rule action {word}")
    else:
        raise _Unusable(f"Unknown rule option {word}")


def _check_rule(rule: _RuleDraft) -> None:
    preference = rule.fields.get("preference")
    if rule.action == "goto" and rule.target is not None:
        if preference is None:
            raise _Unusable(f"Invalid rule - goto target {rule.target} specified without preference")
        if preference >= rule.target:
            raise _Unusable(f"Invalid rule - preference {preference} >= goto target {rule.target}")
    if not rule.action:
        raise _Unusable("No action specified for rule - ignoring")
    if rule.action != "table" and rule.needs_table:
        raise _Unusable("suppressor/realm specified for non table action - skipping")
    if rule.fields.get("table") and ("l3mdev", "") in rule.options:
        raise _Unusable("table cannot be specified for l3mdev rules")
    written = dict(rule.options).get("protocol")
    if not rule.fields.get("no_track") and written not in (None, "18"):
        rule.at.report("Rule cannot be tracked if protocol is not RTPROT_KEEPALIVED(18), resetting protocol")
