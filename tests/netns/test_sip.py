# SPDX-License-Identifier: GPL-2.0-only
"""The SIP persistence engine with real callers and callees: sipp, under NAT, each packet by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.labs import Lab, eventually

MakeLab = Callable[..., Lab]
CALLS = 20
PORT = 5060


@pytest.fixture
def callees(make_lab: MakeLab) -> Iterator[Lab]:
    """A lab whose real servers answer calls."""
    lab = make_lab("nat")
    running: list[int] = []
    try:
        for name, address in zip(("rs1", "rs2"), lab.addresses.rips, strict=False):
            started = lab.type(
                name, f"sipp -sn uas -i {address} -p {PORT} -nostdin </dev/null >/dev/null 2>&1 & echo $!"
            )
            running.append(int(started))
            eventually(
                lambda name=name: f":{PORT} " in lab.type(name, "ss -H -u -l -n"),  # type: ignore[misc]
                f"{name} takes calls",
            )
        yield lab
    finally:
        for one in running:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)


def _call(lab: Lab, port: int) -> None:
    """Calls from one port, all within a second: sipp fails if any of them does."""
    words = f"-m {CALLS} -r {CALLS} -d 300 -i {lab.addresses.client} -p {port} -nostdin"
    lab.type("client", f"cd /tmp && sipp -sn uac {words} -timeout 15s {lab.addresses.vip}:{PORT} >/dev/null")


def test_each_call_keeps_to_its_real_server(callees: Lab) -> None:
    """All of one port's: its INVITE, ACK and BYE are scheduled one by one, and go by their Call-ID."""
    lab = callees
    service = f"-u {lab.addresses.vip}:{PORT}"
    lab.type("director", "ipvsadm -C")
    lab.type("director", f"ipvsadm -A {service} -s rr -p 60 --pe sip -o")
    for address in lab.addresses.rips[:2]:
        lab.type("director", f"ipvsadm -a {service} -r {address}:{PORT} -m")
    _call(lab, 5061)
    templates = lab.type("director", "ipvsadm -L -n -c --persistent-conn")
    for address in lab.addresses.rips[:2]:
        assert templates.count(f"{address}:{PORT}") == CALLS // 2
