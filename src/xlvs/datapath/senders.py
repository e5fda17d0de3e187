# SPDX-License-Identifier: GPL-2.0-only
"""Which real servers may begin calls: what the packet path knows them by, in the map ``callers``.

They are the masqueraded ones of services with a persistence engine (kernel:
``ip_vs_find_real_service``).  The map follows from the records; a real server of several
such services is that of one of them.  The caller holds the table's lock.
"""

from __future__ import annotations

from struct import Struct

from xlvs.datapath.maps import Maps
from xlvs.datapath.scheduling import Scheduling
from xlvs.kernel import abi, bpf

_INDEX = Struct("=I")


def write(maps: Maps, scheduling: Scheduling) -> None:
    """Bring the map up to date with the services and real servers that there are."""
    wanted = _wanted(maps, scheduling)
    descriptor = maps.descriptor("callers")
    for key in set(bpf.keys(descriptor, len(bytes(abi.Caller())))) - wanted.keys():
        bpf.delete(descriptor, key)
    for key, index in wanted.items():
        bpf.update(descriptor, key, _INDEX.pack(index))
    maps.settings.callers = len(wanted)


def _wanted(maps: Maps, scheduling: Scheduling) -> dict[bytes, int]:
    """Destination records by ``struct caller``."""
    wanted = {}
    flags = maps.flags("services", abi.Service, maps.settings.services_top)
    for service, value in enumerate(flags):
        if not value & abi.SERVICE_SIP or not maps.service(service).run:
            continue
        for index, _ in scheduling.run(service).picks:
            record = maps.destination(index)
            if record.method == abi.METHOD_MASQUERADE:
                wanted[bytes(abi.Caller(record.address, record.port, record.family))] = index
    return wanted
