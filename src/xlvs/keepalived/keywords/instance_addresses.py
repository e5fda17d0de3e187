# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of instances with addresses: VIPs, routes and rules, where adverts come from and go."""

from __future__ import annotations

from xlvs.keepalived.addresses import family_of, is_multicast, read_address
from xlvs.keepalived.drafts import InstanceDraft
from xlvs.keepalived.keywords.interface_address import read_interface_address
from xlvs.keepalived.keywords.route import read_route
from xlvs.keepalived.keywords.rule import read_rule
from xlvs.keepalived.numbers import read_unsigned
from xlvs.keepalived.redundancy import UnicastPeer
from xlvs.keepalived.statements import Action, Cursor
from xlvs.model import IPV4, IPV6


def unicast_peer(instance: InstanceDraft, at: Cursor) -> None:
    """``unicast_peer { ADDRESS [min_ttl N] [max_ttl N] … }``."""
    instance.unicast_configured = True
    peers = list(instance.fields.get("unicast_peers", ()))
    for words in at.value_lines():
        address = read_address(words[0])
        what = f"Configuration error: VRRP instance[{instance.name}]"
        if not address:
            at.report(f"{what} malformed unicast peer address[{words[0]}]. Skipping...")
            continue
        if instance.family not in (0, family_of(address)):
            at.report(
                f"{what} and unicast peer address[{words[0]}] MUST be of the same family !!! Skipping..."
            )
            continue
        instance.family = family_of(address)
        peers.append(_peer_limits(instance, at, address))
    instance.fields["unicast_peers"] = tuple(peers)


def _peer_limits(instance: InstanceDraft, at: Cursor, address: bytes) -> UnicastPeer:
    limits = {"min_ttl": 0, "max_ttl": 255}
    for index in range(1, len(at.words), 2):
        name = at.words[index]
        if index + 1 >= len(at.words):
            at.report(f"({instance.name}) {name} is missing a value")
            break
        value = read_unsigned(at, at.words[index + 1], 0, 255, lenient=False)
        if value is None:
            continue
        if name not in limits:
            at.report(f"({instance.name}) unknown unicast_peer option {name}")
            break
        limits[name] = value
        instance.fields["check_unicast_src"] = True
    if limits["min_ttl"] > limits["max_ttl"]:
        at.report(
            f"({instance.name}) min_ttl {limits['min_ttl']} > max_ttl {limits['max_ttl']}"
            " - all packets will be discarded"
        )
    return UnicastPeer(address, **limits)


def old_unicast_checksum(instance: InstanceDraft, at: Cursor) -> None:
    """``old_unicast_checksum [never]``."""
    instance.unicast_configured = True
    if len(at.words) < 2:
        instance.fields["old_unicast_checksum"] = "all"
    elif at.words[1] == "never":
        instance.fields["old_unicast_checksum"] = "never"
    else:
        at.report(f"({instance.name}) Unknown old_unicast_chksum mode {at.words[1]} - ignoring")


def native_ipv6(instance: InstanceDraft, at: Cursor) -> None:
    """``native_ipv6``."""
    if instance.family == IPV4:
        at.report(f"({instance.name}) Cannot specify native_ipv6 with IPv4 addresses")
        return
    instance.family = IPV6
    instance.version = 3
    instance.fields["native_ipv6"] = True


def source(*, unicast: bool) -> Action:
    """``unicast_src_ip ADDRESS`` or ``mcast_src_ip ADDRESS``."""

    def action(instance: InstanceDraft, at: Cursor) -> None:
        instance.unicast_configured |= unicast
        text = at.word(1)
        address = read_address(text)
        what = f"Configuration error: VRRP instance[{instance.name}]"
        if not address:
            at.report(f"{what} malformed src address[{text}]. Skipping...")
        elif instance.family not in (0, family_of(address)):
            at.report(f"{what} and src address[{text}] MUST be of the same family !!! Skipping...")
            instance.fields.pop("source", None)
        else:
            instance.family = family_of(address)
            instance.fields["source"] = address

    return action


def mcast_dst_ip(instance: InstanceDraft, at: Cursor) -> None:
    """``mcast_dst_ip ADDRESS``."""
    text = at.word(1)
    address = read_address(text)
    if not address:
        at.report(f"({instance.name}) malformed mcast dest address {text}. Skipping...")
        return
    if instance.family not in (0, family_of(address)):
        at.report(
            f"({instance.name}) mcast dest address {text} MUST match VRRP instance family. Skipping..."
        )
        return
    instance.family = family_of(address)
    if not is_multicast(address) or (len(address) == 16 and address[1] & 0xF != 2):
        local = " link-local" if len(address) == 16 else ""
        at.report(f"({instance.name}) mcast_dst_ip {text} not{local} multicast. Skipping...")
        return
    instance.fields["multicast_group"] = address


def addresses(excluded: bool) -> Action:
    """``virtual_ipaddress { … }``, or the ``excluded`` ones."""

    def action(instance: InstanceDraft, at: Cursor) -> None:
        for words in at.value_lines():
            text = words[0]
            address = read_interface_address(instance.draft, at, static=False)
            if address is None:
                continue
            family = family_of(address.address)
            if excluded:
                instance.excluded_addresses.append(address)
            elif instance.family not in (0, family):
                at.report(f"({instance.name}): address family must match VRRP instance [{text}] - ignoring")
            else:
                instance.family = family
                instance.addresses.append(address)

    return action


def routes(instance: InstanceDraft, at: Cursor) -> None:
    """``virtual_routes { … }``."""
    for _ in at.value_lines():
        route = read_route(instance.draft, at, static=False)
        if route is not None:
            instance.routes.append(route)


def rules(instance: InstanceDraft, at: Cursor) -> None:
    """``virtual_rules { … }``."""
    for _ in at.value_lines():
        rule = read_rule(instance.draft, at, static=False)
        if rule is not None:
            instance.rules.append(rule)
