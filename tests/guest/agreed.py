# SPDX-License-Identifier: GPL-2.0-only
"""The differences between kernel IPVS and xlvs that are agreed upon, one by one.

Each says what it forgives in the answers to one step; docs/differences.md
gives the reasons.  An entry goes when the difference does: a test fails for
an entry that no longer happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .sightings import INCOMPLETE


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of both to one step, and the steps before it."""

    step: str
    kernel: str
    xlvs: str
    before: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Agreed:
    """A difference by name; `forgive` gives the kernel's answer as xlvs may give it."""

    name: str
    forgive: Callable[[Answers], str]


def _counters(answers: Answers, may_differ: Callable[[list[int], list[int]], bool]) -> str:
    """The kernel's listing with xlvs's rows where those may have other counters.

    `may_differ` gets both rows of Conns, InPkts, OutPkts, InBytes and OutBytes.
    """
    lines, others = answers.kernel.split("\n"), answers.xlvs.split("\n")
    if len(lines) != len(others) or "OutPkts" not in answers.kernel:
        return answers.kernel
    rows = []
    for line, other in zip(lines, others, strict=True):
        words, own = line.split(), other.split()
        is_row = len(words) == len(own) > 5 and words[:-5] == own[:-5]
        if is_row and all(word.isdecimal() for word in (*words[-5:], *own[-5:])):
            numbers = [int(word) for word in words[-5:]], [int(word) for word in own[-5:]]
            line = other if may_differ(*numbers) else line
        rows.append(line)
    return "\n".join(rows)


def _without_outgoing(answers: Answers) -> str:
    def outgoing_alone(kernel: list[int], xlvs: list[int]) -> bool:
        same = [place for place in range(5) if kernel[place] == xlvs[place]]
        return same == [0, 1, 3] and kernel[2] > xlvs[2] and kernel[4] > xlvs[4]

    return _counters(answers, outgoing_alone)


def _fragments_counted(answers: Answers) -> str:
    """Connections are the same whatever counts as a packet."""
    if not any("fragments=" in step for step in answers.before):
        return answers.kernel
    return _counters(answers, lambda kernel, xlvs: kernel[0] == xlvs[0])


def _late_first_fragment(answers: Answers) -> str:
    is_lost = all(INCOMPLETE in line for line in answers.xlvs.splitlines())
    if "order=" in answers.step and is_lost and "icmp" not in answers.kernel:
        return answers.xlvs
    return answers.kernel


def _quoted_fragment(answers: Answers) -> str:
    def kinds(text: str) -> list[list[str]]:
        return [line.split()[:6] for line in text.splitlines()]

    is_error = "< icmp" in answers.kernel and "fragments=" in answers.step
    return answers.xlvs if is_error and kinds(answers.kernel) == kinds(answers.xlvs) else answers.kernel


def _not_fragmented(answers: Answers) -> str:
    words = answers.step.split()
    size = max((int(word[5:]) for word in words if word.startswith("data=")), default=0)
    may_be_cut = size > 1200 and "df" not in words and "[" not in answers.step
    return "" if may_be_cut and not answers.xlvs and answers.kernel.count("\n") == 0 else answers.kernel


def _no_checksum(answers: Answers) -> str:
    lines, others = answers.kernel.split("\n"), answers.xlvs.split("\n")
    if "checksum=zero" not in answers.step or len(lines) != len(others):
        return answers.kernel
    return "\n".join(
        other if _without_udp_checksum(line) == other else line
        for line, other in zip(lines, others, strict=True)
    )


def _without_udp_checksum(line: str) -> str:
    """The line of a UDP packet (see `sightings`), its checksum made zero."""
    head, mark, rest = line.partition("…and")
    start, _, dump = head.rpartition(" ")
    ipv6_headers = 48 if dump[12:14] == "00" else 40  # with or without a hop-by-hop header
    place = (int(dump[1], 16) * 4 if dump.startswith("4") else ipv6_headers) * 2 + 12
    return f"{start} {dump[:place]}0000{dump[place + 4 :]}{mark}{rest}"


AGREED = (
    Agreed("what the director itself sends to a client is not counted", _without_outgoing),
    Agreed("fragments are counted one by one", _fragments_counted),
    Agreed("a fragment before its first is lost", _late_first_fragment),
    Agreed("an error about a datagram in fragments quotes the first one", _quoted_fragment),
    Agreed("what does not fit is not fragmented", _not_fragmented),
    Agreed("a UDP datagram without a checksum gets none by NAT", _no_checksum),
)


def forgiving(answers: Answers) -> tuple[str, list[str]]:
    """The kernel's answer after all that is agreed, and the names of what made it equal xlvs's."""
    used = []
    kernel = answers.kernel
    for one in AGREED:
        forgiven = one.forgive(replace(answers, kernel=kernel))
        if forgiven != kernel:
            used.append(one.name)
        kernel = forgiven
    return kernel, used if kernel == answers.xlvs else []
