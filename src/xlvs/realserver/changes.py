# SPDX-License-Identifier: GPL-2.0-only
"""Changes of this machine that can be taken back: settings, addresses, links, routes, rules.

Each kind can `look` at what there is and tell it as text, `make` itself, and be
`undone` to what was found.  What was there already is left as it is, and stays when
the change is taken back.  All of them may be repeated without harm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

from xlvs.errors import XlvsError
from xlvs.kernel import rtnetlink
from xlvs.realserver import ip, sysctl

THERE = "there"
"""What `look` says of something that is as it should be without us."""
ABSENT = ""
POLICY_TABLE = 30828
"""Our routing table, and the priority of the rules that lead to it."""
LEAST_METRIC6 = 1


class Change(Protocol):
    """One change.  Two of them are the same when they are equal."""

    kind: ClassVar[str]

    def look(self) -> str:
        """What there is now, for `undo`; `THERE` where nothing has to be made."""

    def make(self, before: str) -> None:
        """Make it; raises `XlvsError`."""

    def undo(self, before: str) -> str:
        """Put back what was found; returns what stands in the way of that, empty where nothing does."""

    def is_made(self) -> bool:
        """Is it in force now?"""

    def without(self) -> str:
        """What to put back where it was typed by hand, and nobody noted what was there before."""

    def __str__(self) -> str:
        """The command that an operator would type for it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting under /proc/sys/net, as ``ipv4/conf/all/arp_ignore``; one of ``accepted`` is left alone."""

    setting: str
    value: str
    accepted: tuple[str, ...] = ()
    kind: ClassVar[str] = "setting"

    def look(self) -> str:
        """The value that it has."""
        found = sysctl.read(self.setting)
        if found is None:
            raise XlvsError(
                f"this kernel has no setting {sysctl.ROOT / self.setting}", "does the interface exist?"
            )
        return found

    def make(self, before: str) -> None:
        """Write the value where another one stands that does not do."""
        del before  # what counts is what there is
        if not self.is_made():
            sysctl.write(self.setting, self.value)

    def undo(self, before: str) -> str:
        """Write the former value, unless somebody has changed it since."""
        found = sysctl.read(self.setting)
        if found is None or found == before or before in self._good():
            return ""
        if found != self.value:
            return f"{self.setting} is {found}, which xlvs did not set: it stays (it was {before})"
        sysctl.write(self.setting, before)
        return ""

    def is_made(self) -> bool:
        """Does it have the value, or another one that does?"""
        return sysctl.read(self.setting) in self._good()

    def without(self) -> str:
        """The kernel's own value."""
        return "0"

    def _good(self) -> tuple[str, ...]:
        return (self.value, *self.accepted)

    def __str__(self) -> str:
        # An interface's name may have dots itself (eth0.7); then sysctl(8) wants slashes.
        name = f"net/{self.setting}"
        return f"sysctl -w {name if '.' in name else name.replace('/', '.')}={self.value}"


class Addition:
    """A change that is one thing, which is there or not: `ip` adds it, and deletes it again."""

    __slots__ = ()

    def look(self) -> str:
        """Is it there already?  What is there without us stays."""
        return THERE if self.is_made() else ABSENT

    def make(self, before: str) -> None:
        """Add it where it is missing."""
        del before
        if not self.is_made():
            ip.change(*self._adding())

    def undo(self, before: str) -> str:
        """Remove it, unless it was there before."""
        if before == ABSENT and self.is_made():
            ip.change(*self._words("del"))
        return ""

    def is_made(self) -> bool:
        """Is it there?"""
        raise NotImplementedError

    def without(self) -> str:
        """Nothing of the kind."""
        return ABSENT

    def _words(self, verb: str) -> tuple[str, ...]:
        """What `ip` is told to do with it."""
        raise NotImplementedError

    def _adding(self) -> tuple[str, ...]:
        """What `ip` is told to add it."""
        return self._words("add")

    def __str__(self) -> str:
        return " ".join(("ip", *self._adding()))


@dataclass(frozen=True, slots=True)
class Address(Addition):
    """An address of one device, ``prefix`` with its length.

    IPv6's is not looked for twice in the network (``nodad``), for the director has it,
    too, and deprecated, so that nothing that this machine begins comes from it.
    """

    prefix: str
    device: str
    kind: ClassVar[str] = "address"

    def is_made(self) -> bool:
        """Is it there, with this length?"""
        return any(
            f"{each['local']}/{each['prefixlen']}" == self.prefix
            for link in addresses()
            if link["ifname"] == self.device
            for each in link["addr_info"]
        )

    def _words(self, verb: str) -> tuple[str, ...]:
        return ("address", verb, self.prefix, "dev", self.device)

    def _adding(self) -> tuple[str, ...]:
        options = ("nodad", "preferred_lft", "0") if ":" in self.prefix else ()
        return (*self._words("add"), *options)


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A device that is up."""

    device: str
    kind: ClassVar[str] = "link"

    def look(self) -> str:
        """Is it up?  Raises `XlvsError` where there is no such device."""
        return THERE if self._link().up else ABSENT

    def make(self, before: str) -> None:
        """Bring it up."""
        del before
        if not self.is_made():
            ip.change("link", "set", self.device, "up")

    def undo(self, before: str) -> str:
        """Take it down, if it was."""
        if before == ABSENT and any(link.name == self.device and link.up for link in rtnetlink.links()):
            ip.change("link", "set", self.device, "down")
        return ""

    def is_made(self) -> bool:
        """Is it there, and up?"""
        return any(link.name == self.device and link.up for link in rtnetlink.links())

    def without(self) -> str:
        """A loopback is always up."""
        return THERE if self.device == "lo" else ABSENT

    def _link(self) -> rtnetlink.Link:
        return link_named(self.device)

    def __str__(self) -> str:
        return f"ip link set {self.device} up"


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route by a gateway that counts before all others there are; ``table`` 0 is the main one.

    Others' routes stay: IPv4's goes in front of them, IPv6's has a lower metric, because
    IPv6 takes routes of one metric for parts of one.
    """

    gateway: str
    table: int = 0
    kind: ClassVar[str] = "route"

    def look(self) -> str:
        """`THERE`, or the metric that a new one must have to count."""
        present = self._present()
        if present and present[0].get("gateway") == self.gateway:
            return THERE
        if ":" not in self.gateway:
            return "0"
        lowest = min((int(route.get("metric", 1024)) for route in present), default=1025)
        if lowest <= LEAST_METRIC6:
            raise XlvsError(
                f"a default route of IPv6 has the lowest metric there is, {lowest}: "
                f"none by {self.gateway} can come before it",
                "give it a higher one: ip -6 route show default",
            )
        return str(lowest - 1)

    def make(self, before: str) -> None:
        """Add it where another one counts."""
        if not self.is_made():
            metric = self.look() if before == THERE else before
            ip.change(*self._words("prepend" if self._family() == "-4" else "add", metric))

    def undo(self, before: str) -> str:
        """Remove it, unless it was there before."""
        if before != THERE and any(route.get("gateway") == self.gateway for route in self._present()):
            ip.change(*self._words("del", before))
        return ""

    def is_made(self) -> bool:
        """Is it the one that counts?"""
        present = self._present()
        return bool(present) and present[0].get("gateway") == self.gateway

    def without(self) -> str:
        """A default route is nothing that goes with a VIP."""
        return THERE

    def _present(self) -> list[dict[str, Any]]:
        """The default routes in the order in which the kernel asks them."""
        try:
            shown = ip.show(self._family(), "route", "show", "default", *self._table())
        except XlvsError:
            return []  # a table is there with its first route
        return sorted(shown, key=lambda route: int(route.get("metric", 0)))

    def _family(self) -> str:
        return "-6" if ":" in self.gateway else "-4"

    def _table(self) -> tuple[str, ...]:
        return ("table", str(self.table)) if self.table else ()

    def _words(self, verb: str, metric: str) -> tuple[str, ...]:
        chosen = ("metric", metric) if metric != "0" else ()
        return (self._family(), "route", verb, "default", "via", self.gateway, *chosen, *self._table())

    def __str__(self) -> str:
        return " ".join(("ip", *self._words("prepend" if self._family() == "-4" else "add", "0")))


@dataclass(frozen=True, slots=True)
class AnswersRule(Addition):
    """What this machine sends from a service's port goes by our own table."""

    service: str
    ipv6: bool
    kind: ClassVar[str] = "rule"

    def is_made(self) -> bool:
        """Is it there?"""
        protocol, _, port = self.service.partition(":")
        return any(
            rule.get("priority") == POLICY_TABLE
            and rule.get("iif") == "lo"
            and str(rule.get("ipproto")) == protocol
            and str(rule.get("sport")) == port
            for rule in ip.show(self._family(), "rule", "show")
        )

    def _family(self) -> str:
        return "-6" if self.ipv6 else "-4"

    def _words(self, verb: str) -> tuple[str, ...]:
        protocol, _, port = self.service.partition(":")
        # iif lo: what this machine itself sends.
        selector = ("iif", "lo", "ipproto", protocol, "sport", port)
        place = ("table", str(POLICY_TABLE), "priority", str(POLICY_TABLE))
        return (self._family(), "rule", verb, *selector, *place)


@dataclass(frozen=True, slots=True)
class HostRoute(Addition):
    """A route to the VIP by ``lo``: tutorials have it from when addresses had none of their own."""

    prefix: str
    kind: ClassVar[str] = "host route"

    def is_made(self) -> bool:
        """Is it there?"""
        return any(
            route.get("dev") == "lo" and route.get("protocol") != "kernel"
            for route in ip.show(self._family(), "route", "show", "exact", self.prefix)
        )

    def _family(self) -> str:
        return "-6" if ":" in self.prefix else "-4"

    def _words(self, verb: str) -> tuple[str, ...]:
        return (self._family(), "route", verb, self.prefix, "dev", "lo")


@dataclass(frozen=True, slots=True)
class GuePort(Addition):
    """A UDP port at which the kernel's fou takes packets out of GUE."""

    port: int
    kind: ClassVar[str] = "gue port"

    def is_made(self) -> bool:
        """Does fou listen there?"""
        return any(int(each.get("port", 0)) == self.port for each in ip.show("fou", "show"))

    def _words(self, verb: str) -> tuple[str, ...]:
        return ("fou", verb, "port", str(self.port), *(("gue",) if verb == "add" else ()))


def addresses() -> list[dict[str, Any]]:
    """Every interface with its addresses, as ``ip -json address`` tells them."""
    return ip.show("address", "show")


def link_named(name: str) -> rtnetlink.Link:
    """The interface of that name; raises `XlvsError`."""
    for link in rtnetlink.links():
        if link.name == name:
            return link
    raise XlvsError(f"there is no interface {name}", "see what there is: ip link")


def to_json(change: Change, before: str) -> dict[str, Any]:
    """A change with what it found, as JSON has it."""
    return {"kind": change.kind, **asdict(change), "before": before}  # type: ignore[call-overload]


def from_json(value: object) -> tuple[Change, str]:
    """What `to_json` wrote; raises `ValueError`."""
    from xlvs.realserver.iptables import Rule

    if not isinstance(value, dict):
        raise ValueError("a change is no object")
    words = dict(value)
    kind, before = words.pop("kind", None), words.pop("before", None)
    kinds: tuple[Any, ...] = (
        Setting,
        Address,
        HostRoute,
        LinkUp,
        DefaultRoute,
        AnswersRule,
        GuePort,
        Rule,
    )
    for each in kinds:
        if each.kind == kind:
            if not isinstance(before, str) or words.keys() != {field.name for field in fields(each)}:
                raise ValueError(f"a change of the kind {kind!r} has other fields")
            return each(
                **{field.name: _typed(field.type, words[field.name]) for field in fields(each)}
            ), before
    raise ValueError(f"there is no change of the kind {kind!r}")


def _typed(kind: object, value: object) -> object:
    """A field's value, of the type that it has to be; raises `ValueError`."""
    if (
        kind == "tuple[str, ...]"
        and isinstance(value, (list, tuple))
        and all(type(one) is str for one in value)
    ):
        return tuple(value)
    if type(value).__name__ != kind:
        raise ValueError(f"{value!r} is no {kind}")
    return value
