# SPDX-License-Identifier: GPL-2.0-only
"""Redirections that somebody typed by iptables: found, and taken over as they are.

What xlvs itself redirects is in a table of nftables of its own (`nft`).
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import ClassVar

from xlvs.errors import XlvsError

_CHAIN = "PREROUTING"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the table nat's chain PREROUTING, in the words that ``iptables-save`` has for it."""

    specification: str
    ipv6: bool
    kind: ClassVar[str] = "iptables"

    def look(self) -> str:
        """Is it there?"""
        return "there" if self.is_made() else ""

    def make(self, before: str) -> None:
        """Append it where it is missing."""
        del before
        if not self.is_made():
            self._run("-A")

    def undo(self, before: str) -> str:
        """Delete it, unless it was there before it was ours."""
        if before == "" and self.is_made():
            self._run("-D")
        return ""

    def is_made(self) -> bool:
        """Is it there?"""
        return self in [rule for _, rule in redirections()]

    def without(self) -> str:
        """No such rule."""
        return ""

    def _run(self, verb: str) -> None:
        words = [_program(self.ipv6), "-w", "-t", "nat", verb, _CHAIN, *shlex.split(self.specification)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise XlvsError(f"{shlex.join(words)}: {ran.stderr.strip() or ran.returncode}")

    def __str__(self) -> str:
        return f"{_program(self.ipv6)} -t nat -A {_CHAIN} {self.specification}"


def redirections() -> list[tuple[str, Rule]]:
    """Every rule that redirects packets to one address to this machine itself: the address, and the rule."""
    found = []
    for ipv6 in (False, True):
        save = f"{_program(ipv6)}-save"
        if shutil.which(save) is None:
            continue
        ran = subprocess.run([save, "-t", "nat"], capture_output=True, text=True, check=False)
        for line in ran.stdout.splitlines() if ran.returncode == 0 else []:
            address = _redirected(line, ipv6)
            if address:
                found.append((address, Rule(line.removeprefix(f"-A {_CHAIN} "), ipv6)))
    return found


def _redirected(line: str, ipv6: bool) -> str:
    """The one address whose packets a line of ``iptables-save`` redirects; empty for other lines."""
    if not line.startswith(f"-A {_CHAIN} "):
        return ""
    words = shlex.split(line)
    if "REDIRECT" not in words or "-d" not in words or "!" in words:
        return ""
    address, slash, length = words[words.index("-d") + 1].partition("/")
    return address if not slash or length == ("128" if ipv6 else "32") else ""


def _program(ipv6: bool) -> str:
    return "ip6tables" if ipv6 else "iptables"
