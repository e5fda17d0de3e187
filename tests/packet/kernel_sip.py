# SPDX-License-Identifier: GPL-2.0-only
"""How the kernel finds a Call-ID: ``ct_sip_get_header()`` and ``get_callid()``, with positions in a text.

The guest's tests hold this reading to the kernel's own (``tests/guest/test_sip.py``).
"""

from __future__ import annotations

LONGEST = 255
_NAME = b"call-id"
_SIGNS = b'!"%()*+,-./:<>?[\\]_`{}~'


def _is_letter(byte: int) -> bool:
    """``isalpha()``: of ISO 8859-1."""
    return chr(byte).isalpha() and (byte < 0x80 or byte >= 0xC0)


def _is_word(byte: int) -> bool:
    return _is_letter(byte) or chr(byte) in "0123456789" or byte in _SIGNS


def _skip_blanks(text: bytes, place: int) -> int | None:
    """Behind blanks, of which one may be a folded line; None where the text or the header ends."""
    while place < len(text) and text[place] in b" \t":
        place += 1
    if place >= len(text) or text[place] not in b"\r\n":
        return place
    place += 2 if text[place : place + 2] == b"\r\n" else 1
    if place >= len(text) or text[place] not in b" \t":
        return None
    while place < len(text) and text[place] in b" \t":
        place += 1
    return place


def _words(text: bytes, place: int) -> int:
    """How many bytes of a Call-ID begin there; 0 if none does."""
    end = place
    while end < len(text) and _is_word(text[end]):
        end += 1
    if end == place or text[end : end + 1] != b"@":
        return end - place
    host = end + 1
    while host < len(text) and _is_word(text[host]):
        host += 1
    return host - place if host > end + 1 else 0


def call_id(text: bytes) -> bytes | None:
    """The Call-ID of a message, or None where the kernel would take none."""
    place = 0
    while place < len(text):
        if text[place] not in b"\r\n":
            place += 1
            continue
        place += 2 if text[place : place + 2] == b"\r\n" else 1
        if place >= len(text):
            return None
        if text[place : place + len(_NAME)].lower() == _NAME:
            value = place + len(_NAME)
        elif (
            text[place : place + 1] in (b"i", b"I")
            and len(text) > place + 1
            and not _is_letter(text[place + 1])
        ):
            value = place + 1
        else:
            place += 1
            continue
        colon = _skip_blanks(text, value)
        if colon is None or text[colon : colon + 1] != b":" or colon + 1 >= len(text):
            return None
        begin = _skip_blanks(text, colon + 1)
        if begin is None:
            return None
        length = _words(text, begin)
        if length:
            end = begin + length
            return text[begin:end] if length <= LONGEST and text[end : end + 1] in (b"\r", b"\n") else None
        place = begin
    return None
