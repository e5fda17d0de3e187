# SPDX-License-Identifier: GPL-2.0-only
"""The persistence engine "sip": calls, templates and messages, as kernel IPVS with ip_vs_pe_sip has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import KERNEL, XLVS, Scenario, differences, play

START = r"INVITE sip:bob@example.org SIP/2.0\r\n"
# Lines of a message, each a case of its own with another {id}.
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


LONGEST, TOO_LONG = "x" * 150 + "@" + "y" * 20, "z" * 256
"""ipvsadm reads lines of 255 characters; of a longer Call-ID that may be it would make two."""

STORY = """
    listen udp 5060
    listen udp 5061
    listen udp 5062
    listen udp 5063
    listen udp 5064
    listen udp 5065
    listen udp 5080

    # How a message may spell it
    ipvsadm -R
    < -A -u {vip}:5060 -s rr -p 900 -M 0.0.0.0 -o --pe sip
    < -a -u {vip}:5060 -r {rs1} -g
    < -a -u {vip}:5060 -r {rs2} -g
    < -a -u {vip}:5060 -r {rs3} -g
    spellings
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn

    # Calls, clients, masks, and the life of templates
    ipvsadm -R
    < -A -u {vip}:5061 -s rr -p 40 -M 0.0.0.0 -o --pe sip
    < -a -u {vip}:5061 -r {rs1} -g
    < -a -u {vip}:5061 -r {rs2} -g
    < -a -u {vip}:5061 -r {rs3} -g
    < -A -u {vip}:5062 -s rr -p 25 --pe sip
    < -a -u {vip}:5062 -r {rs1} -g
    < -a -u {vip}:5062 -r {rs2} -g
    < -a -u {vip}:5062 -r {rs3} -g
    < -A -u [{vip6}]:5061 -s rr -p 60 -M 64 -o --pe sip
    < -a -u [{vip6}]:5061 -r [{rs1_6}]:5061 -g
    < -a -u [{vip6}]:5061 -r [{rs2_6}]:5061 -g
    ipvsadm -L -n
    ipvsadm -S -n
    call client {client}:6001 {vip}:5061 a@one
    call client {client}:6001 {vip}:5061 b@one
    call client {client}:6002 {vip}:5061 c@one
    call client 10.0.0.201:6003 {vip}:5061 a@one
    call client 10.0.0.202:6001 {vip}:5061 b@one
    call client 10.0.0.203:6001 {vip}:5061 A@one
    call client 10.0.0.203:6001 {vip}:5061 {longest}
    call client {client}:6001 {vip}:5061 {longest}
    call client {client}:6001 {vip}:5061 {too_long}
    call client {client}:6001 {vip}:5062 a@one
    call client {client}:6001 {vip}:5062 b@one
    datagram client {client}:6001 {vip}:5062 "no Call-ID is looked for"
    call client {client}:6002 {vip}:5062 a@one
    call client {client}:6003 {vip}:5062 b@one
    call client 10.0.0.201:6001 {vip}:5062 a@one
    call client 10.0.0.202:6001 {vip}:5062 a@one
    datagram client 10.0.0.203:6001 {vip}:5062 "none"
    call client [{client_6}]:6001 [{vip6}]:5061 a@one
    call client [{client_6}]:6002 [{vip6}]:5061 b@one
    call client [{client_6}]:6003 [{vip6}]:5061 a@one
    connections
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn
    wait 30
    call client {client}:6002 {vip}:5061 a@one
    connections --persistent-conn
    wait 20
    connections --persistent-conn
    ipvsadm -e -u {vip}:5061 -r {rs1} -g -w 0
    ipvsadm -e -u {vip}:5061 -r {rs2} -g -w 0
    call client {client}:6002 {vip}:5061 a@one
    call client {client}:6002 {vip}:5061 d@one
    ipvsadm -d -u {vip}:5061 -r {rs3}
    call client {client}:6002 {vip}:5061 a@one
    ipvsadm -e -u {vip}:5061 -r {rs1} -g -w 1
    call client {client}:6002 {vip}:5061 a@one
    call client {client}:6003 {vip}:5061 d@one
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn
    ipvsadm -E -u {vip}:5061 -s rr -p 40 -M 0.0.0.0 -o
    call client {client}:6002 {vip}:5061 a@one
    datagram client {client}:6002 {vip}:5061 "no message"
    connections --persistent-conn
    ipvsadm -E -u {vip}:5061 -s rr -p 40 -M 0.0.0.0 -o --pe sip
    ipvsadm -E -u {vip}:5061 -s rr -p 40 -M 0.0.0.0 -o --pe other
    ipvsadm -A -u {vip}:5069 -s rr -p 40 --pe other
    call client {client}:6002 {vip}:5061 a@one
    datagram client {client}:6002 {vip}:5061 "no message"
    wait 3
    ipvsadm -L -n --stats

    # TCP, and an engine without persistence
    ipvsadm -R
    < -A -t {vip}:5063 -s rr -p 60 --pe sip
    < -a -t {vip}:5063 -r {rs1} -g
    < -A -u {vip}:5063 -s rr --pe sip
    < -a -u {vip}:5063 -r {rs1} -g
    < -a -u {vip}:5063 -r {rs2} -g
    ipvsadm -L -n
    ipvsadm -S -n
    open a tcp {vip}:5063
    call client {client}:6001 {vip}:5063 a@one
    call client {client}:6002 {vip}:5063 a@one
    datagram client {client}:6003 {vip}:5063 "no message"
    connections --persistent-conn
    ipvsadm -L -n

    # Masqueraded real servers answer, and begin calls
    run director sh -c "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding"
    run director sh -c "for each in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$each; done"
    run rs1 ip route add {client} via {dip}
    run rs2 ip route add {client} via {dip}
    run rs1 ip route add 10.0.0.201 via {dip}
    ipvsadm -R
    < -A -u {vip}:5064 -s rr -p 60 -M 0.0.0.0 -o --pe sip
    < -a -u {vip}:5064 -r {rs1}:5064 -m
    < -a -u {vip}:5064 -r {rs2}:5064 -m
    < -A -u {vip}:5065 -s rr -p 60 --pe sip
    < -a -u {vip}:5065 -r {rs1}:5065 -m
    < -a -u {vip}:5065 -r {rs2}:5065 -m
    call client {client}:5080 {vip}:5064 a@one
    call client {client}:5080 {vip}:5064 b@one
    call rs2 {rs2}:5064 {client}:5080 a@one
    call rs1 {rs1}:5064 {client}:5080 b@one
    datagram rs1 {rs1}:5064 {client}:5080 "no message"
    call rs1 {rs1}:5066 {client}:5080 b@one
    connections --persistent-conn
    call rs1 {rs1}:5064 {client}:5080 c@one
    call client {client}:6001 {vip}:5064 c@one
    call client {client}:6002 {vip}:5064 c@one
    call rs1 {rs1}:5064 {client}:5080 a@one
    call client {client}:6002 {vip}:5064 a@one
    call rs1 {rs1}:5064 {dip}:5080 d@one
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn
    call client {client}:5080 {vip}:5065 a@one
    call rs2 {rs2}:5065 {client}:5080 a@one
    call rs1 {rs1}:5065 10.0.0.201:5080 e@one
    call client 10.0.0.201:5080 {vip}:5065 f@one
    call client 10.0.0.201:5064 {vip}:5065 e@one
    connections --persistent-conn
    ipvsadm -L -n --persistent-conn
    ipvsadm -d -u {vip}:5064 -r {rs1}:5064
    call rs1 {rs1}:5064 {client}:5080 b@one
    ipvsadm -E -u {vip}:5064 -s rr -p 60 -M 0.0.0.0 -o
    call rs2 {rs2}:5064 {client}:5080 a@one
    ipvsadm -E -u {vip}:5064 -s rr -p 60 -M 0.0.0.0 -o --pe sip
    call rs2 {rs2}:5064 {client}:5080 a@one
    ipvsadm -e -u {vip}:5064 -r {rs2}:5064 -g
    call rs2 {rs2}:5064 {client}:5080 a@one
    wait 3
    ipvsadm -L -n --stats
"""


def _told(story: str) -> Iterator[str]:
    """The steps; ``call NODE SOURCE TARGET CALL-ID`` stands for a datagram with a message."""
    for line in story.splitlines():
        match line.split():
            case ["spellings"]:
                for number, spelling in enumerate(SPELLINGS):
                    text = START + spelling.replace("{id}", f"{number}id")
                    yield f'datagram client {{client}}:{6000 + number} {{vip}}:5060 "{text}"'
            case ["call", node, source, target, call]:
                call = call.replace("{longest}", LONGEST).replace("{too_long}", TOO_LONG)
                yield f'datagram {node} {source} {target} "{START}Call-ID: {call}\\r\\n\\r\\n"'
            case _:
                yield line


@pytest.mark.timeout(400)
def test_as_in_kernel_ipvs(fast_guest: Guest) -> None:
    plays = play(fast_guest, [Scenario.parse("SIP", "\n".join(_told(STORY)))], timeout=300)
    assert [each.director for each in plays] == [KERNEL, XLVS]
    told = differences(plays)
    assert not told, "\n".join(told)
