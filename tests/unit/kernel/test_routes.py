# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's routes: an answer like one before it is not taken apart again, and says the same."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from xlvs.kernel import rtnetlink

addresses = st.sampled_from([bytes((10, 0, 0, last)) for last in range(3)]) | st.binary(
    min_size=16, max_size=16
)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An address, and the payload of RTM_NEWROUTE (linux/rtnetlink.h) for it."""
    address, other = draw(addresses), draw(addresses)
    parts = [
        _attribute(15, struct.pack("=I", 254)),
        _attribute(1, address),
        _attribute(4, struct.pack("=I", draw(st.integers(1, 3)))),
    ]
    if draw(st.booleans()):
        parts.append(_attribute(5, other))
    if draw(st.booleans()):
        parts.append(_attribute(7, draw(st.sampled_from([address, other]))))
    if draw(st.booleans()):
        del parts[0]
    header = struct.pack("=BBBBBBBBI", 2, 8 * len(address), 0, 0, 0, 0, 0, draw(st.integers(1, 3)), 0)
    return address, header + b"".join(parts)


@given(st.lists(answers(), max_size=12))
def test_routes_that_are_told_alike(told: list[tuple[bytes, bytes]]) -> None:
    alike: dict[bytes, tuple[int, int, bytes, bytes]] = {}
    for address, payload in told:
        route = rtnetlink._route(address, payload, alike)
        plain = rtnetlink._read_route(address, payload)
        assert (route.kind, route.interface, route.next_hop, route.source) == plain
