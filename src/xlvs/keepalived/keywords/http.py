# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of HTTP_GET and SSL_GET."""

from __future__ import annotations

import re

from xlvs.keepalived.checks import (
    Checker,
    Connection,
    HttpCheck,
    HttpVersion,
    Pattern,
    Schedule,
    TlsVerification,
    Url,
)
from xlvs.keepalived.drafts import CheckerDraft, Fields, RealServerDraft
from xlvs.keepalived.keywords.checker import add_common, connection_is_complete
from xlvs.keepalived.keywords.shapes import flag, number, switch, word
from xlvs.keepalived.origin import Position
from xlvs.keepalived.statements import Cursor, Section

_LOWEST_STATUS = 100
_HIGHEST_STATUS = 599
_VERSIONS = {
    "1.0": HttpVersion.HTTP_1_0,
    "1.0C": HttpVersion.HTTP_1_0_CLOSE,
    "1.0c": HttpVersion.HTTP_1_0_CLOSE,
    "1.1": HttpVersion.HTTP_1_1,
    "2": HttpVersion.HTTP_2,
}
REGEX_OPTIONS = (
    "allow_empty_class", "alt_bsux", "auto_callout", "caseless", "dollar_endonly", "dotall", "dupnames",
    "extended", "firstline", "match_unset_backref", "multiline", "never_ucp", "never_utf", "no_auto_capture",
    "no_auto_possess", "no_dotstar_anchor", "no_start_optimize", "ucp", "ungreedy", "utf",
    "never_backslash_c", "alt_circumflex", "alt_verbnames", "use_offset_limit",
)  # fmt: skip
"""The options that keepalived hands to PCRE2."""
SUPPORTED_REGEX_OPTIONS = frozenset(
    ("caseless", "dotall", "extended", "multiline", "ucp", "utf", "no_auto_possess", "no_dotstar_anchor",
     "no_start_optimize", "use_offset_limit", "never_ucp", "no_auto_capture", "auto_callout")
)  # fmt: skip
"""Those with a meaning for Python's regular expressions, or that change no match."""


class UrlDraft(Fields):
    """A url block."""

    __slots__ = (
        "checker", "digest", "expression", "first", "last", "no_match", "options", "path", "position",
        "stack", "status", "virtualhost",
    )  # fmt: skip

    def __init__(self, checker: HttpDraft, position: Position) -> None:
        self.checker = checker
        self.position = position
        self.path: str | None = None
        self.digest = b""
        self.status: list[tuple[int, int]] = []
        self.virtualhost = ""
        self.expression: str | None = None
        self.options: list[str] = []
        self.no_match = False
        self.first = 0
        self.last: int | None = None
        self.stack = False


class HttpDraft(CheckerDraft):
    """An HTTP_GET or SSL_GET."""

    __slots__ = (
        "fast_recovery", "sni", "sni_name", "tls", "urls", "verification", "version", "virtualhost",
    )  # fmt: skip

    default_delay_before_retry = 3.0

    def __init__(self, real_server: RealServerDraft, at: Cursor) -> None:
        super().__init__(real_server, at.position)
        self.tls = at.words[0] == "SSL_GET"
        self.urls: list[Url] = []
        self.virtualhost = ""
        self.version = HttpVersion.HTTP_1_0
        self.sni = False
        self.sni_name = ""
        self.verification: TlsVerification | None = None
        self.fast_recovery = False

    def finish(self, schedule: Schedule, connection: Connection) -> Checker:
        virtualhost = (
            self.virtualhost or self.real_server.virtualhost or self.real_server.virtual_server.virtualhost
        )
        return HttpCheck(
            schedule, connection, tuple(self.urls), self.tls, virtualhost, self.version,
            self.sni, self.sni_name, self.verification, self.fast_recovery, position=self.position,
        )  # fmt: skip


_retry = number("retry", "Invalid nb_get_retry value '{}'")


def _nb_get_retry(checker: HttpDraft, at: Cursor) -> None:
    at.report("nb_get_retry is deprecated - please use 'retry'")
    _retry(checker, at)


def _http_protocol(checker: HttpDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("Missing http_protocol version")
    elif at.words[1] not in _VERSIONS:
        at.report(f"Invalid http_protocol version {at.words[1]}")
    else:
        checker.version = _VERSIONS[at.words[1]]


def _sni_name(checker: HttpDraft, at: Cursor) -> None:
    checker.sni_name = at.word(1)
    checker.sni = True


def _tls_verify(checker: HttpDraft, at: Cursor) -> None:
    if not checker.tls:
        at.report("tls_verify is for SSL_GET - ignoring")
        return
    checker.verification = TlsVerification(at.words[1] if len(at.words) > 1 else "")


def _end_of_http(checker: HttpDraft, at: Cursor) -> None:
    if not checker.urls:
        at.report("HTTP/SSL_GET checker has no urls specified - ignoring")
    elif connection_is_complete(checker, checker.connection, at):
        checker.real_server.checkers.append(checker)


# url.


def _url(checker: HttpDraft, at: Cursor) -> UrlDraft:
    return UrlDraft(checker, at.position)


def _digest(url: UrlDraft, at: Cursor) -> None:
    text = at.word(1)
    if url.digest:
        at.report(f"Digest '{text}' is a duplicate")
    elif len(text) != 32:
        at.report(f"digest '{text}' character length should be 32 rather than {len(text)}")
    else:
        for index in range(15, -1, -1):
            if not re.fullmatch("[0-9a-fA-F]{2}", text[2 * index : 2 * index + 2]):
                start = text[: 2 * index + 2]
                at.report(
                    f"Unable to interpret hex digit in '{start}' at offset {2 * index}/{2 * index + 1}"
                )
                return
        url.digest = bytes.fromhex(text)


def _status_code(url: UrlDraft, at: Cursor) -> None:
    for text in at.words[1:]:
        found = re.fullmatch(r"\s*\+?([0-9]{1,9})(?:-\s*\+?([0-9]{1,9}))?", text, re.ASCII)
        low = int(found[1]) if found else 0
        high = int(found[2]) if found and found[2] else low
        if not _LOWEST_STATUS <= low <= high <= _HIGHEST_STATUS:
            at.report(f"Invalid HTTP_GET status code '{text}'")
        else:
            url.status.append((low, high))


def _regex(url: UrlDraft, at: Cursor) -> None:
    words = at.escaped_words()
    if len(words) != 2:
        at.note("regex missing or too many fields")
        return
    url.expression = words[1]
    try:
        re.compile(words[1])
    except (re.error, OverflowError, RecursionError) as error:
        at.note(f"regex '{words[1]}' cannot be used here: {error}. The url passes without it.")
        url.expression = None


def _regex_options(url: UrlDraft, at: Cursor) -> None:
    for name in at.words[1:]:
        if name not in REGEX_OPTIONS:
            at.note(f"regex_options '{name}' is unknown: one of {', '.join(REGEX_OPTIONS)}")
        elif name not in SUPPORTED_REGEX_OPTIONS:
            at.note(f"regex_options '{name}' has no effect here: write it into the expression")
        else:
            url.options.append(name)


def _offset(at: Cursor, which: str) -> int:
    if len(at.words) != 2:
        at.note(f"Missing or too may options for regex_{which}_offset")
        return 0
    if not re.fullmatch(r"\s*[+]?[0-9]{1,18}", at.words[1], re.ASCII):
        at.note(f"Invalid regex_{which}_offset {at.words[1]} specified")
        return 0
    return int(at.words[1])


def _regex_min_offset(url: UrlDraft, at: Cursor) -> None:
    url.first = _offset(at, "min")


def _regex_max_offset(url: UrlDraft, at: Cursor) -> None:
    url.last = _offset(at, "max")


def _end_of_url(url: UrlDraft, at: Cursor) -> None:
    if url.path is None:
        at.report("HTTP/SSL_GET checker url has no path - ignoring")
        return
    pattern = None
    if url.expression is None:
        if url.options or url.no_match or url.first or url.last is not None or url.stack:
            at.note("regex parameters specified without regex")
    else:
        first, last = url.first, url.last
        if last is not None and first > last:
            at.note(f"regex min offset {first} > regex_max_offset {last} - ignoring")
            first, last = 0, None
        pattern = Pattern(url.expression, tuple(url.options), url.no_match, first, last)
    status = tuple(sorted(set(url.status))) or ((200, 299),)
    url.checker.urls.append(Url(url.path, status, url.digest, url.virtualhost, pattern, url.position))


URL = Section("url", _end_of_url)
URL.add("path", word("path"), "PATH", "What to ask for.")
URL.add("digest", _digest, "MD5", "The body's MD5, 32 hexadecimal digits: `curl -s URL | md5sum`.")
URL.add("status_code", _status_code, "CODE|LOW-HIGH …", "Which answers are good; default 200-299.")
URL.add(
    "virtualhost", word("virtualhost", "Missing HTTP_GET virtualhost name"), "NAME", "The Host to ask for."
)
URL.add(
    "regex", _regex, "EXPRESSION",
    "The body must match. Python's regular expressions, not PCRE2's: one that Python cannot read is noted.",
)  # fmt: skip
URL.add("regex_no_match", flag("no_match"), "", "The body must not match.")
URL.add(
    "regex_options", _regex_options, "OPTION …", "PCRE2's names; those that mean nothing here are noted."
)
URL.add("regex_min_offset", _regex_min_offset, "BYTES", "The match begins there at the earliest.")
URL.add("regex_max_offset", _regex_max_offset, "BYTES", "The match begins there at the latest.")
URL.add("regex_stack", flag("stack"), "START MAX", "Memory for PCRE2.", remark="there is no PCRE2 here")

HTTP = Section("HTTP_GET", _end_of_http)
add_common(HTTP)
HTTP.add("nb_get_retry", _nb_get_retry, "COUNT", "The old name of retry.")
HTTP.add(
    "virtualhost",
    word("virtualhost", "HTTP_GET virtualhost name missing"),
    "NAME",
    "The Host of every url that names none.",
)
HTTP.add("http_protocol", _http_protocol, "1.0|1.0C|1.1|2", "Default 1.0. HTTP/2 is xlvs's own.")
HTTP.add("enable_sni", switch("sni", "Invalid enable_sni parameter {}"), "[BOOL]", "Send the Host as SNI.")
HTTP.add("sni_name", _sni_name, "NAME", "Send this name as SNI (keepalived 2.3).")
HTTP.add("tls_verify", _tls_verify, "[AUTHORITIES]", "Verify the server's certificate. xlvs's own.")
HTTP.add(
    "fast_recovery",
    switch("fast_recovery", "Invalid fast_recovery parameter {}"),
    "[BOOL]",
    "Begin with the url that failed.",
    remark="each check asks every url, the first one first",
)
HTTP.add("url", _url, "", "A page that must answer; several are asked one after the other.", block=URL)
