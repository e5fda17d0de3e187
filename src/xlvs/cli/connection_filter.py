# SPDX-License-Identifier: GPL-2.0-only
"""Which connections to list: ``--only-service``, ``--only-server`` and ``--only-client`` of ``xlvsadm -Lc``.

ipvsadm has no such options, and no option of its own begins like that.  Imported only where
one of them is given.
"""

from __future__ import annotations

from xlvs.cli.address import parse_endpoint, string_to_number
from xlvs.cli.ipvsadm_grammar import CommandLineError
from xlvs.model import SCTP, TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xlvs.model import Connection

    Test = Callable[[Connection], bool]

SERVICE = "only-service"
SERVER = "only-server"
CLIENT = "only-client"

_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}


def parse_filter(name: str, text: str) -> Test:
    """What a connection must be for the option of that name; raises `CommandLineError`."""
    test = {SERVICE: _service, SERVER: _server, CLIENT: _client}[name](text)
    if test is None:
        raise CommandLineError(f"illegal {name} specified: {text}; {_EXPECTED[name]}")
    return test


_EXPECTED = {
    SERVICE: "expected [tcp:|udp:|sctp:]ADDRESS[:PORT], or fwm:MARK",
    SERVER: "expected ADDRESS[:PORT]",
    CLIENT: "expected ADDRESS[/LENGTH][:PORT]; an IPv6 address with a port in brackets",
}


def chosen(connections: Iterable[Connection], tests: Iterable[Test]) -> Iterator[Connection]:
    """The connections for which every test holds, as they come."""
    tests = tuple(tests)
    return (one for one in connections if all(test(one) for test in tests))


def _service(text: str) -> Test | None:
    kind, colon, rest = text.partition(":")
    if colon and kind == "fwm":
        mark = string_to_number(rest, 1, 0xFFFFFFFF)
        return None if mark is None else lambda one: one.fwmark == mark
    protocol = _PROTOCOLS.get(kind, 0) if colon else 0
    endpoint = _endpoint(rest if protocol else text, protocol)
    if endpoint is None:
        return None
    address, port = endpoint
    return lambda one: (
        one.virtual == address
        and one.protocol != 0  # a mark, not an address, stands there
        and (port is None or one.virtual_port == port)
        and protocol in (0, one.protocol)
    )


def _server(text: str) -> Test | None:
    endpoint = _endpoint(text, 0)
    if endpoint is None:
        return None
    address, port = endpoint
    return lambda one: one.destination == address and (port is None or one.destination_port == port)


def _client(text: str) -> Test | None:
    network, slash, rest = text.partition("/")
    length: int | None = None
    if slash:
        opened = network.startswith("[")
        digits, end, port_text = rest.partition("]:" if opened else ":")
        if opened:
            network = network[1:]
            if not end:  # [2001:db8::/64]
                digits = digits.removesuffix("]")
        length = string_to_number(digits, 0, 128)
        text = (f"[{network}]:{port_text}" if opened else f"{network}:{port_text}") if end else network
        if length is None:
            return None
    endpoint = _endpoint(text, 0)
    if endpoint is None:
        return None
    address, port = endpoint
    bits = 8 * len(address)
    length = bits if length is None else length
    if length > bits:
        return None
    shift = bits - length
    wanted = int.from_bytes(address, "big") >> shift
    size = len(address)
    return lambda one: (
        len(one.client) == size
        and int.from_bytes(one.client, "big") >> shift == wanted
        and (port is None or one.client_port == port)
    )


def _endpoint(text: str, protocol: int) -> tuple[bytes, int | None] | None:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return parse_endpoint(text, protocol)
