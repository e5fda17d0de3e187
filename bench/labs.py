# SPDX-License-Identifier: GPL-2.0-only
"""Labs of a client, a director and two real servers, for as long as something is measured in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.loads import Failed
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import lifecycle, namespaces, node, topology
from xlvs.lab.addresses import Request
from xlvs.lab.state import Record
from xlvs.realserver import setup

_IPVSADM = "/usr/sbin/ipvsadm"
"""The kernel's own; what a node finds by that name is xlvs."""


@contextmanager
def lab(shape: str, mode: str = "", name: str = "") -> Iterator[Record]:
    """A lab whose director runs xlvs in this mode; without one it is bare, its director nothing but a host.

    ``shape`` is a topology's name; labs of the same shape and mode need a ``name``.
    """
    name = f"bench-{os.getpid()}-{name or '-'.join((shape, mode or 'bare'))}"
    record = lifecycle.new_record(shape, name, Request(real_servers=2), bare=not mode, mode=mode)
    try:
        lifecycle.up(record, lambda _line: None)
        yield record
    finally:
        lifecycle.down(name, lambda _line: None)


@contextmanager
def kernel_ipvs_lab(shape: str) -> Iterator[Record]:
    """The same lab as xlvs would have, its director's table in the kernel's ip_vs, which has to be there."""
    with lab(shape, name=f"{shape}-ipvs") as record:
        addresses = record.addresses
        plan = topology.plan(topology.topology(shape), addresses, bare=False, ipv6=record.ipv6)
        for each in plan.nodes:
            typed(record, each.name, each.setup)
            if each.real_servers:
                with network_namespace(namespaces.path(record.namespace(each.name))):
                    setup.add(each.real_servers)
        typed(record, "director", [line.replace("ipvsadm", _IPVSADM, 1) for line in plan.table])
        yield record


def typed(record: Record, name: str, commands: Sequence[str]) -> None:
    """Type commands in a node of a lab; raises `Failed` at the first that fails."""
    ran = node.run(record, name, ["sh", "-e", "-c", "\n".join(commands)])
    if ran.returncode != 0:
        raise Failed(f"in {name}: {'; '.join(commands)}\nended with {ran.returncode}: {ran.stderr}")
