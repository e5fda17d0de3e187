# SPDX-License-Identifier: GPL-2.0-only
"""The interfaces by which others reach this machine, with the addresses that are its own there."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from xlvs.errors import UsageError
from xlvs.kernel import rtnetlink
from xlvs.realserver import changes
from xlvs.realserver.wanted import TUNNEL_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its own addresses, VIPs not among them; an empty one is one that it has not.

    ``address6`` is a link-local one where there is any: neighbours are asked by that.
    """

    name: str
    index: int
    mtu: int
    address: str
    address6: str
    all_addresses: tuple[str, ...]


def ethernet(vips: Iterable[str], named: tuple[str, ...] = ()) -> list[Interface]:
    """These interfaces; all of Ethernet that are up, where none is named.

    Ports of bridges and bonds are not among them: packets are the master's.  Nor are
    what stands in for tunnel devices in labs.
    Raises `UsageError` for one that is not there or no Ethernet interface.
    """
    held = set(vips)
    present = {link.name: link for link in rtnetlink.links()}
    for name in named:
        if name not in present:
            raise UsageError(f"there is no interface {name}", f"there are: {', '.join(sorted(present))}")
        if not present[name].ethernet or present[name].loopback:
            raise UsageError(f"{name} is no Ethernet interface", "see what there is: ip -details link")
    shown = {entry["ifname"]: entry for entry in changes.addresses()}
    return [
        _interface(link, shown[link.name], held)
        for link in present.values()
        if link.name in shown
        and (
            link.name in named
            if named
            else link.ethernet and link.up and not link.master and link.name not in TUNNEL_DEVICES
        )
    ]


def _interface(link: rtnetlink.Link, shown: dict[str, object], vips: set[str]) -> Interface:
    info = shown.get("addr_info", [])
    entries = [entry for entry in info if isinstance(entry, dict)] if isinstance(info, list) else []
    own = [str(entry["local"]) for entry in entries if entry["local"] not in vips]
    four = [address for address in own if ":" not in address]
    six = sorted((one for one in own if ":" in one), key=lambda one: not ip_address(one).is_link_local)
    mtu = shown.get("mtu", 1500)
    return Interface(
        link.name,
        link.index,
        mtu if isinstance(mtu, int) else 1500,
        four[0] if four else "",
        six[0] if six else "",
        tuple(own),
    )
