# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of instances with an interface of their own: use_vmac and use_ipvlan."""

from __future__ import annotations

import re

from xlvs.keepalived.addresses import family_of, read_prefix
from xlvs.keepalived.drafts import InstanceDraft
from xlvs.keepalived.statements import Cursor

_MOST_INTERFACE_NAME = 15
_VRRP_MAC = bytes.fromhex("00005e00")


def use_vmac(instance: InstanceDraft, at: Cursor) -> None:
    """``use_vmac [IF] [MAC]``."""
    fields = instance.fields
    fields["use_vmac"] = True
    for word in at.words[1:3]:
        if ":" in word:
            _vmac_address(instance, at, word)
        elif fields.get("vmac_interface"):
            at.report("VMAC interface name already specified")
        elif not _is_device_name(word):
            at.report(f"VMAC interface name '{word}' too long or invalid characters - ignoring")
        else:
            _take_vmac_name(instance, at, word)


def _take_vmac_name(instance: InstanceDraft, at: Cursor, name: str) -> None:
    for other in instance.draft.instances.values():
        if other.fields.get("vmac_interface") == name:
            at.report(
                f"({instance.name}) VRRP instance {other.name} is already using {name} - ignoring name"
            )
            return
    instance.fields["vmac_interface"] = name


def _vmac_address(instance: InstanceDraft, at: Cursor, text: str) -> None:
    """Six octets, or five: the last one is then the virtual router id."""
    if instance.fields.get("vmac_address"):
        at.report("VMAC interface address already specified")
    elif not re.fullmatch(r"[0-9A-Fa-f:]+", text):
        at.report(f"VMAC invalid MAC address {text}")
    elif not re.fullmatch(r"[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{1,2}){4}(:|:[0-9A-Fa-f]{1,2})?", text):
        at.report(f"VMAC invalid MAC address {text} - ignored")
    else:
        octets = bytes(int(octet, 16) for octet in text.split(":") if octet)
        if octets[0] & 1:
            at.report(f"VMAC MAC address is multicast {text} - ignoring")
        elif octets[:4] == _VRRP_MAC and octets[4] in (1, 2):
            at.report(f"VMAC MAC address not allowed to be RFC5798 address ({text}) - ignoring")
        else:
            instance.fields["vmac_address"] = octets


def _is_device_name(name: str) -> bool:
    return (
        0 < len(name) <= _MOST_INTERFACE_NAME and name not in (".", "..") and not re.search(r"[/:\s]", name)
    )


def use_ipvlan(instance: InstanceDraft, at: Cursor) -> None:
    """``use_ipvlan [IF] [ADDRESS] [bridge|private|vepa]``."""
    fields = instance.fields
    if fields.get("use_ipvlan"):
        at.report(f"({instance.name}) use_ipvlan already specified")
        return
    fields["use_ipvlan"] = True
    mode = ""
    for word in at.words[1:]:
        if word in ("bridge", "private", "vepa"):
            if mode:
                at.report(f"({instance.name}) ipvlan type already specified - ignoring '{word}'")
            mode = mode or word
        elif (":" in word or "." in word) and read_prefix(word):
            _ipvlan_address(instance, at, word)
        elif fields.get("vmac_interface"):
            at.report(f"({instance.name}) IPVLAN interface already specified - ignoring '{word}'")
        elif len(word) > _MOST_INTERFACE_NAME:
            at.report(f"({instance.name}) IPVLAN interface name '{word}' too long - ignoring")
        else:
            _take_vmac_name(instance, at, word)
    fields["ipvlan_mode"] = mode or "bridge"


def _ipvlan_address(instance: InstanceDraft, at: Cursor, word: str) -> None:
    fields = instance.fields
    read = read_prefix(word)
    assert read is not None
    if fields.get("ipvlan_address"):
        at.report(f"({instance.name}) ipvlan address already specified - ignoring '{word}'")
    elif instance.family not in (0, family_of(read[0])):
        at.report(
            f"({instance.name}) ipvlan address[{word}] MUST match vrrp instance family !!! Skipping..."
        )
    else:
        instance.family = family_of(read[0])
        fields["ipvlan_address"] = word
        fields.setdefault("source", read[0])
