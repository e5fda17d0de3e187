# SPDX-License-Identifier: GPL-2.0-only
"""Looking at one host: `observe` looks at everything once.

It works in the network namespace of the thread that calls it, and changes
nothing.  What cannot be read there (a program or a file that is missing) is
empty: a check judges what is there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

from xlvs.doctor import clock, memory, ruleset
from xlvs.doctor.director import observe_director
from xlvs.doctor.host import Address, Assigned, Host, Link, Listener, Neighbour, Route
from xlvs.errors import XlvsError

_SETTINGS = {
    4: (
        "accept_local", "accept_redirects", "arp_announce", "arp_filter", "arp_ignore", "forwarding",
        "proxy_arp", "route_localnet", "rp_filter", "send_redirects",
    ),
    6: ("accept_redirects", "disable_ipv6", "forwarding", "proxy_ndp"),
}  # fmt: skip
"""Of net.ipv4.conf and net.ipv6.conf."""
_FOREVER = 0xFFFFFFFF
_RAW_VRRP = 112
_ARP_FAMILIES = (ruleset.ARP, ruleset.NETDEV)
_USUAL_RULES = (0, 32766, 32767)
_LISTENING = "0A"
_IP_COMMANDS = "address show\nroute show table all\nneigh show\nrule show\n"


def observe(name: str, role: str = "", *, alone: bool = True) -> Host:
    """Look at the host whose network namespace this thread is in.

    ``alone`` says that no other host is looked at: then what `xlvs realserver` has to say is asked, too.
    Raises `XlvsError` where not even ip(8) can be asked.
    """
    shown = _run(["ip", "-json", "-details", "-batch", "-"], _IP_COMMANDS)
    if shown is None:
        raise XlvsError("cannot ask ip(8) about interfaces and routes", "apt-get install iproute2")
    interfaces, routes, neighbours, policy = _documents(shown)
    own = "/proc/thread-self/net"
    nftables = ruleset.tables()
    rules, rules6 = ruleset.observe_both(_run, nftables)
    links = tuple(_link(raw) for raw in interfaces if raw)
    return Host(
        name=name,
        role=role,
        links=links,
        addresses=tuple(_addresses(interfaces)),
        routes=tuple(_routes(routes)),
        neighbours=tuple(_neighbours(neighbours)),
        policy=tuple(_policy(policy)),
        settings=_settings(),
        listeners=tuple(_listeners(own)),
        speaks_vrrp=_speaks_vrrp(own),
        rules=rules,
        rules6=rules6,
        arp_rules=_has_arp_rules(own, nftables),
        **_set_up(alone),
        conntrack=_conntrack(),
        clock=clock.observe(),
        memory=memory.observe(),
        director=observe_director(own),
    )


def restore_neighbours(entries: list[Neighbour]) -> None:
    """Put these back into this network namespace's neighbour cache where it has another MAC by now."""
    shown = _run(["ip", "-json", "neigh", "show"]) or "[]"
    now = {(each.address, each.interface): each for each in _neighbours(json.loads(shown))}
    for entry in entries:
        present = now.get((entry.address, entry.interface))
        if present is not None and present.mac != entry.mac:
            words = ["neigh", "replace", str(entry.address), "lladdr", entry.mac, "dev", entry.interface]
            _run(["ip", *words, "nud", "stale"])


def _run(command: list[str], given: str = "") -> str | None:
    """What a command prints; None where it is missing or fails."""
    try:
        ran = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=20,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _documents(text: str) -> list[list[dict[str, Any]]]:
    """The arrays that ``ip -json -batch`` prints one after another."""
    decoder = json.JSONDecoder()
    found: list[list[dict[str, Any]]] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        document, place = decoder.raw_decode(text, place)
        found.append(document)
    if len(found) != _IP_COMMANDS.count("\n"):
        raise XlvsError(
            "ip(8) answers otherwise than expected", "it has to know -json: iproute2 5.0 or later"
        )
    return found


def _link(raw: dict[str, Any]) -> Link:
    info = raw.get("linkinfo", {})
    modes = {1: "native", 2: "generic", 3: "native"}
    return Link(
        name=raw["ifname"],
        index=raw["ifindex"],
        kind=info.get("info_kind", ""),
        mac=raw.get("address", ""),
        mtu=raw.get("mtu", 0),
        up="UP" in raw["flags"],
        ethernet=raw.get("link_type") == "ether" and "NOARP" not in raw["flags"],
        master=raw.get("master", ""),
        peer=raw.get("link_index", 0) if info.get("info_kind") == "veth" else 0,
        xdp=modes.get(raw.get("xdp", {}).get("mode", 0), ""),
    )


def _addresses(interfaces: list[dict[str, Any]]) -> Iterator[Assigned]:
    for raw in interfaces:
        for each in raw.get("addr_info", []):
            if "local" in each:
                yield Assigned(
                    raw["ifname"],
                    ip_address(each["local"]),
                    each["prefixlen"],
                    tuple(_address_options(raw["ifname"], each)),
                    each.get("dadfailed", False),
                )


def _address_options(interface: str, raw: dict[str, Any]) -> Iterator[str]:
    """What `ip addr add` has to be told besides address and interface to make this one again."""
    if "address" in raw:  # a point-to-point link's: `local` is ours
        yield from ("peer", f"{raw['address']}/{raw['prefixlen']}")
    for word, key in (("broadcast", "broadcast"), ("scope", "scope"), ("label", "label")):
        if key in raw and raw[key] not in ("global", interface):
            yield from (word, str(raw[key]))
    valid, preferred = raw.get("valid_life_time", _FOREVER), raw.get("preferred_life_time", _FOREVER)
    if valid != _FOREVER:
        yield from ("valid_lft", str(valid))
    if preferred != valid or preferred != _FOREVER:
        yield from ("preferred_lft", str(preferred))
    for word in ("nodad", "noprefixroute"):
        if raw.get(word):
            yield word


def _routes(raw_routes: list[dict[str, Any]]) -> Iterator[Route]:
    for raw in raw_routes:
        gateway = raw.get("gateway")
        whole = "::/0" if gateway and ":" in gateway else "0.0.0.0/0"
        try:
            destination = ip_network(whole if raw["dst"] == "default" else raw["dst"], strict=False)
        except ValueError:
            continue
        words = [raw["dst"]]
        for word, key in (("via", "gateway"), ("dev", "dev"), ("src", "prefsrc"), ("metric", "metric")):
            if key in raw:
                words += [word, str(raw[key])]
        for word in ("proto", "scope"):
            value = raw.get("protocol" if word == "proto" else word)
            if value and value not in ("boot", "global"):
                words += [word, value]
        yield Route(
            destination,
            ip_address(gateway) if gateway else None,
            raw.get("dev", ""),
            raw.get("table", "main"),
            raw.get("type", "unicast"),
            shlex.join(words),
        )


def _neighbours(raw_neighbours: list[dict[str, Any]]) -> Iterator[Neighbour]:
    for raw in raw_neighbours:
        if "lladdr" in raw:
            yield Neighbour(ip_address(raw["dst"]), raw["dev"], raw["lladdr"], tuple(raw.get("state", ())))


def _policy(raw_rules: list[dict[str, Any]]) -> Iterator[str]:
    for raw in raw_rules:
        if raw.get("priority") in _USUAL_RULES:
            continue
        words = [f"{raw.get('priority')}:"]
        for word in ("src", "dst"):
            if raw.get(word, "all") != "all":
                length = f"/{raw[f'{word}len']}" if f"{word}len" in raw else ""
                words += [{"src": "from", "dst": "to"}[word], f"{raw[word]}{length}"]
        for word, key in (("fwmark", "fwmark"), ("iif", "iif"), ("oif", "oif"), ("lookup", "table")):
            if key in raw:
                words += [word, str(raw[key])]
        if "action" in raw:
            words.append(str(raw["action"]))
        yield " ".join(words)


def _settings() -> dict[str, str]:
    found = {"net.ipv4.ip_forward": _read("/proc/sys/net/ipv4/ip_forward").strip()}
    for version, names in _SETTINGS.items():
        folder = f"/proc/sys/net/ipv{version}/conf"
        with suppress(OSError):
            for interface in os.listdir(folder):
                for name in names:
                    value = _read(f"{folder}/{interface}/{name}").strip()
                    found[f"net.ipv{version}.conf.{interface}.{name}"] = value
    return found


def _listeners(folder: str) -> Iterator[Listener]:
    for file in ("tcp", "tcp6"):
        for line in _read(f"{folder}/{file}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENING:
                address, port = fields[1].split(":")
                yield Listener(_address_of_proc(address), int(port, 16))


def _address_of_proc(text: str) -> Address:
    """An address as /proc/net has it: words in the machine's byte order."""
    words = [int(text[place : place + 8], 16).to_bytes(4, "little") for place in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _has_arp_rules(folder: str, nftables: ruleset.Tables) -> bool:
    """Whether arptables or nftables say something of ARP; what, only asking tells."""
    by_nftables = any(family in _ARP_FAMILIES for family, _ in nftables)
    return by_nftables or bool(_read(f"{folder}/arp_tables_names").strip())


def _set_up(alone: bool) -> dict[str, Any]:
    """What `xlvs realserver` has set up here, and (``alone``) how much of it is so."""
    from xlvs.realserver import check, guards, record
    from xlvs.realserver.wanted import EBPF, HIDDEN, NFT

    silenced: set[Address] = set()
    lacks: list[tuple[str, str]] = []
    try:
        servers = record.load().servers
        guarded = [server for server in servers if server.arp in (EBPF, HIDDEN, NFT)]
        if not servers or not (alone or guarded):
            return {"serves_as": tuple(ip_address(server.vip) for server in servers)}
        view = check.View(tuple(server.vip for server in servers))
        for server in guarded:
            if not any(wrong for _, wrong in guards.state(server, view.interfaces)):
                silenced.add(ip_address(server.vip))
        for server in servers if alone else ():
            for finding in check.findings(server, view, recorded=True):
                if finding.level == check.FAULT:
                    lacks.append((finding.what, finding.remedy))
    except XlvsError:
        return {}
    return {
        "silenced": frozenset(silenced),
        "serves_as": tuple(ip_address(server.vip) for server in servers),
        "lacks": tuple(lacks),
    }


def _speaks_vrrp(folder: str) -> tuple[int, ...]:
    """The IP versions of which a raw socket here takes VRRP (its "port" is the protocol's number)."""
    return tuple(
        version
        for version, file in ((4, "raw"), (6, "raw6"))
        if any(
            int(line.split()[1].partition(":")[2], 16) == _RAW_VRRP
            for line in _read(f"{folder}/{file}").splitlines()[1:]
        )
    )


def _conntrack() -> tuple[int, int] | None:
    folder = "/proc/sys/net/netfilter"
    count, limit = _read(f"{folder}/nf_conntrack_count"), _read(f"{folder}/nf_conntrack_max")
    return (int(count), int(limit)) if count and limit else None
