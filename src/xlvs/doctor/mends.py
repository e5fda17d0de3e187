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
from xlvs.doctor.firewall import Rule
from xlvs.doctor.host import Address, Assigned, Host, sysctl
from xlvs.model import ServiceEntry, ServiceKey

_METHOD_OPTIONS = {model.ROUTE: "-g", model.MASQUERADE: "-m", model.TUNNEL: "-i", model.LOCAL: "-g"}
_PROTOCOL_OPTIONS = {model.TCP: "-t", model.UDP: "-u", model.SCTP: "--sctp-service"}


def set_conf(host: Host, interface: str, name: str, value: int) -> Mend:
    """Set a sysctl of net.ipv4.conf."""
    before = host.setting(f"net.ipv4.conf.{interface}.{name}")
    typed = shlex.quote(sysctl(interface, name))
    return Mend(host.name, f"sysctl -w {typed}={value}", f"sysctl -w {typed}={before}")


def add_address(host: Host, address: Address, interface: str, length: int | None = None) -> Mend:
    """Give an interface an address, alone in its network by default."""
    whole = address.max_prefixlen if length is None else length
    text = f"{address}/{whole} dev {shlex.quote(interface)}"
    return Mend(host.name, f"ip addr add {text}", f"ip addr del {text}")


def delete_address(host: Host, assigned: Assigned) -> Mend:
    """Take an address away."""
    options = f" scope {assigned.scope}" if assigned.scope != "global" else ""
    if assigned.label and assigned.label != assigned.interface:
        options += f" label {shlex.quote(assigned.label)}"
    text = f"{assigned} dev {shlex.quote(assigned.interface)}"
    return Mend(host.name, f"ip addr del {text}", f"ip addr add {text}{options}")


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


_NFT_WORDS = {"-s": "ip saddr", "-d": "ip daddr", "-p": "ip protocol"}
_NFT_FRAGMENTATION_NEEDED = "icmp type destination-unreachable icmp code frag-needed"


def accept_in_front(host: str, decided: Rule, chain: str, matches: tuple[tuple[str, str], ...]) -> Mend:
    """Accept packets in front of the rule that drops them, by the program that made that rule.

    ``matches`` are options of iptables with their values.
    """
    if not decided.place:
        rule = " ".join((chain, *(f"{option} {value}" for option, value in matches), "-j ACCEPT"))
        return Mend(host, f"{decided.program} -I {rule}", f"{decided.program} -D {rule}")
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
    words = []
    for option, value in matches.items():
        if option in ("--dport", "--sport"):
            words.append(f"{matches['-p']} {option.removeprefix('--')} {value}")
        elif option != "-p" or not {"--dport", "--sport"} & set(matches):
            words.append(f"{_NFT_WORDS[option]} {value}")
    return " ".join(words)
