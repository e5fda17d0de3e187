# SPDX-License-Identifier: GPL-2.0-only
"""Listings as JSON: real output against the documented schema, and which connections are chosen."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.json_schema import documented, faults
from xlvs.cli.connection_filter import parse_filter
from xlvs.cli.ipvsadm import run
from xlvs.cli.listing_json import SCHEMA, connections, table
from xlvs.datapath.memory import MemoryDatapath
from xlvs.model import (
    IPV4,
    IPV6,
    MASQUERADE,
    SCTP,
    TCP,
    TUNNEL,
    UDP,
    Connection,
    Destination,
    DestinationEntry,
    Rates,
    Service,
    ServiceEntry,
    ServiceKey,
    Stats,
    Tunnel,
)

pytestmark = pytest.mark.unit


def ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def server(text: str, **fields: Any) -> DestinationEntry:
    return DestinationEntry(Destination(ip(text), 80, **fields), 1, 2, 3, Stats(1, 2, 3, 4, 2**63), Rates(5))


SERVICES = [
    ServiceEntry(
        Service(ServiceKey(IPV4, TCP, ip("192.0.2.10"), 80), "sh", 3, 300, 24, "sip"),
        (
            server("192.0.2.12", upper_threshold=9, lower_threshold=4, weight=0),
            server("10.0.0.1", method=MASQUERADE),
            server("2001:db8::1", method=TUNNEL, tunnel=Tunnel("gue", 6080, "remcsum")),
            server("10.0.0.2", method=TUNNEL),
        ),
        Stats(1, 2, 3, 4, 5),
        Rates(7, 8, 9, 10, 11),
    ),
    ServiceEntry(Service(ServiceKey(IPV4, UDP, ip("192.0.2.9"), 53), "rr", 5, one_packet=True, rehome=True)),
    ServiceEntry(Service(ServiceKey(IPV6, SCTP, ip("2001:db8::9"), 0), persistence=60)),
    ServiceEntry(Service(ServiceKey(IPV6, fwmark=0xFFFFFFFF))),
    ServiceEntry(Service(ServiceKey(IPV4, TCP, ip("10.0.0.9"), 80), idle_timeout=7, reject_gone=True)),
]


def connection(client: str, virtual: str, real: str, protocol: int = TCP, fwmark: int = 0) -> Connection:
    family = IPV6 if ":" in client else IPV4
    return Connection(
        family, protocol, ip(client), 40000, ip(virtual), 80, ip(real), 8080, "NONE", 60, fwmark=fwmark
    )


CONNECTIONS = [
    connection("198.51.100.5", "192.0.2.10", "10.0.0.1"),
    connection("198.51.100.6", "192.0.2.10", "10.0.0.2"),
    connection("203.0.113.1", "192.0.2.10", "10.0.0.1", UDP),
    connection("198.51.100.0", "0.0.0.7", "10.0.0.3", 0, 7),
    connection("198.51.100.9", "192.0.2.99", "10.0.0.3", TCP, 7),
    connection("2001:db8::5", "2001:db8::10", "2001:db8::11"),
]


def answer(line: str) -> str:
    @contextmanager
    def opened(**_: bool) -> Iterator[MemoryDatapath]:
        yield MemoryDatapath(SERVICES, CONNECTIONS)

    stdout, stderr = io.StringIO(), io.StringIO()
    status = run(line.split(), io.StringIO(), stdout, stderr, opened)
    assert (stderr.getvalue(), status) == ("", 0)
    return stdout.getvalue()


@pytest.mark.parametrize(
    ("line", "listing"),
    [
        ("-L --json", "services"),
        ("-L --json --stats", "services"),
        ("-Ln --json --exact", "services"),
        ("-L --json --thresholds", "services"),
        ("-L --json --persistent-conn --nosort", "services"),
        ("-L --json --tun-info -t 192.0.2.10:80", "services"),
        ("-L --json -f 4294967295 -6", "services"),
        ("-Lc --json", "connections"),
        ("-Lcn --json --only-client 192.0.2.1", "connections"),
        ("-L --json --timeout", "timeouts"),
    ],
)
def test_what_comes_out_is_as_documented(line: str, listing: str) -> None:
    schema = documented()
    written = json.loads(answer(line))
    assert written["schema"] == SCHEMA
    assert written["listing"] == listing
    # The kind itself, so that a fault is told for what it is.
    assert not list(faults(written, schema["$defs"][f"{listing}_listing"], schema))
    assert not list(faults(written, schema, schema))


def test_every_documented_field_comes_out() -> None:
    """The schema promises nothing that is never there."""
    schema = documented()
    text = "".join(table(SERVICES, (1, 2, 1), 4096, stats=True, rates=True, sort=True))
    assert not list(faults(json.loads(text), schema, schema))
    services = json.loads(text)["services"]
    fields = {name for service in services for name in service}
    assert fields == set(schema["$defs"]["service"]["properties"])
    fields = {name for service in services for one in service["real_servers"] for name in one}
    assert fields == set(schema["$defs"]["real_server"]["properties"])


def test_values() -> None:
    services = json.loads(answer("-L --json --stats"))["services"]
    # By the numbers: ipvsadm would have 192.0.2.10 before 10.0.0.9.
    assert [one["address"] for one in services] == [
        "10.0.0.9", "192.0.2.10", "192.0.2.9", "2001:db8::9", None,
    ]  # fmt: skip
    assert services[4]["fwmark"] == 0xFFFFFFFF
    web = services[1]
    assert web["scheduler_flags"] == ["sh-fallback", "sh-port"]
    assert web["persistence"] == {"timeout": 300, "prefix_length": 24, "engine": "sip"}
    assert [one["address"] for one in web["real_servers"]] == [
        "10.0.0.1", "10.0.0.2", "192.0.2.12", "2001:db8::1",
    ]  # fmt: skip
    assert web["real_servers"][0]["stats"]["out_bytes"] == 2**63
    assert web["real_servers"][3]["tunnel"] == {"type": "gue", "port": 6080, "checksum": "remcsum"}
    unsorted = json.loads(answer("-L --json --nosort"))["services"]
    assert [one["address"] for one in unsorted][:2] == ["192.0.2.10", "192.0.2.9"]


def test_connections_come_one_by_one() -> None:
    asked = 0

    def endless() -> Iterator[Connection]:
        nonlocal asked
        while True:
            asked += 1
            yield CONNECTIONS[0]

    lines = connections(endless())
    next(lines), next(lines), next(lines)
    assert asked <= 3


@pytest.mark.parametrize(
    ("options", "clients"),
    [
        ("--only-server 10.0.0.1", ["198.51.100.5", "203.0.113.1"]),
        ("--only-server 10.0.0.1:8080 --only-client 203.0.113.1", ["203.0.113.1"]),
        ("--only-server 10.0.0.1:80", []),
        ("--only-server [2001:db8::11]:8080", ["2001:db8::5"]),
        ("--only-client 198.51.100.4/30", ["198.51.100.5", "198.51.100.6"]),
        ("--only-client 198.51.100.5:40000", ["198.51.100.5"]),
        ("--only-client 198.51.100.4/30:40001", []),
        ("--only-client 0.0.0.0/0 --only-service fwm:7", ["198.51.100.0", "198.51.100.9"]),
        ("--only-client 2001:db8::/32", ["2001:db8::5"]),
        ("--only-client [2001:db8::/32]:40000", ["2001:db8::5"]),
        ("--only-client [2001:db8::5]", ["2001:db8::5"]),
        ("--only-client ::/0", ["2001:db8::5"]),
        ("--only-service 192.0.2.10", ["198.51.100.5", "198.51.100.6", "203.0.113.1"]),
        ("--only-service 192.0.2.10:81", []),
        ("--only-service udp:192.0.2.10:80", ["203.0.113.1"]),
        ("--only-service=tcp:[2001:db8::10]:80", ["2001:db8::5"]),
        ("--only-service 0.0.0.7", []),
    ],
)
def test_chosen_connections(options: str, clients: list[str]) -> None:
    written = json.loads(answer(f"-Lc --json {options}"))["connections"]
    assert [one["client"] for one in written] == clients
    assert len(answer(f"-Lcn {options}").splitlines()) == 2 + len(clients)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-S --json", "Illegal 'json' option with the 'save' command"),
        ("-L --json --json", "multiple 'json' options specified"),
        ("-L --only-server 10.0.0.1", "add -c"),
        ("-L -t 192.0.2.10:80 --only-client 10.0.0.1", "add -c"),
        ("-Lc --only-service fwm:0", "illegal only-service specified: fwm:0; expected [tcp:"),
        ("-Lc --only-client 10.0.0.0/33", "illegal only-client"),
        ("-Lc --only-client 10.0.0.0/x", "illegal only-client"),
        ("-Lc --only-client /8", "illegal only-client"),
        ("-Lc --only-server 10.0.0.1:x", "illegal only-server"),
    ],
)
def test_refused(line: str, complaint: str) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    assert run(line.split(), io.StringIO(), stdout, stderr, _never) == 2
    assert complaint in stderr.getvalue() and not stdout.getvalue()


def _never(**_: bool) -> Any:
    raise AssertionError("the table was opened for a command line that is wrong")


@given(st.sampled_from(["only-service", "only-server", "only-client"]), st.text("0123456789abf.:[]/tcpudm "))
def test_any_text_is_a_filter_or_refused(name: str, text: str) -> None:
    from xlvs.cli.ipvsadm_grammar import CommandLineError

    if any(letter in text for letter in "tcpudm"):
        text = text.replace(" ", "")  # no name that a resolver would be asked for
    try:
        test = parse_filter(name, text)
    except CommandLineError:
        return
    assert test(CONNECTIONS[0]) in (True, False)


def test_a_service_says_how_long_its_connections_live_and_what_becomes_of_them() -> None:
    listed = json.loads(answer("-L --json"))["services"]
    found = {one["address"]: (one["idle_timeout"], one["reject_gone"], one["rehome"]) for one in listed}
    assert found["10.0.0.9"] == (7, True, False)
    assert found["192.0.2.9"] == (None, False, True)
