# SPDX-License-Identifier: GPL-2.0-only
"""FTP under NAT: what control connections say, byte for byte, and the data connections that follow."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.packet import packets
from tests.packet.director import (
    CLIENT,
    CLIENT6,
    SENT,
    UNTOUCHED,
    VIP,
    VIP6,
    Director,
    real_server,
    real_server6,
)
from tests.packet.packets import ACK, FIN, PSH, RST, SYN, TCP
from tests.packet.spaces import ip
from tests.packet.translated import Masqueraded, whole_packet
from xlvs.kernel import abi
from xlvs.model import MASQUERADE, Destination, Service, ServiceKey

CONTROL_PORT = 21
ANSWER = b"227 Entering Passive Mode (10,0,0,11,156,64).\r\n"
PORT = 156 << 8 | 64
LINK_TO_FTP = 1 << 31
TEXT = 128
"""How much of a segment is looked at."""
families = pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])


def _controls(director: Director, place: int) -> int:
    """How many data connections a control connection has in its care."""
    return director.slot_record(place).control >> abi.CONTROL_FTP_DATA_SHIFT


@contextmanager
def _service(
    director: Director, vip: bytes = VIP, server: bytes | None = None, server_port: int = CONTROL_PORT
) -> Iterator[ServiceKey]:
    """An FTP service with one masqueraded real server; its connections' time is over at the end."""
    is_ipv4 = len(vip) == 4
    key = ServiceKey(2 if is_ipv4 else 10, TCP, vip, CONTROL_PORT)
    server = server or (real_server(1) if is_ipv4 else real_server6(1))
    director.table.add_service(Service(key, "rr"))
    director.table.add_destination(key, Destination(server, server_port, MASQUERADE))
    try:
        yield key
    finally:
        director.table.delete_service(key)
        past = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT) - 2
        records = [director.slot_record(place) for place, _ in director.slots(abi.PHASE_LIVE)]
        for record in records:
            if record.link & LINK_TO_FTP:
                record.link = 0  # or it would be taken off the count below
        for record in records:
            # The count alone: the sweeper may be about to end what is there.
            ctypes.memset(ctypes.addressof(record) + abi.CONTROL_FTP_DATA_SHIFT // 8, 0, 2)
            record.expires = past & 0xFFFFFFFF


class Control(Masqueraded):
    """An established control connection."""

    def __init__(self, director: Director, key: ServiceKey, port: int | None = None) -> None:
        (entry,) = director.table.service(key).destinations
        server = (entry.destination.address, entry.destination.port)
        client = CLIENT if key.family == 2 else CLIENT6
        super().__init__(TCP, (client, port or director.unused_port()), (key.address, key.port), server)
        self.director = director
        for before, after in (self.asked(b"", SYN), self.answered(b"", SYN | ACK), self.asked(b"", ACK)):
            assert director.tc(director.frame(before)) == (SENT, director.frame(after))

    def says(self, text: bytes) -> None:
        """The client's words arrive as they are."""
        before, after = self.asked(text, ACK | PSH)
        assert self.director.tc(self.director.frame(before)) == (SENT, self.director.frame(after))

    def hears(self, answer: bytes, told: bytes | None = None, **fields: Any) -> None:
        """The real server's answer arrives as ``told``, or as it is."""
        before = whole_packet(TCP, self.server, self.client, answer, ACK | PSH, **fields)
        after = whole_packet(TCP, self.virtual, self.client, told or answer, ACK | PSH, 63, **fields)
        assert self.director.tc(self.director.frame(before)) == (SENT, self.director.frame(after))

    def listed(self) -> set[tuple[int, int, int, str]]:
        """Client port, virtual port, real server's port and state of the other connections."""
        return {
            (one.client_port, one.virtual_port, one.destination_port, one.state)
            for one in self.director.table.connections()
            if one.client_port != self.client[1]
        }

    def data(self, client_port: int, virtual_port: int, server_port: int) -> Masqueraded:
        """A data connection with those ports."""
        return Masqueraded(
            TCP,
            (self.client[0], client_port),
            (self.virtual[0], virtual_port),
            (self.server[0], server_port),
        )

    def place(self) -> int:
        """Its slot."""
        (place,) = (
            place
            for place, slot in self.director.slots(abi.PHASE_LIVE)
            if slot.client_port == self.client[1] and slot.virtual_port == CONTROL_PORT
        )
        return place


def _passes(director: Director, *pairs: tuple[bytes, bytes]) -> None:
    for before, after in pairs:
        assert director.tc(director.frame(before)) == (SENT, director.frame(after))


def _filled(told: bytes, answer: bytes) -> bytes:
    """What is told, with spaces after the code: as long as the answer was."""
    before, code, text = told.rpartition(b"227 ")
    return before + code + text.rjust(len(answer) - len(before + code))


LONG_VIP, SHORT_VIP = "203.198.177.100", "1.2.3.4"
WORDINGS = [
    # vsftpd and ProFTPD; pure-ftpd; pyftpdlib
    (LONG_VIP, b"227 Entering Passive Mode (10,0,0,11,156,64).\r\n",
     b"227 Passive Mode (203,198,177,100,156,64).\r\n"),
    (SHORT_VIP, b"227 Entering Passive Mode (10,0,0,11,156,64)\r\n",
     b"227 Entering Passive Mode (1,2,3,4,156,64)\r\n"),
    (LONG_VIP, b"227 Entering passive mode (10,0,0,11,4,1).\r\n",
     b"227 passive mode (203,198,177,100,4,1).\r\n"),
    # Names the VIP already
    (SHORT_VIP, b"227 Entering Passive Mode (1,2,3,4,156,64)\r\n", None),
    # publicfile
    (SHORT_VIP, b"227 =10,0,0,11,156,64\r\n", b"227 =1,2,3,4,156,64\r\n"),
    # The parenthesis goes last
    ("10.0.0.100", b"227 (10,0,0,11,156,64)\r\n", b"227 10,0,0,100,156,64)\r\n"),
    ("10.0.0.100", b"227 OK (10,0,0,11,156,64)\r\n", b"227 (10,0,0,100,156,64)\r\n"),
    # Other numbers before; several lines in a segment
    (SHORT_VIP, b"227 Mode 2,3 of 10 (10,0,0,11,156,64)\r\n", b"227 Mode 2,3 of 10 (1,2,3,4,156,64)\r\n"),
    (SHORT_VIP, b"200 Type set to I.\r\n227 Entering Passive Mode (10,0,0,11,156,64).\r\n",
     b"200 Type set to I.\r\n227 Entering Passive Mode (1,2,3,4,156,64).\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("vip", "answer", "told"), WORDINGS)
def test_a_227_names_the_vip_in_as_many_bytes(
    director: Director, vip: str, answer: bytes, told: bytes | None
) -> None:
    if vip != "10.0.0.100":
        ip(f"address add {vip}/32 dev eth0")
    try:
        with _service(director, packets.packed(vip)) as key:
            control = Control(director, key)
            control.says(b"PASV\r\n")
            for _ in range(2):  # a retransmission is the same
                control.hears(answer, told and _filled(told, answer))
            (expected,) = control.listed()
            assert expected[0] == 0 and expected[1] == expected[2] and expected[3] == "LISTEN"
    finally:
        if vip != "10.0.0.100":
            ip(f"address del {vip}/32 dev eth0")


def test_any_numbers_and_words(director: Director) -> None:
    """Every length of words: checksums are right, and the port is the one that was named."""
    with _service(director) as key:
        control = Control(director, key)
        control.says(b"pasv\r\n")
        for words in range(40):
            port = 1024 + words * 1601
            numbers = b"%d,%d" % (port >> 8, port & 255)
            free = b"x" * words
            answer = b"227 " + free + b"(10,0,0,11," + numbers + b")\r\n"
            if words < 1:
                told = b"227 10,0,0,100," + numbers + b")\r\n"
            else:
                told = b"227 " + b" " * (words - 1) + b"(10,0,0,100," + numbers + b")\r\n"
            control.hears(answer, told)
            assert (0, port, port, "LISTEN") in control.listed()


@pytest.mark.parametrize(
    "answer",
    [
        b"227 =10,0,0,11,156,64\r\n",  # does not fit
        b"227 Entering Passive Mode (10,0,0,12,156,64).\r\n",  # somebody else's address
        b"227 Entering Passive Mode (10,0,0,11,3,255).\r\n",  # a privileged port
        b"227 Entering Passive Mode (10,0,0,11,156,640).\r\n",
        b"227 Entering Passive Mode (10,0,0,11,156",
        b"227",
        b"2",
        b"230 Entering Passive Mode (10,0,0,11,156,64).\r\n",
        b" 227 Entering Passive Mode (10,0,0,11,156,64).\r\n",
        b"229 Entering Extended Passive Mode (|||1023|)\r\n",
        b"229 Entering Extended Passive Mode (|||65537|)\r\n",
        b"229 Entering Extended Passive Mode (||40000|)\r\n",
        b"229 Entering Extended Passive Mode (|||40000",
        b"229 Entering Extended Passive Mode |||40000|\r\n",
        b"227 " + b"x" * (TEXT - 4) + b"(10,0,0,11,156,64)\r\n",
        b"\x16\x03\x03\x00\x7a" + bytes(range(200)),
    ],
)  # fmt: skip
def test_what_is_no_answer_to_pasv(director: Director, answer: bytes) -> None:
    ip("address add 203.198.177.100/32 dev eth0")
    try:
        with _service(director, packets.packed("203.198.177.100")) as key:
            control = Control(director, key)
            control.says(b"PASV\r\n")
            control.hears(answer)
            assert not control.listed()
    finally:
        ip("address del 203.198.177.100/32 dev eth0")


def test_an_answer_that_was_not_asked_for(director: Director) -> None:
    with _service(director) as key:
        control = Control(director, key)
        for command in (b"STAT\r\n", b"XPASV\r\n", b"PASV", b"PASVx\r\n", b"\x16\x03\x01\x02\x00PASV\r\n"):
            control.says(command)
            control.hears(ANSWER)
        assert not control.listed()
        control.says(b"PASV\r\n")
        control.says(b"PORT 10,0,0,200,100,1\r\n")
        control.hears(ANSWER)
        assert len(control.listed()) == 1


@families
def test_a_passive_data_connection(director: Director, address: bytes) -> None:
    """It goes to the same real server, from whatever port, and is entered as what it is."""
    with _service(director, address, (real_server if address == VIP else real_server6)(60)) as key:
        control = Control(director, key)
        control.says(b"EPSV\r\n")
        control.hears(b"229 Entering Extended Passive Mode (|||%d|)\r\n" % PORT)
        assert control.listed() == {(0, PORT, PORT, "LISTEN")}
        entry = director.entry(key, control.server[0])
        assert (entry.active, entry.inactive, entry.stats.connections) == (1, 1, 1)
        client_port = director.unused_port()
        data = control.data(client_port, PORT, PORT)
        _passes(director, data.asked(b"", SYN), data.answered(b"", SYN | ACK), data.asked(b"", ACK))
        assert control.listed() == {(client_port, PORT, PORT, "ESTABLISHED")}
        _passes(director, data.answered(b"content" * 100), data.asked(b"content"))
        entry = director.entry(key, control.server[0])
        assert (entry.active, entry.inactive, entry.stats.connections) == (2, 0, 1)
        # It was for one connection only.
        another = director.frame(control.data(director.unused_port(), PORT, PORT).asked(b"", SYN)[0])
        assert director.tc(another) == (UNTOUCHED, another)
        _passes(director, data.answered(b"", FIN | ACK), data.asked(b"", FIN | ACK))
        entry = director.entry(key, control.server[0])
        assert (entry.active, entry.inactive) == (1, 1)


ACTIVE = [
    (VIP, b"PORT 10,0,0,200,156,64\r\n"),
    (VIP, b"port 10,0,0,200,156,64\r\n"),
    (VIP, b"EPRT |1|10.0.0.200|40000|\r\n"),
    (VIP6, b"EPRT |2|fd00::200|40000|\r\n"),
    (VIP6, b"EPRT !2!fd00:0:0::200!40000!\r\n"),
    (VIP, b"TYPE I\r\nPORT 10,0,0,200,156,64\r\n"),
]


@pytest.mark.parametrize(("address", "command"), ACTIVE)
@pytest.mark.parametrize("server_port", [CONTROL_PORT, 2121])
def test_an_active_data_connection(
    director: Director, address: bytes, command: bytes, server_port: int
) -> None:
    """The real server's comes from the VIP's port 20; its port is the one before the control's."""
    with _service(director, address, server_port=server_port) as key:
        control = Control(director, key)
        control.says(command)
        assert control.listed() == {(PORT, 20, server_port - 1, "LISTEN")}
        data = control.data(PORT, 20, server_port - 1)
        _passes(director, data.answered(b"", SYN), data.asked(b"", SYN | ACK), data.answered(b"", ACK))
        assert control.listed() == {(PORT, 20, server_port - 1, "ESTABLISHED")}
        _passes(director, data.answered(b"content" * 100), data.asked(b"content"))
        assert director.listing(key).stats.connections == 1


@pytest.mark.parametrize(
    "command",
    [
        b"PORT 10,0,0,200,156\r\n", b"PORT 10,0,0,200,156,640\r\n", b"PORT 10,0,0,200,0,0\r\n",
        b"EPRT |1|10.0.0.200|\r\n", b"EPRT |1|10.0.0.200|65536|\r\n",
        b"EPRT |1|10.0.0.200|999999999999|\r\n",
        b"PORT 10,0,0,200,156,64", b"xPORT 10,0,0,200,156,64\r\n", b"PORTS 10,0,0,200,156,64\r\n",
    ],
)  # fmt: skip
def test_what_is_no_port(director: Director, command: bytes) -> None:
    with _service(director) as key:
        control = Control(director, key)
        control.says(command)
        assert not control.listed()


def test_a_port_of_somebody_else_is_not_masqueraded(director: Director) -> None:
    """Whatever address a client names, only its own is expected: no bounce comes from the VIP."""
    with _service(director) as key:
        control = Control(director, key)
        control.says(b"PORT 10,0,0,77,156,64\r\n")
        bounced = whole_packet(TCP, (control.server[0], 20), (packets.packed("10.0.0.77"), PORT), b"", SYN)
        assert director.tc(director.frame(bounced)) == (UNTOUCHED, director.frame(bounced))


@families
def test_a_control_connection_lives_as_long_as_its_data(director: Director, address: bytes) -> None:
    with _service(director, address) as key:
        control = Control(director, key)
        control.says(b"EPRT |1|x|40000|\r\n")
        place = control.place()
        assert _controls(director, place) == 1
        record = director.slot_record(place)
        passed = (record.expires - 0x08000000) & 0xFFFFFFFF
        record.expires = passed
        # Over by its own time, but its data is not: an answer passes at once, ...
        control.hears(b"226 Transfer complete.\r\n")
        record.expires = passed
        control.says(b"NOOP\r\n")
        # ... and the sweeper gives it another minute.
        record.expires = passed
        director.wait_until(lambda: record.expires != passed, 3, "no minute more")
        data = control.data(PORT, 20, 20)
        _passes(director, data.answered(b"", SYN), data.answered(b"", RST))
        for slot_place, slot in director.slots(abi.PHASE_LIVE):
            if slot.client_port == PORT:
                director.slot_record(slot_place).expires = passed
        director.wait_until(lambda: _controls(director, place) == 0, 3, "the data connection stays")
        record.expires = passed
        director.wait_until(
            lambda: place not in dict(director.slots(abi.PHASE_LIVE)), 3, "the control connection stays"
        )


def test_what_is_expected_already_is_expected_once(director: Director) -> None:
    """It stays with the control connection that agreed on it first (kernel: ip_vs_ftp_in)."""
    with _service(director, server=real_server(61)) as key:
        control, other = Control(director, key), Control(director, key)
        for one in (control, control, other):
            one.says(b"PORT 10,0,0,200,156,64\r\n")
            assert _controls(director, control.place()) == 1
            assert _controls(director, other.place()) == 0
        entry = director.entry(key, control.server[0])
        assert (entry.active, entry.inactive) == (2, 1)
        for one in (control, control, other):
            one.says(b"EPSV\r\n")
            one.hears(b"229 Entering Extended Passive Mode (|||40000|)\r\n")
            assert _controls(director, control.place()) == 2
            assert _controls(director, other.place()) == 0


def test_a_data_connection_that_runs_listens_again(director: Director) -> None:
    """The same port agreed on once more does not take it away from its real server."""
    with _service(director, server=real_server(62)) as key:
        control = Control(director, key)
        control.says(b"PORT 10,0,0,200,156,64\r\n")
        data = control.data(PORT, 20, 20)
        _passes(director, data.answered(b"", SYN), data.asked(b"", SYN | ACK), data.answered(b"x", ACK))
        before = director.entry(key, control.server[0])
        assert (before.active, before.inactive) == (2, 0)
        control.says(b"PORT 10,0,0,200,156,64\r\n")
        assert director.entry(key, control.server[0]).replace(stats=before.stats) == before
        assert (PORT, 20, 20, "LISTEN") in control.listed()
        _passes(director, data.answered(b"y", ACK), data.asked(b"", ACK))
        assert (PORT, 20, 20, "ESTABLISHED") in control.listed()


def test_headers_with_options(director: Director) -> None:
    """The text begins where the headers say."""
    with _service(director) as key:
        control = Control(director, key)
        control.says(b"PASV\r\n")
        told = b"227 Passive Mode (10,0,0,100,156,64).\r\n"
        control.hears(ANSWER, _filled(told, ANSWER), options=bytes([1]) * 24)


def test_other_services_are_not_read(director: Director) -> None:
    key = director.service(1, method=MASQUERADE)
    one = Masqueraded(TCP, (CLIENT, director.unused_port()), (VIP, key.port), (real_server(1), key.port))
    _passes(director, one.asked(b"", SYN), one.answered(b"", SYN | ACK), one.asked(b"PASV\r\n"))
    _passes(director, one.answered(ANSWER), one.asked(b"PORT 10,0,0,200,156,64\r\n"))
    assert len([each for each in director.table.connections() if each.state == "LISTEN"]) == 0


def test_a_way_back_that_was_not_of_ftp(director: Director) -> None:
    """One client port had the real server's FTP port by another service: the newest decides what is read."""
    other = director.service(1, method=MASQUERADE, server_port=CONTROL_PORT)
    one = Masqueraded(
        TCP, (CLIENT, director.unused_port()), (VIP, other.port), (real_server(1), CONTROL_PORT)
    )
    _passes(director, one.asked(b"", SYN), one.answered(b"", SYN | ACK))
    with _service(director) as key:
        control = Control(director, key, one.client[1])
        control.says(b"PASV\r\n")
        control.hears(ANSWER, _filled(b"227 Passive Mode (10,0,0,100,156,64).\r\n", ANSWER))
        assert (0, 40000, 40000, "LISTEN") in control.listed()
