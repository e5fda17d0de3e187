# SPDX-License-Identifier: GPL-2.0-only
"""The persistence engine "sip": calls, templates and messages, as kernel IPVS with ip_vs_pe_sip has them."""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

START = r"INVITE sip:bob@example.org SIP/2.0\r\n"
ENGINE = r"""
    listen udp 5060
    listen udp 5080
    ipvsadm -R
    < -A -u {vip}:5060 -s rr -p 60 -M 0.0.0.0 -o --pe sip
    < -a -u {vip}:5060 -r {rs1} -g
    < -a -u {vip}:5060 -r {rs2} -g
    < -a -u {vip}:5060 -r {rs3} -g
"""

# What is before a message's "a@b" or "1", and what follows it.  Each is a case of its own: its Call-ID
# and that of the next differ by their port.
SPELLINGS = [
    r"Call-ID: {id}@host\r\n",
    r"call-id: {id}@host\r\n",
    r"CALL-ID:{id}@host\r\n",
    r"Call-ID   :    {id}@host\r\n",
    r"Call-ID:\t{id}@host\r\n",
    r"Call-ID\t: {id}@host\r\n",
    r"Call-ID: {id}@host\n",
    r"Call-ID: {id}@host\r",
    r"Call-ID: {id}@host",
    r"Call-ID: {id}@host \r\n",
    r"Call-ID: {id}@host;tag=1\r\n",
    r"Call-ID: {id}\r\n",
    r"Call-ID: @host\r\n",
    r"Call-ID: {id}@\r\n",
    r"Call-ID: {id}@a@b\r\n",
    r"Call-ID: {id}@\r\nCall-ID: {id}@second\r\n",
    r"Call-ID: {id}@first\r\nCall-ID: {id}@second\r\n",
    r"Call-ID: \r\n",
    r"Call-ID:\r\n {id}@folded\r\n",
    r"Call-ID:\r\n\t  {id}@folded\r\n",
    r"Call-ID:\n {id}@folded\r\n",
    r"Call-ID\r\n : {id}@folded\r\n",
    r"Call-ID\r\n :: {id}@folded\r\n",
    r"Call-ID:\r\n \r\n {id}@folded\r\n",
    r"Call-ID:\r\n{id}@folded\r\n",
    r"Call-ID {id}@host\r\n",
    r"Call-IDs: {id}@host\r\n",
    r"Call-I: {id}@host\r\nCall-ID: {id}@second\r\n",
    r"Call\rID: {id}@host\r\n",
    r"X-Call-ID: {id}@host\r\n",
    r" Call-ID: {id}@host\r\n",
    r"\r\nCall-ID: {id}@behind\r\n",
    r"\nCall-ID: {id}@behind\r\n",
    r"To: sip:x\nCall-ID: {id}@behind\r\n",
    r"To: sip:x\n\nCall-ID: {id}@behind\r\n",
    r"To: sip:x\r\rCall-ID: {id}@behind\r\n",
    r"i: {id}@host\r\n",
    r"I:{id}@host\r\n",
    r"i : {id}@host\r\n",
    r"i-d: {id}@host\r\n",
    r"i\r\n : {id}@host\r\n",
    r"In-Reply-To: {id}@host\r\ni: {id}@second\r\n",
    r"Via: SIP/2.0/UDP 192.0.2.1\r\n Call-ID: {id}@host\r\nCall-ID: {id}@second\r\n",
    r"Call-ID: {id}!%*_+.()<>:/[]?-~@host\r\n",
    r"Call-ID: {id}=\r\n",
    r"Call-ID: {id}\xc3\xa4@host\r\n",
    r"Call-ID: {id}\xe4@host\xf7\r\n",
]


def _datagram(text: str, number: int, source: str = "{client}", target: str = "{vip}:5060") -> str:
    return f'datagram client {source}:{6000 + number} {target} "{text}"'


def _escaped(text: str) -> str:
    """A text without the braces that a step would take for a placeholder."""
    return text.replace("{", "{{").replace("}", "}}")


SPELLED = Scenario.parse(
    "how a message may spell its Call-ID",
    ENGINE
    + "\n".join(
        _datagram(START + "From: sip:a\\r\\n" + text.replace("{id}", f"{number}id"), number)
        for number, text in enumerate(SPELLINGS)
    )
    + """
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn
    """,
)


@pytest.mark.parametrize("scenario", [SPELLED], ids=lambda one: one.name)
def test_as_in_kernel_ipvs(fast_guest: Guest, scenario: Scenario) -> None:
    plays = play(fast_guest, [scenario], timeout=240)
    assert [each.director for each in plays] == [KERNEL, XLVS]
    for each in plays:
        print("=====", each.director)
        for seen in each.observations:
            print(seen.step[-60:], "->", seen.answer)
    told = differences(plays)
    assert not told, "\n".join(told)
