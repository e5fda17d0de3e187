# SPDX-License-Identifier: GPL-2.0-only
"""Reading and writing of numbers and addresses; the C library is the oracle."""

from __future__ import annotations

import ctypes
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli.address import (
    Names,
    format_address,
    format_endpoint,
    leading_number,
    mask_to_prefix,
    parse_endpoint,
    parse_group,
    parse_host,
    prefix_to_mask,
    string_to_number,
)
from xlvs.model import SCTP, TCP, UDP

pytestmark = pytest.mark.unit

IPV4 = st.binary(min_size=4, max_size=4)
WORDS = st.sampled_from([0, 0, 0, 0, 1, 0xFFFF, 0x2001, 0xDB8, 0xA])
IPV6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(WORDS, min_size=8, max_size=8).map(lambda words: b"".join(w.to_bytes(2, "big") for w in words)),
)
PORT = st.integers(0, 65535)
NUMBER_TEXT = st.text(alphabet=" \t\n\v\f\r+-0123456789x", max_size=24)


@given(IPV4 | IPV6)
def test_writes_addresses_as_the_c_library(address: bytes) -> None:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    assert format_address(address) == socket.inet_ntop(family, address)


@given(IPV4 | IPV6, PORT)
def test_reads_what_it_writes(address: bytes, port: int) -> None:
    assert parse_endpoint(format_endpoint(address, port), TCP) == (address, port)


@given(IPV4 | IPV6)
def test_reads_an_address_without_a_port(address: bytes) -> None:
    assert parse_endpoint(format_address(address), TCP) == (address, None)


@given(NUMBER_TEXT)
def test_reads_numbers_as_the_c_library(text: str) -> None:
    library = ctypes.CDLL(None)
    library.strtol.restype = ctypes.c_long
    end = ctypes.c_char_p()
    buffer = ctypes.create_string_buffer(text.encode())
    number = library.strtol(buffer, ctypes.byref(end), 10)
    whole = ctypes.cast(end, ctypes.c_void_p).value != ctypes.addressof(buffer) and end.value == b""
    expected = number if whole and 0 <= number <= 65535 else None
    assert string_to_number(text, 0, 65535) == expected
    if abs(number) < 2**31:
        assert leading_number(text) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:80", (b"\xc0\x00\x02\x01", 80)),
        ("192.0.2.1", (b"\xc0\x00\x02\x01", None)),
        ("127.1:80", (b"\x7f\x00\x00\x01", 80)),
        ("0300.0.2.1:80", (b"\xc0\x00\x02\x01", 80)),
        ("[192.0.2.1]:80", (b"\xc0\x00\x02\x01", None)),
        ("www.example.com:http", (b"\xc0\x00\x02\x0a", 80)),
        ("[::1]:443", (bytes(15) + b"\x01", 443)),
        ("::1", (bytes(15) + b"\x01", None)),
        ("[::1]", None),
        ("[::1", None),
        ("[]:80", None),
        ("80", None),
        ("", None),
        (":80", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:nosuch", None),
        ("nosuch.example.com:80", None),
        ("<broadcast>:80", None),
        ("bücher.example:80", None),
        ("1::2::3", None),
    ],
)
def test_endpoints(text: str, expected: tuple[bytes, int | None] | None) -> None:
    assert parse_endpoint(text, TCP) == expected


def test_a_service_name_belongs_to_its_protocol() -> None:
    assert parse_endpoint("192.0.2.1:domain", UDP) == (b"\xc0\x00\x02\x01", 53)
    assert parse_endpoint("192.0.2.1:domain", SCTP) is None
    assert parse_endpoint("192.0.2.1:domain", 0) is None


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_none(text: str) -> None:
    endpoint = parse_endpoint(text.replace("\0", ""), TCP)
    assert endpoint is None or len(endpoint[0]) in (4, 16)


@given(st.integers(0, 32))
def test_masks_and_prefixes(prefix: int) -> None:
    assert mask_to_prefix(prefix_to_mask(prefix)) == prefix


def test_a_mask_with_gaps_has_no_prefix() -> None:
    assert mask_to_prefix(parse_host("255.0.255.0") or b"") is None
    assert mask_to_prefix(parse_host("24") or b"") is None


def test_groups_must_be_multicast() -> None:
    assert parse_group("224.0.0.81") == b"\xe0\x00\x00\x51"
    assert parse_group("ff02::81") == b"\xff\x02" + bytes(13) + b"\x81"
    assert parse_group("192.0.2.1") is None
    assert parse_group("fe80::1") is None
    assert parse_group("224.0.0") is None


def test_names_are_cut_at_the_buffer_and_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(address: str) -> tuple[str, list[str], list[str]]:
        asked.append(address)
        return "h" * 80, [], []

    monkeypatch.setattr(socket, "gethostbyaddr", look_up)
    names = Names()
    assert names.endpoint(b"\x0a\x00\x00\x01", 80, TCP) == "h" * 59
    assert names.endpoint(b"\x0a\x00\x00\x01", 81, TCP) == "h" * 59
    assert asked == ["10.0.0.1"]
