# SPDX-License-Identifier: GPL-2.0-only
"""Lines of routes, in iproute2's words.

What is understood here is what decides over the line: addresses, families,
interfaces and tables.  The rest is kept as it is written, each option with its value.
"""

from __future__ import annotations

import re
from typing import Any

from xlvs.keepalived.addresses import family_of
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.lines import (
    SCOPES,
    UnusableLine,
    is_table,
    is_tos,
    known_interface,
    note_track_group,
    read_line_address,
    read_number,
)
from xlvs.keepalived.numbers import UINT_MAX
from xlvs.keepalived.redundancy import NextHop, Route
from xlvs.keepalived.statements import Cursor
from xlvs.model import IPV4, IPV6

ROUTE_KINDS = frozenset(
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
_ROUTE_PROTOCOLS = frozenset(
    ("redirect", "kernel", "boot", "static", "gated", "ra", "mrt", "zebra", "bird", "dnrouted", "xorp",
     "ntk", "dhcp", "keepalived", "babel", "bgp", "isis", "ospf", "rip", "eigrp", "mrouted")
)  # fmt: skip
_MIXED = "Cannot mix IPv4 and IPv6 addresses for route"
_ENCAPSULATIONS = {
    "ip": ("id", "dst", "src", "tos", "dsfield", "ttl"),
    "ip6": ("id", "dst", "src", "tc", "hoplimit"),
    "mpls": (),
    "ila": (),
}


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
            raise UnusableLine(complaint)


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
            raise UnusableLine("Route must have a destination")
    except UnusableLine as error:
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
            raise UnusableLine(f"route from address only supported with IPv6 ({text})")
        route.options.append(("from", text))
    elif word in ("dev", "oif"):
        name = route.next_word()
        if not known_interface(route.draft, at, name):
            raise UnusableLine(f"WARNING - interface {name} for VROUTE nexthop doesn't exist")
        fields["interface"] = name
    elif word == "table":
        text = route.next_word()
        if not is_table(text):
            raise UnusableLine(f"Routing table {text} not found for route")
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
            route.hops.append(NextHop(read_line_address(at, text, prefix=False)[0]))
    elif word == "no_track":
        fields["no_track"] = True
    elif word == "track_group" and static:
        note_track_group(route.draft, at, fields, route.next_word())
    elif word == "vrf":
        name = route.next_word()
        if name not in at.surroundings.interfaces:
            raise UnusableLine(f"VRF {name} not found for route")
        route.options.append(("vrf", name))
    elif word in ("metric", "priority", "preference"):
        _route_number(route, "metric")
    elif word in _ROUTE_NUMBERS:
        _route_number(route, word)
    elif word in _ROUTE_WORDS:
        _route_option(route, word)
    else:
        _route_target(route, word)


def _route_target(route: _RouteDraft, word: str) -> None:
    if word == "to":
        word = route.next_word()
    if word in ROUTE_KINDS:
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
        address, bits = read_line_address(route.at, text, prefix=True)
    except UnusableLine:
        raise UnusableLine(complaint.format(text)) from None
    route.settle(family_of(address), f"{_MIXED} ({text})")
    return address, bits


def _route_address(route: _RouteDraft, text: str, complaint: str) -> bytes:
    try:
        address, _ = read_line_address(route.at, text, prefix=False)
    except UnusableLine:
        raise UnusableLine(complaint.format(text)) from None
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
        raise UnusableLine(_ROUTE_NUMBERS[name].format(text))
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
        raise UnusableLine(f"TOS value {text} is invalid")
    if name == "protocol":
        if text not in _ROUTE_PROTOCOLS and read_number(text, 255) is None:
            raise UnusableLine(f"Protocol {text} not found or invalid for route")
        if not route.fields.get("no_track") and text not in ("keepalived", "18"):
            at.report("Route cannot be tracked if protocol is not RTPROT_KEEPALIVED(18), resetting protocol")
            text = "keepalived"
    if name == "scope" and text not in SCOPES and read_number(text, 255) is None:
        raise UnusableLine(f"Scope {text} not found or invalid for route")
    if name in ("rtt", "rttvar", "rto_min") and not re.fullmatch(r"[0-9]+(\.[0-9]+)?(s|ms|us|ns)?", text):
        words = (
            "Invalid rto_min value {} specified for route"
            if name == "rto_min"
            else f"Invalid {name} {{}} for route"
        )
        raise UnusableLine(words.format(text))
    if name == "features" and text != "ecn":
        at.report(f"feature {text} not supported")
        return
    if name == "ttl-propagate" and text not in ("enabled", "disabled"):
        at.report(f"ttl-propagate value {text} not recognised")
    if name == "realms":
        if not re.fullmatch(r"[0-9]+(/[0-9]+)?", text):
            raise UnusableLine(f"Invalid realms {text} for route")
        route.settle(IPV4, "realms are only valid for IPv4")
    if name == "pref":
        route.settle(IPV6, "pref is only valid for IPv6")
        if text not in ("low", "medium", "high") and read_number(text, 255) is None:
            raise UnusableLine(f"Invalid pref value {text} specified for route")
    route.options.append((name, lock + text))


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
                    via = read_line_address(at, text, prefix=False)[0]
                except UnusableLine:
                    raise UnusableLine(f"invalid nexthop address {text}") from None
                route.settle(family_of(via), "Address family mismatch for next hop")
            elif word == "dev":
                interface = route.next_word()
                if not known_interface(route.draft, at, interface):
                    raise UnusableLine(f"WARNING - interface {interface} for VROUTE nexthop doesn't exist")
            elif word == "weight":
                number = read_number(route.next_word(), 256)
                if not number:
                    raise UnusableLine(f"Invalid weight {at.words[route.index]} specified for route")
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
        raise UnusableLine(f"Route has trailing nonsense after nexthops - {at.words[route.index]}")
