# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of vrrp_instance."""

from __future__ import annotations

from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft, InstanceDraft
from xlvs.keepalived.keywords.instance_addresses import (
    addresses,
    mcast_dst_ip,
    native_ipv6,
    old_unicast_checksum,
    routes,
    rules,
    source,
    unicast_peer,
)
from xlvs.keepalived.keywords.lines import known_interface
from xlvs.keepalived.keywords.shapes import flag, number, switch
from xlvs.keepalived.keywords.virtual_interface import use_ipvlan, use_vmac
from xlvs.keepalived.keywords.vrrp_common import NO_VRRP, add_notification, add_tracking, notify_script
from xlvs.keepalived.numbers import (
    INT_MAX,
    SECOND,
    UINT_MAX,
    read_decimal,
    read_int,
    read_switch,
    read_unsigned,
)
from xlvs.keepalived.redundancy import Authentication
from xlvs.keepalived.scripts import read_script
from xlvs.keepalived.settings import SyncDaemon
from xlvs.keepalived.statements import Action, Cursor, Section
from xlvs.model import IPV6

_MOST_INTERFACE_NAME = 15
_MOST_PASSWORD = 8
_MOST_SECONDS = UINT_MAX // SECOND
_DEFAULT_PRIORITY = 100


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


def _unicast_flag(field: str) -> Action:
    def action(instance: InstanceDraft, _at: Cursor) -> None:
        instance.set(field, True)
        instance.unicast_configured = True

    return action


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


AUTHENTICATION = Section("authentication")
AUTHENTICATION.add("auth_type", _auth_type, "PASS|AH", "Version 2 only.")
AUTHENTICATION.add("auth_pass", _auth_pass, "TEXT", "Its first 8 bytes count.")

INSTANCE = Section("vrrp_instance", _end_of_instance)
_SECONDS = "({1}): %s '{0}' invalid - ignoring"
_INVALID = "({1}) invalid %s {0} specified"
_SMALL = "({1}): {2} must be greater than 0, setting to {0}"
for _name, _action, _arguments, _meaning in (
    ("state", _state, "MASTER|BACKUP", "What it is at first."),
    ("interface", _interface, "IF", "Where it speaks VRRP."),
    (
        "virtual_router_id",
        number(
            "virtual_router_id",
            "({1}): VRID '{0}' not valid - must be between 1 & 255",
            1,
            255,
            lenient=False,
        ),
        "N",
        "1 to 255.",
    ),
    ("priority", _priority, "N", "1 to 255; default 100."),
    ("advert_int", _advert_int, "SECONDS", "Default 1."),
    ("version", _version, "2|3", "Default: vrrp_version."),
    ("virtual_ipaddress", addresses(False), "{ ADDRESS[/LENGTH] [dev IF] … }", "The VIPs."),
    (
        "virtual_ipaddress_excluded",
        addresses(True),
        "{ ADDRESS[/LENGTH] [dev IF] … }",
        "VIPs that adverts do not name.",
    ),
    ("virtual_routes", routes, "{ ROUTE … }", "Routes of a MASTER."),
    ("virtual_rules", rules, "{ RULE … }", "Policy rules of a MASTER."),
    ("use_vmac", use_vmac, "[IF] [MAC]", "A virtual MAC address."),
    ("use_vmac_addr", flag("use_vmac_addr"), "", "…for addresses on other interfaces, too."),
    ("vmac_xmit_base", flag("vmac_xmit_base"), "", "Adverts from the interface's own address."),
    ("use_ipvlan", use_ipvlan, "[IF] [ADDRESS] [bridge|private|vepa]", "An ipvlan interface."),
    (
        "unicast_peer",
        unicast_peer,
        "{ ADDRESS [min_ttl N] [max_ttl N] … }",
        "Adverts to these, not by multicast.",
    ),
    ("unicast_fault_no_peer", _unicast_flag("unicast_fault_no_peer"), "", "FAULT without peers."),
    ("check_unicast_src", _unicast_flag("check_unicast_src"), "", "Only peers may send adverts."),
    ("old_unicast_checksum", old_unicast_checksum, "[never]", "As keepalived before 1.3.7."),
    ("unicast_src_ip", source(unicast=True), "ADDRESS", "Where unicast adverts come from."),
    (
        "unicast_ttl",
        number("unicast_ttl", "({1}): TTL '{0}' not valid - must be between 0 & 255", 0, 255, lenient=False),
        "N",
        "Of unicast adverts.",
    ),
    ("mcast_src_ip", source(unicast=False), "ADDRESS", "Where multicast adverts come from."),
    ("mcast_dst_ip", mcast_dst_ip, "ADDRESS", "Where they go."),
    ("track_src_ip", flag("track_source"), "", "FAULT without that address."),
    ("native_ipv6", native_ipv6, "", "IPv6 although there are no addresses."),
    ("vrf", _vrf, "IF", "The VRF of a unicast instance without interface."),
    ("dont_track_primary", flag("dont_track_primary"), "", "Its interface may be down."),
    ("promote_secondaries", flag("promote_secondaries"), "", "Sets that on the interface."),
    ("linkbeat_use_polling", _linkbeat_use_polling, "", "Poll the link."),
    ("accept", flag("accept"), "", "Take packets to the VIPs."),
    ("no_accept", flag("accept", value=False), "", "Take none, as RFC 5798 has it."),
    (
        "skip_check_adv_addr",
        _skip_check_adv_addr,
        "[BOOL]",
        "Look at an advert's addresses once per master.",
    ),
    ("strict_mode", switch("strict_mode", _INVALID % "strict_mode"), "[BOOL]", "RFC 5798 to the letter."),
    ("preempt", flag("nopreempt", value=False), "", "The default."),
    ("nopreempt", flag("nopreempt"), "", "Leave a lower priority MASTER."),
    ("preempt_delay", _preempt_delay, "SECONDS", "Before it takes over; default 0."),
    (
        "debug",
        number("debug", "({1}) Debug value '{0}' not valid; must be between 0-4", 0, 4),
        "N",
        "Has no effect.",
    ),
    ("notify_deleted", _notify_deleted, "[COMMAND [USER [GROUP]]]", "Run when a reload removes it."),
    (
        "notify_master_rx_lower_pri",
        notify_script("master_rx_lower_pri"),
        "COMMAND [USER [GROUP]]",
        "Run when another MASTER of lower priority is heard.",
    ),
    (
        "smtp_alert",
        switch("smtp_alert", "Invalid vrrp_instance smtp_alert parameter {0}"),
        "[BOOL]",
        "Mail at each change.",
    ),
    (
        "notify_priority_changes",
        switch("notify_priority_changes", "({1}) Invalid value '{0}' for notify_priority_changes specified"),
        "[BOOL]",
        "Events for priorities, too.",
    ),
    ("lvs_sync_daemon_interface", _lvs_sync_daemon_interface, "IF", "The old way to say lvs_sync_daemon."),
    (
        "garp_master_delay",
        number("garp_delay", _SECONDS % "garp_master_delay", 0, _MOST_SECONDS),
        "SECONDS",
        "As vrrp_garp_master_delay.",
    ),
    ("garp_master_refresh", _garp_master_refresh, "SECONDS", "As vrrp_garp_master_refresh."),
    (
        "garp_master_repeat",
        number("garp_repeat", _SECONDS % "garp_master_repeat", least=1, small=_SMALL),
        "N",
        "As vrrp_garp_master_repeat.",
    ),
    (
        "garp_master_refresh_repeat",
        number("garp_refresh_repeat", _SECONDS % "garp_master_refresh_repeat", least=1, small=_SMALL),
        "N",
        "As vrrp_garp_master_refresh_repeat.",
    ),
    (
        "garp_lower_prio_delay",
        number("garp_lower_prio_delay", _SECONDS % "garp_lower_prio_delay", 0, _MOST_SECONDS),
        "SECONDS",
        "As vrrp_garp_lower_prio_delay.",
    ),
    (
        "garp_lower_prio_repeat",
        number("garp_lower_prio_repeat", "({1}): Invalid garp_lower_prio_repeat '{0}'", 0, INT_MAX),
        "N",
        "As vrrp_garp_lower_prio_repeat.",
    ),
    (
        "down_timer_adverts",
        number("down_timer_adverts", "({1}): Invalid down_timer_adverts [1:100] '{0}'", 1, 100),
        "N",
        "As vrrp_down_timer_adverts.",
    ),
    ("garp_extra_if", _garp_extra_if, "[all] SECONDS", "As vrrp_garp_extra_if."),
    ("vmac_garp_intvl", _garp_extra_if, "[all] SECONDS", "Its old name."),
    (
        "lower_prio_no_advert",
        switch("lower_prio_no_advert", _INVALID % "lower_prio_no_advert"),
        "[BOOL]",
        "As vrrp_lower_prio_no_advert.",
    ),
    (
        "higher_prio_send_advert",
        switch("higher_prio_send_advert", _INVALID % "higher_prio_send_advert"),
        "[BOOL]",
        "As vrrp_higher_prio_send_advert.",
    ),
    ("kernel_rx_buf_size", _kernel_rx_buf_size, "BYTES", "The socket's receive buffer."),
):
    INSTANCE.add(_name, _action, _arguments, _meaning)
INSTANCE.add("authentication", _authentication, "", "Of version 2.", block=AUTHENTICATION)
add_tracking(INSTANCE)
add_notification(INSTANCE)


def add_instance_roots(root: Section) -> None:
    """Enter the block of this module."""
    root.add("vrrp_instance", _vrrp_instance, "NAME", "A VRRP instance.", remark=NO_VRRP, block=INSTANCE)
