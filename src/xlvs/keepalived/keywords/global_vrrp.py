# SPDX-License-Identifier: GPL-2.0-only
"""Keywords of global_defs about VRRP and its tables of nftables."""

from __future__ import annotations

import os

from xlvs.keepalived.addresses import is_multicast, read_address
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.numbers import (
    read_int,
    read_switch,
    read_unsigned,
)
from xlvs.keepalived.statements import Action, Cursor


def dynamic_interfaces(draft: Draft, at: Cursor) -> None:
    """The keyword ``dynamic_interfaces``."""
    draft.set("vrrp.dynamic_interfaces", True)
    if len(at.words) > 1:
        if at.words[1] == "allow_if_changes":
            draft.set("vrrp.allow_if_changes", True)
        else:
            at.report(f"Unknown dynamic_interfaces option '{at.words[1]}'")


def multicast(number: int, length: int) -> Action:
    """The keyword ``vrrp_mcast_group4`` or ``vrrp_mcast_group6``."""
    name = f"vrrp_mcast_group{number}"

    def action(draft: Draft, at: Cursor) -> None:
        text = at.word(1)
        address = read_address(text)
        if not address:
            at.report(f"Can't parse {name} [{text}]. Skipping")
        elif len(address) != length:
            at.report(f"{name} [{text}] is not IPv{number}. Skipping")
        elif not is_multicast(address):
            at.report(f"{name} [{text}] is not multicast. Skipping")
        else:
            if length == 16 and address[1] & 0xF != 2:
                at.report(f"{name} [{text}] should be link-local multicast.", Severity.WARNING)
            draft.set(f"vrrp.multicast_group{number}", address)

    return action


def garp_refresh(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_garp_master_refresh``."""
    value = read_unsigned(at, at.word(1))
    if value is None:
        at.report(f"Invalid vrrp_garp_master_refresh '{at.words[1]}' - ignoring")
    draft.set("vrrp.garp_refresh", value or 0)


def min_garp(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_min_garp``."""
    value = read_switch(at)
    if value is None:
        at.report("Invalid value for vrrp_min_garp specified")
    elif value:
        # What has been said stands: these are defaults.
        for field, default, least in (
            ("garp_repeat", 5, 1), ("garp_refresh_repeat", 1, 0), ("garp_delay", 5, 0),
        ):  # fmt: skip
            if draft.get(f"vrrp.{field}") in (None, default):
                draft.set(f"vrrp.{field}", least)


def garp_extra_if(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_garp_extra_if``."""
    name = at.words[0]
    if name == "vrrp_vmac_garp_intvl":
        at.report(f'Keyword "{name}" is deprecated - please use "vrrp_garp_extra_if"', Severity.DEPRECATED)
    delay = 0
    for word in at.words[1:]:
        if word == "all":
            draft.set("vrrp.garp_extra_if_all", True)
            continue
        value = read_unsigned(at, word, 1, 86400)
        if value is None:
            at.report(f"{name} '{word}' invalid - ignoring")
            return
        delay = value
    if not delay:
        at.report(f"{name} specified without time - ignoring")
    else:
        draft.set("vrrp.garp_extra_if", delay)


def vrrp_version(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_version``."""
    value = read_int(at, at.word(1), 2, 3)
    if value is None:
        at.report("VRRP Error: Version must be either 2 or 3")
    else:
        draft.set("vrrp.version", value)


def rx_bufs_policy(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_rx_bufs_policy``."""
    if len(at.words) < 2:
        at.report("vrrp_rx_bufs_policy missing")
        return
    size = 0
    policies = set()
    for word in at.words[1:]:
        if word.upper() in ("MTU", "ADVERT"):
            policies.add(word.upper())
            continue
        value = read_unsigned(at, at.words[1], lenient=False)
        if value is None:
            at.report(f"Invalid vrrp_rx_bufs_policy {word}")
        else:
            size = value
    if size and policies:
        at.report("Cannot set vrrp_rx_bufs_policy size and policy, ignoring policy")
        policies.clear()
    elif len(policies) == 2:
        at.report("Cannot set both vrrp_rx_bufs_policy MTU and ADVERT, ignoring ADVERT")
        policies.remove("ADVERT")
    draft.set("vrrp.rx_bufs_size", size)
    draft.set("vrrp.rx_bufs_mtu", "MTU" in policies)
    draft.set("vrrp.rx_bufs_advert", "ADVERT" in policies)


def rx_bufs_multiplier(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_rx_bufs_multiplier``."""
    if len(at.words) != 2:
        at.report("Invalid vrrp_rx_bufs_multiplier")
        return
    value = read_unsigned(at, at.words[1], 1, lenient=False)
    if value is None:
        at.report(f"Invalid vrrp_rx_bufs_multiplier {at.words[1]}")
    else:
        draft.set("vrrp.rx_bufs_multiplier", value)


def vmac_prefix(field: str, what: str) -> Action:
    """A keyword for what names of VMAC interfaces begin with."""

    def action(draft: Draft, at: Cursor) -> None:
        if draft.get(field):
            at.report(f"{what} prefix has already been specified - ignoring {at.word(1)}")
        else:
            draft.set(field, at.word(1))

    return action


def disable_local_igmp(draft: Draft, at: Cursor) -> None:
    """The keyword ``disable_local_igmp``."""
    if not os.access("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", os.W_OK):
        at.report("kernel does not support /proc/sys/net/ipv4/igmp_link_local_mcast_reports")
    else:
        draft.set("vrrp.disable_local_igmp", True)


def nftables_start_fwmark(draft: Draft, at: Cursor) -> None:
    """The keyword ``nftables_start_fwmark``."""
    value = read_unsigned(at, at.word(1), 1, lenient=False)
    if value is None:
        message = f"invalid ipvs nftables start_fwmark priority '{at.words[1]}'"
        at.report(message, Severity.INVALID_NUMBER)
    else:
        draft.set("nftables_ipvs.start_fwmark", value)


def vrrp_iptables(draft: Draft, at: Cursor) -> None:
    """The keyword ``vrrp_iptables``."""
    at.report(
        "iptables not supported, using nftables instead. Please replace 'vrrp_iptables and"
        " 'vrrp_ipsets' with 'nftables' config option"
    )
    draft.set("nftables.table", "keepalived")
