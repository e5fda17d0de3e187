# SPDX-License-Identifier: GPL-2.0-only
"""A topology shown at work: every step with the command an operator would type.

It measures what it claims, and fails where the measurement does not bear it
out.  Its lab has a name of its own and is removed however the demo ends.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from xlvs.errors import UsageError, XlvsError
from xlvs.lab import interruption, lifecycle, node, state, topology
from xlvs.lab.addresses import Request
from xlvs.lab.capture import Capture
from xlvs.lab.state import Record

REQUESTS = 12
_WEB = "tcp port 80"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What is shown of a topology.

    ``points`` are where tcpdump listens meanwhile: a node, the number of its
    interface, and for what.  ``show_way`` gets their captures in the same
    order; it raises `XlvsError` where the packets did not go the topology's way.
    """

    title: str
    cluster: str
    points: tuple[tuple[str, int, str], ...]
    show_way: Callable[[Record, tuple[Capture, ...]], None]


def run(topology_name: str) -> int:
    """Show a topology; return 0.  Raises `XlvsError` if anything was not as it should be."""
    topology.topology(topology_name)
    if topology_name not in _DEMONSTRATIONS:
        known = " ".join(_DEMONSTRATIONS)
        raise UsageError(f"there is no demonstration of {topology_name!r}", f"there is one of: {known}")
    _remove_stale()
    with interruption.between_steps():
        record = lifecycle.new_record(topology_name, f"demo-{os.getpid()}", Request(), bare=False)
        try:
            _show(record, _DEMONSTRATIONS[topology_name])
        finally:
            with interruption.never():
                _tidy_away(record)
    _say(f"\nBuild one to play with:  xlvs lab up {topology_name}   then   xlvs lab shell director")
    return 0


def _show(record: Record, demonstration: Demonstration) -> None:
    _say(
        f"{demonstration.title}, in a lab of network namespaces; this machine's own network is not touched."
    )

    _heading(f"Build a cluster: {demonstration.cluster}")
    _type("#", f"xlvs lab up {record.topology} --name {record.name}")
    lifecycle.up(record, lambda line: _say(f"  {line}"))

    places = dict.fromkeys(name for name, _, _ in demonstration.points)
    _heading(f"Ask the VIP {REQUESTS} times, with tcpdump listening on the {' and on the '.join(places)}")
    plan = lifecycle.plan_of(record)
    captures = tuple(
        Capture(record, name, plan.node(name).interfaces[number].name, expression)
        for name, number, expression in demonstration.points
    )
    with ExitStack() as listening:
        for capture in captures:
            listening.enter_context(capture)
        for (name, _, _), capture in zip(demonstration.points, captures, strict=True):
            _type(f"{name}#", " ".join(capture.command))
        answers = _ask(record)
    _check_spread(record, answers)

    _heading("What the director knows of it")
    for command in ("xlvsadm -Ln", "xlvsadm -Lcn"):
        _run_and_show(record, "director", command)

    _heading("Which way did the packets go?  Counted by tcpdump:")
    demonstration.show_way(record, captures)


def _tidy_away(record: Record) -> None:
    with suppress(OSError):  # whoever looked on may be gone
        _heading("Tidying away")
        _type("#", f"xlvs lab down --name {record.name}")
    lifecycle.down(record.name, lambda _line: None)
    with suppress(OSError):
        _say("  nothing of it is left")


def _ask(record: Record) -> Counter[str]:
    answers: Counter[str] = Counter()
    command = f"curl -s -m 5 http://{record.addresses.vip}/"
    for number in range(1, REQUESTS + 1):
        ran = node.run(record, "client", command.split())
        if ran.returncode != 0:
            raise XlvsError(f"request {number} was not answered: {command} ended with code {ran.returncode}")
        interruption.check()
        answer = ran.stdout.strip()
        answers[answer] += 1
        _type("client$", f"{command}   {number:>2}: {answer}")
    return answers


def _check_spread(record: Record, answers: Counter[str]) -> None:
    servers = [f"rs{number}" for number in range(1, len(record.addresses.rips) + 1)]
    _say(f"  answers by real server: {', '.join(f'{server} {answers[server]}' for server in servers)}")
    if any(answers[server] != REQUESTS // len(servers) for server in servers):
        raise XlvsError("round robin should have given every real server the same number of requests")


def _run_and_show(record: Record, where: str, command: str) -> None:
    interruption.check()
    _type(f"{where}#", command)
    ran = node.run(record, where, command.split())
    for line in (ran.stdout + ran.stderr).splitlines():
        _say(f"  {line}")
    if ran.returncode != 0:
        raise XlvsError(f"{command} ended with code {ran.returncode}")
    if command.endswith("-Lcn") and len(re.findall(r"^TCP ", ran.stdout, re.MULTILINE)) != REQUESTS:
        raise XlvsError(f"the table of connections should have {REQUESTS} entries")


def _show_direct_routing(record: Record, captures: tuple[Capture, ...]) -> None:
    at_director, at_client = captures
    vip, client = record.addresses.vip, record.addresses.client
    macs = {
        each.name: each.interfaces[0].mac
        for each in lifecycle.plan_of(record).nodes
        if each.role in (topology.REAL_SERVER, topology.DIRECTOR, topology.CLIENT)
    }
    sent = at_client.count(client, vip)
    came = at_director.count(client, vip, mac=macs["client"])
    passed_on = at_director.count(client, vip, mac=macs["director"])
    through = at_director.count(vip, client)
    received = at_client.count(vip, client)
    by_server = {
        name: at_client.count(vip, client, mac) for name, mac in macs.items() if name.startswith("rs")
    }
    _say(f"  client -> VIP   sent by the client          {sent:>4}")
    _say(f"                  came to the director        {came:>4}")
    _say(f"                  passed on by the director   {passed_on:>4}")
    _say(f"  VIP -> client   received by the client      {received:>4}")
    for name, number in by_server.items():
        _say(f"                    from the MAC of {name:<6}    {number:>4}   {macs[name]}")
    _say(f"                  seen at the director        {through:>4}")
    if through or not received or sum(by_server.values()) != received or not came == passed_on == sent:
        raise XlvsError("the packets did not go the way of Direct Routing")
    _say("  Requests go through the director; answers go straight from the real servers to the client.")


def _show_nat(record: Record, captures: tuple[Capture, ...]) -> None:
    inside, outside, at_client = captures
    vip, client, rips = record.addresses.vip, record.addresses.client, record.addresses.rips
    sent = at_client.count(client, vip)
    came = outside.count(client, vip)
    passed_on = {address: inside.count(client, address) for address in rips}
    answered = {address: inside.count(address, client) for address in rips}
    returned = outside.count(vip, client)
    received = at_client.count(vip, client)
    untranslated = sum(at_client.count(address) for address in rips)
    _say(f"  client -> VIP   sent by the client                  {sent:>4}")
    _say(f"                  came to the director, outside       {came:>4}")
    for address, number in passed_on.items():
        _say(f"  client -> RIP   passed on to {address:<16}       {number:>4}")
    for address, number in answered.items():
        _say(f"  RIP -> client   answered by {address:<16}        {number:>4}")
    _say(f"  VIP -> client   passed on by the director           {returned:>4}")
    _say(f"                  received by the client              {received:>4}")
    _say(f"  RIP -> client   seen at the client                  {untranslated:>4}")
    one_way = sent == came == sum(passed_on.values())
    other_way = received == returned == sum(answered.values())
    if not (one_way and other_way and received) or untranslated or not all(answered.values()):
        raise XlvsError("the packets did not go the way of NAT")
    _say("  Requests and answers both pass the director, which translates VIP to RIP and RIP to VIP.")


def _show_tunnelling(record: Record, captures: tuple[Capture, ...]) -> None:
    at_router, at_director, at_client = captures
    vip, dip, client = record.addresses.vip, record.addresses.dip, record.addresses.client
    router = lifecycle.plan_of(record).node("router").interfaces[0].mac
    sent = at_client.count(client, vip)
    came = at_director.count(client, vip)
    wrapped = {address: at_router.count(dip, address) for address in record.addresses.rips}
    through = at_director.count(vip, client)
    received = at_client.count(vip, client)
    by_router = at_client.count(vip, client, router)
    _say(f"  client -> VIP   sent by the client                   {sent:>4}")
    _say(f"                  came to the director                 {came:>4}")
    for address, number in wrapped.items():
        _say(f"  DIP -> RIP      wrapped, to {address:<16}        {number:>5}")
    _say(f"  VIP -> client   received by the client               {received:>4}")
    _say(f"                    from the MAC of the router         {by_router:>4}   {router}")
    _say(f"                  seen at the director                 {through:>4}")
    if through or not sent == came == sum(wrapped.values()) or not received or by_router != received:
        raise XlvsError("the packets did not go the way of tunnelling")
    _say("  Requests go through the director, wrapped from there on; answers go straight to the client.")


_DEMONSTRATIONS = {
    topology.DIRECT_ROUTING.name: Demonstration(
        title="Direct Routing",
        cluster="a client, a director, three real servers with nginx, on one switch",
        points=(("director", 0, _WEB), ("client", 0, _WEB)),
        show_way=_show_direct_routing,
    ),
    topology.NAT.name: Demonstration(
        title="NAT",
        cluster="a client outside, two real servers with nginx inside, the director between",
        points=(("director", 1, _WEB), ("director", 0, _WEB), ("client", 0, _WEB)),
        show_way=_show_nat,
    ),
    topology.TUNNELLING.name: Demonstration(
        title="Tunnelling",
        cluster="a client and a director, two real servers with nginx behind a router",
        points=(("router", 0, "ip proto 4"), ("director", 0, _WEB), ("client", 0, _WEB)),
        show_way=_show_tunnelling,
    ),
}


def _remove_stale() -> None:
    """Take down the labs of demos that were killed with no chance to do it themselves."""
    for name in state.names():
        process = re.fullmatch(r"demo-(\d+)", name)
        if process and not os.path.exists(f"/proc/{process[1]}"):
            lifecycle.down(name, lambda line: _say(f"{line}, left by a demo that was killed"))


def _heading(text: str) -> None:
    _say(f"\n==> {text}")


def _type(prompt: str, command: str) -> None:
    _say(f"  {prompt} {command}")


def _say(line: str) -> None:
    print(line, flush=True)
