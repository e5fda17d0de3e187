# SPDX-License-Identifier: GPL-2.0-only
"""SCTP: states as kernel IPVS has them, whatever comes; checksums; what may begin an association."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    DROPPED,
    FAR_SERVER,
    FAR_SERVER6,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    XDP_PASS,
    XDP_TX,
    Director,
    real_server,
    real_server6,
)
from tests.packet.kernel_sctp import INPUT, INPUT_ONLY, OUTPUT, STATES, TIMEOUTS, next_state
from tests.packet.packets import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    DATA,
    ETHERNET_SIZE,
    HEARTBEAT,
    INIT,
    INIT_ACK,
    SACK,
    SCTP,
    SHUTDOWN,
    SHUTDOWN_ACK,
    SHUTDOWN_COMPLETE,
)
from tests.packet.translated import End
from xlvs.datapath.records import seconds_to_ticks
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, ROUTE, SCTP_STATES, TUNNEL, ServiceKey, Stats, Tunnel

SERVER_PORT = 8080
COOKIE = bytes(range(250))
"""As long as those of Linux: what is bundled behind it is out of the packet path's direct reach."""
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
kinds = st.integers(0, 14) | st.sampled_from([15, 64, 0xC0, 0xFF])
bundles = st.lists(kinds, max_size=3).map(tuple)
openings = st.permutations([INIT_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE])


def packet(source: End, destination: End, *chunks: int | bytes, ttl: int = 64) -> bytes:
    """An SCTP packet of those chunks; one that is only named has some content."""
    made = [packets.chunk(one, COOKIE) if isinstance(one, int) else one for one in chunks]
    transport = packets.sctp(source[1], destination[1], *made)
    build = packets.ipv4 if len(source[0]) == 4 else packets.ipv6
    return build(source[0], destination[0], SCTP, transport, ttl)


class Association:
    """Its ends: of a new service and a client that has not begun yet."""

    def __init__(
        self, director: Director, address: bytes, method: str = ROUTE, server_port: int | None = None
    ) -> None:
        self.director = director
        self.key = director.service(
            1, address=address, protocol=SCTP, method=method, server_port=server_port
        )
        self.client = (CLIENT if address == VIP else CLIENT6, director.unused_port())
        self.virtual = (address, self.key.port)
        server = (real_server if address == VIP else real_server6)(1)
        self.server = (server, server_port or self.key.port)

    def ask(self, *chunks: int | bytes) -> int:
        """A packet of the client; TC's verdict."""
        return self.director.tc(self.director.frame(packet(self.client, self.virtual, *chunks)))[0]

    def answer(self, *chunks: int | bytes) -> int:
        """A packet of a masqueraded real server; TC's verdict."""
        return self.director.tc(self.director.frame(packet(self.server, self.client, *chunks)))[0]

    def state(self) -> str | None:
        """As listed."""
        listed = self.director.connection(self.key, self.client[1])
        return listed.state if listed else None

    def check(self, state: str | None, expected: Stats) -> None:
        """The listing says that, and counts accordingly."""
        listed = self.director.connection(self.key, self.client[1])
        (entry,) = self.director.listing(self.key).destinations
        assert (listed.state if listed else None) == state
        if listed:
            limit = TIMEOUTS[listed.state]
            assert limit - 2 <= listed.expires <= limit
            assert (entry.active, entry.inactive) == ((1, 0) if state == "ESTABLISHED" else (0, 1))
        assert entry.stats == expected


def _at_xdp_then_tc(one: Association, frame: bytes) -> bool:
    """Whether a frame was sent on; what XDP passes it must not have changed."""
    before = one.director.listing(one.key), one.state()
    verdict, after = one.director.xdp(frame)
    if verdict == XDP_TX:
        return True
    assert (verdict, after) == (XDP_PASS, frame)
    assert (one.director.listing(one.key), one.state()) == before
    return one.director.tc(frame)[0] == SENT


@pytest.mark.parametrize("has_xdp", [False, True], ids=["tc", "xdp"])
@families
def test_any_sequence_of_chunks(director: Director, has_xdp: bool, address: bytes) -> None:
    """Where only the client is seen; an INIT takes over what is closed."""

    @settings(max_examples=80, deadline=None)
    @given(st.lists(bundles | st.sampled_from([(INIT,), (COOKIE_ECHO, DATA)]), max_size=14))
    def follow(sequence: list[tuple[int, ...]]) -> None:
        one = Association(director, address)
        state: str | None = None
        expected = Stats()
        for chunks in ((INIT,), *sequence):
            sent = director.frame(packet(one.client, one.virtual, *chunks))
            if has_xdp:
                assert _at_xdp_then_tc(one, sent)
            else:
                assert director.tc(sent)[0] == SENT
            if state == "CLOSED" and chunks[:1] == (INIT,):
                state = None
            expected = Stats(
                expected.connections + (state is None), expected.in_packets + 1,
                0, expected.in_bytes + len(sent) - ETHERNET_SIZE, 0,
            )  # fmt: skip
            state = next_state(state or "NONE", chunks, INPUT_ONLY)
            one.check(state, expected)
        director.table.delete_service(one.key)

    follow()


@families
def test_any_conversation(director: Director, address: bytes) -> None:
    """Under NAT both sides are seen, and every byte is as if the one had spoken to the other."""

    @settings(max_examples=120, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), bundles), max_size=16), openings, st.integers(1, 65535))
    def follow(
        conversation: list[tuple[bool, tuple[int, ...]]], opening: list[int], server_port: int
    ) -> None:
        one = Association(director, address, MASQUERADE, server_port)
        state: str | None = None
        expected = Stats()
        begun = [(place % 2 == 0, (kind,)) for place, kind in enumerate(opening)]
        for from_server, chunks in ((False, (INIT,)), *begun, *conversation):
            ends = (one.server, one.client) if from_server else (one.client, one.virtual)
            seen_ends = (one.virtual, one.client) if from_server else (one.client, one.server)
            sent = packet(*ends, *chunks)
            got = director.tc(director.frame(sent))
            assert got == (SENT, director.frame(packet(*seen_ends, *chunks, ttl=63)))
            if state == "CLOSED" and not from_server and chunks[:1] == (INIT,):
                state = None
            expected = Stats(
                expected.connections + (state is None),
                expected.in_packets + (not from_server),
                expected.out_packets + from_server,
                expected.in_bytes + len(sent) * (not from_server),
                expected.out_bytes + len(sent) * from_server,
            )
            state = next_state(state or "NONE", chunks, OUTPUT if from_server else INPUT)
            one.check(state, expected)
        director.table.delete_service(one.key)

    follow()


def test_the_model_knows_the_same_states() -> None:
    assert STATES == SCTP_STATES


@families
@pytest.mark.parametrize("chunk", [DATA, COOKIE_ECHO, ABORT])
def test_sloppy_sctp(director: Director, address: bytes, chunk: int) -> None:
    """What is no INIT begins an association only where the setting says so."""
    one = Association(director, address)
    assert one.ask(chunk) == UNTOUCHED
    director.table.set_sysctls({"sloppy_sctp": "1"})
    try:
        assert one.ask(chunk) == SENT
        assert one.state() == next_state("NONE", (chunk,), INPUT_ONLY)
    finally:
        director.table.set_sysctls({"sloppy_sctp": "0"})


def test_each_state_has_its_own_timeout(director: Director) -> None:
    """The kernel has states with equal timeouts; here they differ, so none takes another's."""
    timeouts = director.maps.settings.timeout
    before = list(timeouts)
    try:
        for number in range(len(SCTP_STATES)):
            timeouts[abi.TIMEOUT_SCTP + number] = seconds_to_ticks(1000 + 10 * number)
        one = Association(director, VIP, MASQUERADE, SERVER_PORT)
        for say, chunk, state in (
            (one.ask, INIT, "INIT1"),
            (one.ask, INIT, "INIT"),
            (one.answer, INIT_ACK, "C-SENT"),
            (one.ask, COOKIE_ECHO, "C-REPLIED"),
            (one.answer, COOKIE_ACK, "ESTABLISHED"),
            (one.ask, DATA, "ESTABLISHED"),
            (one.answer, SACK, "ESTABLISHED"),
            (one.ask, SHUTDOWN, "S-RECEIVED"),
            (one.answer, SHUTDOWN_ACK, "S-ACK-SENT"),
            (one.ask, SHUTDOWN_COMPLETE, "CLOSED"),
        ):
            assert say(chunk) == SENT
            listed = director.connection(one.key, one.client[1])
            assert listed is not None
            assert listed.state == state
            timeout = 1000 + 10 * SCTP_STATES.index(state)
            assert timeout - 2 <= listed.expires <= timeout
    finally:
        timeouts[:] = before


@pytest.mark.parametrize("kind", [kind for kind in range(16) if kind != INIT])
def test_only_an_init_begins_one(director: Director, kind: int) -> None:
    one = Association(director, VIP)
    assert one.ask(kind) == UNTOUCHED
    assert one.ask() == UNTOUCHED
    one.check(None, Stats())
    assert one.ask(INIT) == SENT


@pytest.mark.parametrize("cookie", [COOKIE_ECHO, COOKIE_ACK])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 130, 131, 1000])
def test_an_abort_behind_a_cookie_decides(director: Director, cookie: int, size: int) -> None:
    """Wherever it stands; with nothing behind, or a length that is none, the first chunk does."""
    for second, state in ((ABORT, "CLOSED"), (DATA, "ESTABLISHED")):
        one = Association(director, VIP)
        one.ask(INIT)
        one.ask(COOKIE_ECHO)
        assert one.state() == "ESTABLISHED"
        one.ask(packets.chunk(cookie, bytes(size)), packets.chunk(second))
        assert one.state() == state
    for length in (0, 3, 65535):
        one = Association(director, VIP)
        one.ask(INIT)
        one.ask(COOKIE_ECHO)
        one.ask(packets.chunk(cookie, bytes(size), length), packets.chunk(ABORT))
        assert one.state() == "ESTABLISHED"


def test_padding_of_the_frame_is_no_chunk(director: Director) -> None:
    """A packet without chunks, on a wire that fills frames up: with what would be DATA."""
    one = Association(director, VIP, MASQUERADE, SERVER_PORT)
    assert one.ask(INIT) == SENT
    assert one.answer(INIT) == SENT
    assert one.state() == "C-WAIT"
    frame = director.frame(packet(one.client, one.virtual)) + bytes([INIT_ACK, 0, 0, 4]) + bytes(20)
    assert director.tc(frame)[0] == SENT
    assert one.state() == "C-WAIT"


@families
def test_any_payload(director: Director, address: bytes) -> None:
    """The checksum is right for packets of all lengths, padded or cut anyhow."""

    @settings(max_examples=80, deadline=None)
    @given(st.binary(max_size=1400), st.integers(1, 65535))
    def check(payload: bytes, server_port: int) -> None:
        one = Association(director, address, MASQUERADE, server_port)
        assert one.ask(INIT) == SENT
        for source, seen_source, target, seen_target in (
            (one.client, one.client, one.virtual, one.server),
            (one.server, one.virtual, one.client, one.client),
        ):
            got = director.tc(director.frame(packet(source, target, payload)))
            assert got == (SENT, director.frame(packet(seen_source, seen_target, payload, ttl=63)))
        director.table.delete_service(one.key)

    check()


def test_a_damaged_packet_stays_damaged(director: Director) -> None:
    """The real server has to see that it is not what the client sent."""
    one = Association(director, VIP, MASQUERADE, SERVER_PORT)
    assert one.ask(INIT) == SENT
    sent = bytearray(packet(one.client, one.virtual, DATA))
    sent[-5] ^= 0x10
    _, after = director.tc(director.frame(bytes(sent)))
    segment = after[ETHERNET_SIZE + 20 :]
    right = packets.crc32c(segment[:8] + bytes(4) + segment[12:])
    assert int.from_bytes(segment[8:12], "little") != right


def _cut(director: Director, one: Association) -> list[tuple[int, bytes]]:
    """What becomes of the fragments of a client's packet."""
    whole = packet(one.client, one.virtual, packets.chunk(DATA, bytes(range(200)) * 10))
    return [director.tc(director.frame(part)) for part in packets.fragments(whole, 1000)]


@families
def test_fragments(director: Director, address: bytes) -> None:
    """Their addresses can be translated; another port cannot be: the checksum needs the whole's length."""
    one = Association(director, address, MASQUERADE)
    assert one.ask(INIT) == SENT
    whole = packet(one.client, one.server, packets.chunk(DATA, bytes(range(200)) * 10), ttl=63)
    expected = [(SENT, director.frame(part)) for part in packets.fragments(whole, 1000)]
    assert _cut(director, one) == expected
    other = Association(director, address, MASQUERADE, SERVER_PORT)
    assert other.ask(INIT) == SENT
    assert _cut(director, other)[0][0] == DROPPED


@families
@pytest.mark.parametrize(
    "tunnel",
    [Tunnel("ipip"), Tunnel("gre"), Tunnel("gre", checksum="csum")],
    ids=["ipip", "gre", "gre-checked"],
)
def test_tunnels(director: Director, address: bytes, tunnel: Tunnel) -> None:
    server = FAR_SERVER if address == VIP else FAR_SERVER6
    key = director.service(
        1, address=address, protocol=SCTP, method=TUNNEL, servers=(server,), tunnel=tunnel
    )
    client = (CLIENT if address == VIP else CLIENT6, director.unused_port())
    verdict, after = director.tc(director.frame(packet(client, (address, key.port), INIT)))
    assert verdict == SENT
    source = packets.packed("10.0.1.1" if address == VIP else "fd01::1")
    inner = packet(client, (address, key.port), INIT, ttl=63)
    identification = int.from_bytes(after[18:20], "big") if address == VIP else 0
    assert after[ETHERNET_SIZE:] == packets.tunnelled(
        inner, source, server, tunnel.kind, identification=identification, checked=tunnel.checksum == "csum"
    )


def test_established_ones_are_xdps(director: Director) -> None:
    """All but what may begin one anew, and what has to be looked at where all of a packet can be."""
    one = Association(director, VIP)
    assert one.ask(INIT) == SENT
    for kind, verdict in ((DATA, XDP_TX), (HEARTBEAT, XDP_TX), (INIT, XDP_PASS), (COOKIE_ECHO, XDP_PASS)):
        assert director.xdp(director.frame(packet(one.client, one.virtual, kind)))[0] == verdict


def test_other_protocols_keep_apart(director: Director) -> None:
    """One address and port, three services."""
    key = director.service(protocol=SCTP)
    other = ServiceKey(key.family, packets.TCP, key.address, key.port)
    frame = director.segment(other, director.unused_port(), packets.SYN)
    assert director.tc(frame) == (UNTOUCHED, frame)
