# SPDX-License-Identifier: GPL-2.0-only
"""What lines of addresses, routes and rules have in common: numbers, names, interfaces."""

from __future__ import annotations

import os
import re
from typing import Any

from xlvs.keepalived.addresses import read_address
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.numbers import UINT_MAX, read_unsigned
from xlvs.keepalived.statements import Cursor

SCOPES = {"global": 0, "nowhere": 255, "host": 254, "link": 253, "site": 200}
_TABLES = {"local": "local", "main": "main", "default": "default"}


class UnusableLine(Exception):
    """The line cannot be used; the message says why, and is reported."""


def read_line_address(at: Cursor, text: str, *, prefix: bool) -> tuple[bytes, int]:
    """An address, with a prefix length if ``prefix`` allows one."""
    written, slash, length = text.partition("/") if prefix else (text, "", "")
    address = read_address(written) if not set(written) & set("-/") else b""
    if not address:
        at.report(f"VRRP parsed invalid IP {text}. skipping IP...")
        raise UnusableLine("")
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


def note_track_group(draft: Draft, at: Cursor, fields: dict[str, Any], name: str) -> None:
    if fields.get("track_group"):
        at.report(f"track_group {name} is a duplicate")
    elif name not in draft.track_groups:
        at.report(f"track_group {name} not found")
    else:
        fields["track_group"] = name


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
    return text in _TABLES or read_number(text, UINT_MAX) is not None or text in iproute_names("rt_tables")


def is_tos(text: str) -> bool:
    """Is that a type of service: a number, or a name of /etc/iproute2/rt_dsfield?"""
    number = read_number("0x" + text.removeprefix("0x"), 255)
    return number is not None or text in iproute_names("rt_dsfield")


def iproute_names(file: str) -> set[str]:
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
