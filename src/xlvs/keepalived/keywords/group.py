# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of virtual_server_group and SSL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xlvs.keepalived.addresses import family_of, read_address, read_endpoint
from xlvs.keepalived.configuration import GroupEntry, TlsClient
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import (
    Draft,
    GroupDraft,
)
from xlvs.keepalived.numbers import UINT_MAX, read_unsigned
from xlvs.keepalived.statements import Cursor, Section
from xlvs.model import IPV4, IPV6

_FAMILIES = {"inet": IPV4, "inet6": IPV6}


def _virtual_server_group(draft: Draft, at: Cursor) -> None:
    name = at.word(1)
    group = GroupDraft(name, at.position)
    at.words = [name, *at.words[2:]]
    for _ in at.value_lines():
        _group_entry(group, at)
    families = {entry.family for entry in group.entries}
    if not group.entries:
        at.report(f"virtual server group {name} has no entries - removing")
    elif families == {IPV4, IPV6, 0}:
        at.report(f"virtual server group {name} cannot have IPv4, IPv6 and fwmark without family - removing")
    elif name not in draft.groups:
        # The first of several with one name is the one that is found.
        draft.groups[name] = group


def _group_entry(group: GroupDraft, at: Cursor) -> None:
    """``ADDRESS[-END|/LENGTH] [PORT]`` or ``fwmark MARK [inet|inet6]``."""
    text = at.words[0]
    if text == "fwmark":
        mark = read_unsigned(at, at.word(1))
        if mark is None:
            at.report(f"({group.name}): fwmark '{at.words[1]}' must be in [0, {UINT_MAX}] - ignoring")
            return
        family = 0
        if len(at.words) > 2:
            if at.words[2] not in _FAMILIES:
                at.report(f"({group.name}): fwmark '{mark}' family {at.words[2]} unknown - ignoring")
                return
            family = _FAMILIES[at.words[2]]
        group.entries.append(GroupEntry(fwmark=mark, family=family, position=at.position))
        return
    port = at.words[1] if len(at.words) > 1 and at.words[1].strip("0") else None
    endpoint = read_endpoint(at, text, port)
    if endpoint is None:
        shown = f" /port/{port}" if port else " "
        at.report(f"Invalid virtual server group IP address {text}{shown} - skipping")
        return
    first, number = endpoint
    last = _range_end(first, text, at)
    if last is not None:
        entry = GroupEntry(first, last, number, family=family_of(first), position=at.position)
        group.entries.append(entry)


def _range_end(first: bytes, text: str, at: Cursor) -> bytes | None:
    """The last address of ``A-B``, ``A-last`` or ``A/length``; None, reported, if it is wrong."""
    bits = 8 * len(first)
    start = int.from_bytes(first, "big")
    if "/" in text:
        length = text.partition("/")[2]
        number = int(length) if length.isascii() and length.isdigit() and len(length) < 5 else 0
        if not 1 <= number <= bits:
            at.report(f"Invalid netmask - {text} - skipping")
            return None
        host = (1 << bits - number) - 1
        if start & host:
            at.report(f"Address mask bits not empty - {text} - skipping")
            return None
        return (start | host).to_bytes(len(first), "big")
    _, dash, end = text.partition("-")
    if not dash:
        return first
    if (":" if bits == 128 else ".") in end:
        last = read_address(end)
        if not last:
            at.report(f"Invalid range end {text} - skipping")
            return None
        if len(last) != len(first):
            at.report(f"Range address families do not match {text} - skipping")
            return None
        if last < first:
            at.report(f"Address range end is less than address range start - {text} - skipping")
            return None
        return last
    return _short_range_end(start, bits, end, text, at)


def _short_range_end(start: int, bits: int, end: str, text: str, at: Cursor) -> bytes | None:
    """The last address where only its last part is written: a byte, or 16 bits in hexadecimal."""
    base, most = (16, 0xFFFF) if bits == 128 else (10, 0xFF)
    digits = ""
    for letter in end:
        if letter not in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10]:
            break
        digits += letter
    number = int(digits[:20], base) if digits else 0
    if len(digits) < len(end):
        at.report(
            f"Virtual server group range '{text}' has extra characters at end '{end[len(digits) :]}'",
            Severity.INVALID_NUMBER,
        )
        return None
    if number > most:
        at.report(f"Virtual server group range '{text}' end '{end}' too large", Severity.INVALID_NUMBER)
        return None
    if start & most >= number:
        at.report(f"Address range end is not greater than address range start - {text} - skipping")
        return None
    return (start & ~most | number).to_bytes(bits // 8, "big")


def _ssl(draft: Draft, at: Cursor) -> Draft:
    if draft.tls is not None:
        at.report("SSL context already specified - replacing")
    draft.tls = TlsClient(position=at.position)
    return draft


def _ssl_field(draft: Draft, at: Cursor, field: str, kind: str) -> None:
    assert draft.tls is not None
    if len(at.words) < 2:
        at.report(f"SSL {kind} missing")
        return
    if getattr(draft.tls, field):
        at.report(f"SSL {kind} already specified - replacing")
    changed: dict[str, Any] = {field: at.words[1]}
    draft.tls = replace(draft.tls, **changed)


def _ssl_password(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "password", "password")


def _ssl_ca(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "authorities", "cafile")


def _ssl_certificate(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "certificate", "certfile")


def _ssl_key(draft: Draft, at: Cursor) -> None:
    _ssl_field(draft, at, "key", "keyfile")


SSL = Section("SSL")
SSL.add("password", _ssl_password, "TEXT", "Of the key.")
SSL.add("ca", _ssl_ca, "FILE", "The authorities.")
SSL.add("certificate", _ssl_certificate, "FILE", "The client's certificate.")
SSL.add("key", _ssl_key, "FILE", "The client's key.")


def add_group_roots(root: Section) -> None:
    """Enter the blocks of this module."""
    root.add("SSL", _ssl, "", "What SSL_GET shows a server that wants a client's certificate.", block=SSL)
    root.add(
        "virtual_server_group", _virtual_server_group, "NAME",
        "Lines `ADDRESS[-END|/LENGTH] [PORT]` and `fwmark MARK [inet|inet6]`.",
    )  # fmt: skip
