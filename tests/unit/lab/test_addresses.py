# SPDX-License-Identifier: GPL-2.0-only
"""The choice of a lab's addresses, over many networks and wishes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.errors import UsageError
from xlvs.lab.addresses import (
    BEHIND_ROUTER,
    MAX_REAL_SERVERS,
    TWO_NETWORKS,
    Addresses,
    Request,
    choose,
)

networks = st.builds(
    lambda number, length: IPv4Network((number & (0xFFFFFFFF << (32 - length)), length)),
    st.integers(int(IPv4Address("1.0.0.0")), int(IPv4Address("126.255.255.255"))),
    st.integers(8, 29),
)


def every_address(addresses: Addresses) -> list[str]:
    own = [addresses.vip, addresses.dip, addresses.client, *addresses.rips]
    return own + [each for each in (addresses.router, addresses.gateway) if each]


def test_defaults() -> None:
    addresses = choose(Request())
    assert addresses.network == "192.0.2.0/24"
    assert (addresses.vip, addresses.dip, addresses.client) == ("192.0.2.100", "192.0.2.10", "192.0.2.2")
    assert addresses.rips == ("192.0.2.101", "192.0.2.102", "192.0.2.103")
    assert (addresses.router, addresses.gateway, addresses.router6, addresses.gateway6) == ("", "", "", "")
    assert (addresses.vip6, addresses.rips6[1]) == ("fd6c:7673::100", "fd6c:7673::102")


@given(networks, st.integers(1, MAX_REAL_SERVERS), st.booleans())
def test_any_network_gives_distinct_hosts_of_it_or_says_it_is_too_small(
    network: IPv4Network, count: int, router: bool
) -> None:
    needed = count + 3  # VIP, DIP, and the client or the router
    try:
        addresses: Addresses | None = choose(
            Request(network=str(network), real_servers=count, router=router)
        )
    except UsageError:
        addresses = None
    if addresses is None:
        assert network.num_addresses - 2 < needed
        return
    chosen = every_address(addresses)
    assert len(set(chosen)) == len(chosen)
    outside = {addresses.client, addresses.gateway} if router else set()
    for address in set(chosen) - outside:
        assert IPv4Address(address) in network
        assert IPv4Address(address) not in (network.network_address, network.broadcast_address)
    for address in outside:
        assert IPv4Address(address) in IPv4Network(addresses.client_network)


@given(st.integers(1, MAX_REAL_SERVERS), st.booleans())
def test_ipv6_addresses_are_distinct_and_valid(count: int, router: bool) -> None:
    addresses = choose(Request(real_servers=count, router=router))
    chosen = [addresses.vip6, addresses.dip6, addresses.client6, *addresses.rips6]
    chosen += [each for each in (addresses.router6, addresses.gateway6) if each]
    assert len({IPv6Address(each) for each in chosen}) == count + (5 if router else 3)


@given(st.permutations(range(1, 7)))
def test_what_was_said_is_kept_and_defaults_give_way(places: list[int]) -> None:
    vip, dip, client, first, second, third = (f"10.0.0.{place}" for place in places)
    said = Request(network="10.0.0.0/29", vip=vip, dip=dip, client=client, rips=(first, second, third))
    addresses = choose(said)
    assert every_address(addresses) == [vip, dip, client, first, second, third]


def test_a_default_never_takes_an_address_that_was_said() -> None:
    addresses = choose(Request(dip="192.0.2.100", vip="192.0.2.2", rips=("192.0.2.10",)))
    assert len(set(every_address(addresses))) == 4


@pytest.mark.parametrize(
    "request_",
    [
        Request(vip="127.0.0.1", network="127.0.0.0/8"),
        Request(network="127.0.0.0/8"),
        Request(network="224.0.0.0/8"),
        Request(vip="fd6c:7673::1"),
        Request(network="fd6c:7673::/64"),
        Request(network="203.0.113.0/24", router=True),
        Request(client="10.0.0.1"),
        Request(interface="eth0\n"),
        Request(interface="."),
        Request(interface=""),
        Request(interface="é"),
        Request(interface="all"),
    ],
)
def test_what_would_not_work_is_refused(request_: Request) -> None:
    with pytest.raises(UsageError):
        choose(request_)


def test_defaults_of_two_networks_are_the_nat_tutorials() -> None:
    addresses = choose(Request(), TWO_NETWORKS)
    assert (addresses.vip, addresses.dip) == ("192.168.219.100", "192.168.219.134")
    assert (addresses.client, addresses.inside_dip) == ("192.168.219.2", "192.168.56.100")
    assert addresses.rips == ("192.168.56.135", "192.168.56.136")
    assert addresses.rips6 == ("fd6c:7673:0:2::101", "fd6c:7673:0:2::102")
    assert (addresses.dip6, addresses.inside_dip6) == ("fd6c:7673::10", "fd6c:7673:0:2::10")


@given(networks, networks, st.integers(1, MAX_REAL_SERVERS), st.booleans())
def test_any_two_networks_give_hosts_on_their_own_sides(
    network: IPv4Network, inside: IPv4Network, count: int, router: bool
) -> None:
    said = Request(network=str(network), inside_network=str(inside), real_servers=count, router=router)
    try:
        addresses = choose(said, TWO_NETWORKS)
    except UsageError:
        # The inside needs an address for the director too; /29 and up have room for the rest.
        assert network.overlaps(inside) or inside.num_addresses - 2 < count + 1
        return
    outer = [addresses.vip, addresses.dip, *([] if router else [addresses.client])]
    inner = [addresses.inside_dip, *addresses.rips]
    assert all(IPv4Address(each) in network for each in outer)
    assert all(IPv4Address(each) in inside for each in inner)
    assert len({*outer, *inner}) == len(outer) + len(inner)


def test_inner_addresses_that_were_said_are_kept() -> None:
    said = Request(
        inside_network="10.9.0.0/29", inside_dip="10.9.0.3", rips=("10.9.0.1", "10.9.0.2", "10.9.0.4")
    )
    addresses = choose(said, TWO_NETWORKS)
    assert (addresses.inside_dip, addresses.rips) == ("10.9.0.3", said.rips)
    # A default goes where nobody has been put.
    addresses = choose(Request(rips=("192.168.56.100",)), TWO_NETWORKS)
    assert addresses.inside_dip == "192.168.56.1"


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (Request(rips=("192.168.219.135",)), "--rip 192.168.219.135 is outside the network 192.168.56.0/24"),
        (Request(vip="192.168.56.7"), "--vip 192.168.56.7 is outside the network 192.168.219.0/24"),
        (Request(inside_dip="192.168.219.134"), "--inside-dip 192.168.219.134 is outside"),
        (Request(inside_dip="192.168.56.135", rips=("192.168.56.135",)), "--inside-dip's address already"),
        (Request(network="192.168.0.0/16"), "overlap"),
        (Request(inside_network="192.168.219.0/25"), "overlap"),
        (Request(inside_network="203.0.113.0/24", router=True), "behind the router"),
        (Request(inside_network="192.168.56.1/24"), "--inside-network 192.168.56.1/24 is no IPv4 network"),
        (Request(inside_network="10.0.0.0/30"), "prefix length"),
        (Request(inside_network="10.0.0.0/29", real_servers=6), "no address left"),
    ],
)
def test_two_networks_that_would_not_work_are_refused(request_: Request, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        choose(request_, TWO_NETWORKS)


@pytest.mark.parametrize(
    "request_", [Request(inside_network="10.0.0.0/24"), Request(inside_dip="192.168.56.100")]
)
def test_one_network_has_no_inside(request_: Request) -> None:
    with pytest.raises(UsageError, match=r"--inside-.* (no network of their own|one network only)"):
        choose(request_)


def test_defaults_behind_a_router() -> None:
    addresses = choose(Request(), BEHIND_ROUTER)
    assert (addresses.vip, addresses.dip) == ("192.168.219.100", "192.168.219.134")
    assert addresses.rips == ("192.168.56.135", "192.168.56.136")
    assert (addresses.router, addresses.inside_router) == ("192.168.219.1", "192.168.56.1")
    assert (addresses.router6, addresses.inside_router6) == ("fd6c:7673::1", "fd6c:7673:0:2::1")
    assert (addresses.gateway, addresses.gateway6) == ("", "")
    assert (addresses.inside_dip, addresses.inside_dip6) == ("", "")
    assert (addresses.client, addresses.client6) == ("192.168.219.2", "fd6c:7673::2")
    assert addresses.gue_ports == (6080,)


def test_the_router_gives_way_and_ports_are_said_once() -> None:
    said = Request(vip="192.168.219.1", rips=("192.168.56.1",), gue_ports=(5555, 7, 5555), router=True)
    addresses = choose(said, BEHIND_ROUTER)
    assert addresses.router not in ("", addresses.vip)
    assert addresses.inside_router not in ("", *addresses.rips)
    assert (addresses.client, addresses.gateway) == ("203.0.113.2", "203.0.113.1")
    assert addresses.gue_ports == (5555, 7)


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (Request(inside_dip="192.168.56.7"), "--inside-dip"),
        (Request(gue_ports=(70000,)), "--gue-port 70000"),
        (Request(gue_ports=tuple(range(1, 10))), "9 times"),
        (Request(inside_network="192.168.219.128/25"), "router stands between"),
        (Request(inside_network="10.0.0.0/29", real_servers=6), "no address left for the router"),
    ],
)
def test_what_would_not_work_behind_a_router_is_refused(request_: Request, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        choose(request_, BEHIND_ROUTER)
