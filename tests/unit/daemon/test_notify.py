# SPDX-License-Identifier: GPL-2.0-only
"""Scripts, FIFOs and mail say what keepalived's say."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.daemon.examples import configuration, real_server, tcp_check, virtual_server
from xlvs.daemon.health import DOWN, QUORUM_GAINED, QUORUM_LOST, UP, Event
from xlvs.daemon.notify import Notifier
from xlvs.keepalived.configuration import Configuration
from xlvs.keepalived.origin import NotifyFifo, Script
from xlvs.keepalived.settings import Mail

RS, VS = "[10.0.0.11]:tcp:80", "[192.0.2.1]:tcp:80"


def tell(configured: Configuration, *events: Event) -> None:
    """Tell of these events, and wait until all is told."""

    async def run() -> None:
        notifier = Notifier()
        notifier.configure(configured)
        for event in events:
            notifier.tell(event)
        await notifier.close(10.0)

    asyncio.run(run())


def script(folder: Path, name: str) -> Script:
    """A script that notes that it was run."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {name} $1 >> {folder}/ran\n")
    path.chmod(0o755)
    return Script((str(path), "word"), os.geteuid(), os.getegid())


def test_scripts_by_event(tmp_path: Path) -> None:
    alpha = real_server(1, checkers=(tcp_check(1, alpha=True),), notify_up=script(tmp_path, "alpha"))
    one = real_server(1, notify_up=script(tmp_path, "up"), notify_down=script(tmp_path, "down"))
    server = virtual_server(one, quorum_up=script(tmp_path, "gained"), quorum_down=script(tmp_path, "lost"))
    for event, ran in (
        (Event(UP, server, one), "up"),
        (Event(DOWN, server, one), "down"),
        (Event(DOWN, server, one, first=True), "down"),
        (Event(UP, server, one, first=True), ""),  # it was taken for granted
        (Event(UP, server, alpha, first=True), "alpha"),
        (Event(QUORUM_GAINED, server, first=True), "gained"),
        (Event(QUORUM_LOST, server), "lost"),
    ):
        tell(configuration(server), event)
        found = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
        assert found == (f"{ran} word\n" if ran else "")
        (tmp_path / "ran").unlink(missing_ok=True)
    tell(configuration(server, rs_init_notifies=True), Event(UP, server, one, first=True))
    assert (tmp_path / "ran").read_text() == "up word\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a script that root runs")
def test_a_script_that_others_can_change_is_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = real_server(1, notify_up=script(tmp_path, "up"))
    (tmp_path / "up").chmod(0o777)
    server = virtual_server(one)
    tell(configuration(server, enable_script_security=True), Event(UP, server, one))
    assert not (tmp_path / "ran").exists()
    assert "chmod go-w" in caplog.text


def test_lines_of_fifos(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    one = real_server(1)
    server = virtual_server(one)
    fifo = NotifyFifo(str(path), os.geteuid(), os.getegid())
    both = configuration(server, lvs_notify_fifo=fifo)

    async def run() -> bytes:
        notifier = Notifier()
        notifier.configure(both)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        for kind in (UP, DOWN, QUORUM_GAINED, QUORUM_LOST):
            notifier.tell(Event(kind, server, one if kind in (UP, DOWN) else None))
        notifier.configure(both)  # a reload leaves it open
        read = os.read(reading, 4096)
        os.close(reading)
        await notifier.close(1.0)
        return read

    assert asyncio.run(run()).decode() == (f"RS {RS} {VS} UP\nRS {RS} {VS} DOWN\nVS {VS} UP\nVS {VS} DOWN\n")


def test_what_is_no_fifo_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("mine")
    tell(configuration(lvs_notify_fifo=NotifyFifo(str(tmp_path / "file"))))
    assert (tmp_path / "file").read_text() == "mine"
    assert "Unable to open notify fifo" in caplog.text


def mails(configured: Callable[[int], Configuration], *events: Event, refused: str = "") -> list[str]:
    """What a mail server gets that refuses one recipient."""
    got: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220-mail.test\r\n220 is there\r\n")
        while line := (await reader.readline()).decode().rstrip():
            if line == f"RCPT TO:<{refused}>":
                writer.write(b"550 nobody of \x1bthat name\r\n")
                continue
            if line.upper() == "DATA":
                writer.write(b"354 go on\r\n")
                text = []
                while (line := (await reader.readline()).decode().rstrip("\r\n")) != ".":
                    text.append(line)
                got.append("\n".join(text))
            elif line.upper() == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            writer.write(b"250 ok\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        notifier = Notifier()
        notifier.configure(configured(server.sockets[0].getsockname()[1]))
        for event in events:
            notifier.tell(event)
        await notifier.close(10.0)
        server.close()

    asyncio.run(run())
    return got


def test_mail() -> None:
    one, quiet = real_server(1), real_server(1, smtp_alert=False)
    server = virtual_server(one, smtp_alert=True)

    def configured(port: int) -> Configuration:
        mail = Mail(("a@x.test", "b@x.test"), "lvs@x.test", bytes((127, 0, 0, 1)), port)
        return configuration(server, mail=mail, router_id="LVS_1")

    got = mails(configured, Event(DOWN, server, one, "connection refused"))
    assert len(got) == 1
    assert f"Subject: [LVS_1] Realserver {RS} of virtual server {VS} - DOWN\n" in got[0]
    assert "From: lvs@x.test\n" in got[0] and "To: a@x.test, b@x.test\n" in got[0]
    assert got[0].endswith("\n\n=> connection refused <=")
    dots = mails(configured, Event(DOWN, server, one, "\n.\nQUIT"))
    assert dots[0].endswith("\n\n=> \n..\nQUIT <=")  # no end of the mail
    assert mails(configured, Event(DOWN, server, quiet)) == []
    lost = mails(configured, Event(QUORUM_LOST, server, threshold=1))
    assert f"Subject: [LVS_1] Virtualserver {VS} - DOWN\n" in lost[0]
    assert lost[0].endswith("=> Lost quorum 1+0=1 <= 0 <=")


def test_mail_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    one = real_server(1)
    server = virtual_server(one)

    def configured(port: int, *recipients: str) -> Configuration:
        mail = Mail(recipients, "A Name <lvs@x.test>", bytes((127, 0, 0, 1)), port)
        return configuration(server, mail=mail)

    both = mails(lambda port: configured(port, "a@x.test", "b@x.test"), Event(DOWN, server, one),
                 refused="a@x.test")  # fmt: skip
    assert len(both) == 1  # the other one gets it
    assert "RCPT TO:<a@x.test>: 550 nobody of \\x1bthat name" in caplog.text
    assert not mails(lambda port: configured(port, "a@x.test"), Event(DOWN, server, one), refused="a@x.test")
    tell(configured(1, "a@x.test"), Event(DOWN, server, one))
    assert "could not be sent to 127.0.0.1:1: connecting: connection refused" in caplog.text


def test_a_mute_mail_server_keeps_nothing_else_waiting() -> None:
    """The table is kept by threads of the loop's pool: none of them may wait for a mail server."""
    one = real_server(1)
    server = virtual_server(one)

    async def run() -> bool:
        mute = socket.create_server(("127.0.0.1", 0))  # connections are made, and nothing is said
        mail = Mail(("a@x.test",), "", bytes((127, 0, 0, 1)), mute.getsockname()[1])
        notifier = Notifier()
        notifier.configure(configuration(server, mail=mail))
        for _ in range(200):
            notifier.tell(Event(DOWN, server, one))
        await asyncio.sleep(0)
        kept = await asyncio.wait_for(asyncio.to_thread(lambda: True), 10.0)
        await notifier.close(0.0)  # those under way are given up
        mute.close()
        return kept

    assert asyncio.run(run())
