# SPDX-License-Identifier: GPL-2.0-only
"""On which interfaces the packet path belongs: where it cannot be, and where nobody's packets come in.

`unfit` holds whatever the operator says.  A bystander is attached when the operator names it, and is
none of "every interface".
"""

from __future__ import annotations

import os
from collections.abc import Collection

from xlvs.kernel import rtnetlink

_PORT_MASTERS = ("bridge", "bond", "team")
_BRING_NOBODY = {
    "dummy": "nothing comes in by a dummy",
    "ifb": "what comes in by an ifb has come in before",
    "vrf": "what comes in by a VRF has come in by its members",
    "macvtap": "what comes in by a macvtap is a virtual machine's",
    "ipvtap": "what comes in by an ipvtap is a virtual machine's",
}
_PAIRS = ("veth", "netkit")

HOSTS_OWN = "/proc/sys/net/core/netdev_budget"
"""A setting of the machine's first network namespace, which no other has (net_core_table)."""

_NET_NAME_ENUM = "1"
"""``name_assign_type`` of a name that the kernel has given, by counting (include/uapi/linux/netdevice.h)."""
SYSFS = "/sys/class/net"


def unfit(link: rtnetlink.Link, links: list[rtnetlink.Link]) -> str:
    """Why the packet path does not belong on an interface; empty when it does."""
    if link.loopback:
        return "the loopback interface receives nothing from clients"
    if not link.ethernet:
        return "it is not an Ethernet interface"
    for master in links:
        if link.master == master.index and master.kind in _PORT_MASTERS:
            return f"it is a port of the {master.kind} {master.name}: attach to {master.name}"
    return ""


def bystanders(links: list[rtnetlink.Link]) -> dict[int, str]:
    """Interfaces by which no client's packets come, by index, with the reason.

    Of a container's pair of interfaces that is the host's end, where it has no address.  IPVS on a host
    is asked by containers, too; their packets come by a bridge as a rule, which is attached.  A
    director that is in a container itself has such an end for its own interface.
    """
    found = {link.index: _BRING_NOBODY[link.kind] for link in links if link.kind in _BRING_NOBODY}
    ends = [link for link in links if _is_one_end(link)]
    if not os.path.exists(HOSTS_OWN):
        ends = []
    addressed = rtnetlink.addressed() if ends else set()
    for link in ends:
        if link.index not in addressed:
            found[link.index] = "the other end is a container's, and this one has no address"
    return found


def _is_one_end(link: rtnetlink.Link) -> bool:
    """Whether the other end of a pair of interfaces is in another network namespace."""
    return link.kind in _PAIRS and link.lower_namespace >= 0


def provisional(links: Collection[rtnetlink.Link]) -> set[int]:
    """Interfaces of hardware, by index, that are down and have the name with which the kernel began.

    udev gives most another one, before anybody sets them up.
    """
    return {link.index for link in links if not link.up and not link.kind and _is_counted(link)}


def _is_counted(link: rtnetlink.Link) -> bool:
    folder = os.path.join(SYSFS, link.name)
    try:
        with open(f"{folder}/ifindex", encoding="ascii") as file:
            if file.read().strip() != str(link.index):
                return False  # /sys is another network namespace's
        with open(f"{folder}/name_assign_type", encoding="ascii") as file:
            return file.read().strip() == _NET_NAME_ENUM
    except OSError:
        return False  # no sysfs, or a driver that does not tell (EINVAL)
