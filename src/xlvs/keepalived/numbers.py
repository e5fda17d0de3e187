# SPDX-License-Identifier: GPL-2.0-only
"""Numbers, durations, switches and byte strings, with keepalived's limits and words.

Each function takes the cursor for its reports and the text to read, and
returns None for what cannot be used.  Where keepalived takes a number in spite
of what follows it (``weight 10x``), so does ``lenient``; it is reported all
the same.
"""

from __future__ import annotations

import re

from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.statements import Cursor

INT_MAX = 2**31 - 1
INT_MIN = -(2**31)
UINT_MAX = 2**32 - 1
_ULONG_MAX = 2**64 - 1
SECOND = 1_000_000
"""Durations are counted in microseconds while they are read."""
TIMER_MAX = _ULONG_MAX - 1

_LEADING = re.compile(r"[ \t\n\r\f\v]*([+-]?[0-9]+)?")
_TRUE = frozenset(("true", "on", "yes"))
_FALSE = frozenset(("false", "off", "no"))


def read_unsigned(
    at: Cursor, text: str, low: int = 0, high: int = UINT_MAX, *, lenient: bool = True
) -> int | None:
    """A number from ``low`` to ``high``, neither negative nor beyond 32 bits."""
    if len(text) < 20 and text.isdigit() and text.isascii():
        value = int(text)
        if low <= value <= high:
            return value
    value, rest = _leading_number(text)
    if text.lstrip(" \t\f\n\r\v").startswith("-"):
        message = f"negative number '{text}'"
    elif rest:
        message = f"invalid number '{text}'"
    elif value > UINT_MAX:
        message = f"number '{text}' outside unsigned integer range"
    elif not low <= value <= high:
        message = f"number '{text}' outside range [{low}, {high}]"
    else:
        return value
    at.report(message, Severity.INVALID_NUMBER)
    return value if lenient and rest != text and low <= value <= high else None


def read_int(
    at: Cursor, text: str, low: int = INT_MIN, high: int = INT_MAX, *, lenient: bool = True
) -> int | None:
    """A number from ``low`` to ``high``, with a sign if it likes."""
    value, rest = _leading_number(text)
    if rest:
        message = f"invalid number '{text}'"
    elif not INT_MIN <= value <= INT_MAX:
        message = f"number '{text}' outside integer range"
    elif not low <= value <= high:
        message = f"number '{text}' outside range [{low}, {high}]"
    else:
        return value
    at.report(message, Severity.INVALID_NUMBER)
    return value if lenient and rest != text and low <= value <= high else None


def read_decimal(
    at: Cursor, text: str, low: int, high: int, places: int, *, lenient: bool = True
) -> int | None:
    """A decimal number times ten to the ``places``; ``low`` and ``high`` are in that unit, too."""
    if text.startswith("-"):
        at.report(f"negative number '{text}'", Severity.INVALID_NUMBER)
        return None
    whole, _, fraction = text.partition(".")
    round_up = 0
    if len(fraction) > places:
        at.report(f"number '{text}' has too many decimal places", Severity.INVALID_NUMBER)
        round_up = int(fraction[places] >= "5")
        fraction = fraction[:places]
    digits = whole + fraction + "0" * (places - len(fraction))
    value, rest = _leading_number(digits)
    value += round_up
    if not rest and value > _ULONG_MAX:
        at.report(f"number '{text}' outside unsigned decimal range", Severity.INVALID_NUMBER)
        return None
    if rest:
        at.report(f"invalid number '{text}'", Severity.INVALID_NUMBER)
    elif not low <= value <= high:
        limits = f"[{_decimal(low, places)}, {_decimal(high, places)}]"
        at.report(f"number '{text}' outside range {limits}", Severity.INVALID_NUMBER)
    else:
        return value
    return value if lenient and rest != digits and low <= value <= high else None


def read_timer(at: Cursor, text: str, low: int = 0, high: int = TIMER_MAX) -> float | None:
    """A duration in seconds; ``low`` and ``high`` are in microseconds."""
    if len(text) < 20 and text.isdigit() and text.isascii():
        value = int(text)
        if low <= value * SECOND <= high:
            return float(value)
    microseconds = read_decimal(at, text, low, high, 6)
    return None if microseconds is None else microseconds / SECOND


def read_switch(at: Cursor, otherwise: bool = True) -> bool | None:
    """The statement's first parameter as on or off (and their like); ``otherwise`` where there is none.

    None when it is something else, which the caller reports.
    """
    if len(at.words) < 2:
        return otherwise
    text = at.words[1]
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def read_hexadecimal(text: str, *, wildcards: bool = False) -> tuple[bytes, bytes] | None:
    """Bytes as hexadecimal digits, blanks between them if any; with ``wildcards`` an ``x`` is any digit.

    Returns the bytes and a mask of the bits that may be anything; None for
    anything else, and for nothing.  A digit by itself is a byte.
    """
    data, mask = bytearray(), bytearray()
    digits = "0123456789abcdef"
    at = 0
    while True:
        while at < len(text) and text[at] in " \t":
            at += 1
        if at >= len(text):
            return (bytes(data), bytes(mask)) if data else None
        byte = unknown = 0
        for _ in range(2):
            if at >= len(text) or text[at] == " ":
                break
            letter = text[at].lower()
            at += 1
            if letter in digits:
                byte, unknown = byte << 4 | digits.index(letter), unknown << 4
            elif wildcards and letter == "x":
                byte, unknown = byte << 4, unknown << 4 | 0xF
            else:
                return None
        data.append(byte)
        mask.append(unknown)


def _leading_number(text: str) -> tuple[int, str]:
    """The number that a text begins with, as strtol(3) reads it, and what follows."""
    found = _LEADING.match(text)
    assert found is not None
    if found[1] is None:
        return 0, text
    # What no integer of keepalived can hold needs no more digits than this.
    digits = found[1] if len(found[1]) < 40 else found[1][:40]
    return int(digits), text[found.end() :]


def _decimal(value: int, places: int) -> str:
    return f"{value // 10**places}.{value % 10**places:0{places}d}"
