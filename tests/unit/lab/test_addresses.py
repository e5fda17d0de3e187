# SPDX-License-Identifier: GPL-2.0-only
"""The choice of a lab's addresses, over many networks and wishes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.errors import UsageError
from xlvs.lab.addresses import MAX_REAL_SERVERS, Addresses, Request, choose

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
