# SPDX-License-Identifier: GPL-2.0-only
"""Listings with counters and connections, which the transcripts cannot have.

The expected texts were captured from ipvsadm 1.31.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli import listing
from xlvs.cli.ipvsadm_order import sorted_destinations, sorted_services
from xlvs.datapath.rows import NOTHING, RATES, STATS, connection_row, row_of
from xlvs.model import (
    IPV4,
    IPV6,
    LOCAL,
    MASQUERADE,
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import ConnectionRow, ServiceRow

pytestmark = pytest.mark.unit


def ip(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def web(
    *destinations: DestinationEntry, stats: Stats | None = None, rates: Rates | None = None
) -> ServiceEntry:
    service = Service(ServiceKey(IPV4, TCP, ip("192.0.2.10"), 80))
    return ServiceEntry(service, destinations, stats, rates)


def text_of(entry: ServiceEntry, form: listing.Format) -> list[str]:
    """The rows below the titles."""
    return "".join(listing.table(rows(entry, form), form)).splitlines()[2:]


def rows(entry: ServiceEntry, form: listing.Format) -> list[ServiceRow]:
    """What a data plane gives for such a listing."""
    return [
        row_of(
            entry, STATS if form.style == listing.STATS else RATES if form.style == listing.RATE else NOTHING
        )
    ]


@pytest.mark.parametrize(
    ("number", "short", "exact"),
    [
        (0, "        0", "        0"),
        (99_999_999, " 99999999", " 99999999"),
        (100_000_000, "  100000K", " 100000000"),
        (999_999_999, "  999999K", " 999999999"),
        (1_000_000_000, "    1000M", " 1000000000"),
        (99_999_999_999, "   99999M", " 99999999999"),
        (123_456_789_012, "     123G", " 123456789012"),
        (99_999_999_999_999, "   99999G", " 99999999999999"),
        (100_000_000_000_000, "     100T", " 100000000000000"),
        (2**64 - 1, "18446744T", " 18446744073709551615"),
    ],
)
def test_large_numbers(number: int, short: str, exact: str) -> None:
    assert listing.large_number(number) == short
    assert listing.large_number(number, exact=True) == exact


def test_counters() -> None:
    entry = web(
        DestinationEntry(Destination(ip("10.0.0.12"), 80), stats=Stats(1, 2, 3, 4, 5)),
        stats=Stats(12345, 987654, 543210, 123456789012, 99999999),
    )
    assert "".join(listing.table([row_of(entry, STATS)], listing.Format(listing.STATS))) == (
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n"
        "  -> RemoteAddress:Port\n"
        "TCP  192.0.2.10:80                   12345   987654   543210     123G 99999999\n"
        "  -> 10.0.0.12:80                        1        2        3        4        5\n"
    )
    assert text_of(entry, listing.Format(listing.STATS, exact=True))[0] == (
        "TCP  192.0.2.10:80                   12345   987654   543210 123456789012 99999999"
    )


def test_rates() -> None:
    entry = web(
        DestinationEntry(Destination(ip("10.0.0.12"), 80), rates=Rates(12, 345, 321, 65432, 7654321)),
        rates=Rates(123456789, 345, 321, 123456789012, 100000000),
    )
    assert "".join(
        listing.table(rows(entry, listing.Format(listing.RATE)), listing.Format(listing.RATE))
    ) == (
        "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n"
        "  -> RemoteAddress:Port\n"
        "TCP  192.0.2.10:80                123456789      345      321     123G  100000K\n"
        "  -> 10.0.0.12:80                       12      345      321    65432  7654321\n"
    )
    assert text_of(entry, listing.Format(listing.RATE, exact=True))[0].endswith(" 123456789012 100000000")


def test_live_connections_and_thresholds() -> None:
    entry = web(
        DestinationEntry(Destination(ip("10.0.0.12"), 80), active=5, inactive=17),
        DestinationEntry(
            Destination(ip("10.0.0.11"), 80, TUNNEL, 100, 1000, 500, Tunnel("gue", 5555, "remcsum")),
            persistent=3,
        ),
    )
    assert text_of(entry, listing.Format()) == [
        "TCP  192.0.2.10:80 wlc",
        "  -> 10.0.0.11:80                 Tunnel  100    0          0         ",
        "  -> 10.0.0.12:80                 Route   1      5          17        ",
    ]
    assert text_of(entry, listing.Format(listing.THRESHOLDS))[1:] == [
        "  -> 10.0.0.11:80                 1000       500        0          0         ",
        "  -> 10.0.0.12:80                 0          0          5          17        ",
    ]
    assert text_of(entry, listing.Format(listing.PERSISTENT))[1:] == [
        "  -> 10.0.0.11:80                 100       3           0          0         ",
        "  -> 10.0.0.12:80                 1         0           5          17        ",
    ]
    assert text_of(entry, listing.Format(listing.TUNNELS))[1:] == [
        "  -> 10.0.0.11:80                 Tunnel  gue:5555:r+c  100    0          0         ",
        "  -> 10.0.0.12:80                 Route   n/a           1      5          17        ",
    ]
    assert text_of(entry, listing.Format(sort=False))[1].startswith("  -> 10.0.0.12:80")


def test_a_local_server_is_saved_as_routed() -> None:
    entry = web(DestinationEntry(Destination(ip("127.0.0.1"), 80, LOCAL)))
    assert text_of(entry, listing.Format())[1].split()[2] == "Local"
    assert "-r 127.0.0.1:80 -g -w 1\n" in "".join(listing.saved_table([row_of(entry)], listing.Format()))


def test_connections() -> None:
    def end(text: str) -> tuple[bytes, int]:
        host, _, port = text.rpartition(":")
        return ip(host.strip("[]")), int(port)

    def entry(protocol: int, client: str, virtual: str, real: str, state: str, expires: int) -> Connection:
        family = IPV6 if "[" in client else IPV4
        (c, cport), (v, vport), (d, dport) = map(end, (client, virtual, real))
        return Connection(family, protocol, c, cport, v, vport, d, dport, state, expires)

    client = "198.51.100.5"
    entries = [
        entry(TCP, f"{client}:50000", "192.0.2.10:80", "10.0.0.11:80", "ESTABLISHED", 897),
        entry(TCP, f"{client}:0", "192.0.2.9:443", "10.0.0.11:8443", "NONE", 250),
        entry(0, f"{client}:0", "0.0.0.1:0", "10.0.0.11:0", "NONE", 55),
        entry(TCP, "[2001:db8::5]:50000", "[2001:db8::10]:80", "[2001:db8::11]:80", "FIN_WAIT", 100),
        entry(UDP, f"{client}:5", "192.0.2.10:53", "10.0.0.11:53", "UDP", 6000 * 60 + 1),
    ]
    assert "".join(listing.connections([list(map(connection_row, entries))], listing.Format())) == (
        "IPVS connection entries\n"
        "pro expire state       source             virtual            destination\n"
        "TCP 14:57  ESTABLISHED 198.51.100.5:50000 192.0.2.10:80      10.0.0.11:80\n"
        "TCP 04:10  NONE        198.51.100.5:0     192.0.2.9:443      10.0.0.11:8443\n"
        "IP  00:55  NONE        198.51.100.5:0     0.0.0.1:0          10.0.0.11:0\n"
        "TCP 01:40  FIN_WAIT    [2001:db8::5]:50000 [2001:db8::10]:80  [2001:db8::11]:80\n"
        "UDP 6000:01 UDP         198.51.100.5:5     192.0.2.10:53      10.0.0.11:53\n"
    )


def test_long_names_are_cut_in_ipv4_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a-very-long-name-of-a-host.example.com"
    monkeypatch.setattr(socket, "gethostbyaddr", lambda address: (name, [], [address]))
    entry = web(DestinationEntry(Destination(ip("10.0.0.1"), 80, MASQUERADE)))
    rows = text_of(entry, listing.Format(numeric=False))
    assert rows[0] == "TCP  a-very-long-name-of-a-host.e wlc"
    assert rows[1].startswith("  -> a-very-long-name-of-a-host.e Masq ")
    saved = "".join(listing.saved_table([row_of(entry)], listing.Format(numeric=False)))
    assert f"-a -t {name}:http -r {name}:http" in saved


def test_connections_are_listed_as_they_come() -> None:
    def endless() -> Iterator[list[ConnectionRow]]:
        while True:
            yield [
                (TCP, ip("198.51.100.5"), 1, ip("192.0.2.10"), 80, ip("10.0.0.1"), 80, "NONE", 1, 0, "")
            ] * 2

    lines = iter(listing.connections(endless(), listing.Format()))
    assert [next(lines) for _ in range(3)][2].startswith("TCP 00:01  NONE")


def service(address: bytes, port: int = 80) -> ServiceEntry:
    family = IPV4 if len(address) == 4 else IPV6
    return ServiceEntry(Service(ServiceKey(family, TCP, address, port)))


@given(st.lists(st.tuples(st.integers(0x0A000000, 0x0AFFFFFF), st.integers(0, 65535)), max_size=20))
def test_close_addresses_sort_by_number(endpoints: list[tuple[int, int]]) -> None:
    entries = [row_of(service(number.to_bytes(4, "big"), port)) for number, port in endpoints]
    keys = [row[0].key for row in sorted_services(entries)]
    assert [(int.from_bytes(key.address, "big"), key.port) for key in keys] == sorted(endpoints)


def test_distant_addresses_sort_the_wrong_way_round() -> None:
    entries = [service(ip("10.0.0.1")), service(ip("192.0.2.1")), service(ip("192.0.2.0"))]
    addresses = [row[0].key.address for row in sorted_services(list(map(row_of, entries)))]
    assert addresses == [ip("192.0.2.0"), ip("192.0.2.1"), ip("10.0.0.1")]


@given(st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=20))
def test_sorting_loses_nothing(addresses: list[bytes]) -> None:
    entries = [DestinationEntry(Destination(address, 80)) for address in addresses]
    (_, _, destinations) = row_of(web(*entries))
    result = [row[0] for row in sorted_destinations(destinations)]
    assert sorted(result) == sorted(addresses)


def test_what_ipvsadm_does_not_have_is_listed_and_saved_where_it_is_set() -> None:
    service = Service(
        ServiceKey(IPV4, UDP, ip("192.0.2.10"), 53), "rr", persistence=300,
        one_packet=True, idle_timeout=30, reject_gone=True, rehome=True,
    )  # fmt: skip
    (line,) = text_of(ServiceEntry(service, ()), listing.Format())
    assert line == "UDP  192.0.2.10:53 rr persistent 300 ops idle-timeout 30 reject-gone rehome"
    saved = "".join(listing.saved_table([row_of(ServiceEntry(service, ()))], listing.Format()))
    assert saved == "-A -u 192.0.2.10:53 -s rr -p 300 -o --idle-timeout 30 --reject-gone --rehome\n"


def test_a_template_of_a_persistence_engine_shows_what_it_goes_by() -> None:
    template = Connection(
        IPV4, 17, bytes(4), 0, bytes([192, 0, 2, 9]), 5060, bytes([10, 0, 0, 11]), 5060, "NONE", 59,
        "sip", "a" * 200,
    )  # fmt: skip
    row = "UDP 00:59  NONE        0.0.0.0:0          192.0.2.9:5060     10.0.0.11:5060"
    shares = [[connection_row(template)]]
    assert list(listing.connections(shares, listing.Format(listing.PERSISTENT)))[-1:] == [
        f"{row}   sip                {'a' * 200}\n"
    ]
    assert list(listing.connections(shares, listing.Format()))[-1:] == [f"{row}\n"]
