# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of VRRP: instances, sync groups, static addresses and routes, interfaces."""

from __future__ import annotations

import re
from collections.abc import Callable

from xlvs.keepalived.addresses import family_of, is_multicast, read_address, read_prefix
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft, InstanceDraft, SyncGroupDraft
from xlvs.keepalived.keywords_address import known_interface, read_interface_address, read_route, read_rule
from xlvs.keepalived.numbers import (
    INT_MAX,
    SECOND,
    UINT_MAX,
    read_decimal,
    read_int,
    read_switch,
    read_timer,
    read_unsigned,
)
from xlvs.keepalived.origin import Position
from xlvs.keepalived.redundancy import (
    Authentication,
    GarpGroup,
    InterfaceDelay,
    LinkbeatInterface,
    Tracked,
    TrackGroup,
    UnicastPeer,
)
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.settings import SyncDaemon
from xlvs.keepalived.statements import Action, Cursor, Section
from xlvs.model import IPV4, IPV6

_MOST_INTERFACE_NAME = 15
_MOST_PASSWORD = 8
_MOST_SECONDS = UINT_MAX // SECOND
_DEFAULT_PRIORITY = 100
NO_VRRP = "xlvsd runs no VRRP; run `keepalived -P` with the same file beside it"
_VRRP_MAC = bytes.fromhex("00005e00")


# Tracking, for instances and sync groups.


def _read_weight(
    at: Cursor, name: str, kind: str, weight: int, reverse: bool, most: int
) -> tuple[int, bool] | None:
    """``[weight N [reverse|noreverse]]`` after what is tracked; None, reported, for what cannot be used."""
    words = at.words
    tracked = words[0]
    if len(words) < 2:
        return weight, reverse
    if words[1] != "weight":
        at.report(f"({name}) unknown {kind} {tracked} option {words[1]} - ignoring")
        return None
    if len(words) == 2:
        at.report(f"({name}) weight without value specified for {kind} {tracked} - ignoring")
        return None
    value = read_int(at, words[2], -most, most)
    if value is None:
        at.report(f"({name}) weight for {kind} {tracked} must be between [-253..253] inclusive. Ignoring...")
    elif kind in ("track_interface", "track script") and abs(value) == 254:
        at.report(f"({name}) weight for {tracked} cannot be +/-254. Setting to +/-253")
        weight = 253 if value > 0 else -253
    else:
        weight = value
    if len(words) > 3:
        if words[3] == "reverse":
            reverse = True
        elif words[3] == "noreverse" and kind != "track_interface":
            reverse = False
        else:
            at.report(f"({name}) unknown {kind} {tracked} weight option {words[3]} - ignoring")
            if kind in ("track file", "track bfd"):
                return None
    return weight, reverse


def _track_lines(
    field: str,
    kind: str,
    find: Callable[[Draft, Cursor, str, str], tuple[int, bool] | None],
    most: int = 254,
) -> Action:
    """A track_* block; ``find`` says what weight is the default, or reports that there is no such thing."""

    def action(owner: InstanceDraft | SyncGroupDraft, at: Cursor) -> None:
        standing: dict[str, Tracked] = getattr(owner.tracking, field)
        for words in at.value_lines():
            name = words[0]
            default = find(owner.draft, at, owner.name, name)
            if default is None:
                continue
            if name in standing:
                at.report(f"({owner.name}) duplicate {kind.replace(' ', '_')} {name} - ignoring")
                continue
            weight = _read_weight(at, owner.name, kind, *default, most)
            if weight is not None:
                standing[name] = Tracked(name, *weight, position=at.position)

    return action


def _find_interface(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    if known_interface(draft, at, name):
        return 0, False
    at.report(f"({owner}) tracked interface {name} doesn't exist")
    return None


def _find_script(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    found = draft.track_scripts.get(name)
    if found is None:
        at.report(f"({owner}) track script {name} not found, ignoring...")
        return None
    return found.weight, found.reverse


def _find_file(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    found = draft.track_files.get(name)
    if found is None:
        at.report(f"({owner}) track file {name} not found, ignoring...")
        return None
    return found.weight, found.reverse


def _find_process(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    found = draft.track_processes.get(name)
    if found is None:
        at.report(f"({owner}) track process {name} not found, ignoring...")
        return None
    return found.weight, found.reverse


def _find_bfd(draft: Draft, at: Cursor, owner: str, name: str) -> tuple[int, bool] | None:
    found = draft.bfd_instances.get(name)
    if found is None or not found.vrrp:
        at.report(f"({owner}) track bfd {name} not found, ignoring...")
        return None
    return found.weight, found.reverse


def _add_tracking(section: Section) -> None:
    section.add(
        "track_interface",
        _track_lines("interfaces", "track_interface", _find_interface),
        "{ IF [weight N [reverse]] … }",
        "Interfaces that must be up.",
    )
    section.add(
        "track_script",
        _track_lines("scripts", "track script", _find_script),
        "{ NAME [weight N [reverse]] … }",
        "vrrp_scripts.",
    )
    section.add(
        "track_file",
        _track_lines("files", "track file", _find_file),
        "{ NAME [weight N [reverse]] … }",
        "track_files.",
    )
    section.add(
        "track_process",
        _track_lines("processes", "track process", _find_process),
        "{ NAME [weight N [reverse]] … }",
        "vrrp_track_processes.",
    )
    section.add(
        "track_bfd",
        _track_lines("bfd", "track bfd", _find_bfd, 253),
        "{ NAME [weight N [reverse]] … }",
        "bfd_instances.",
    )


# Notification, for both.


def _notify(event: str) -> Action:
    def action(owner: InstanceDraft | SyncGroupDraft, at: Cursor) -> None:
        what = f"({owner.name})" if isinstance(owner, InstanceDraft) else f"vrrp group {owner.name}:"
        if event in owner.notifies:
            at.report(f"{what} {at.words[0]} script already specified - ignoring {at.word(1)}")
            return
        script = read_script(at, owner.draft.script_user, "notify")
        if script is not None:
            owner.notifies.add(event)
            owner.scripts[event] = script

    return action


def _add_notification(section: Section) -> None:
    run = "COMMAND [USER [GROUP]]"
    section.add("notify_backup", _notify("backup"), run, "Run when it becomes BACKUP.")
    section.add("notify_master", _notify("master"), run, "Run when it becomes MASTER.")
    section.add("notify_fault", _notify("fault"), run, "Run when it goes to FAULT.")
    section.add("notify_stop", _notify("stop"), run, "Run when VRRP stops.")
    section.add("notify", _notify("any_state"), run, "Run at each change, with what changed as arguments.")


# vrrp_instance.


def _vrrp_instance(draft: Draft, at: Cursor) -> InstanceDraft:
    name = at.words[1] if len(at.words) > 1 else ""
    instance = InstanceDraft(draft, name, at.position)
    if len(at.words) != 2:
        at.report("vrrp_instance must have a name")
        at.skip_block()
    elif name in draft.instances:
        at.report(f"vrrp instance {name} already defined")
        at.skip_block()
    else:
        draft.instances[name] = instance
    return instance


def _end_of_instance(instance: InstanceDraft, at: Cursor) -> None:
    fields = instance.fields
    virtual = fields.get("use_vmac") or fields.get("use_ipvlan")
    if instance.unicast_configured and virtual:
        if not instance.interface:
            at.report(
                f"({instance.name}): Cannot use VMAC/ipvlan with unicast and no interface"
                " - clearing use_vmac"
            )
            fields["use_vmac"] = fields["use_ipvlan"] = False
        elif not fields.get("vmac_xmit_base"):
            at.report(f"({instance.name}) unicast with use_vmac requires vmac_xmit_base - setting")
            fields["vmac_xmit_base"] = True
    if not fields.get("unicast_peers") and "unicast_ttl" in fields:
        at.report(f"({instance.name}): Cannot use unicast_ttl without unicast peers - resetting")
        del fields["unicast_ttl"]


def _flag(field: str, *, unicast: bool = False, value: object = True) -> Action:
    def action(instance: InstanceDraft, _at: Cursor) -> None:
        instance.fields[field] = value
        instance.unicast_configured |= unicast

    return action


def _switch(field: str, complaint: str) -> Action:
    """``KEYWORD [BOOL]``; ``complaint`` has the instance and the wrong word where ``{}`` stand."""

    def action(instance: InstanceDraft, at: Cursor) -> None:
        value = read_switch(at)
        if value is None:
            at.report(complaint.format(instance.name, at.words[1]))
        else:
            instance.fields[field] = value

    return action


def _number(
    field: str, complaint: str, low: int = 0, high: int = UINT_MAX, *, lenient: bool = True, least: int = 0
) -> Action:
    def action(instance: InstanceDraft, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), low, high, lenient=lenient)
        if value is None:
            at.report(complaint.format(instance.name, at.words[1]))
            return
        if value < least:
            at.report(f"({instance.name}): {at.words[0]} must be greater than 0, setting to {least}")
        instance.fields[field] = max(value, least)

    return action


def _use_vmac(instance: InstanceDraft, at: Cursor) -> None:
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


def _use_ipvlan(instance: InstanceDraft, at: Cursor) -> None:
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


def _unicast_peer(instance: InstanceDraft, at: Cursor) -> None:
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


def _old_unicast_checksum(instance: InstanceDraft, at: Cursor) -> None:
    instance.unicast_configured = True
    if len(at.words) < 2:
        instance.fields["old_unicast_checksum"] = "all"
    elif at.words[1] == "never":
        instance.fields["old_unicast_checksum"] = "never"
    else:
        at.report(f"({instance.name}) Unknown old_unicast_chksum mode {at.words[1]} - ignoring")


def _native_ipv6(instance: InstanceDraft, at: Cursor) -> None:
    if instance.family == IPV4:
        at.report(f"({instance.name}) Cannot specify native_ipv6 with IPv4 addresses")
        return
    instance.family = IPV6
    instance.version = 3
    instance.fields["native_ipv6"] = True


def _state(instance: InstanceDraft, at: Cursor) -> None:
    text = at.word(1)
    if text == "MASTER":
        instance.state = "MASTER"
    elif text == "BACKUP":
        if instance.state == "MASTER":
            at.report(f"({instance.name}) state previously set as MASTER - ignoring BACKUP")
        else:
            instance.state = "BACKUP"
    else:
        at.report(f"({instance.name}) unknown state '{text}', defaulting to BACKUP")
        instance.state = "BACKUP"


def _interface(instance: InstanceDraft, at: Cursor) -> None:
    name = at.word(1)
    if len(name) > _MOST_INTERFACE_NAME:
        at.report(f"Interface name '{name}' too long - ignoring")
    elif not known_interface(instance.draft, at, name):
        at.report(f"WARNING - interface {name} for vrrp_instance {instance.name} doesn't exist")
    elif at.surroundings.is_loopback(name):
        at.report(f"({instance.name}) cannot use a loopback interface ({name}) for vrrp - ignoring")
    else:
        instance.interface = name


def _vrf(instance: InstanceDraft, at: Cursor) -> None:
    name = at.word(1)
    if len(name) > _MOST_INTERFACE_NAME:
        at.report(f"({instance.name}) VRF interface name '{name}' too long - ignoring")
    elif instance.interface:
        at.report(f"({instance.name}) Cannot specify VRF interface and interface - ignoring")
    elif instance.fields.get("vrf"):
        standing = instance.fields["vrf"]
        at.report(f"({instance.name}) VRF interface already specified as '{standing}' - ignoring")
    elif not known_interface(instance.draft, at, name):
        at.report(f"({instance.name}) WARNING - VRF interface {name} doesn't exist")
    elif at.surroundings.is_loopback(name):
        at.report(f"({instance.name}) cannot use a loopback interface ({name}) for VRF - ignoring")
    else:
        instance.fields["vrf"] = name


def _source(*, unicast: bool) -> Action:
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


def _mcast_dst_ip(instance: InstanceDraft, at: Cursor) -> None:
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


def _priority(instance: InstanceDraft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1), 1, 255, lenient=False)
    if value is None:
        at.report(
            f"({instance.name}) Priority not valid! must be between 1 & 255."
            f" Using default {_DEFAULT_PRIORITY}"
        )
    instance.fields["priority"] = value or _DEFAULT_PRIORITY


def _advert_int(instance: InstanceDraft, at: Cursor) -> None:
    value = read_decimal(at, at.word(1), SECOND // 100, 255 * SECOND, 6)
    if value is None:
        at.report(f"({instance.name}) Advert interval ({at.words[1]}) not valid! Must be > 0 - ignoring")
    else:
        instance.fields["advert_interval"] = value / SECOND


def _version(instance: InstanceDraft, at: Cursor) -> None:
    value = read_int(at, at.word(1), 2, 3)
    if value is None:
        at.report(f"({instance.name}): Version must be either 2 or 3")
    elif instance.version not in (0, value) or (value == 2 and instance.family == IPV6):
        at.report(
            f"({instance.name}) vrrp_version {value} conflicts with configured or deduced version"
            f" {instance.version}; ignoring."
        )
    else:
        instance.version = value


def _addresses(excluded: bool) -> Action:
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


def _routes(instance: InstanceDraft, at: Cursor) -> None:
    for _ in at.value_lines():
        route = read_route(instance.draft, at, static=False)
        if route is not None:
            instance.routes.append(route)


def _rules(instance: InstanceDraft, at: Cursor) -> None:
    for _ in at.value_lines():
        rule = read_rule(instance.draft, at, static=False)
        if rule is not None:
            instance.rules.append(rule)


def _linkbeat_use_polling(instance: InstanceDraft, at: Cursor) -> None:
    instance.fields["linkbeat_use_polling"] = True
    at.report(
        f"({instance.name}) 'linkbeat_use_polling' in vrrp instance deprecated"
        " - use linkbeat_interfaces block"
    )


def _preempt_delay(instance: InstanceDraft, at: Cursor) -> None:
    value = read_decimal(at, at.word(1), 0, 1000 * SECOND, 6)
    if value is None:
        at.report(f"({instance.name}) Preempt_delay not valid! must be between 0-1000")
    instance.fields["preempt_delay"] = (value or 0) / SECOND


def _skip_check_adv_addr(instance: InstanceDraft, at: Cursor) -> None:
    if read_switch(at) is None:
        at.report(f"({instance.name}) invalid skip_check_adv_addr {at.words[1]} specified")
    else:
        # keepalived takes any BOOL for yes.
        instance.fields["skip_check_adv_addr"] = True


def _notify_deleted(instance: InstanceDraft, at: Cursor) -> None:
    if instance.fields.get("notify_deleted"):
        text = at.words[1] if len(at.words) > 1 else ""
        at.report(f"({instance.name}) notify_deleted already specified - ignoring {text}")
        return
    instance.fields["notify_deleted"] = True
    if len(at.words) > 1:
        script = read_script(at, instance.draft.script_user, "notify")
        if script is not None:
            instance.scripts["deleted"] = script


def _lvs_sync_daemon_interface(instance: InstanceDraft, at: Cursor) -> None:
    at.report(
        f"({instance.name}) Specifying lvs_sync_daemon_interface against a vrrp is deprecated."
        " Please use global lvs_sync_daemon"
    )
    standing: SyncDaemon | None = instance.draft.get("lvs_sync_daemon")
    if standing:
        at.report(
            f"({instance.name}) lvs_sync_daemon_interface has already been specified as"
            f" {standing.interface} - ignoring"
        )
        return
    daemon = SyncDaemon(at.word(1), instance.name, position=at.position)
    instance.draft.set("lvs_sync_daemon", daemon)


def _garp_master_refresh(instance: InstanceDraft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1))
    if value is None:
        at.report(f"({instance.name}): Invalid garp_master_refresh '{at.words[1]}' - ignoring")
    instance.fields["garp_refresh"] = value or 0


def _garp_extra_if(instance: InstanceDraft, at: Cursor) -> None:
    name = at.words[0]
    if name == "vmac_garp_intvl":
        at.report(f'Keyword "{name}" is deprecated - please use "garp_extra_if"', Severity.DEPRECATED)
    delay: int | None = None
    for word in at.words[1:]:
        if word == "all":
            instance.fields["garp_extra_if_all"] = True
            continue
        delay = read_unsigned(at, word, 0, 86400)
        if delay is None:
            at.report(f"({instance.name}): {name} '{word}' invalid - ignoring")
            return
    if delay is None:
        at.report(f"({instance.name}): {name} specified without time - ignoring")
    else:
        instance.fields["garp_extra_if"] = delay


def _kernel_rx_buf_size(instance: InstanceDraft, at: Cursor) -> None:
    value = read_unsigned(at, at.words[1], lenient=False) if len(at.words) == 2 else None
    if value is None:
        at.report(f"({instance.name}) invalid kernel_rx_buf_size specified")
    else:
        instance.fields["kernel_rx_buf_size"] = value


def _authentication(instance: InstanceDraft, _at: Cursor) -> InstanceDraft:
    return instance


def _auth_type(instance: InstanceDraft, at: Cursor) -> None:
    try:
        instance.fields["authentication"] = {
            "AH": Authentication.AH, "PASS": Authentication.PASS,
        }[at.word(1)]  # fmt: skip
    except KeyError:
        at.report(f"({instance.name}) unknown authentication type '{at.words[1]}'")


def _auth_pass(instance: InstanceDraft, at: Cursor) -> None:
    password = at.word(1).encode("utf-8", "surrogateescape")
    if len(password) > _MOST_PASSWORD:
        at.report(f"Truncating auth_pass to {_MOST_PASSWORD} characters")
    instance.fields["password"] = password[:_MOST_PASSWORD]


# vrrp_sync_group.


def _vrrp_sync_group(draft: Draft, at: Cursor) -> SyncGroupDraft:
    name = at.words[1] if len(at.words) > 1 else ""
    group = SyncGroupDraft(draft, name, at.position)
    if len(at.words) != 2:
        at.report("vrrp_sync_group must have a name - skipping")
        at.skip_block()
    elif name in draft.sync_groups:
        at.report(f"vrrp sync group {name} already defined")
        at.skip_block()
    else:
        draft.sync_groups[name] = group
    return group


def _members(group: SyncGroupDraft, at: Cursor) -> None:
    if group.members is not None:
        at.report(f"Group list already specified for sync group {group.name}")
        at.skip_block()
        return
    words = at.value_words()
    if not words:
        at.report(f"Warning - sync group {group.name} has empty group block")
        return
    group.members = tuple(words)


def _group_smtp_alert(group: SyncGroupDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(f"Invalid vrrp_group smtp_alert parameter {at.words[1]}")
    else:
        group.smtp_alert = value


def _global_tracking(group: SyncGroupDraft, at: Cursor) -> None:
    at.report(
        f"({group.name}) global_tracking is deprecated. Use track_interface/script/file on the sync group"
    )
    group.tracking_weight = True


def _tracking_weight(group: SyncGroupDraft, _at: Cursor) -> None:
    group.tracking_weight = True


def _group_priority_changes(group: SyncGroupDraft, at: Cursor) -> None:
    value = read_switch(at)
    if value is None:
        at.report(
            f"({group.name}) Invalid value '{at.words[1]}' for sync group notify_priority_changes specified"
        )
    else:
        group.notify_priority_changes = value


# Blocks of their own.


class _TrackGroupDraft:
    """A track_group."""

    def __init__(self, draft: Draft, name: str, position: Position) -> None:
        self.draft = draft
        self.name = name
        self.position = position


def _track_group(draft: Draft, at: Cursor) -> _TrackGroupDraft:
    name = at.words[1] if len(at.words) > 1 else ""
    if len(at.words) != 2:
        at.report("track_group must have a name - skipping")
        at.skip_block()
    elif name in draft.track_groups:
        at.report(f"track_group {name} already defined")
        at.skip_block()
    else:
        draft.track_groups[name] = TrackGroup(name, position=at.position)
    return _TrackGroupDraft(draft, name, at.position)


def _track_group_members(group: _TrackGroupDraft, at: Cursor) -> None:
    if group.draft.track_groups[group.name].instances:
        at.report(f"Group list already specified for sync group {group.name}")
        at.skip_block()
        return
    words = at.value_words()
    if not words:
        at.report(f"Warning - track group {group.name} has empty group block")
    group.draft.track_groups[group.name] = TrackGroup(group.name, tuple(words), group.position)


def _static_ipaddress(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        address = read_interface_address(draft, at, static=True)
        if address is not None:
            draft.static_addresses.append(address)


def _static_routes(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        route = read_route(draft, at, static=True)
        if route is not None:
            draft.static_routes.append(route)


def _static_rules(draft: Draft, at: Cursor) -> None:
    for _ in at.value_lines():
        rule = read_rule(draft, at, static=True)
        if rule is not None:
            draft.static_rules.append(rule)


class _GarpGroupDraft:
    """A garp_group."""

    def __init__(self, draft: Draft, position: Position) -> None:
        self.draft = draft
        self.position = position
        self.garp_interval: float | None = None
        self.gna_interval: float | None = None
        self.interfaces: list[str] = []
        self.shared = False


def _garp_group(draft: Draft, at: Cursor) -> _GarpGroupDraft:
    return _GarpGroupDraft(draft, at.position)


def _garp_interval(field: str) -> Action:
    def action(group: _GarpGroupDraft, at: Cursor) -> None:
        value = read_decimal(at, at.word(1), 0, INT_MAX, 6)
        if value is None:
            at.report(f"garp_group {field} '{at.words[1]}' invalid")
            return
        setattr(group, field, value / SECOND)
        if value >= SECOND:
            at.note(f"The {field} is very large - {at.words[1]} seconds")

    return action


def _take_garp_interface(group: _GarpGroupDraft, at: Cursor, name: str) -> None:
    if not known_interface(group.draft, at, name):
        at.report(f"WARNING - interface {name} specified for garp_group doesn't exist")
    elif name in group.draft.garp_interfaces:
        at.report(f"garp_group already specified for {name} - ignoring")
    else:
        group.draft.garp_interfaces.add(name)
        group.interfaces.append(name)


def _garp_interface(group: _GarpGroupDraft, at: Cursor) -> None:
    _take_garp_interface(group, at, at.word(1))


def _garp_interfaces(group: _GarpGroupDraft, at: Cursor) -> None:
    words = at.value_words()
    if not words:
        at.report("Warning - empty garp_group interfaces block")
    group.shared = bool(words)
    for word in words:
        _take_garp_interface(group, at, word)


def _end_of_garp_group(group: _GarpGroupDraft, at: Cursor) -> None:
    if group.garp_interval is None and group.gna_interval is None:
        number = sum(one.shared for one in group.draft.garp_groups) + group.shared if group.shared else 0
        at.report(f"garp group {number} does not have any delay set - removing")
        group.draft.garp_interfaces -= set(group.interfaces)
        return
    group.draft.garp_groups.append(
        GarpGroup(
            group.garp_interval, group.gna_interval, tuple(group.interfaces), group.shared, group.position
        )
    )


def _linkbeat_interfaces(draft: Draft, at: Cursor) -> None:
    for words in at.value_lines():
        if not known_interface(draft, at, words[0]):
            message = f"unknown interface {words[0]} specified for linkbeat interface"
            at.report(message, Severity.FATAL)
            continue
        method = words[1] if len(words) > 1 else ""
        if method and (method not in ("MII", "ETHTOOL", "IOCTL") or len(words) > 2):
            at.report(f"extra characters {method} in linkbeat interface")
            method = ""
        draft.linkbeat_interfaces.append(LinkbeatInterface(words[0], method, at.position))


def _interface_up_down_delays(draft: Draft, at: Cursor) -> None:
    for words in at.value_lines():
        if not known_interface(draft, at, words[0]):
            at.report(f"unknown interface {words[0]} specified for up/down delay", Severity.FATAL)
            continue
        if len(words) < 2:
            at.note(f"No timeouts specified for {words[0]} up/down delays")
            continue
        if len(words) > 3:
            at.note(f"Too many parameters for {words[0]} up/down delays")
        delays = [read_timer(at, word, 0, 255 * SECOND) for word in words[1:3]]
        if None in delays:
            at.note(f"Invalid delay for {words[0]}")
            continue
        down, up = delays[0] or 0.0, (delays[1] if len(delays) > 1 else 0.0) or 0.0
        draft.interface_delays.append(InterfaceDelay(words[0], down, up, at.position))


# The tables.

AUTHENTICATION = Section("authentication")
AUTHENTICATION.add("auth_type", _auth_type, "PASS|AH", "Version 2 only.")
AUTHENTICATION.add("auth_pass", _auth_pass, "TEXT", "Its first 8 bytes count.")

INSTANCE = Section("vrrp_instance", _end_of_instance)
_SECONDS = "({}): %s '{}' invalid - ignoring"
_INVALID = "({}) invalid %s {} specified"
for _name, _action, _arguments, _meaning in (
    ("state", _state, "MASTER|BACKUP", "What it is at first."),
    ("interface", _interface, "IF", "Where it speaks VRRP."),
    (
        "virtual_router_id",
        _number(
            "virtual_router_id", "({}): VRID '{}' not valid - must be between 1 & 255", 1, 255, lenient=False
        ),
        "N",
        "1 to 255.",
    ),
    ("priority", _priority, "N", "1 to 255; default 100."),
    ("advert_int", _advert_int, "SECONDS", "Default 1."),
    ("version", _version, "2|3", "Default: vrrp_version."),
    ("virtual_ipaddress", _addresses(False), "{ ADDRESS[/LENGTH] [dev IF] … }", "The VIPs."),
    (
        "virtual_ipaddress_excluded",
        _addresses(True),
        "{ ADDRESS[/LENGTH] [dev IF] … }",
        "VIPs that adverts do not name.",
    ),
    ("virtual_routes", _routes, "{ ROUTE … }", "Routes of a MASTER."),
    ("virtual_rules", _rules, "{ RULE … }", "Policy rules of a MASTER."),
    ("use_vmac", _use_vmac, "[IF] [MAC]", "A virtual MAC address."),
    ("use_vmac_addr", _flag("use_vmac_addr"), "", "…for addresses on other interfaces, too."),
    ("vmac_xmit_base", _flag("vmac_xmit_base"), "", "Adverts from the interface's own address."),
    ("use_ipvlan", _use_ipvlan, "[IF] [ADDRESS] [bridge|private|vepa]", "An ipvlan interface."),
    (
        "unicast_peer",
        _unicast_peer,
        "{ ADDRESS [min_ttl N] [max_ttl N] … }",
        "Adverts to these, not by multicast.",
    ),
    ("unicast_fault_no_peer", _flag("unicast_fault_no_peer", unicast=True), "", "FAULT without peers."),
    ("check_unicast_src", _flag("check_unicast_src", unicast=True), "", "Only peers may send adverts."),
    ("old_unicast_checksum", _old_unicast_checksum, "[never]", "As keepalived before 1.3.7."),
    ("unicast_src_ip", _source(unicast=True), "ADDRESS", "Where unicast adverts come from."),
    (
        "unicast_ttl",
        _number("unicast_ttl", "({}): TTL '{}' not valid - must be between 0 & 255", 0, 255, lenient=False),
        "N",
        "Of unicast adverts.",
    ),
    ("mcast_src_ip", _source(unicast=False), "ADDRESS", "Where multicast adverts come from."),
    ("mcast_dst_ip", _mcast_dst_ip, "ADDRESS", "Where they go."),
    ("track_src_ip", _flag("track_source"), "", "FAULT without that address."),
    ("native_ipv6", _native_ipv6, "", "IPv6 although there are no addresses."),
    ("vrf", _vrf, "IF", "The VRF of a unicast instance without interface."),
    ("dont_track_primary", _flag("dont_track_primary"), "", "Its interface may be down."),
    ("promote_secondaries", _flag("promote_secondaries"), "", "Sets that on the interface."),
    ("linkbeat_use_polling", _linkbeat_use_polling, "", "Poll the link."),
    ("accept", _flag("accept"), "", "Take packets to the VIPs."),
    ("no_accept", _flag("accept", value=False), "", "Take none, as RFC 5798 has it."),
    (
        "skip_check_adv_addr",
        _skip_check_adv_addr,
        "[BOOL]",
        "Look at an advert's addresses once per master.",
    ),
    ("strict_mode", _switch("strict_mode", _INVALID % "strict_mode"), "[BOOL]", "RFC 5798 to the letter."),
    ("preempt", _flag("nopreempt", value=False), "", "The default."),
    ("nopreempt", _flag("nopreempt"), "", "Leave a lower priority MASTER."),
    ("preempt_delay", _preempt_delay, "SECONDS", "Before it takes over; default 0."),
    (
        "debug",
        _number("debug", "({}) Debug value '{}' not valid; must be between 0-4", 0, 4),
        "N",
        "Has no effect.",
    ),
    ("notify_deleted", _notify_deleted, "[COMMAND [USER [GROUP]]]", "Run when a reload removes it."),
    (
        "notify_master_rx_lower_pri",
        _notify("master_rx_lower_pri"),
        "COMMAND [USER [GROUP]]",
        "Run when another MASTER of lower priority is heard.",
    ),
    (
        "smtp_alert",
        _switch("smtp_alert", "Invalid vrrp_instance smtp_alert parameter {1}"),
        "[BOOL]",
        "Mail at each change.",
    ),
    (
        "notify_priority_changes",
        _switch("notify_priority_changes", "({}) Invalid value '{}' for notify_priority_changes specified"),
        "[BOOL]",
        "Events for priorities, too.",
    ),
    ("lvs_sync_daemon_interface", _lvs_sync_daemon_interface, "IF", "The old way to say lvs_sync_daemon."),
    (
        "garp_master_delay",
        _number("garp_delay", _SECONDS % "garp_master_delay", 0, _MOST_SECONDS),
        "SECONDS",
        "As vrrp_garp_master_delay.",
    ),
    ("garp_master_refresh", _garp_master_refresh, "SECONDS", "As vrrp_garp_master_refresh."),
    (
        "garp_master_repeat",
        _number("garp_repeat", _SECONDS % "garp_master_repeat", least=1),
        "N",
        "As vrrp_garp_master_repeat.",
    ),
    (
        "garp_master_refresh_repeat",
        _number("garp_refresh_repeat", _SECONDS % "garp_master_refresh_repeat", least=1),
        "N",
        "As vrrp_garp_master_refresh_repeat.",
    ),
    (
        "garp_lower_prio_delay",
        _number("garp_lower_prio_delay", _SECONDS % "garp_lower_prio_delay", 0, _MOST_SECONDS),
        "SECONDS",
        "As vrrp_garp_lower_prio_delay.",
    ),
    (
        "garp_lower_prio_repeat",
        _number("garp_lower_prio_repeat", "({}): Invalid garp_lower_prio_repeat '{}'", 0, INT_MAX),
        "N",
        "As vrrp_garp_lower_prio_repeat.",
    ),
    (
        "down_timer_adverts",
        _number("down_timer_adverts", "({}): Invalid down_timer_adverts [1:100] '{}'", 1, 100),
        "N",
        "As vrrp_down_timer_adverts.",
    ),
    ("garp_extra_if", _garp_extra_if, "[all] SECONDS", "As vrrp_garp_extra_if."),
    ("vmac_garp_intvl", _garp_extra_if, "[all] SECONDS", "Its old name."),
    (
        "lower_prio_no_advert",
        _switch("lower_prio_no_advert", _INVALID % "lower_prio_no_advert"),
        "[BOOL]",
        "As vrrp_lower_prio_no_advert.",
    ),
    (
        "higher_prio_send_advert",
        _switch("higher_prio_send_advert", _INVALID % "higher_prio_send_advert"),
        "[BOOL]",
        "As vrrp_higher_prio_send_advert.",
    ),
    ("kernel_rx_buf_size", _kernel_rx_buf_size, "BYTES", "The socket's receive buffer."),
):
    INSTANCE.add(_name, _action, _arguments, _meaning)
INSTANCE.add("authentication", _authentication, "", "Of version 2.", block=AUTHENTICATION)
_add_tracking(INSTANCE)
_add_notification(INSTANCE)

SYNC_GROUP = Section("vrrp_sync_group")
SYNC_GROUP.add("group", _members, "{ NAME … }", "The instances.")
SYNC_GROUP.add("smtp_alert", _group_smtp_alert, "[BOOL]", "Mail at each change.")
SYNC_GROUP.add("global_tracking", _global_tracking, "", "The old name of sync_group_tracking_weight.")
SYNC_GROUP.add("sync_group_tracking_weight", _tracking_weight, "", "Members' weights count.")
SYNC_GROUP.add("notify_priority_changes", _group_priority_changes, "[BOOL]", "Events for priorities, too.")
_add_tracking(SYNC_GROUP)
_add_notification(SYNC_GROUP)

TRACK_GROUP = Section("track_group")
TRACK_GROUP.add("group", _track_group_members, "{ NAME … }", "The instances.")

GARP_GROUP = Section("garp_group", _end_of_garp_group)
GARP_GROUP.add("garp_interval", _garp_interval("garp_interval"), "SECONDS", "Between gratuitous ARP.")
GARP_GROUP.add("gna_interval", _garp_interval("gna_interval"), "SECONDS", "Between advertisements.")
GARP_GROUP.add("interface", _garp_interface, "IF", "An interface by itself.")
GARP_GROUP.add("interfaces", _garp_interfaces, "{ IF … }", "All these together.")


def add_vrrp_roots(root: Section) -> None:
    """Enter the blocks of this module."""
    root.add(
        "track_group",
        _track_group,
        "NAME",
        "Instances that static addresses follow.",
        remark=NO_VRRP,
        block=TRACK_GROUP,
    )
    root.add(
        "static_ipaddress", _static_ipaddress, "{ ADDRESS[/LENGTH] dev IF … }", "Addresses.", remark=NO_VRRP
    )
    root.add("static_routes", _static_routes, "{ ROUTE … }", "Routes.", remark=NO_VRRP)
    root.add("static_rules", _static_rules, "{ RULE … }", "Policy rules.", remark=NO_VRRP)
    root.add(
        "vrrp_sync_group",
        _vrrp_sync_group,
        "NAME",
        "Instances that change together.",
        remark=NO_VRRP,
        block=SYNC_GROUP,
    )
    root.add(
        "garp_group", _garp_group, "", "How fast gratuitous ARP goes out.", remark=NO_VRRP, block=GARP_GROUP
    )
    root.add(
        "linkbeat_interfaces",
        _linkbeat_interfaces,
        "{ IF [MII|ETHTOOL|IOCTL] … }",
        "Links to poll.",
        remark=NO_VRRP,
    )
    root.add("vrrp_instance", _vrrp_instance, "NAME", "A VRRP instance.", remark=NO_VRRP, block=INSTANCE)
    root.add(
        "interface_up_down_delays", _interface_up_down_delays, "{ IF DOWN [UP] … }",
        "Before an interface counts as down or up.", remark=NO_VRRP,
    )  # fmt: skip
