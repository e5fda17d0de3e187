# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a million connections: ours as the kernel charges it for maps, and kernel IPVS's."""

from __future__ import annotations

import os
from pathlib import Path

from tests.guest.runner import Guest
from tests.packet.director import new_director
from xlvs.datapath.load import Capacity
from xlvs.kernel import bpf

CONNECTIONS = 1_000_000
_LEAST = 1024


def of_maps(folder: str) -> dict[str, int]:
    """Bytes that the kernel charges for each map pinned in a folder."""
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_file():
            descriptor = bpf.open_pin(entry.path)
            try:
                charged = memlock(Path(f"/proc/self/fdinfo/{descriptor}").read_text())
            finally:
                os.close(descriptor)
            if charged is not None:
                found[entry.name] = charged
    return found


def memlock(fdinfo: str) -> int | None:
    """The bytes that a map's fdinfo names; None for what is no map."""
    fields = dict(line.split(":", 1) for line in fdinfo.splitlines() if ":" in line)
    if "map_type" not in fields:
        return None
    return int(fields["memlock"])


def of_connections(connections: int) -> dict[str, int]:
    """Bytes by map of what room for so many connections adds to a data plane with next to none."""
    charged = []
    for size in (_LEAST, connections):
        with new_director(Capacity(size, 64, 64)) as director:
            charged.append(of_maps(director.maps.folder))
    least, whole = charged
    return {name: whole[name] - least[name] for name in whole if whole[name] != least[name]}


def of_kernel() -> dict[str, int]:
    """What kernel IPVS of the guest takes for a connection, in bytes, and how many hash buckets it has."""
    script = (
        "modprobe ip_vs; cd /sys/kernel/slab/ip_vs_conn; cat order objs_per_slab object_size; "
        "cat /sys/module/ip_vs/parameters/conn_tab_bits"
    )
    with Guest(cpus=1) as guest:
        order, per_slab, size, bits = map(int, guest.run_script(script).check().stdout.split())
    return {"bytes": (4096 << order) // per_slab, "struct": size, "buckets": 1 << bits}
