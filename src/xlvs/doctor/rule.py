# SPDX-License-Identifier: GPL-2.0-only
"""A rule of netfilter, in the words of iptables-save."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

NOT_UNDERSTOOD = "nft"
"""Behind ``-m`` in a rule's words: what nft asks there is not understood."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its table, chain and words.  A chain's policy is a rule without matches, the last one.

    ``program`` is the command that made it and can take it away.  Of nft's, ``place`` is the base
    chain by which a packet comes to it (family, table, chain), ``shown`` what nft prints, ``mark``
    the firewall mark that it gives.
    """

    program: str
    table: str
    chain: str
    words: tuple[str, ...]
    target: str
    policy: bool = False
    place: str = ""
    shown: str = ""
    mark: int = 0

    @property
    def understood(self) -> bool:
        """Whether all that the rule asks could be put into words."""
        return NOT_UNDERSTOOD not in self.matches

    def may_see(self, version: int) -> bool:
        """Whether packets of an IP version come to it at all, as far as its program says."""
        if self.place:
            family = self.place.partition(" ")[0]
            return family == "inet" or family == ("ip" if version == 4 else "ip6")
        return self.program.startswith("ip6") == (version == 6)

    @property
    def matches(self) -> tuple[str, ...]:
        """What the rule asks of a packet: its words in front of -j."""
        for option in ("-j", "-g"):
            if option in self.words:
                return self.words[: self.words.index(option)]
        return self.words

    @property
    def text(self) -> str:
        """The rule as one types it behind ``iptables``, without -A."""
        return shlex.join((self.chain, *self.words))

    def __str__(self) -> str:
        if self.place:
            return f"{self.program}: {self.shown}"
        if self.policy:
            return f"{self.program} -t {self.table} -P {self.chain} {self.target}"
        return f"{self.program} -t {self.table} -A {self.text}"

    def change(self, option: str) -> str:
        """The command that adds (-A), inserts (-I) or removes (-D) this rule."""
        return f"{self.program} -t {self.table} {option} {self.text}"
