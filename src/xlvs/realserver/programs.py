# SPDX-License-Identifier: GPL-2.0-only
"""Our eBPF programs at a real server's interfaces: silence about VIPs, smaller segments, open tunnels.

They live without any process: each is attached by a link that is pinned in a folder
of this network namespace, beside that of a director's programs, which they have nothing
to do with.  What they are to know is written into their maps before they are attached;
a change of that puts new programs in the place of the old ones, between two packets.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from struct import pack

from xlvs.datapath.hooks import Pins, TcHook
from xlvs.errors import XlvsError
from xlvs.kernel import bpf, bpffs, rtnetlink
from xlvs.kernel.leftovers import REAL_SERVER
from xlvs.kernel.libbpf import BpfObject
from xlvs.kernel.namespaces import network_cookie
from xlvs.realserver import decapsulator
from xlvs.realserver.interfaces import Interface, ethernet
from xlvs.realserver.wanted import (
    EBPF,
    GRE,
    GUE,
    MAX_GUE_PORTS,
    MSS_AUTO,
    MSS_OFF,
    TUNNELLING,
    RealServer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SILENCE, TUNNELS = "silence", "tunnels"
_OBJECTS = {SILENCE: Path(__file__).parents[1] / "bpf/realserver.bpf.o", TUNNELS: decapsulator.OBJECT}
_PROGRAMS = {
    SILENCE: {"ingress": "xlvs_silence_in", "egress": "xlvs_silence_out"},
    TUNNELS: {"ingress": decapsulator.PROGRAM},
}
# Behind the director's, where this machine is one, too.
_PRIORITIES = {SILENCE: 49154, TUNNELS: 49155}
_GUE_HEADERS, _GRE_HEADER = 8 + 12, 8
"""UDP and GUE with remote checksum offload; GRE with a checksum: the most that directors add."""


def concerns(kind: str, server: RealServer) -> bool:
    """Is a program of this kind needed for a real server?"""
    if kind == TUNNELS:
        return server.decapsulator == EBPF
    return server.arp == EBPF or server.mss != MSS_OFF


def put(servers: list[RealServer]) -> list[str]:
    """Have the programs that these need at their interfaces, and none that they do not.

    Returns what was done; raises `XlvsError`.
    """
    done = []
    for kind in (SILENCE, TUNNELS):
        concerned = [server for server in servers if concerns(kind, server)]
        if concerned:
            done += _put(kind, concerned, {server.vip for server in servers})
        elif _folder(kind) is not None:
            done += _remove(kind)
    return done


def state(server: RealServer, interfaces: list[Interface]) -> list[tuple[str, str]]:
    """The programs that a real server needs, each with what is wrong about it, empty where nothing is."""
    found = []
    for kind in (SILENCE, TUNNELS):
        if not concerns(kind, server):
            continue
        folder = _folder(kind)
        for each in interfaces:
            if server.interfaces and each.name not in server.interfaces:
                continue
            attached = folder is not None and all(hook.kind(each.index) for hook in _hooks(kind, folder))
            name = f"the eBPF program for {kind}"
            found.append((f"{name} is at {each.name}", "" if attached else f"{name} is not at {each.name}"))
    return found


def segment(server: RealServer, interfaces: list[Interface]) -> int:
    """The largest TCP segment, in bytes, that fits a packet of a tunnel to this real server.

    Headers without options (RFC 6691): whoever sends options makes up for them.
    """
    if server.mss != MSS_AUTO:
        return server.mss
    wide = any(
        ":" in address and not ip_address(address).is_link_local
        for each in interfaces
        for address in each.all_addresses
    )
    header = max(
        (_GUE_HEADERS if GUE in server.tunnels else 0), (_GRE_HEADER if GRE in server.tunnels else 0)
    )
    outer = header + (40 if wide else 20)
    smallest = min((each.mtu for each in interfaces), default=1500)
    return max(smallest - outer - (40 if server.ipv6 else 20) - 20, 1)


def _interfaces(servers: list[RealServer], vips: Iterable[str]) -> list[Interface]:
    """The interfaces of all of these."""
    found: dict[int, Interface] = {}
    held = set(vips)
    for server in servers:
        found |= {each.index: each for each in ethernet(held, server.interfaces)}
    if not found:
        raise XlvsError("there is no Ethernet interface that is up", "see what there is: ip -details link")
    return list(found.values())


def _put(kind: str, servers: list[RealServer], vips: set[str]) -> list[str]:
    interfaces = _interfaces(servers, vips)
    new = _folder(kind) is None
    folder = _make_folder(kind)
    try:
        with BpfObject(str(_OBJECTS[kind])) as opened:
            _LOADERS[kind](opened, servers, interfaces)
            return _attach(kind, folder, opened, interfaces)
    except BaseException:
        if new:
            _remove(kind)
        raise


def _attach(kind: str, folder: str, opened: BpfObject, interfaces: list[Interface]) -> list[str]:
    pins, done = Pins(folder), []
    for direction, program in _PROGRAMS[kind].items():
        pins.put(program, opened.program(program))
        hook = TcHook(pins, program, direction, _PRIORITIES[kind])
        for link in rtnetlink.links():
            if link.index not in {each.index for each in interfaces}:
                hook.detach(link.index)
            elif hook.kind(link.index):
                hook.replace(link.index, opened.program(program))
            else:
                hook.attach(link)
                done.append(f"eBPF: {program} at {link.name}, {direction}")
    return done


def _load_silence(opened: BpfObject, servers: list[RealServer], interfaces: list[Interface]) -> None:
    opened.load()
    vips, own = opened.map_descriptor("vips"), opened.map_descriptor("interfaces")
    for server in servers:
        mss = segment(server, interfaces) if server.method == TUNNELLING and server.mss != MSS_OFF else 0
        bpf.update(vips, decapsulator.packed(server.vip), pack("=HH", mss, server.arp == EBPF))
    for each in interfaces:
        four = ip_address(each.address).packed if each.address else bytes(4)
        six = ip_address(each.address6).packed if each.address6 else bytes(16)
        bpf.update(own, pack("=I", each.index), four + six)


def _load_tunnels(opened: BpfObject, servers: list[RealServer], interfaces: list[Interface]) -> None:
    own = [address for each in interfaces for address in each.all_addresses]
    kinds = {kind for server in servers for kind in server.tunnels}
    ports = sorted({port for server in servers for port in server.gue_ports})
    if len(ports) > MAX_GUE_PORTS:
        raise XlvsError(
            f"there are {len(ports)} ports for GUE, of all real servers together",
            f"at most {MAX_GUE_PORTS}",
        )
    decapsulator.load(opened, own, kinds, ports, vips=[server.vip for server in servers])


_LOADERS: dict[str, Callable[[BpfObject, list[RealServer], list[Interface]], None]] = {
    SILENCE: _load_silence,
    TUNNELS: _load_tunnels,
}


def _remove(kind: str) -> list[str]:
    folder = _folder(kind)
    if folder is None:
        return []
    done = []
    names = {link.index: link.name for link in rtnetlink.links()}
    for hook in _hooks(kind, folder):
        for index, name in names.items():
            if hook.kind(index):
                done.append(f"taken back: eBPF: {hook.program_name} at {name}")
                hook.detach(index)
    _hand_on_marks(folder, next(_folder(other) for other in _OBJECTS if other != kind))
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # the other kind's may be there
        os.rmdir(os.path.dirname(folder))
    return done


def _hand_on_marks(folder: str, other: str | None) -> None:
    """Have the other kind know which qdiscs were made for us: its filters may be in them (before tcx)."""
    for mark in os.listdir(f"{folder}/links"):
        if mark.startswith("qdisc-") and other is not None:
            os.rename(f"{folder}/links/{mark}", f"{other}/links/{mark}")


def _hooks(kind: str, folder: str) -> list[TcHook]:
    pins = Pins(folder)
    return [
        TcHook(pins, program, direction, _PRIORITIES[kind]) for direction, program in _PROGRAMS[kind].items()
    ]


def _folder(kind: str) -> str | None:
    """The folder of a kind's pins, None where there are none."""
    mounted = bpffs.root()
    if mounted is None:
        return None
    folder = f"{mounted}/{network_cookie():x}{REAL_SERVER}/{kind}"
    return folder if os.path.isdir(folder) else None


def _make_folder(kind: str) -> str:
    folder = f"{bpffs.mount()}/{network_cookie():x}{REAL_SERVER}/{kind}"
    os.makedirs(f"{folder}/links", mode=0o700, exist_ok=True)
    return folder
