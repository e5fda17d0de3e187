# SPDX-License-Identifier: GPL-2.0-only
"""NAT sees both directions: states, timeouts and counts after any conversation; a full table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    Director,
    real_server,
    real_server6,
)
from tests.packet.kernel_model import (
    INPUT,
    OUTPUT,
    TIMEOUTS,
    UDP_TIMEOUT,
    is_active,
    next_state,
    opens,
    takes_over,
)
from tests.packet.packets import ACK, FIN, PSH, RST, SYN, TCP, UDP, URG
from tests.packet.translated import Masqueraded
from xlvs.datapath.load import Capacity
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ServiceKey, Stats

SERVER_PORT = 8080
INTERESTING = (
    SYN, ACK, FIN, RST, SYN | ACK, FIN | ACK, RST | ACK, SYN | RST, SYN | FIN, 0, PSH, URG, PSH | ACK,
)  # fmt: skip
segments = st.tuples(st.booleans(), st.sampled_from(INTERESTING) | st.integers(0, 255))
conversations = st.lists(segments, max_size=16)


def _connection(director: Director, key: ServiceKey) -> Masqueraded:
    client, server = (CLIENT, real_server(1)) if key.family == 2 else (CLIENT6, real_server6(1))
    port = director.unused_port()
    return Masqueraded(key.protocol, (client, port), (key.address, key.port), (server, SERVER_PORT))


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_any_conversation(director: Director, address: bytes) -> None:
    """The state is the kernel's after each segment of either side."""

    @settings(max_examples=120, deadline=None)
    @given(conversations)
    def follow(conversation: list[tuple[bool, int]]) -> None:
        key = director.service(1, address=address, method=MASQUERADE, server_port=SERVER_PORT)
        one = _connection(director, key)
        state: str | None = None
        expected = Stats()
        for from_server, flags in ((False, SYN), *conversation):
            before, after = (one.answered if from_server else one.asked)(b"", flags)
            if not from_server and state is not None and takes_over(state, flags):
                state = None
            frame = director.frame(before)
            if state is None and (from_server or not opens(flags)):
                assert director.tc(frame) == (UNTOUCHED, frame)
            else:
                assert director.tc(frame) == (SENT, director.frame(after))
                size = len(before)
                expected = Stats(
                    expected.connections + (state is None),
                    expected.in_packets + (not from_server),
                    expected.out_packets + from_server,
                    expected.in_bytes + size * (not from_server),
                    expected.out_bytes + size * from_server,
                )
                state = next_state(state or "NONE", flags, OUTPUT if from_server else INPUT)
            _check(director, key, one, state, expected)
        director.table.delete_service(key)

    follow()


def _check(
    director: Director, key: ServiceKey, one: Masqueraded, state: str | None, expected: Stats
) -> None:
    connection = director.connection(key, one.client[1])
    (entry,) = director.listing(key).destinations
    if state is None:
        assert connection is None
        assert (entry.active, entry.inactive) == (0, 0)
    else:
        assert connection is not None
        assert connection.state == state
        assert TIMEOUTS[state] - 2 <= connection.expires <= TIMEOUTS[state]
        assert (entry.active, entry.inactive) == ((1, 0) if is_active(state) else (0, 1))
    assert entry.stats == director.listing(key).stats == expected


STATES_BY_CONVERSATION: dict[str, tuple[tuple[bool, int], ...]] = {
    # False: the client, True: the real server.
    "SYN_RECV": (),
    "ESTABLISHED": ((True, SYN | ACK), (False, ACK)),
    "FIN_WAIT": ((False, ACK), (True, FIN | ACK)),
    "CLOSE_WAIT": ((False, ACK), (False, FIN | ACK)),
    "TIME_WAIT": ((False, ACK), (True, FIN | ACK), (False, FIN | ACK)),
    "CLOSE": ((False, ACK), (True, RST)),
}


@pytest.mark.parametrize("state", STATES_BY_CONVERSATION)
def test_ordinary_conversations(director: Director, state: str) -> None:
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    one = _connection(director, key)
    for from_server, flags in ((False, SYN), *STATES_BY_CONVERSATION[state]):
        before, _ = (one.answered if from_server else one.asked)(b"", flags)
        assert director.tc(director.frame(before))[0] == SENT
    connection = director.connection(key, one.client[1])
    assert connection is not None
    assert connection.state == state


def test_a_reply_renews_the_time(director: Director) -> None:
    """A client that only listens keeps its connection, TCP or UDP."""
    for protocol, timeout in ((TCP, TIMEOUTS["ESTABLISHED"]), (UDP, UDP_TIMEOUT)):
        key = director.service(1, protocol=protocol, method=MASQUERADE, server_port=SERVER_PORT)
        one = _connection(director, key)
        for flags in (SYN, ACK):
            assert director.tc(director.frame(one.asked(b"", flags)[0]))[0] == SENT
        ((place, slot),) = (
            (place, slot)
            for place, slot in director.slots(abi.PHASE_LIVE)
            if (slot.client, slot.client_port) == one.client
        )
        director.slot_record(place).expires = (slot.expires - 10_000) & 0xFFFFFFFF
        connection = director.connection(key, one.client[1])
        assert connection is not None
        assert connection.expires < timeout - 160
        assert director.tc(director.frame(one.answered()[0]))[0] == SENT
        connection = director.connection(key, one.client[1])
        assert connection is not None
        assert timeout - 2 <= connection.expires <= timeout


def test_a_full_table(make_director: Callable[[Capacity], Director]) -> None:
    """Where only one of the two entries has room, nothing is left of the connection."""
    director = make_director(Capacity(connections=64, services=8, destinations=64))
    slots = director.maps.limits.buckets * abi.SLOTS_PER_BUCKET
    key = director.service(1, method=MASQUERADE, server_port=SERVER_PORT)
    kept = 0
    refused = 0
    half_way = 0
    for _ in range(slots):
        one = _connection(director, key)
        before = director.events()["table_full"]
        dead = sum(1 for _ in director.slots(abi.PHASE_DEAD))
        frame = director.frame(one.asked(b"", SYN)[0])
        verdict, after = director.tc(frame)
        live = [slot for _, slot in director.slots(abi.PHASE_LIVE)]
        if verdict == SENT:
            kept += 1
            assert director.events()["table_full"] == before
        else:
            refused += 1
            assert (verdict, after) == (DROPPED, frame)
            assert director.events()["table_full"] == before + 1
            half_way += sum(1 for _ in director.slots(abi.PHASE_DEAD)) > dead
            assert director.connection(key, one.client[1]) is None
            answer = director.frame(one.answered(b"", SYN | ACK)[0])
            assert director.tc(answer) == (UNTOUCHED, answer)
        assert len(live) == 2 * kept
        entry = director.entry(key, real_server(1))
        assert (entry.active, entry.inactive, entry.stats.connections) == (kept, 0, kept)
        if half_way >= 3:
            break
    assert kept > slots * 0.35
    assert refused
    assert half_way >= 3
    assert director.listing(key).stats == Stats(kept, kept, 0, 40 * kept, 0)
