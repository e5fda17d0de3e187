# SPDX-License-Identifier: GPL-2.0-only
"""HTTP_GET and SSL_GET: each URL in turn answers as it should."""

from __future__ import annotations

import hashlib
import re
import ssl

from xlvs.checkers import http1
from xlvs.checkers.connection import failure
from xlvs.checkers.http_stream import Answer, host_header
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import HttpCheck, HttpVersion, Pattern, Url
from xlvs.keepalived.configuration import TlsClient


async def check(checker: HttpCheck, client: TlsClient) -> Result:
    """Ask for every URL once; passes when each answers as it should."""
    passed = Result(True, "nothing was asked for")
    for url in checker.urls:
        passed = await _check_url(checker, url, client)
        if not passed.ok:
            return passed
    return passed


async def _check_url(checker: HttpCheck, url: Url, client: TlsClient) -> Result:
    connection = checker.connection
    try:
        if checker.version is HttpVersion.HTTP_2:
            from xlvs.checkers import http2

            answer = await http2.get(checker, url.path, host_header(checker, url), client)
        else:
            answer = await http1.get(checker, url, client)
    except ssl.SSLCertVerificationError as error:
        return Result(False, f"{url.path}: the certificate is refused: {error.verify_message}")
    except ssl.SSLError as error:
        return Result(False, f"{url.path}: TLS: {error.reason or error}")
    except OSError as error:
        return failure(error, connection, url.path)
    except (ValueError, EOFError) as error:
        return Result(False, f"{url.path}: {error}")
    return judge(url, answer)


def judge(url: Url, answer: Answer) -> Result:
    """Whether an answer is the one that is asked for: status, then digest, then pattern."""
    if not any(first <= answer.status <= last for first, last in url.status):
        return Result(False, f"{url.path}: HTTP status code {answer.status}")
    if url.digest:
        digest = hashlib.md5(answer.body, usedforsecurity=False).digest()
        if digest != url.digest:
            return Result(False, f"{url.path}: MD5 digest {digest.hex()}, not {url.digest.hex()}")
    if url.pattern is not None and _found(url.pattern, answer.body) == url.pattern.absent:
        wanted = "must not match" if url.pattern.absent else "does not match"
        return Result(False, f"{url.path}: the regular expression {wanted}")
    return Result(True, f"{url.path}: HTTP status code {answer.status}")


_OPTIONS = {
    "caseless": re.IGNORECASE,
    "dotall": re.DOTALL,
    "multiline": re.MULTILINE,
    "extended": re.VERBOSE,
}
"""PCRE2's options that Python's regular expressions have; the parser refuses what has no counterpart."""


def _found(pattern: Pattern, body: bytes) -> bool:
    flags = re.RegexFlag(0)
    expression = pattern.expression.encode("utf-8", "surrogateescape")
    for option in pattern.options:
        flags |= _OPTIONS.get(option, re.RegexFlag(0))
    compiled = re.compile(expression, flags)
    if "anchored" in pattern.options:
        return compiled.match(body, pattern.first) is not None
    for match in compiled.finditer(body, pattern.first):
        return pattern.last is None or match.start() <= pattern.last
    return False
