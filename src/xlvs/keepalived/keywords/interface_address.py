# SPDX-License-Identifier: GPL-2.0-only
"""Lines of addresses: virtual_ipaddress and static_ipaddress."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.addresses import read_address
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.lines import (
    SCOPES,
    UnusableLine,
    known_interface,
    read_line_address,
)
from xlvs.keepalived.numbers import UINT_MAX, read_unsigned
from xlvs.keepalived.redundancy import InterfaceAddress
from xlvs.keepalived.statements import Cursor

_MOST_LABEL = 15
_FLAGS = {
    "home": "home", "-nodad": "no_dad", "mngtmpaddr": "manage_temporary",
    "noprefixroute": "no_prefix_route", "autojoin": "auto_join", "no_track": "no_track",
}  # fmt: skip


def read_interface_address(draft: Draft, at: Cursor, *, static: bool) -> InterfaceAddress | None:
    """A line of virtual_ipaddress or static_ipaddress; None, reported, when it cannot be used."""
    try:
        return _interface_address(draft, at, static)
    except UnusableLine as error:
        if str(error):
            at.report(str(error))
        return None


def _interface_address(draft: Draft, at: Cursor, static: bool) -> InterfaceAddress:
    first = at.words[0]
    address, bits = read_line_address(at, first, prefix=True)
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
            raise UnusableLine(f"No {word} parameter specified for {first}")
        value = at.words[index]
        index += 1
        if word == "dev":
            if "interface" in fields:
                raise UnusableLine(f"Cannot specify ipaddress device more than once for {first}")
            if not known_interface(draft, at, value):
                raise UnusableLine(f"WARNING - interface {value} for ip address {first} doesn't exist")
            fields["interface"] = value
        elif word == "scope":
            if value in SCOPES or (value.isdigit() and int(value[:4]) < 256):
                fields["scope"] = SCOPES[value] if value in SCOPES else int(value)
            else:
                at.report(f"Invalid scope '{value}' specified for {first} - ignoring")
        elif word in ("broadcast", "brd"):
            if len(address) == 16:
                raise UnusableLine(
                    f"VRRP is trying to assign a broadcast {value} to the IPv6 address {first}: there is"
                    " no broadcast in IPv6, skipping VIP..."
                )
            broadcast = value
        elif word == "label":
            if len(value) > _MOST_LABEL:
                raise UnusableLine(
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
        peer, peer_bits = read_line_address(at, text, prefix=False)
    except UnusableLine:
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
        raise UnusableLine(f"VRRP is trying to assign invalid broadcast {text}. skipping VIP...")
    return packed
