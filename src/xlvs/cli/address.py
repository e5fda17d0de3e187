# SPDX-License-Identifier: GPL-2.0-only
"""Numbers, addresses, ports and names, read and written as ipvsadm does.

An address is packed, network byte order, 4 or 16 bytes; a port is an int in
host order.  ``socket`` is imported only where a name or an odd spelling needs
it: it would double the start-up time of every listing.
"""

from __future__ import annotations

from xlvs.errors import shown
from xlvs.model import SCTP, TCP, UDP

_BLANKS = " \t\n\v\f\r"
_SERVICE_PROTOCOLS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_C_INT_MAX = 2147483647
_LONGEST_NUMBER = 19
"""The digits of the largest C long; int() itself refuses text of thousands of digits."""
_BYTES = {str(number): number for number in range(256)}
_DIGITS = tuple(_BYTES)
"""What bytes look like in an address: joining these takes two thirds of what formatting numbers does."""
_MOST_ENDPOINTS = 65536
_endpoints: dict[str, tuple[bytes, int | None]] = {}
"""Endpoints that were read before."""
_LONGEST_NAME = 59
"""ipvsadm writes ``host:port`` into a buffer of 60 characters."""


def string_to_number(text: str, low: int, high: int) -> int | None:
    """Read a decimal number as C's ``strtol`` does; None unless all of it is one in the range."""
    digits = text.lstrip(_BLANKS)
    sign = -1 if digits.startswith("-") else 1
    if digits[:1] in ("+", "-"):
        digits = digits[1:]
    if not _is_digits(digits) or len(digits.lstrip("0")) > _LONGEST_NUMBER:
        return None
    number = sign * int(digits)
    return number if low <= number <= high else None


def leading_number(text: str) -> int:
    """The number at the start of the text as C's ``atoi`` reads it, 0 if there is none."""
    text = text.lstrip(_BLANKS)
    sign = -1 if text.startswith("-") else 1
    if text[:1] in ("+", "-"):
        text = text[1:]
    end = 0
    while end < len(text) and text[end] in "0123456789":
        end += 1
    digits = text[:end].lstrip("0")
    number = int(digits or "0") if len(digits) <= _LONGEST_NUMBER else _C_INT_MAX
    return sign * min(number, _C_INT_MAX)


def parse_endpoint(text: str, protocol: int) -> tuple[bytes, int | None] | None:
    """Read ``host[:port]`` into an address and a port (None if it has no port).

    ``[v6]:port`` must have its port; a bare IPv6 address has none; what
    stands in brackets may also be IPv4, whose port is then lost, as in
    ipvsadm.  A port may be a service name of ``protocol``.  Returns None for
    anything else, also for a name that does not resolve.
    """
    known = _endpoints.get(text)
    if known is not None:
        return known
    endpoint = _read_endpoint(text, protocol)
    # A restore names a service again for each of its real servers.
    if endpoint is not None and _names_nothing(text):
        if len(_endpoints) >= _MOST_ENDPOINTS:
            _endpoints.clear()
        _endpoints[text] = endpoint
    return endpoint


def literal_endpoint(text: str) -> tuple[bytes, int] | None:
    """Read ``a.b.c.d:port`` or ``[v6]:port`` as `parse_endpoint` does; None for any other text.

    The protocol does not matter, since nothing is a name.
    """
    known = _endpoints.get(text)
    if known is None:
        host, _, port = text.partition(":")
        digits = host.split(".")
        if len(digits) == 4 and port.isascii() and port.isdigit() and len(port) <= 5:
            one, two, three, four = digits
            number = int(port)
            if one in _BYTES and two in _BYTES and three in _BYTES and four in _BYTES and number <= 65535:
                return bytes((_BYTES[one], _BYTES[two], _BYTES[three], _BYTES[four])), number
        if not text.startswith("[") or not _names_nothing(text):
            return None
        known = parse_endpoint(text, TCP)
    return None if known is None or known[1] is None else (known[0], known[1])


def _names_nothing(text: str) -> bool:
    """Whether an endpoint is numbers alone, which no resolver and no file gives another meaning."""
    if text.count(":") > 2:
        return (
            not text.strip("0123456789abcdefABCDEF.:[]")
            and text[text.rfind("]") + 1 :].lstrip(":").isdigit()
        )
    return not text.strip("0123456789.:")


def _read_endpoint(text: str, protocol: int) -> tuple[bytes, int | None] | None:
    if not text or _is_digits(text):
        return None
    port_text: str | None = None
    if text.startswith("["):
        text, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            return None
        port_text = rest[1:]
    address = _parse_ipv6(text)
    if address is None:
        host, colon, port = text.rpartition(":")
        text, port_text = (host, port) if colon else (text, None)
        address = parse_host(text)
    if address is None:
        return None
    if port_text is None:
        return address, None
    number = string_to_number(port_text, 0, 65535)
    if number is None:
        number = _service_port(port_text, protocol)
    return None if number is None else (address, number)


def parse_host(text: str) -> bytes | None:
    """The IPv4 address of a dotted text or of a host name; None if there is none."""
    parts = text.split(".")
    if len(parts) == 4 and all(_is_plain_byte(part) for part in parts):
        return bytes(map(int, parts))
    import socket

    try:
        # What is short, octal or hexadecimal: 127.1, 0x7f.1, 10.1.256
        return socket.inet_aton(text)
    except (OSError, ValueError):
        pass
    # The C resolver knows no such names; Python gives them a meaning of its own.
    if text in ("", "<broadcast>") or not text.isascii():
        return None
    try:
        return socket.inet_aton(socket.gethostbyname(text))
    except (OSError, ValueError):
        return None


def parse_group(text: str) -> bytes | None:
    """Read a multicast address of either family; None if it is none."""
    import socket

    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        address = socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None
    multicast = address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 0xE
    return address if multicast else None


def format_address(address: bytes) -> str:
    """Write an address as ``inet_ntop`` does."""
    if len(address) == 4:
        return "%d.%d.%d.%d" % tuple(address)  # noqa: UP031 - the fastest of all ways
    return _format_ipv6(address)


def format_endpoint(address: bytes, port: int) -> str:
    """Write ``address:port``, an IPv6 address in brackets."""
    if len(address) == 4:
        one, two, three, four = address
        return f"{_DIGITS[one]}.{_DIGITS[two]}.{_DIGITS[three]}.{_DIGITS[four]}:{port}"
    return f"[{_format_ipv6(address)}]:{port}"


def mask_to_prefix(mask: bytes) -> int | None:
    """The prefix length of an IPv4 mask; None if its ones have gaps."""
    bits = int.from_bytes(mask, "big")
    prefix = bits.bit_count()
    return prefix if bits == (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF else None


def prefix_to_mask(prefix: int) -> bytes:
    """The IPv4 mask of a prefix length."""
    return ((0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF).to_bytes(4, "big")


class Names:
    """Writes endpoints with the names of hosts and services; asks for each only once."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, str] = {}
        self._ports: dict[tuple[int, int], str] = {}

    def endpoint(self, address: bytes, port: int, protocol: int) -> str:
        """``host:service``, numbers where there is no name, cut as ipvsadm's buffer does."""
        host = self._hosts.get(address)
        if host is None:
            host = self._hosts[address] = shown(_host_name(address))
        service = self._ports.get((port, protocol))
        if service is None:
            service = self._ports[port, protocol] = shown(_service_name(port, protocol))
        text = f"{host}:{service}" if len(address) == 4 else f"[{host}]:{service}"
        return text[:_LONGEST_NAME]


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_plain_byte(text: str) -> bool:
    # Leading zeros make octal numbers in inet_aton; they are left to it.
    return _is_digits(text) and len(text) <= 3 and int(text) <= 255 and (text == "0" or text[0] != "0")


def _parse_ipv6(text: str) -> bytes | None:
    if text.count(":") < 2:
        return None
    import socket

    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None


def _format_ipv6(address: bytes) -> str:
    words = [int.from_bytes(address[i : i + 2], "big") for i in range(0, 16, 2)]
    start, length = _longest_zero_run(words)
    # IPv4-compatible and IPv4-mapped addresses end in dotted form.
    dotted = start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF))
    if dotted:
        head = "::" if length == 6 else "::ffff:"
        return head + "%d.%d.%d.%d" % tuple(address[12:])  # noqa: UP031
    if length < 2:
        return ":".join(f"{word:x}" for word in words)
    left = ":".join(f"{word:x}" for word in words[:start])
    right = ":".join(f"{word:x}" for word in words[start + length :])
    return f"{left}::{right}"


def _longest_zero_run(words: list[int]) -> tuple[int, int]:
    best_start = best_length = 0
    start = length = 0
    for index, word in enumerate(words):
        if word:
            length = 0
            continue
        if length == 0:
            start = index
        length += 1
        if length > best_length:
            best_start, best_length = start, length
    return best_start, best_length


def _service_port(name: str, protocol: int) -> int | None:
    if protocol not in _SERVICE_PROTOCOLS:
        return None
    import socket

    try:
        return socket.getservbyname(name, _SERVICE_PROTOCOLS[protocol])
    except (OSError, ValueError):
        return None


def _service_name(port: int, protocol: int) -> str:
    if protocol in _SERVICE_PROTOCOLS:
        import socket

        try:
            return socket.getservbyport(port, _SERVICE_PROTOCOLS[protocol])
        except OSError:
            pass
    return str(port)


def _host_name(address: bytes) -> str:
    import socket

    text = format_address(address)
    try:
        return socket.gethostbyaddr(text)[0]
    except (OSError, ValueError):
        return text
