# SPDX-License-Identifier: GPL-2.0-only
"""What belongs to no service of this director passes by it untouched."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.netns.promises.servers import RealServer
from tests.netns.promises.site import DIP, DIP6, SERVICE, VIP, VIP6, Host, Site, rip


def _mac(host: Host) -> str:
    address: str = json.loads(host.type("ip -json link show eth0"))[0]["address"]
    return address


@pytest.fixture
def own_stack(loaded_site: Site) -> Site:
    """The director has servers of its own, on every address."""
    loaded_site.servers.append(RealServer("director", loaded_site.director.inside))
    loaded_site.serve(SERVICE, 1, 2)
    loaded_site.serve(f"[{VIP6}]:80", 1, 2)
    return loaded_site


def test_the_director_itself_is_reached(own_stack: Site) -> None:
    for address in (DIP, VIP, DIP6, VIP6):
        own_stack.client.type(f"ping -c 2 -i 0.1 -W 5 {address}")
    assert own_stack.ask(3, DIP) == ["director"] * 3, "the service's port, but not its address"
    assert own_stack.ask(3, DIP6) == ["director"] * 3
    with own_stack.client.inside():
        opened = socket.create_connection((VIP, 5001), 10)
    with opened:
        opened.sendall(b"another port of the VIP")
        opened.shutdown(socket.SHUT_WR)
        assert opened.recv(128).startswith(b"23 ")
    assert own_stack.director.status()["tables"]["connections"]["used"] == 0
    assert set(own_stack.ask(2)) == {"rs1", "rs2"}


def test_another_protocol_on_the_service_port_is_the_stacks(own_stack: Site) -> None:
    with own_stack.client.inside():
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.connect((VIP, 80))
        asking.settimeout(5)
        asking.send(b"udp")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(16)


def test_the_director_goes_on_as_a_router(own_stack: Site) -> None:
    own_stack.director.sysctl("ipv4/ip_forward", "1")
    own_stack.director.sysctl("ipv4/conf/eth0/send_redirects", "0")
    own_stack.client.type(f"ip route add 198.51.100.0/24 via {DIP}")
    own_stack.director.type(f"ip route add 198.51.100.0/24 via {rip(2)}")
    own_stack.hosts["rs2"].type("ip address add 198.51.100.1/32 dev lo")
    assert own_stack.ask(3, "198.51.100.1") == ["rs2"] * 3
    assert own_stack.director.status()["tables"]["connections"]["used"] == 0


def test_a_standby_director_without_the_vip_steals_nothing(loaded_site: Site) -> None:
    loaded_site.serve(SERVICE, 1)
    standby = loaded_site.add_host("standby", "192.0.2.11")
    standby.xlvsadm(f"-A -t {SERVICE} -s rr")
    standby.xlvsadm(f"-a -t {SERVICE} -r {rip(2)} -g")
    assert loaded_site.ask(2) == ["rs1", "rs1"]
    loaded_site.client.type(f"ip neighbour replace {VIP} lladdr {_mac(standby)} dev eth0 nud permanent")
    assert not loaded_site.answers(timeout=0.5), "it does not hold the VIP"
    assert standby.status()["tables"]["connections"]["used"] == 0
    # Failover: the address moves, and the table is there already.
    loaded_site.director.type(f"ip address del {VIP}/32 dev eth0")
    standby.type(f"ip address add {VIP}/32 dev eth0")
    time.sleep(1.1)
    assert loaded_site.ask(2) == ["rs2", "rs2"]


def test_frames_for_others_are_left_to_them(loaded_site: Site) -> None:
    """The director sees them, as on a hub: promiscuous, and the bridge floods everything."""
    site = loaded_site
    site.serve(SERVICE, 1)
    other = site.add_host("other", "192.0.2.12")
    other.type(f"ip address add {VIP}/32 dev eth0")
    site.servers.append(RealServer("other", other.inside))
    site.hosts["switch"].type("ip link set br0 type bridge ageing_time 0")
    site.director.type("ip link set eth0 promisc on")
    site.client.type(f"ip neighbour replace {VIP} lladdr {_mac(other)} dev eth0 nud permanent")
    before = site.director.sysctl("ipv4/conf/all/forwarding")
    assert site.ask(3) == ["other"] * 3
    assert site.director.status()["tables"]["connections"]["used"] == 0
    assert site.director.sysctl("ipv4/conf/all/forwarding") == before
    site.client.type(f"ip neighbour replace {VIP} lladdr {_mac(site.director)} dev eth0 nud permanent")
    assert site.ask(2) == ["rs1", "rs1"]
