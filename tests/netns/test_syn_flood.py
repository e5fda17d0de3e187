# SPDX-License-Identifier: GPL-2.0-only
"""A SYN flood ten times as large as the connection table: nobody who is no part of it notices.

`make flood` runs a longer one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.netns.flood import NETWORK
from tests.netns.promises.site import CLIENT, SERVICE, VIP, Host, Site, eventually
from xlvs.datapath.attach import MODES

SLOTS = int(os.environ.get("XLVS_FLOOD_SLOTS", "16384"))
"""Of the connection table; a power of two.  524,288 make a flood of half a minute."""
RATE = 200_000
"""SYNs a second, if the machine can."""
QUIET = 200
"""New connections with which the flood's are compared; a stateless balancer loses none of them."""
HELD = 20


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A director with a small table; real servers that send cookies, to sources that are not there."""
    with Site(real_servers=2) as built:
        built.director.xlvs(f"attach --connections {SLOTS // 2} --mode {request.param}")
        built.serve(SERVICE, 1, 2)
        for name in ("rs1", "rs2"):
            host = built.hosts[name]
            host.sysctl("ipv4/tcp_syncookies", "1")
            host.type(
                "ip link add void type veth peer name void2; ip link set void up; ip link set void2 up;"
                "ip neigh add 198.19.0.1 lladdr 02:00:00:00:00:01 dev void nud permanent;"
                f"ip route add {NETWORK} via 198.19.0.1 dev void onlink"
            )
        built.add_host("flooder")
        built.plug_in("flooder", "eth0")
        yield built


def _listed(director: Host, client_ports: set[int]) -> dict[int, str]:
    """By client port: the real server of connections that have an entry, as listed."""
    found = {}
    for line in director.xlvsadm("-Lcn").splitlines():
        words = line.split()
        address, _, port = words[3].rpartition(":") if len(words) == 6 else ("", "", "")
        if address == CLIENT and int(port) in client_ports:
            found[int(port)] = words[5]
    return found


def _succeeds(site: Site) -> bool:
    """Whether a new connection is answered; a SYN may have to be sent again."""
    with suppress(OSError):
        return bool(site.ask(1, timeout=5)[0])
    return False


def _cookies(site: Site) -> int:
    lines = [site.hosts[name].type("nstat -asz TcpExtSyncookiesSent") for name in ("rs1", "rs2")]
    return sum(int(line.split()[1]) for text in lines for line in text.splitlines() if "Sent" in line)


@pytest.mark.timeout(600)
def test_nobody_notices(site: Site) -> None:
    director = site.director
    assert director.status()["tables"]["connections"]["slots"] == SLOTS
    mac = director.type("cat /sys/class/net/eth0/address").strip()
    words = [sys.executable, "-m", "tests.netns.flood", "eth0", mac, VIP, "80", str(10 * SLOTS), str(RATE)]
    with ExitStack() as stack:
        held = [stack.enter_context(site.connection())[0] for _ in range(HELD)]
        ports = {one.getsockname()[1] for one in held}
        where = _listed(director, ports)
        assert set(where) == ports
        assert sum(_succeeds(site) for _ in range(QUIET)) == QUIET

        flood = site.hosts["flooder"].popen(*words)
        stack.callback(flood.wait)
        stack.callback(flood.kill)
        tried = succeeded = echoed = 0
        ended = 0.0
        # On until enough were tried for one in a hundred to tell: the table stays full for seconds.
        while not ended or tried < QUIET:
            succeeded += _succeeds(site)
            tried += 1
            one = held[tried % HELD]
            one.sendall(b"still here")
            echoed += one.recv(64) == b"still here"
            if not ended and flood.poll() is not None:
                ended = time.monotonic()
        printed, complaints = flood.communicate()
        assert flood.returncode == 0, complaints
        sent, seconds = printed.split()
        status = director.status()
        print(
            f"{sent} SYNs in {seconds} s ({int(sent) / float(seconds):.0f} a second), {_cookies(site)} "
            f"answered by cookie; {succeeded} of {tried} new connections, {echoed} of {tried} echoes; "
            f"{status['events']}"
        )
        assert int(sent) == 10 * SLOTS
        # A long flood fills it again and again, as often as those that are half open went.
        assert status["overload"]["state"] in ("full", "settling")
        assert "The connection table " in director.xlvs("status")
        assert status["events"]["stateless"] > int(sent) // 10
        # In the same run, within a hundredth of what it was without a flood.
        assert succeeded >= tried - tried // 100
        assert echoed == tried
        for lost in ("table_full", "no_destination", "unavailable", "unroutable", "ttl_exceeded", "too_big"):
            assert status["events"][lost] == 0
        assert _listed(director, ports) == where
        eventually(lambda: director.status()["events"]["evicted"] > SLOTS // 2, "what is half open goes")
        assert _listed(director, ports) == where
