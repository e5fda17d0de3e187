# SPDX-License-Identifier: GPL-2.0-only
"""Commands that checks hand out, with their opposites made from what was seen.

They go through a shell, and names of interfaces may hold anything but blanks, colons and slashes:
whatever is not a number or an address is quoted.
"""

from __future__ import annotations

import shlex
from zlib import crc32

from xlvs import model
from xlvs.doctor.cluster import Served
from xlvs.doctor.finding import Mend
from xlvs.doctor.firewall import Drop
from xlvs.doctor.host import FORWARDING, Address, Assigned, Host, sysctl
from xlvs.model import ServiceEntry, ServiceKey

_METHOD_OPTIONS = {model.ROUTE: "-g", model.MASQUERADE: "-m", model.TUNNEL: "-i", model.LOCAL: "-g"}
_PROTOCOL_OPTIONS = {model.TCP: "-t", model.UDP: "-u", model.SCTP: "--sctp-service"}


def set_conf(host: Host, interface: str, name: str, value: int, version: int = 4) -> Mend:
    """Set a sysctl of net.ipv4.conf, or of net.ipv6.conf."""
    before = host.setting(f"net.ipv{version}.conf.{interface}.{name}")
    typed = shlex.quote(sysctl(interface, name, version))
    return Mend(host.name, f"sysctl -w {typed}={value}", f"sysctl -w {typed}={before}")


def forward(host: Host, version: int) -> Mend:
    """Make a router of a host.  The kernel changes other settings with that one: they are put back."""
    wanted = FORWARDING[version]
    undo = [f"{wanted}=0"]
    for name in sorted(host.settings):
        interface, _, last = name.removeprefix(f"net.ipv{version}.conf.").rpartition(".")
        if not name.startswith(f"net.ipv{version}.conf.") or name == wanted:
            continue
        if last == "forwarding" and interface != "all" and host.setting(name):
            undo.append(f"{sysctl(interface, last, version)}={host.setting(name)}")
        elif last == "accept_redirects" and interface == "all" and version == 4:
            undo.append(f"{name}={host.setting(name)}")
    return Mend(host.name, f"sysctl -w {wanted}=1", f"sysctl -w {shlex.join(undo)}")


def add_address(host: Host, address: Address, interface: str) -> Mend:
    """Give an interface an address, alone in its network.

    An IPv6 one at once, without asking first whether somebody has it, and deprecated, so that it
    is no source of what the host itself begins.
    """
    text = f"{address}/{address.max_prefixlen} dev {shlex.quote(interface)}"
    options = " nodad preferred_lft 0" if address.version == 6 else ""
    return Mend(host.name, f"ip addr add {text}{options}", f"ip addr del {text}")


def delete_address(host: Host, assigned: Assigned) -> Mend:
    """Take an address away."""
    text = f"{assigned} dev {shlex.quote(assigned.interface)}"
    options = f" {shlex.join(assigned.options)}" if assigned.options else ""
    return Mend(host.name, f"ip addr del {text}", f"ip addr add {text}{options}")


def replace_default(host: Host, gateway: Address) -> Mend:
    """Lead everything that has no other route by a gateway."""
    before = host.default_route(gateway.version)
    undo = f"ip route replace {before.text}" if before else f"ip route del default via {gateway}"
    return Mend(host.name, f"ip route replace default via {gateway}", undo)


def set_link(host: Host, interface: str, wanted: str, present: str) -> Mend:
    """Change an interface: `up`, `mtu 1500`."""
    command = f"ip link set dev {shlex.quote(interface)}"
    return Mend(host.name, f"{command} {wanted}", f"{command} {present}")


def service_words(key: ServiceKey) -> str:
    """A service as `ipvsadm` takes it: -t 192.0.2.100:80, -f 7 -6."""
    if key.fwmark:
        return f"-f {key.fwmark}" + (" -6" if key.family == model.IPV6 else "")
    return f"{_PROTOCOL_OPTIONS[key.protocol]} {endpoint(key.address, key.port)}"


def endpoint(address: bytes, port: int) -> str:
    """ADDRESS:PORT, an IPv6 address in brackets."""
    from ipaddress import ip_address

    parsed = ip_address(address)
    return f"[{parsed}]:{port}" if parsed.version == 6 else f"{parsed}:{port}"


def destination_words(served: Served, **changes: object) -> str:
    """A real server with all that was said of it, as -a and -e take it."""
    destination = served.destination.replace(**changes)
    words = [service_words(served.service.key), "-r", endpoint(destination.address, destination.port)]
    words += [_METHOD_OPTIONS[destination.method], "-w", str(destination.weight)]
    if destination.upper_threshold or destination.lower_threshold:
        words += ["-x", str(destination.upper_threshold), "-y", str(destination.lower_threshold)]
    tunnel = destination.tunnel
    if destination.method == model.TUNNEL and tunnel and tunnel.kind != "ipip":
        words += ["--tun-type", tunnel.kind]
        if tunnel.kind == "gue":
            words += ["--tun-port", str(tunnel.port)]
        if tunnel.checksum != "nocsum":
            words.append(f"--tun-{tunnel.checksum}")
    return " ".join(words)


def set_weight(served: Served, weight: int) -> Mend:
    """Give a real server another weight."""
    command = served.table.command
    return Mend(
        served.director.name,
        f"{command} -e {destination_words(served, weight=weight)}",
        f"{command} -e {destination_words(served)}",
    )


def edit_service(director: Host, command: str, entry: ServiceEntry, changed: model.Service) -> Mend:
    """Change a service's scheduler, its flags or its persistence."""
    return Mend(
        director.name,
        f"{command} -E {_service_text(changed)}",
        f"{command} -E {_service_text(entry.service)}",
    )


def _service_text(service: model.Service) -> str:
    words = [service_words(service.key), "-s", service.scheduler]
    hashing = {1: "fallback", 2: "port"}
    flags = [
        f"{service.scheduler}-{hashing[bit]}" if service.scheduler in ("sh", "mh") and bit in hashing
        else f"flag-{bit.bit_length()}"
        for bit in (1, 2, 4)
        if service.scheduler_flags & bit
    ]  # fmt: skip
    if flags:
        words += ["-b", ",".join(flags)]
    if service.persistence:
        words += ["-p", str(service.persistence)]
        if service.netmask != (32 if service.key.family == model.IPV4 else 128):
            words += ["-M", _mask(service)]
    if service.engine:
        words += ["--pe", service.engine]
    if service.one_packet:
        words.append("-o")
    if service.idle_timeout:
        words += ["--idle-timeout", str(service.idle_timeout)]
    words += [
        option
        for option, wanted in (("--reject-gone", service.reject_gone), ("--rehome", service.rehome))
        if wanted
    ]
    return " ".join(words)


def _mask(service: model.Service) -> str:
    if service.key.family == model.IPV6:
        return str(service.netmask)
    bits = (0xFFFFFFFF << (32 - service.netmask)) & 0xFFFFFFFF
    return ".".join(str(bits >> shift & 0xFF) for shift in (24, 16, 8, 0))


def add_rule(host: Host, program: str, table: str, option: str, rule: str) -> Mend:
    """Add a rule of iptables or ip6tables (-A or -I); ``rule`` begins with the chain.

    Where the table is not there before, it is not afterwards: iptables-nft makes it by itself.
    """
    typed = program if table == "filter" else f"{program} -t {table}"
    undo = f"{typed} -D {rule}"
    version = 6 if program.startswith("ip6") else 4
    if not any(each.table == table and not each.place for each in host.rules_of(version)):
        family = "ip6" if version == 6 else "ip"
        undo += (
            f" && {{ {program}-save -t {table} | grep -q '^-A' || nft delete table {family} {table} "
            "2>/dev/null || true; }"
        )
    return Mend(host.name, f"{typed} {option} {rule}", undo)


_NFT_WORDS = {"-s": "saddr", "-d": "daddr"}
_NFT_FRAGMENTATION_NEEDED = "icmp type destination-unreachable icmp code frag-needed"
_NFT_ICMP6 = {
    "packet-too-big": "packet-too-big",
    "neighbour-solicitation": "nd-neighbor-solicit",
    "neighbour-advertisement": "nd-neighbor-advert",
}


def accept_in_front(host: str, drop: Drop, matches: tuple[tuple[str, str], ...]) -> Mend:
    """Accept packets in front of the rule that drops them, by the program that made that rule.

    ``matches`` are options of iptables (of ip6tables, for IPv6) with their values.
    """
    decided = drop.rule
    if not decided.place:
        rule = " ".join((drop.hook, *(f"{option} {value}" for option, value in matches), "-j ACCEPT"))
        program = decided.program if decided.table == "filter" else f"{decided.program} -t {decided.table}"
        return Mend(host, f"{program} -I {rule}", f"{program} -D {rule}")
    words = _as_nft(dict(matches))
    base = shlex.join(decided.place.split(" "))
    # nft removes a rule by its handle, which is not known before: it is found again by a comment.
    mark = f"xlvs-doctor-{crc32(f'{decided.place} {words}'.encode()):08x}"
    handle = f"nft -a list chain {base} | sed -n '/{mark}/s/.*# handle //p'"
    return Mend(
        host,
        f"nft insert rule {base} {words} accept comment {mark}",
        f"nft delete rule {base} handle $({handle})",
    )


def _as_nft(matches: dict[str, str]) -> str:
    if "--icmp-type" in matches:
        return _NFT_FRAGMENTATION_NEEDED
    if "--icmpv6-type" in matches:
        return f"icmpv6 type {_NFT_ICMP6[matches['--icmpv6-type']]}"
    words = []
    for option, value in matches.items():
        if option in ("--dport", "--sport"):
            words.append(f"{matches['-p']} {option.removeprefix('--')} {value}")
        elif option in _NFT_WORDS:
            words.append(f"{'ip6' if ':' in value else 'ip'} {_NFT_WORDS[option]} {value}")
        elif option == "-p" and not {"--dport", "--sport"} & set(matches):
            words.append(f"meta l4proto {value}")
    return " ".join(words)
