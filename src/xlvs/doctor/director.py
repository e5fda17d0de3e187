# SPDX-License-Identifier: GPL-2.0-only
"""A host as a director: xlvs's table and that of kernel IPVS, and what the data plane says of itself."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from xlvs import model
from xlvs.datapath import open_datapath
from xlvs.errors import XlvsError
from xlvs.model import Destination, DestinationEntry, MarkRule, Service, ServiceEntry, ServiceKey, Tunnel

_CONNECTIONS_LOOKED_AT = 20_000
"""Of a larger connection table no more is read: shares, which these are for, show in so many."""
_METHODS = {
    "Masq": model.MASQUERADE, "Route": model.ROUTE, "Tunnel": model.TUNNEL, "Local": model.LOCAL,
}  # fmt: skip
_PROTOCOLS = {name: number for number, name in model.PROTOCOL_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of virtual services, and the command that changes it."""

    command: str
    services: tuple[ServiceEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Clients:
    """Connections of a service by client address: how many there are, from whom, to which real servers."""

    total: int
    by_client: dict[bytes, int]
    servers_of: dict[bytes, frozenset[bytes]]


@dataclass(slots=True)
class Director:
    """``loaded`` is whether xlvs's data plane is; ``note`` why something could not be read.

    ``not_attached`` are interfaces that would have to be, ``refused`` why some of them could not be;
    ``followed`` is whether somebody attaches what comes back, and then those are not among them of
    which that can be awaited.
    """

    loaded: bool = False
    own: Table = field(default_factory=lambda: Table("xlvsadm"))
    kernel: Table = field(default_factory=lambda: Table("ipvsadm"))
    mark_rules: tuple[MarkRule, ...] = ()
    clients: dict[ServiceKey, Clients] = field(default_factory=dict)
    hooks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    not_attached: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    followed: bool = False
    lo_settings: dict[str, bool] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    fill: dict[str, tuple[int, int]] = field(default_factory=dict)
    table_bytes: int = 0
    note: str = ""


def observe_director(proc_net: str) -> Director:
    """Read what this thread's network namespace has; ``proc_net`` is its folder in /proc."""
    found = Director()
    with suppress(OSError), open(f"{proc_net}/ip_vs") as listing:
        found.kernel = Table("ipvsadm", parse_ip_vs(listing.read()))
    try:
        _observe_own(found)
    except XlvsError as error:
        found.note = error.message
    return found


def _observe_own(found: Director) -> None:
    from xlvs.kernel import bpffs

    if bpffs.namespace_folder() is None:
        return
    with open_datapath() as datapath:
        found.own = Table("xlvsadm", tuple(datapath.services()))
        found.mark_rules = tuple(datapath.mark_rules())
        connections = list(islice(datapath.connections(), _CONNECTIONS_LOOKED_AT))
        found.clients = _clients(found.own, connections)
        _observe_data_plane(found)


def _observe_data_plane(found: Director) -> None:
    from xlvs.datapath import intent, loopback
    from xlvs.datapath.attach import Attacher
    from xlvs.datapath.load import fill, table_bytes
    from xlvs.datapath.maps import Maps
    from xlvs.kernel import abi, bpffs, followed

    folder = bpffs.namespace_folder()
    if folder is None:
        return
    found.loaded = True
    maps = Maps(folder)
    try:
        settings, limits = maps.settings, maps.limits
        attacher = Attacher(folder)
        for attachment in attacher.attachments():
            found.hooks[attachment.interface] = (
                *found.hooks.get(attachment.interface, ()), attachment.hook,
            )  # fmt: skip
        wanted = intent.read(folder)
        found.followed = followed.is_followed()
        found.refused = wanted.refused
        found.not_attached = tuple(
            link.name
            for link in attacher.fitting(wanted.named)
            if not attacher.is_attached(link.index)
            and not (
                found.followed and wanted.mode_of(link.name, link.up) and link.name not in wanted.refused
            )
        )
        found.lo_settings = loopback.wanted(settings)
        found.events = maps.events()
        found.fill["connections"] = fill(maps)
        found.table_bytes = table_bytes(limits)
        services = sum(1 for flags in maps.flags("services", abi.Service, settings.services_top) if flags)
        found.fill["virtual services"] = (services, limits.services)
        destinations = sum(
            1
            for flags in maps.flags("destinations", abi.Destination, settings.destinations_top)
            if flags & abi.DESTINATION_AVAILABLE
        )
        found.fill["real servers"] = (destinations, limits.destinations)
    finally:
        maps.close()


def _clients(table: Table, connections: list[model.Connection]) -> dict[ServiceKey, Clients]:
    keys = {
        (key.family, key.protocol, key.address, key.port): key
        for key in (entry.service.key for entry in table.services)
    }
    counted: dict[ServiceKey, Counter[bytes]] = {}
    servers: dict[ServiceKey, dict[bytes, set[bytes]]] = {}
    for each in connections:
        key = keys.get((each.family, each.protocol, each.virtual, each.virtual_port))
        if each.fwmark:
            key = ServiceKey(each.family, fwmark=each.fwmark)
        if key is None or each.client_port == 0:  # a template
            continue
        counted.setdefault(key, Counter())[each.client] += 1
        servers.setdefault(key, {}).setdefault(each.client, set()).add(each.destination)
    return {
        key: Clients(
            sum(clients.values()),
            dict(clients),
            {client: frozenset(found) for client, found in servers[key].items()},
        )
        for key, clients in counted.items()
    }


def parse_ip_vs(text: str) -> tuple[ServiceEntry, ...]:
    """The services in /proc/net/ip_vs, whose addresses and ports are hexadecimal (kernel: ip_vs_ctl.c)."""
    found: list[tuple[Service, list[DestinationEntry]]] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] in (*_PROTOCOLS, "FWM"):
            found.append((_service(words), []))
        elif len(words) >= 6 and words[0] == "->" and words[1] != "RemoteAddress:Port" and found:
            found[-1][1].append(_destination(words))
    return tuple(ServiceEntry(service, tuple(destinations)) for service, destinations in found)


def _service(words: list[str]) -> Service:
    if words[0] == "FWM":
        key = ServiceKey(model.IPV4, fwmark=int(words[1], 16))
    else:
        address, port = _endpoint(words[1])
        family = model.IPV4 if len(address) == 4 else model.IPV6
        key = ServiceKey(family, _PROTOCOLS[words[0]], address, port)
    persistence = 0
    if "persistent" in words:
        # In the kernel's ticks: more than none is what counts here.
        persistence = max(1, int(words[words.index("persistent") + 1]))
    return Service(key, words[2], persistence=persistence)


def _destination(words: list[str]) -> DestinationEntry:
    address, port = _endpoint(words[1])
    method = _METHODS.get(words[2], model.ROUTE)
    tunnel = Tunnel() if method == model.TUNNEL else None
    destination = Destination(address, port, method, int(words[3]), tunnel=tunnel)
    return DestinationEntry(destination, int(words[4]), int(words[5]))


def _endpoint(text: str) -> tuple[bytes, int]:
    from ipaddress import IPv6Address

    address, _, port = text.rpartition(":")
    if address.startswith("["):
        return IPv6Address(address.strip("[]")).packed, int(port, 16)
    return bytes.fromhex(address), int(port, 16)
