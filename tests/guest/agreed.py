# SPDX-License-Identifier: GPL-2.0-only
"""The differences between kernel IPVS and xlvs that are agreed upon, one by one.

Each says what it forgives in the answers to one step; docs/differences.md
gives the reasons.  An entry goes when the difference does: a test fails for
an entry that no longer happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreed:
    """A difference by name; `forgive` gives the kernel's answer as xlvs may give it."""

    name: str
    forgive: Callable[[str, str], str]
    """The kernel's answer and xlvs's to one step, as texts."""


def _without_outgoing(kernel: str, xlvs: str) -> str:
    lines = kernel.split("\n")
    others = xlvs.split("\n")
    if len(lines) != len(others) or "OutPkts" not in kernel:
        return kernel
    return "\n".join(
        other if _outgoing_alone_differs(line, other) else line
        for line, other in zip(lines, others, strict=True)
    )


def _outgoing_alone_differs(kernel: str, xlvs: str) -> bool:
    *name, connections, packets, _, octets, _ = kernel.split() if kernel.count(" ") > 5 else ["", *"01234"]
    return xlvs.split() == [*name, connections, packets, "0", octets, "0"]


AGREED = (Agreed("what the director itself sends to a client is not counted", _without_outgoing),)


def forgiving(kernel: str, xlvs: str) -> tuple[str, list[str]]:
    """The kernel's answer after all that is agreed, and the names of what made it equal xlvs's."""
    used = []
    for one in AGREED:
        forgiven = one.forgive(kernel, xlvs)
        if forgiven != kernel:
            used.append(one.name)
        kernel = forgiven
    return kernel, used if kernel == xlvs else []
