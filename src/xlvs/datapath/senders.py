# SPDX-License-Identifier: GPL-2.0-only
"""Masqueraded real servers that the packet path knows by what they send from: the map ``senders``.

Those of services with a persistence engine, which may begin calls, and with the setting
nat_icmp_send all (kernel: ``ip_vs_find_real_service``, ``ip_vs_has_real_service``).  The map
follows from the records; a real server of several services is that of one of them, of one
with an engine if there is any.  The caller holds the table's lock.
"""

from __future__ import annotations

from struct import Struct

from xlvs.datapath.maps import Maps
from xlvs.datapath.scheduling import Scheduling
from xlvs.kernel import abi, bpf

_INDEX = Struct("=I")


def write(maps: Maps, scheduling: Scheduling) -> None:
    """Bring the map up to date with the settings, services and real servers that there are."""
    callers = _senders(maps, scheduling, abi.SERVICE_SIP)
    wanted = callers
    if maps.settings.sysctl[abi.SYSCTL_NAT_ICMP_SEND]:
        wanted = _senders(maps, scheduling, abi.SERVICE_USED) | callers
    descriptor = maps.descriptor("senders")
    for key in set(bpf.keys(descriptor, len(bytes(abi.Sender())))) - wanted.keys():
        bpf.delete(descriptor, key)
    for key, index in wanted.items():
        bpf.update(descriptor, key, _INDEX.pack(index))
    maps.settings.callers = len(callers)


def _senders(maps: Maps, scheduling: Scheduling, kind: int) -> dict[bytes, int]:
    """Destination records by ``struct sender``, of the services with that flag."""
    found = {}
    flags = maps.flags("services", abi.Service, maps.settings.services_top)
    for service, value in enumerate(flags):
        if not value & kind or not maps.service(service).run:
            continue
        # Services of a firewall mark have none: theirs send by any.
        protocol = maps.service(service).key.protocol
        for index, _ in scheduling.run(service).picks:
            record = maps.destination(index)
            if record.method == abi.METHOD_MASQUERADE:
                sender = abi.Sender(record.address, record.port, record.family, protocol)
                found[bytes(sender)] = index
    return found
