# SPDX-License-Identifier: GPL-2.0-only
"""Names resolve by a fixed table here, never by this machine's resolver."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.guest.ipvsadm_transcript import HOSTS

SERVICES = {
    ("http", "tcp"): 80,
    ("https", "tcp"): 443,
    ("domain", "udp"): 53,
    ("smtp", "tcp"): 25,
}
"""The services that the transcripts speak of, as /etc/services has them."""


@pytest.fixture(autouse=True, scope="module")
def fixed_names() -> Iterator[None]:
    """Resolve names as the guest of the recordings did: hosts by `HOSTS` alone."""
    hosts = [(address, name) for address, name in map(str.split, HOSTS.splitlines())]
    by_name = {name: address for address, name in hosts if ":" not in address}
    by_address = dict(hosts)

    def address_of(name: str) -> str:
        if name not in by_name:
            raise socket.gaierror(f"{name} not found")
        return by_name[name]

    def name_of(address: str) -> tuple[str, list[str], list[str]]:
        if address not in by_address:
            raise socket.herror(f"{address} not found")
        return by_address[address], [], [address]

    def service_port(name: str, protocol: str) -> int:
        if (name, protocol) not in SERVICES:
            raise OSError("service/proto not found")
        return SERVICES[name, protocol]

    def service_name(port: int, protocol: str) -> str:
        for (name, of_protocol), number in SERVICES.items():
            if (number, of_protocol) == (port, protocol):
                return name
        raise OSError("port/proto not found")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostbyname", address_of)
        patch.setattr(socket, "gethostbyaddr", name_of)
        patch.setattr(socket, "getservbyname", service_port)
        patch.setattr(socket, "getservbyport", service_name)
        yield
