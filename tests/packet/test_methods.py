# SPDX-License-Identifier: GPL-2.0-only
"""A connection keeps the forwarding method that it began with, whatever its real server has now."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.packet import packets
from tests.packet.director import CLIENT, SENT, UNTOUCHED, VIP, XDP_PASS, XDP_TX, Director, real_server
from tests.packet.packets import ACK, ETHERNET_SIZE, SYN, TCP, with_one_hop_less
from tests.packet.translated import Masqueraded
from xlvs.model import MASQUERADE, ROUTE, TUNNEL, Destination, ServiceKey

METHODS = (ROUTE, MASQUERADE, TUNNEL)
SOURCE = packets.packed("10.0.0.1")


def _check(director: Director, key: ServiceKey, client_port: int, flags: int, method: str) -> None:
    """One segment of a connection is forwarded by that method, and only NAT has a way back."""
    one = Masqueraded(TCP, (CLIENT, client_port), (VIP, key.port), (real_server(1), key.port))
    asked, translated = one.asked(b"data", flags)
    frame = director.frame(asked)
    inner = with_one_hop_less(frame)
    verdict, after = director.tc(frame)
    assert verdict == SENT
    if method == ROUTE:
        assert after == inner
    elif method == MASQUERADE:
        assert after == director.frame(translated)
    else:
        identification = int.from_bytes(after[18:20], "big")
        outer = packets.tunnelled(
            inner[ETHERNET_SIZE:], SOURCE, real_server(1), "ipip", identification=identification
        )
        assert after == director.frame(outer)
    at_xdp, sent = director.xdp(frame)
    # What changes on its way is XDP's where that is native (test_xdp_changes.py).
    assert at_xdp == (XDP_TX if method == ROUTE and not flags & SYN else XDP_PASS)
    assert at_xdp == XDP_TX or sent == frame

    answer, expected = (director.frame(packet) for packet in one.answered(b"data"))
    if method == MASQUERADE:
        assert director.tc(answer) == (SENT, expected)
    else:
        assert director.tc(answer) == (UNTOUCHED, answer)


@pytest.mark.parametrize(("first", "second"), list(permutations(METHODS, 2)))
def test_a_real_server_whose_method_changes(director: Director, first: str, second: str) -> None:
    key = director.service(1, method=first)
    old = director.unused_port()
    _check(director, key, old, SYN, first)
    director.another_command()
    director.table.edit_destination(key, Destination(real_server(1), key.port, second))
    assert director.entry(key, real_server(1)).destination.method == second
    new = director.unused_port()
    _check(director, key, new, SYN, second)
    _check(director, key, old, ACK, first)
    _check(director, key, new, ACK, second)
    # Also where it was deleted and added again.
    director.table.delete_destination(key, real_server(1), key.port)
    director.another_command()
    director.table.add_destination(key, Destination(real_server(1), key.port, second))
    _check(director, key, old, ACK, first)
    _check(director, key, new, ACK, second)
    entry = director.entry(key, real_server(1))
    assert (entry.active, entry.inactive, entry.stats.connections) == (2, 0, 2)
    director.table.edit_destination(key, Destination(real_server(1), key.port, first))
    _check(director, key, new, ACK, second)
