# SPDX-License-Identifier: GPL-2.0-only
"""A lab's life: up, repair, down; and what there is.

Building and repairing are one thing: look which parts are missing, make them.
A new lab is one whose every part is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xlvs.errors import UsageError, XlvsError
from xlvs.kernel import bpffs, leftovers
from xlvs.kernel.namespaces import network_namespace
from xlvs.lab import (
    addresses,
    decapsulator,
    interruption,
    namespaces,
    native,
    nginx,
    node,
    own_files,
    state,
    topology,
    traces,
    wiring,
)
from xlvs.lab.state import Record
from xlvs.lab.topology import Node, Plan
from xlvs.realserver import setup

Report = Callable[[str], None]
"""Called with each line of progress."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What a lab lacks: the switch itself, whole nodes, running web servers, ports out of place."""

    switch: bool
    nodes: tuple[Node, ...]
    web: tuple[Node, ...]
    ports: bool

    def __bool__(self) -> bool:
        return self.switch or bool(self.nodes) or bool(self.web) or self.ports

    def __str__(self) -> str:
        lost = ["the switch"] if self.switch else []
        lost += [each.name for each in self.nodes]
        lost += [f"nginx on {each.name}" for each in self.web]
        return ", ".join(lost) or "wires out of place"


def new_record(
    topology_name: str, name: str | None, request: addresses.Request, *, bare: bool, mode: str = ""
) -> Record:
    """Check what was asked for, changing nothing.  Raises `UsageError`."""
    shape = topology.topology(topology_name)
    if bare and mode:
        raise UsageError(
            "--bare and --mode contradict each other: a bare lab attaches nothing",
            "leave one out; by hand it is: xlvs lab exec director -- xlvs attach --mode MODE",
        )
    return Record(
        state.check_name(shape.name if name is None else name),
        shape.name,
        addresses.choose(request, shape.layout),
        bare,
        wiring.ipv6_here(),
        mode,
    )


def plan_of(record: Record) -> Plan:
    """The lab's nodes and commands, filled in."""
    return topology.plan(
        topology.topology(record.topology),
        record.addresses,
        bare=record.bare,
        ipv6=record.ipv6,
        mode=record.mode,
    )


def up(record: Record, report: Report) -> bool:
    """Bring a lab up, or repair it; True if there was anything to do.

    Raises `UsageError` if a different lab has that name, `XlvsError` if the
    machine refuses.  A lab that could not be built is taken away again; one
    that could not be repaired counts as half built, and is built anew next time.
    """
    _refuse_within_a_node()
    with state.lock(record.name), interruption.between_steps():
        present = state.load(record.name)
        if present is not None and not present.same_lab(record):
            raise UsageError(
                f"a lab {record.name!r} is up already, made with other options",
                f"take it down first (xlvs lab down --name {record.name}) or choose another --name",
            )
        _check_machine()
        plan = plan_of(record)
        if present is not None and present.phase == state.READY:
            damage = inspect(record, plan)
            if not damage:
                return False
            report(f"repairing the lab {record.name!r}: {damage}")
            _repair(record, plan, damage, report)
            return True
        if present is not None or namespaces.with_prefix(record.namespace("")):
            report(f"removing what a lab {record.name!r} has left")
            _remove(record.name)
        try:
            _build(record, plan, report)
        except BaseException:
            with interruption.never():
                with suppress(OSError):  # whoever read the reports may be gone
                    report(f"removing the unfinished lab {record.name!r}")
                _remove(record.name)
            raise
        return True


def down(name: str, report: Report) -> bool:
    """Take a lab down with all that runs in it; False if there was none.

    Whatever is left of a lab goes, with or without a readable record.  Once
    begun it is not interrupted, short of being killed; then repeat it.
    """
    state.check_name(name)
    _refuse_within_a_node()
    with state.lock(name):
        if not (state.ROOT / name).exists() and not _own_namespaces(name):
            return False
        with interruption.never():
            with suppress(OSError):
                report(f"taking down the lab {name!r}")
            _remove(name)
        return True


def inspect(record: Record, plan: Plan) -> Damage:
    """What the lab lacks, looked up in the kernel."""
    switch = record.namespace(topology.SWITCH)
    if not namespaces.exists(switch):
        return Damage(True, plan.nodes, (), True)
    ports = wiring.links(switch)
    bridges = {link["ifname"] for link in ports}
    if not bridges.issuperset(plan.segments):
        return Damage(True, plan.nodes, (), True)
    broken = []
    unplugged = False
    for each in plan.nodes:
        namespace = record.namespace(each.name)
        present = wiring.links(namespace) if namespaces.exists(namespace) else []
        has_ports = all(interface.port in bridges for interface in each.interfaces)
        is_wired = all(wiring.is_whole(interface, present) for interface in each.interfaces)
        can_unwrap = not each.unwraps or (present and decapsulator.is_installed(namespace, each))
        if not has_ports or not is_wired or not can_unwrap:
            broken.append(each)
        elif not all(wiring.is_plugged_in(interface, ports) for interface in each.interfaces):
            unplugged = True
    silent = [
        each
        for each in plan.nodes
        if each.web
        and each not in broken
        and not nginx.is_running(record.node_folder(each.name), record.namespace(each.name))
    ]
    return Damage(False, tuple(broken), tuple(silent), unplugged or not native.is_prepared(plan, ports))


def _build(record: Record, plan: Plan, report: Report) -> None:
    record.save(state.STARTING)
    traces.make()
    everything = Damage(True, plan.nodes, (), True)
    _repair(record, plan, everything, report)
    interruption.check()


def _repair(record: Record, plan: Plan, damage: Damage, report: Report) -> None:
    switch = record.namespace(topology.SWITCH)
    # Until all is done the lab counts as half built, and would be built anew.
    record.save(state.STARTING)
    lost = [record.namespace(each.name) for each in damage.nodes]
    namespaces.delete([*lost, switch] if damage.switch else lost)
    _end_strays([record.node_folder(each.name) for each in damage.nodes])
    if damage.switch:
        report(f"switch: {', '.join(plan.segments)}")
        namespaces.add(switch)
        wiring.prepare_switch(switch, plan)
    else:
        wiring.remove_ports(switch, damage.nodes)
    for each in damage.nodes:
        interruption.check()
        shown = "  ".join(f"{wire.name} {' '.join(wire.addresses)}" for wire in each.interfaces)
        report(f"{each.name}: {shown}")
        namespaces.add(record.namespace(each.name))
        wiring.prepare_node(record.namespace(each.name), each)
        node.prepare(record, each.name, each.interfaces[0].name)
    wiring.connect(switch, [(each, record.namespace(each.name)) for each in damage.nodes])
    for each in damage.nodes:
        if each.unwraps:
            decapsulator.install(record.namespace(each.name), each, record.addresses.gue_ports)
            decapsulator.configure(record.node_folder(each.name), record.namespace(each.name), each)
    wiring.plug_in(switch, plan)
    native.prepare(switch, plan)
    decapsulator.prepare_ports(switch, plan)
    for each in damage.web:
        nginx.end_leftovers(record.namespace(each.name))
    for each in (*damage.nodes, *damage.web):
        if each.web:
            _type(record, each.name, ("nginx",), report)
    for each in damage.nodes:
        _type(record, each.name, each.setup, report)
        _set_up_real_server(record, each, report)
        if each.role == topology.DIRECTOR:
            _type(record, each.name, plan.attaching, report)
            _type(record, each.name, plan.table, report)
    record.save(state.READY)


def _type(record: Record, name: str, commands: tuple[str, ...], report: Report) -> None:
    """Type these commands in a node, one shell for all; the first that fails ends it."""
    interruption.check()
    for command in commands:
        report(f"{name}# {command}")
    if not commands:
        return
    ran = node.run(record, name, ["sh", "-e", "-c", "\n".join(commands)])
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip() or f"exit code {ran.returncode}"
        raise XlvsError(
            f"in the node {name}, one of these commands failed: {'; '.join(commands)}", f"it said: {said}"
        )
    for line in ran.stdout.splitlines():
        report(f"  {line}")


def _set_up_real_server(record: Record, each: Node, report: Report) -> None:
    """What `xlvs realserver add` does, without starting a command for it."""
    if not each.real_servers:
        return
    interruption.check()
    report(f"{each.name}# {each.commands[-1]}")
    with network_namespace(namespaces.path(record.namespace(each.name))):
        setup.add(each.real_servers)


def _remove(name: str) -> None:
    """Remove all of a lab, the record last, so that an interrupted removal can be repeated."""
    for namespace in _own_namespaces(name):
        _detach_data_plane(name, namespace)
    namespaces.delete(_own_namespaces(name))
    _end_strays([state.nodes_folder(name)])
    leftovers.sweep()
    own_files.remove_all(state.ROOT / name)
    state.remove(name)
    traces.take_back()


def _end_strays(folders: list[Path]) -> None:
    """End the processes of nodes whose namespaces lost their names: `ip netns delete` lets them live."""
    namespaces.end_processes(lambda: namespaces.processes_that_see(list(map(str, folders))))


def _own_namespaces(name: str) -> list[str]:
    """A lab's namespaces; those of a lab NAME-x are not among them, for no node's name has a '-'."""
    prefix = f"xlvs-{name}-"
    return [each for each in namespaces.with_prefix(prefix) if "-" not in each.removeprefix(prefix)]


def _detach_data_plane(name: str, namespace: str) -> None:
    """`xlvs detach` in a node where something is loaded, as an operator would.

    Where it fails, the namespace's end detaches the programs and the sweep
    that follows removes the pins.
    """
    if not namespaces.exists(namespace):
        return
    with network_namespace(namespaces.path(namespace)):
        if bpffs.namespace_folder() is None:
            return
    record = state.load(name)
    its_node = namespace.removeprefix(f"xlvs-{name}-")
    if record is not None and (record.node_folder(its_node) / "bin/xlvs").exists():
        node.run(record, its_node, ["xlvs", "detach"])


def _refuse_within_a_node() -> None:
    """A node's view of mounts is its own: a namespace made or removed there stays as it was outside."""
    if namespaces.is_ours(namespaces.with_prefix("xlvs-")):
        raise XlvsError("this command runs inside a lab's node", "leave the node first (exit)")


def _check_machine() -> None:
    if shutil.which("ip") is None:
        raise XlvsError(
            "the command ip is not installed, of which labs are made",
            "apt-get install iproute2, or make build",
        )
    nginx.program()
    node.own_command("xlvsadm")
