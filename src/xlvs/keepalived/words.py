# SPDX-License-Identifier: GPL-2.0-only
"""Characters into words: comments, quotes, escapes.

keepalived has two ways to split a statement.  Nearly every keyword takes the
plain one, which knows double quotes only (`split`).  Scripts and regular
expressions are read a second time from the raw text, with both kinds of
quotes and escapes as in a shell (`split_escaped`).
"""

from __future__ import annotations

import re

BLANK = " \t"
"""What keepalived strips from the ends of a line."""

_SPACE = re.compile(r"[ \t\f\n\r\v]+")
_PLAIN_STOP = re.compile(r'[ \t\f\n\r\v"]')
_COMMENT_STOP = re.compile(r'[!#"\\]')
_ESCAPED_STOPS = {
    "": re.compile(r"[ \t\f\n\r\v'\"\\]"),
    '"': re.compile(r'["\\]'),
    "'": re.compile(r"['\\]"),
}
_NAMED_ESCAPES = {
    "a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip
_HEXADECIMAL = "0123456789abcdefABCDEF"
_OCTAL = "01234567"


class QuoteError(ValueError):
    """A quote has no end, or an escape nothing to escape."""


def split(text: str) -> list[str]:
    """The words of a statement; ``"a b"`` is one word, without its quotes.

    `QuoteError` when a quote has no end; its second argument are the words before it.
    """
    if '"' not in text:
        # Blanks of other scripts (a no-break space copied from a web page) are no blanks here.
        return text.split() if text.isascii() else [word for word in _SPACE.split(text) if word]
    words: list[str] = []
    at = 0
    end = len(text)
    while True:
        while at < end and text[at] in " \t\f\n\r\v":
            at += 1
        if at >= end:
            return words
        if text[at] == '"':
            close = text.find('"', at + 1)
            if close < 0:
                raise QuoteError(f"Unmatched quote: '{text}'", words)
            words.append(text[at + 1 : close])
            at = close + 1
        else:
            stop = _PLAIN_STOP.search(text, at)
            close = stop.start() if stop else end
            words.append(text[at:close])
            at = close


def split_escaped(text: str) -> list[str]:
    """The words of a statement that names a script or a pattern: quotes and escapes as in a shell.

    ``\\n`` and its like, ``\\x41``, ``\\101`` and ``\\cA`` are one character
    each; any other letter after a backslash is itself.  `QuoteError` when a
    quote or an escape has no end.
    """
    words: list[str] = []
    at = 0
    end = len(text)
    while True:
        while at < end and text[at] in " \t\f\n\r\v":
            at += 1
        if at >= end:
            return words
        word, at = _escaped_word(text, at)
        words.append(word)


def _escaped_word(text: str, at: int) -> tuple[str, int]:
    """The word that begins at ``at``, and where it ends."""
    pieces = []
    quote = ""
    while at < len(text):
        stop = _ESCAPED_STOPS[quote].search(text, at)
        if not stop:
            if quote:
                break
            pieces.append(text[at:])
            return "".join(pieces), len(text)
        pieces.append(text[at : stop.start()])
        at = stop.start()
        letter = text[at]
        if letter == "\\":
            character, at = _escape(text, at + 1)
            pieces.append(character)
        elif quote:
            quote = ""
            at += 1
        elif letter in "'\"":
            quote = letter
            at += 1
        else:
            break
    if quote:
        raise QuoteError(f"String '{text}': missing terminating {quote}")
    return "".join(pieces), at


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character that the escape stands for whose letters begin at ``at``, and where they end."""
    if at >= len(text):
        raise QuoteError(f"Missing escape char at end: '{text}'")
    letter = text[at]
    following = text[at + 1 : at + 2]
    if letter == "x" and following and following in _HEXADECIMAL:
        digits = _run(text, at + 1, _HEXADECIMAL, len(text))
        return chr(int(digits, 16) & 0xFF), at + 1 + len(digits)
    if letter == "c" and following:
        return chr(ord(following) & 0x1F), at + 2
    if letter in _OCTAL:
        digits = _run(text, at, _OCTAL, 3)
        return chr(int(digits, 8) & 0xFF), at + len(digits)
    return _NAMED_ESCAPES.get(letter, letter), at + 1


def _run(text: str, at: int, letters: str, most: int) -> str:
    """As many of ``letters`` as stand at ``at``, ``most`` at most."""
    end = at
    while end < len(text) and end - at < most and text[end] in letters:
        end += 1
    return text[at:end]


def without_comment(text: str) -> tuple[str, bool]:
    """A line without comment and outer blanks, and whether a quote in it has no end.

    ``!`` and ``#`` begin a comment anywhere outside of double quotes, unless a
    backslash stands before them.  A backslash at the very end stays, directly
    after the text: it continues a definition.
    """
    text = text.lstrip(BLANK)
    quoted = False
    continued = False
    comment = -1
    at = 0
    while True:
        stop = _COMMENT_STOP.search(text, at)
        if not stop:
            break
        at = stop.start()
        letter = text[at]
        if letter == '"':
            if comment < 0:
                quoted = not quoted
            at += 1
        elif letter == "\\":
            if at + 1 >= len(text):
                text = text[:at]
                continued = True
                break
            if not quoted and text[at + 1] in "#!":
                text = text[:at] + text[at + 1 :]
                at += 1
            else:
                at += 2
        else:
            if not quoted and comment < 0:
                comment = at
            at += 1
    if comment >= 0:
        text = text[:comment]
    return text.rstrip(BLANK) + ("\\" if continued else ""), quoted
