# SPDX-License-Identifier: GPL-2.0-only
"""What there is of a lab, as plain values ready for JSON.  Changes nothing."""

from __future__ import annotations

from typing import Any

from xlvs.lab import lifecycle, namespaces, nginx, state, topology
from xlvs.lab.state import Record

INCOMPLETE = "incomplete"
"""Half built or without a readable record: `up` builds it anew, `down` removes it."""
DAMAGED = "damaged"
READY = "ready"


def summary(name: str) -> dict[str, Any]:
    """One line of the list of labs: name, topology, state, VIP and node names."""
    record = state.load(name)
    if record is None:
        return {"name": name, "topology": None, "state": INCOMPLETE, "vip": None, "nodes": []}
    return {
        "name": name,
        "topology": record.topology,
        "state": _condition(record)[0],
        "vip": record.addresses.vip,
        "nodes": [node.name for node in lifecycle.plan_of(record).nodes],
    }


def details(record: Record) -> dict[str, Any]:
    """Everything about one lab: its addresses by their names, its nodes by theirs.

    Addresses are text without prefix length except under ``nodes``.  What a
    lab has not (a router, a network inside, IPv6) is None.
    """
    addresses = record.addresses
    condition, lacks = _condition(record)
    plan = lifecycle.plan_of(record)
    return {
        "name": record.name,
        "topology": record.topology,
        "summary": topology.topology(record.topology).summary,
        "state": condition,
        "lacks": lacks,
        "bare": record.bare,
        "mode": record.mode or None,
        "interface": addresses.interface,
        "network": addresses.network,
        "vip": addresses.vip,
        "dip": addresses.dip,
        "client": addresses.client,
        "rips": list(addresses.rips),
        "router": addresses.router or None,
        "gateway": addresses.gateway or None,
        "inside_network": addresses.inside_network or None,
        "inside_dip": addresses.inside_dip or None,
        "inside_router": addresses.inside_router or None,
        "gue_ports": list(addresses.gue_ports),
        "vip6": addresses.vip6 if record.ipv6 else None,
        "dip6": addresses.dip6 if record.ipv6 else None,
        "client6": addresses.client6 if record.ipv6 else None,
        "inside_dip6": (addresses.inside_dip6 or None) if record.ipv6 else None,
        "rips6": list(addresses.rips6) if record.ipv6 else [],
        "nodes": {node.name: _node(record, node) for node in plan.nodes},
        "table": list(plan.table),
    }


def _condition(record: Record) -> tuple[str, str | None]:
    if record.phase != state.READY:
        return INCOMPLETE, None
    damage = lifecycle.inspect(record, lifecycle.plan_of(record))
    return (DAMAGED, str(damage)) if damage else (READY, None)


def _node(record: Record, node: topology.Node) -> dict[str, Any]:
    namespace = record.namespace(node.name)
    return {
        "role": node.role,
        "namespace": namespace,
        "interfaces": [
            {"name": wire.name, "mac": wire.mac, "segment": wire.segment, "addresses": list(wire.addresses)}
            for wire in node.interfaces
        ],
        "web": nginx.is_running(record.node_folder(node.name), namespace),
        "processes": len(namespaces.processes([namespace])),
        "setup": list(node.commands),
    }
