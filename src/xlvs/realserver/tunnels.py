# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own tunnel devices as ends of a director's tunnels.

Each kind has a device that takes what comes from any address to any of this
machine's: tunl0 takes IPv4 out of IPIP, sit0 IPv6, gre0 both out of GRE; GUE is
opened by fou and goes on as IPIP.  They are there in each namespace once their
module is.  Their rp_filter has to be loose: what comes out of a tunnel has a client's
address, to which the way is another device.  The higher of ``all``'s value and the
device's counts, so the device's alone is set to 2, and all others keep theirs.
"""

from __future__ import annotations

import shutil
import subprocess

from xlvs.kernel import rtnetlink
from xlvs.realserver import sysctl
from xlvs.realserver.changes import Change, GuePort, LinkUp, Setting
from xlvs.realserver.wanted import GRE, GUE, IPIP, RealServer

_IPV4, _IPV6, _GRE = "tunl0", "sit0", "gre0"
_MODULES = {_IPV4: "ipip", _IPV6: "sit", _GRE: "ip_gre"}
_FOU = "fou"


def device_changes(server: RealServer) -> list[Change]:
    """What makes the kernel's devices take this real server's tunnels."""
    found: list[Change] = []
    for device in devices(server):
        found.append(Setting(sysctl.name(device, sysctl.RP_FILTER), str(sysctl.LOOSE)))
        found.append(LinkUp(device))
    return found + [GuePort(port) for port in server.gue_ports]


def devices(server: RealServer) -> list[str]:
    """The devices that this real server's tunnels need."""
    needed = []
    if IPIP in server.tunnels or GUE in server.tunnels:
        needed.append(_IPV6 if server.ipv6 else _IPV4)
    if GRE in server.tunnels:
        needed.append(_GRE)
    return needed


def lacking(server: RealServer) -> str:
    """What the kernel lacks to take these tunnels by its own devices, after asking for its modules.

    Empty where it lacks nothing.  A module that was loaded for it stays: to take one
    out would take everybody's devices with it.
    """
    for device in devices(server):
        if not _is_there(device):
            _load(_MODULES[device])
            if not _is_there(device):
                return f"there is no device {device} (module {_MODULES[device]})"
    if server.gue_ports:
        _load(_FOU)
        shown = subprocess.run(["ip", "fou", "show"], capture_output=True, check=False)
        if shown.returncode != 0:
            return f"there is no module {_FOU}"
    return ""


def _is_there(device: str) -> bool:
    return any(link.name == device for link in rtnetlink.links())


def _load(module: str) -> None:
    if shutil.which("modprobe") is not None:
        subprocess.run(["modprobe", "-q", module], capture_output=True, check=False)
