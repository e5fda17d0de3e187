# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what a lab cannot be made to show: facts put together by hand, with and without the mistake."""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from xlvs import model
from xlvs.doctor import memory, mends, ruleset
from xlvs.doctor.arp import Sighting
from xlvs.doctor.checks import judge
from xlvs.doctor.checks.netfilter_marks import equivalent
from xlvs.doctor.clock import Clock
from xlvs.doctor.cluster import Asked, Cluster, Heard, key_of
from xlvs.doctor.director import Director, Table
from xlvs.doctor.finding import FAULT, NOTE, WARNING
from xlvs.doctor.host import Assigned, Host, Link, Neighbour, Route, sysctl
from xlvs.doctor.memory import Memory
from xlvs.doctor.path import Passage
from xlvs.doctor.probe import CONNECTED, SILENT, STRANGE_SOURCE, Answer
from xlvs.model import Destination, DestinationEntry, Service, ServiceEntry, ServiceKey

VIP, DIP = "192.0.2.100", "192.0.2.10"
RIPS = ("192.0.2.101", "192.0.2.102")
WELL = Asked(Answer(CONNECTED, 0.001), Answer(CONNECTED, 0.001))


def packed(text: str) -> bytes:
    return ip_address(text).packed


def entry(
    *, method: str = model.ROUTE, scheduler: str = "rr", port: int = 80, weights: tuple[int, ...] = (1, 1)
) -> ServiceEntry:
    """A service of the VIP with real servers of these weights, which have ``port`` in the table."""
    key = ServiceKey(model.IPV4, model.TCP, packed(VIP), 80)
    places = tuple(
        DestinationEntry(Destination(packed(rip), port, method, weight))
        for rip, weight in zip(RIPS, weights, strict=True)
    )
    return ServiceEntry(Service(key, scheduler), places)


def director(**tables: ServiceEntry) -> Host:
    """A director in order, with a service in the table of that name (own, kernel)."""
    found = Director(loaded=True, hooks={"eth0": ("tcx",)})
    for name, service in tables.items():
        command = "xlvsadm" if name == "own" else "ipvsadm"
        setattr(found, name, Table(command, (service,)))
    return Host(
        "director",
        links=(
            Link("lo", 1, "", "00:00:00:00:00:00", 65536, up=True, ethernet=False),
            Link("eth0", 2, "", "02:00:c0:00:02:0a", 1500, up=True, ethernet=True),
        ),
        addresses=(
            Assigned("eth0", ip_address(DIP), 24),
            Assigned("eth0", ip_address(VIP), 32),
        ),
        routes=(
            Route(ip_network("192.0.2.0/24"), None, "eth0", "main", "unicast", "192.0.2.0/24 dev eth0"),
        ),
        director=found,
    )


def alone(host: Host, answers: Asked = WELL) -> Cluster:
    """A director that is looked at by itself, all of whose real servers answered so."""
    cluster = Cluster((host,))
    cluster.asked = {key_of(served): answers for served in cluster.served()}
    return cluster


def found(cluster: Cluster) -> list[tuple[str, str]]:
    return [(each.check, each.severity) for each in judge(cluster) if each.severity != NOTE]


def test_a_director_in_order_is_silent() -> None:
    assert found(alone(director(own=entry()))) == []
    assert found(alone(director(kernel=entry()))) == []


def test_kernel_ipvs_needs_ip_forward_for_nat_and_xlvs_does_not() -> None:
    for name, wanted in (("kernel", FAULT), ("own", NOTE)):
        host = director(**{name: entry(method=model.MASQUERADE)})
        host.settings["net.ipv4.ip_forward"] = "0"
        (finding,) = [each for each in judge(alone(host)) if each.check == "ip-forward"]
        assert finding.severity == wanted
        assert finding.mends[0].command == "sysctl -w net.ipv4.ip_forward=1"
        host.settings["net.ipv4.ip_forward"] = "1"
        assert found(alone(host)) == []


@pytest.mark.parametrize("method", [model.MASQUERADE, model.ROUTE])
def test_masqueraded_real_servers_where_nothing_can_be_attached(method: str) -> None:
    """Behind WireGuard, say; Direct Routing needs none of their answers."""
    host = director(own=entry(method=method))
    behind = Route(ip_network(f"{RIPS[1]}/32"), None, "wg0", "main", "unicast", f"{RIPS[1]} dev wg0")
    host = replace(host, routes=(*host.routes, behind))
    findings = [each for each in judge(alone(host)) if each.check == "not-attached"]
    assert len(findings) == (method == model.MASQUERADE)
    for each in findings:
        assert each.severity == FAULT and "wg0" in each.problem and RIPS[1] in each.evidence[0]
        assert each.advice and not each.mends


def of_udp(weights: tuple[int, ...] = (1, 1)) -> Cluster:
    """A director with two real servers of a UDP service, the second of which gives no sign of life."""
    tcp = entry(weights=weights)
    service = tcp.service.replace(key=ServiceKey(model.IPV4, model.UDP, packed(VIP), 80))
    host = director(own=ServiceEntry(service, tcp.destinations))
    cluster = Cluster((host,))
    for rip, alive in zip(RIPS, (True, False), strict=True):
        address = ip_address(rip)
        cluster.passages[host.name, address] = Passage(address, 1500, alive, alive)
    return cluster


def test_a_real_server_of_udp_that_is_not_there() -> None:
    cluster = of_udp()
    (host,) = cluster.hosts
    assert found(cluster) == [("way-there", FAULT)]
    (finding,) = (each for each in judge(cluster) if each.severity == FAULT)
    assert "nobody answers ARP for 192.0.2.102 on eth0" in finding.evidence[0]
    assert finding.mends[0].command == "xlvsadm -e -u 192.0.2.100:80 -r 192.0.2.102:80 -g -w 0"
    answers = Heard(host, Sighting("eth0", ip_address(RIPS[1]), "02:00:c0:00:02:66"))
    by_hand = Neighbour(ip_address(RIPS[1]), "eth0", "02:00:c0:00:02:66", ("PERMANENT",))
    gateway = ip_address("192.0.2.1")
    behind = Route(ip_network(f"{RIPS[1]}/32"), gateway, "eth0", "main", "unicast", f"{RIPS[1]} via …")
    assert found(replace(cluster, heard=[answers])) == []
    assert found(replace(cluster, hosts=(replace(host, neighbours=(by_hand,)),))) == []
    # Behind a router silence may be a firewall's.
    routed = replace(cluster, hosts=(replace(host, routes=(*host.routes, behind)),))
    assert "way-there" not in {each.check for each in judge(routed)}


def test_a_real_server_of_udp_that_is_not_there_is_rightly_out() -> None:
    cluster = of_udp(weights=(1, 0))
    assert found(cluster) == []
    (host,) = cluster.hosts
    cluster.passages[host.name, ip_address(RIPS[1])] = Passage(ip_address(RIPS[1]), 1500, True, True)
    assert found(cluster) == [("quiesced", WARNING)]


def test_a_real_server_of_udp_without_a_route() -> None:
    cluster = of_udp()
    (host,) = cluster.hosts
    nowhere = replace(cluster, hosts=(replace(host, routes=()),), passages={})
    assert found(nowhere) == [("way-there", FAULT), ("way-there", FAULT)]
    assert "no route to 192.0.2.101" in judge(nowhere)[0].evidence[0]
    elsewhere = replace(host, routes=(), policy=("100: from all lookup 7",))
    assert found(replace(cluster, hosts=(elsewhere,), passages={})) == []
    wall = Route(ip_network(f"{RIPS[0]}/32"), None, "", "main", "blackhole", f"{RIPS[0]}")
    walled = replace(host, routes=(*host.routes, wall))
    assert "blackhole" in judge(replace(cluster, hosts=(walled,)))[0].evidence[0]


def test_both_tables() -> None:
    assert found(alone(director(own=entry(), kernel=entry()))) == [("two-tables", "warning")]


def test_another_port_than_the_services() -> None:
    cluster = alone(director(kernel=entry(port=8080)))
    findings = [each for each in judge(cluster) if each.severity != NOTE]
    assert [each.check for each in findings] == ["port-differs", "port-differs"]
    (mend,) = findings[0].mends
    assert mend.command == (
        "ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.101:80 -g -w 1 && ipvsadm -d -t 192.0.2.100:80 "
        "-r 192.0.2.101:8080"
    )
    assert "-r 192.0.2.101:8080 -g" in mend.undo
    assert found(alone(director(kernel=entry(port=8080, method=model.MASQUERADE)))) != []  # ip_forward


@pytest.mark.parametrize(("count", "full"), [(899, False), (900, True), (1000, True)])
def test_connection_tracking(count: int, full: bool) -> None:
    host = director(own=entry())
    host.conntrack = (count, 1000)
    assert found(alone(host)) == ([("conntrack", "warning")] if full else [])


@pytest.mark.parametrize("name", ["connections", "virtual services", "real servers"])
def test_limits(name: str) -> None:
    host = director(own=entry())
    host.director.fill[name] = (89, 100)
    assert found(alone(host)) == []
    host.director.fill[name] = (90, 100)
    assert found(alone(host)) == [("limits", "warning")]


def test_a_clock_that_somebody_sets() -> None:
    cluster = alone(director(own=entry()))
    for step, wanted in ((0.0, []), (0.009, []), (0.02, [("clock", WARNING)]), (-3.0, [("clock", WARNING)])):
        cluster.clock_step = step
        assert found(cluster) == wanted
    host = director(own=entry())
    host.clock = Clock("hpet", synchronised=False, maximum_error=16)
    notes = [each for each in judge(alone(host)) if each.check == "clock"]
    assert [each.severity for each in notes] == [NOTE, NOTE]
    assert "not synchronised" in notes[0].problem and "hpet" in notes[1].problem


@pytest.mark.parametrize(
    ("left", "severity"), [(130, ""), (129, NOTE), (70, NOTE), (69, WARNING), (0, WARNING)]
)
def test_memory(left: int, severity: str) -> None:
    """In MiB: tables that take 130 may grow by 70."""
    host = director(own=entry())
    host.director.table_bytes = 130 << 20
    host.memory = Memory(left << 20, "/proc/meminfo: MemAvailable")
    findings = [each for each in judge(alone(host)) if each.check == "memory"]
    assert [each.severity for each in findings] == ([severity] if severity else [])


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "own").write_text("0::/system/shell\n")
    groups = tmp_path / "groups"
    (groups / "system/shell").mkdir(parents=True)

    def seen() -> Memory | None:
        return memory.observe(tmp_path / "meminfo", tmp_path / "own", groups)

    assert seen() == Memory(4000 << 10, f"{tmp_path}/meminfo: MemAvailable")
    (groups / "system/shell/memory.max").write_text("max\n")
    (groups / "system/shell/memory.current").write_text("900\n")
    assert seen() == Memory(4000 << 10, f"{tmp_path}/meminfo: MemAvailable")
    (groups / "system/memory.max").write_text("5000\n")
    (groups / "system/memory.current").write_text("2000\n")
    assert seen() == Memory(3000, f"{groups}/system/memory.max")
    assert memory.observe(tmp_path / "none", tmp_path / "none", groups) is None


def test_native_xdp_on_a_veth() -> None:
    host = director(own=entry())
    veth = Link("eth1", 3, "veth", "02:00:00:00:00:01", 1500, up=True, ethernet=True, peer=4, xdp="native")
    other = Link("veth1", 4, "veth", "02:00:00:00:00:02", 1500, up=True, ethernet=True, peer=3)
    host.links = (*host.links, veth, other)
    assert found(alone(host)) == [("veth-peer", "warning")]
    host.links = (*host.links[:-1], replace(other, xdp="generic"))
    assert found(alone(host)) == []


def test_from_afar_a_real_server_without_the_vip() -> None:
    """Its own address answers, and the VIP at its MAC does not."""
    cluster = alone(director(own=entry()), Asked(Answer(CONNECTED, 0.001), Answer(SILENT, 1.0)))
    findings = [each for each in judge(cluster) if each.severity != NOTE]
    assert {(each.check, each.host) for each in findings} == {
        ("vip-missing-on-real-server", rip) for rip in RIPS
    }
    assert all("xlvs realserver add --vip 192.0.2.100" in each.advice for each in findings if each.advice)


def test_from_afar_a_real_server_that_answers_by_its_own_address() -> None:
    cluster = alone(director(own=entry()), Asked(Answer(CONNECTED, 0.001), Answer(STRANGE_SOURCE, 1.0)))
    assert found(cluster) == [("unanswered", "fault")] * 2


def test_from_afar_who_answers_arp() -> None:
    """A MAC is a real server's where that answered for its own address with it, else a stranger's."""
    cluster = alone(director(own=entry()))
    host = cluster.hosts[0]

    def heard(address: str, mac: str) -> Heard:
        return Heard(host, Sighting("eth0", IPv4Address(address), mac))

    cluster.heard = [heard(RIPS[0], "02:00:c0:00:02:65"), heard(VIP, "02:00:c0:00:02:65")]
    assert found(cluster) == [("arp-answers", "fault")]
    cluster.heard = [heard(RIPS[0], "02:00:c0:00:02:65"), heard(VIP, "02:00:00:00:00:99")]
    assert found(cluster) == [("vip-duplicated", "fault")]
    cluster.heard = [heard(RIPS[0], "02:00:c0:00:02:65"), heard(RIPS[0], "02:00:c0:00:02:66")]
    assert found(cluster) == [("arp-flux", "fault")]


def test_a_director_that_stands_by_is_in_order() -> None:
    """The VIP is with the other one, which answers."""
    host = director(own=entry())
    host.addresses = host.addresses[:1]
    assert found(alone(host)) == [("vip-missing-on-director", "fault")]
    cluster = alone(host)
    cluster.heard = [Heard(host, Sighting("eth0", IPv4Address(VIP), "02:00:00:00:00:0b"))]
    assert found(cluster) == []


def with_virtual_mac(host: Host, *, master: bool) -> Host:
    """A director with keepalived's use_vmac, which sets arp_ignore of the interface beneath."""
    vmac = Link("vrrp.51", 3, "macvlan", "00:00:5e:00:01:33", 1500, up=True, ethernet=True)
    addresses = (*host.addresses[:1], *((Assigned(vmac.name, ip_address(VIP), 32),) if master else ()))
    settings = {"net.ipv4.conf.eth0.arp_ignore": "1", "net.ipv4.conf.vrrp.51.arp_ignore": "1"}
    return replace(host, links=(*host.links, vmac), addresses=addresses, settings=settings)


def test_a_vip_with_vrrps_virtual_mac_is_announced() -> None:
    host = with_virtual_mac(director(own=entry()), master=True)
    host.director.hooks["vrrp.51"] = ("tcx",)
    assert found(alone(host)) == []
    host.settings["net.ipv4.conf.vrrp.51.arp_ignore"] = "8"
    assert found(alone(host)) == [("vip-not-announced", "fault")]


def test_a_director_that_stands_by_has_the_virtual_mac_too() -> None:
    host = with_virtual_mac(director(own=entry()), master=False)
    host.director.hooks["vrrp.51"] = ("tcx",)
    cluster = alone(host)
    assert found(cluster) == [("vip-missing-on-director", "fault")]
    cluster.heard = [Heard(host, Sighting("eth0", IPv4Address(VIP), "00:00:5e:00:01:33"))]
    assert found(cluster) == []


def also_a_real_server(*, hidden: bool) -> Host:
    """A director that is one of its own real servers; with the VIP ``hidden`` it stands by."""
    host = director(own=entry())
    vip = Assigned("lo" if hidden else "eth0", ip_address(VIP), 32)
    own = (Assigned("eth0", ip_address(DIP), 24), Assigned("eth0", ip_address(RIPS[0]), 32), vip)
    settings = {"net.ipv4.conf.all.arp_ignore": str(int(hidden))}
    return replace(host, addresses=own, settings=settings)


def test_a_director_that_stands_by_as_a_real_server_balances_nothing() -> None:
    """The other one, its real server as well, answers for the VIP, and is right to."""
    mac = "02:00:00:00:00:0b"
    host = also_a_real_server(hidden=True)
    host.neighbours = (Neighbour(ip_address(RIPS[1]), "eth0", mac, ("REACHABLE",)),)
    cluster = alone(host, Asked(Answer(CONNECTED, 0.001), Answer(SILENT, 1.0)))
    cluster.heard = [Heard(host, Sighting("eth0", IPv4Address(VIP), mac))]
    assert found(cluster) == [("balanced-again", FAULT)]
    for weights in ((1, 0), (0, 0)):
        host.director.own = Table("xlvsadm", (entry(weights=weights),))
        assert "balanced-again" not in dict(found(cluster)), "it keeps all that it is given"


def test_a_director_that_is_its_own_real_server_announces_the_vip() -> None:
    assert found(alone(also_a_real_server(hidden=False))) == []


def test_arp_flux_by_settings() -> None:
    host = director(own=entry())
    host.links = (*host.links, Link("eth1", 3, "", "02:00:00:00:00:01", 1500, up=True, ethernet=True))
    host.addresses = (*host.addresses, Assigned("eth1", ip_address("192.0.2.11"), 24))
    assert found(alone(host)) == [("arp-flux", "fault")]
    host.settings["net.ipv4.conf.all.arp_ignore"] = "1"
    host.settings["net.ipv4.conf.all.arp_announce"] = "2"
    assert found(alone(host)) == []


def real_server(**settings: str) -> Host:
    return Host(
        "rs1",
        links=(Link("eth0", 2, "", "02:00:c0:00:02:65", 1500, up=True, ethernet=True),),
        addresses=(Assigned("eth0", ip_address(RIPS[0]), 24), Assigned("lo", ip_address(VIP), 32)),
        neighbours=(Neighbour(ip_address(DIP), "eth0", "02:00:c0:00:02:0a", ("REACHABLE",)),),
        settings={f"net.ipv4.conf.{name.replace('__', '.')}": value for name, value in settings.items()},
    )


def test_a_real_server_by_itself() -> None:
    """Of `all` and the interface the higher value counts; another means may keep it silent as well."""
    quiet = {"all__arp_ignore": "1", "eth0__arp_announce": "2"}
    assert found(Cluster((real_server(**quiet),))) == []
    assert found(Cluster((real_server(),))) == [("arp-answers", "fault"), ("arp-announce", "fault")]
    kept = real_server()
    kept.silenced = frozenset({ip_address(VIP)})
    assert found(Cluster((kept,))) == []


def test_settings_of_interfaces_with_dots() -> None:
    assert sysctl("eth0", "arp_ignore") == "net.ipv4.conf.eth0.arp_ignore"
    assert sysctl("eth0.7", "arp_ignore") == "net/ipv4/conf/eth0.7/arp_ignore"


@pytest.mark.parametrize(
    ("rule", "typed"),
    [
        ("-d 192.0.2.0/24 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x7/0xffffffff",
         "xlvs mark add 7 --dst 192.0.2.0/24 --proto tcp --port 80"),
        ("-s 198.51.100.0/24 -p udp -m multiport --dports 53,5353 -j MARK --set-mark 7",
         "xlvs mark add 7 --dst 0.0.0.0/0 --src 198.51.100.0/24 --proto udp --port 53,5353"),
        ("-d 192.0.2.1/32 -p tcp -m tcp --dport 8000:8080 -j MARK --set-mark 7",
         "xlvs mark add 7 --dst 192.0.2.1/32 --proto tcp --port 8000-8080"),
        ("-d 192.0.2.1/32 -m time --timestart 10:00 -j MARK --set-mark 7", ""),
        ("! -s 192.0.2.1/32 -j MARK --set-mark 7", ""),
    ],
)  # fmt: skip
def test_mark_rules(rule: str, typed: str) -> None:
    (parsed,) = ruleset.parse(f"*mangle\n-A PREROUTING {rule}\n", "iptables")
    assert equivalent(parsed, 7) == typed
    if typed:
        _accepted(typed)


def _accepted(typed: str) -> None:
    """`xlvs mark` takes those words."""
    import argparse

    from xlvs.cli import mark

    parser = argparse.ArgumentParser()
    mark.register(parser.add_subparsers())
    parser.parse_args(typed.split()[1:])


def test_names_of_interfaces_cannot_add_commands() -> None:
    """The kernel takes nearly any name; mends go through a shell."""
    name = "x;reboot"
    host = real_server()
    host.links = (Link(name, 2, "", "02:00:c0:00:02:65", 1500, up=True, ethernet=True),)
    host.addresses = (Assigned(name, ip_address(VIP), 24, options=("label", f"{name}:1")),)
    assigned = host.addresses[0]
    for mend in (
        mends.set_conf(host, name, "arp_ignore", 1),
        mends.add_address(host, assigned.address, name),
        mends.delete_address(host, assigned),
        mends.set_link(host, name, "up", "down"),
    ):
        for command in (mend.command, mend.undo):
            assert any(name in word for word in shlex.split(command))
            assert ";" not in command.replace(f"'{name}'", "").replace(f"'{name}:1'", "").replace(
                f"'net.ipv4.conf.{name}.arp_ignore'", ""
            )
