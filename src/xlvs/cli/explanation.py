# SPDX-License-Identifier: GPL-2.0-only
"""An explanation of `xlvs explain` as a page, and as JSON (docs/json.md)."""

from __future__ import annotations

from xlvs.cli.address import format_address, format_endpoint
from xlvs.cli.listing_json import key_fields
from xlvs.model import MASQUERADE, PROTOCOL_NAMES, ROUTE, TUNNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xlvs.datapath.explaining import Candidate, Entry, Explanation
    from xlvs.model import Service

SCHEMA = 1

_METHODS = {
    ROUTE: "Direct Routing: the packet as it is, but for TTL and MAC",
    MASQUERADE: "NAT: the destination becomes the real server's",
    TUNNEL: "tunnelling: the packet as it is, in another one",
}
_RULES = {
    "none": "chooses nobody",
    "rr": "each in turn, but for weight 0",
    "wrr": "in turn, as often as the weights say",
    "lc": "the least connections: 256 x active + inactive",
    "wlc": "the least (256 x active + inactive) / weight",
    "sed": "the least (active + 1) / weight",
    "nq": "the first that is idle, else the least (active + 1) / weight",
    "fo": "the highest weight",
    "ovf": "the highest weight whose active connections do not exceed it",
    "lblc": "who had this VIP last, unless it is overloaded; else as wlc",
    "lblcr": "the least of those who had this VIP, unless overloaded; else as wlc",
    "dh": "by a hash of the VIP",
    "sh": "by a hash of the client's address",
    "mh": "by a hash of the client's address, in Maglev's table",
    "twos": "the less loaded of two that chance draws: another time, another one",
}
_FLAGS = {"sh": ((1, "fallback"), (2, "port")), "mh": ((1, "fallback"), (2, "port"))}


def page(found: Explanation) -> list[str]:
    """The lines that an operator reads."""
    return list(_lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    question = found.question
    client = format_endpoint(question.client, found.client_port)
    virtual = format_endpoint(question.virtual, question.port)
    mark = f", with the mark {question.mark}" if question.mark else ""
    yield f"{PROTOCOL_NAMES[question.protocol]} {client} -> {virtual}, coming in by {found.interface}{mark}"
    if found.connection:
        yield f"  connection  {_entry(found.connection)}"
    elif question.client_port is not None:
        yield "  connection  none of that client port: it would begin one"
    if found.template:
        yield f"  template    {_entry(found.template)}"
    if found.service:
        yield f"  service     {_service(found.service)}"
        if found.candidates and not found.template:
            yield f"  scheduler   {found.service.scheduler}: {_RULES[found.service.scheduler]}"
    elif not found.connection:
        yield "  service     none"
    yield from _table(found)
    yield f"  fate        {_fate(found)}"
    for reason in found.reasons:
        yield f"  because     {reason}"


def _entry(entry: Entry) -> str:
    server = format_endpoint(entry.address, entry.port)
    return f"{entry.state}, {entry.expires} s left, of real server {server}"


def _service(service: Service) -> str:
    key = service.key
    if key.fwmark:
        name = f"firewall mark {key.fwmark}"
    else:
        name = f"{PROTOCOL_NAMES[key.protocol]} {format_endpoint(key.address, key.port)}"
    words = [name, service.scheduler]
    words += [name for bit, name in _FLAGS.get(service.scheduler, ()) if service.scheduler_flags & bit]
    if service.persistence:
        words.append(f"persistent {service.persistence} s")
    if service.one_packet:
        words.append("one-packet scheduling")
    return ", ".join(words)


def _table(found: Explanation) -> Iterator[str]:
    if not found.candidates:
        return
    loads = any(one.load for one in found.candidates)
    rows = [("", "real server", "weight", "active", "inactive", "load" if loads else "", "")]
    for one in found.candidates:
        rows.append((
            "->" if one.chosen else "", format_endpoint(one.address, one.port), str(one.weight),
            str(one.active), str(one.inactive), _load(one), _note(one),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for mark, server, *numbers, note in rows:
        columns = "  ".join(text.rjust(width) for text, width in zip(numbers, widths[2:], strict=True))
        yield f"    {mark:2} {server:{widths[1]}}  {columns}  {note}".rstrip()


def _load(one: Candidate) -> str:
    if one.load is None or one.weight <= 0:
        return ""
    load, weight = one.load
    return f"{load}/{weight}" if weight != 1 else str(load)


def _note(one: Candidate) -> str:
    if one.weight <= 0:
        return "weight 0: no new connections"
    return "over its upper threshold: no new connections" if one.overloaded else ""


def _fate(found: Explanation) -> str:
    if found.leaves and found.real_server:
        leaves = found.leaves
        mac = leaves.mac.hex(":") if leaves.mac else "a MAC that it asks for first"
        by = "" if leaves.next_hop == found.real_server[0] else f" by {format_address(leaves.next_hop)}"
        return (
            f"to real server {format_endpoint(*found.real_server)} by {_METHODS[found.method]}\n"
            f"              leaves {leaves.interface} for {mac}{by}, "
            f"{format_address(leaves.source)} -> {format_address(leaves.destination)}"
        )
    if found.local and found.real_server:
        return f"to real server {format_endpoint(*found.real_server)}, which is the director itself"
    if found.fate == "sent":
        return "dropped, and its client is told by ICMP or a reset"
    if found.fate == "dropped":
        return "dropped"
    return "left to the director itself, as a packet of no virtual service"


def fields(found: Explanation) -> dict[str, Any]:
    """The same for programs."""
    question = found.question
    return {
        "schema": SCHEMA,
        "protocol": PROTOCOL_NAMES[question.protocol].lower(),
        "client": format_address(question.client),
        "client_port": found.client_port,
        "virtual": format_address(question.virtual),
        "virtual_port": question.port,
        "interface": found.interface,
        "mark": question.mark or None,
        "connection": _entry_fields(found.connection),
        "template": _entry_fields(found.template),
        "service": {**key_fields(found.service.key), "scheduler": found.service.scheduler}
        if found.service
        else None,
        "candidates": [
            {
                "address": format_address(one.address),
                "port": one.port,
                "weight": one.weight,
                "active_connections": one.active,
                "inactive_connections": one.inactive,
                "overloaded": one.overloaded,
                "load": one.load[0] / one.load[1] if one.load and one.load[1] > 0 else None,
                "chosen": one.chosen,
            }
            for one in found.candidates
        ],
        "real_server": format_address(found.real_server[0]) if found.real_server else None,
        "real_server_port": found.real_server[1] if found.real_server else None,
        "method": found.method or None,
        "fate": "local" if found.local else "forwarded" if found.leaves else _fates(found),
        "reasons": found.reasons,
        "leaves": {
            "interface": found.leaves.interface,
            "next_hop": format_address(found.leaves.next_hop),
            "mac": found.leaves.mac.hex(":") or None,
            "source": format_address(found.leaves.source),
            "destination": format_address(found.leaves.destination),
        }
        if found.leaves
        else None,
    }


def _fates(found: Explanation) -> str:
    return {"sent": "rejected", "dropped": "dropped"}.get(found.fate, "left")


def _entry_fields(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "state": entry.state,
        "expires": entry.expires,
        "real_server": format_address(entry.address),
        "real_server_port": entry.port,
    }
