# SPDX-License-Identifier: GPL-2.0-only
"""Lines of policy rules, in iproute2's words; what decides over the line is understood, the rest kept."""

from __future__ import annotations

import re
from typing import Any

from xlvs.keepalived.addresses import family_of
from xlvs.keepalived.diagnostics import Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.lines import (
    UnusableLine,
    iproute_names,
    is_table,
    is_tos,
    known_interface,
    note_track_group,
    read_line_address,
    read_number,
)
from xlvs.keepalived.keywords.route import ROUTE_KINDS
from xlvs.keepalived.numbers import INT_MAX, UINT_MAX, read_unsigned
from xlvs.keepalived.redundancy import Rule
from xlvs.keepalived.statements import Cursor
from xlvs.model import IPV4, IPV6

_ACTIONS = frozenset(("blackhole", "unreachable", "prohibit"))
_ONE_ACTION = "Cannot specify more than one of table/nop/goto/blackhole/prohibit/unreachable for rule"
_RULE_OPTIONS = frozenset(
    ("tos", "dsfield", "fwmark", "realms", "suppress_prefixlength", "sup_pl", "suppress_ifgroup",
     "sup_group", "tunnel-id", "uidrange", "protocol", "ipproto", "sport", "dport")
)  # fmt: skip


class _RuleDraft:
    """A policy rule while its line is read."""

    def __init__(self, draft: Draft, at: Cursor) -> None:
        self.draft = draft
        self.at = at
        self.index = 0
        self.family = 0
        self.action = ""
        self.fields: dict[str, Any] = {}
        self.options: list[tuple[str, str]] = []
        self.needs_table = False
        self.target: int | None = None

    def next_word(self) -> str:
        """The word after the one at hand."""
        self.index += 1
        return self.at.word(self.index)

    def act(self, action: str) -> None:
        """The rule does that, and does nothing else yet."""
        if self.action:
            raise UnusableLine(_ONE_ACTION)
        self.action = action

    def settle(self, family: int, complaint: str) -> None:
        """The rule is of that family, unless it is of the other one already."""
        if not self.family:
            self.family = family
        elif family and family != self.family:
            raise UnusableLine(complaint)


def read_rule(draft: Draft, at: Cursor, *, static: bool) -> Rule | None:
    """A line of static_rules or virtual_rules; None, reported, when it cannot be used."""
    rule = _RuleDraft(draft, at)
    try:
        while rule.index < len(at.words):
            _rule_word(rule, at.words[rule.index], static)
            rule.index += 1
        _check_rule(rule)
    except UnusableLine as error:
        if str(error):
            at.report(str(error))
        return None
    family = rule.family or IPV4
    if rule.fields.get("preference") is None:
        preference = draft.next_rule_preference[family]
        draft.next_rule_preference[family] = preference - 1
        rule.fields["preference"] = preference
        at.report(
            f"Rule has no preference specified - setting to {preference}."
            " This is probably not what you want."
        )
    return Rule(family, rule.action, options=tuple(rule.options), position=at.position, **rule.fields)


def _rule_word(rule: _RuleDraft, word: str, static: bool) -> None:
    at, fields = rule.at, rule.fields
    if word in ("inet", "inet6"):
        family, other = (IPV4, "IPv6") if word == "inet" else (IPV6, "IPv4")
        rule.settle(family, f"{word} specified for {other} rule")
    elif word in ("from", "to"):
        text = rule.next_word()
        if text not in ("default", "any", "all"):
            try:
                address, _ = read_line_address(at, text, prefix=True)
            except UnusableLine:
                raise UnusableLine(f"Invalid rule {word} address {text}") from None
            rule.settle(family_of(address), "rule specification has mixed IPv4 and IPv6")
        fields["source" if word == "from" else "destination"] = text
    elif word in ("table", "lookup"):
        text = rule.next_word()
        if not is_table(text):
            raise UnusableLine(f"Routing table {text} not found for rule")
        if read_number(text, UINT_MAX) == 0:
            raise UnusableLine("Table 0 is not valid")
        rule.act("table")
        fields["table"] = text
    elif word == "not":
        fields["invert"] = True
    elif word in ("preference", "order", "priority"):
        text = rule.next_word()
        number = read_number(text, UINT_MAX)
        if number is None:
            at.report(f"invalid number '{text}'", Severity.INVALID_NUMBER)
            raise UnusableLine(f"Invalid rule preference {word} specified")
        fields["preference"] = number
    elif word in ("dev", "iif", "oif"):
        name = rule.next_word()
        if not known_interface(rule.draft, at, name):
            raise UnusableLine(f"WARNING - interface {name} for rule doesn't exist")
        rule.options.append(("oif" if word == "oif" else "iif", name))
    elif word == "l3mdev":
        if rule.action:
            raise UnusableLine("Cannot specify l3mdev with other action")
        rule.action = "table"
        rule.options.append(("l3mdev", ""))
    elif word == "no_track":
        fields["no_track"] = True
    elif word == "track_group" and static:
        note_track_group(rule.draft, at, fields, rule.next_word())
    elif word in _RULE_OPTIONS:
        _rule_option(rule, word)
    else:
        _rule_action(rule, rule.next_word() if word == "type" else word)


def _rule_option(rule: _RuleDraft, name: str) -> None:
    at = rule.at
    text = rule.next_word()
    if name in ("tos", "dsfield") and not is_tos(text):
        raise UnusableLine(f"TOS value {text} is invalid")
    if name == "fwmark":
        mark, slash, mask = text.partition("/")
        if read_number(mark, UINT_MAX) is None or (slash and read_number(mask, UINT_MAX) is None):
            raise UnusableLine(f"Invalid rule fwmark {text} specified")
    if name == "realms":
        if not re.fullmatch(r"[0-9]+(/[0-9]+)?", text):
            raise UnusableLine(f"invalid realms {text} for rule")
        rule.settle(IPV4, "realms is only valid for IPv4")
        rule.needs_table = True
    if name in ("suppress_prefixlength", "sup_pl"):
        if read_unsigned(at, text, 0, INT_MAX, lenient=False) is None:
            raise UnusableLine(f"Invalid suppress_prefixlength {name} specified")
        rule.needs_table = True
        name = "suppress_prefixlength"
    if name in ("suppress_ifgroup", "sup_group"):
        if read_number(text, UINT_MAX) is None and text not in iproute_names("group"):
            raise UnusableLine(f"suppress_group {text} is invalid")
        rule.needs_table = True
        name = "suppress_ifgroup"
    if name == "tunnel-id" and read_number(text, 2**64 - 1) is None:
        at.report(f"invalid number '{text}'", Severity.INVALID_NUMBER)
        raise UnusableLine(f"Invalid tunnel-id {name} specified")
    if name == "uidrange" and not re.match(r"[0-9]+-[0-9]+", text):
        raise UnusableLine(f"Invalid uidrange {name} specified")
    if name == "protocol" and read_unsigned(at, text, 0, 255, lenient=False) is None:
        at.report(f"Invalid protocol {text}")
        return
    if name == "ipproto" and not _is_protocol(text):
        at.report(f"Invalid ipproto {text}")
        return
    if name in ("sport", "dport") and not re.match(r"[0-9]+-[0-9]+", text):
        at.report(f"invalid {name} range {text}")
        return
    rule.options.append((name, text))


def _is_protocol(text: str) -> bool:
    import socket

    if read_number(text, 255) is not None:
        return True
    try:
        socket.getprotobyname(text)
    except (OSError, UnicodeError):
        return False
    return True


def _rule_action(rule: _RuleDraft, word: str) -> None:
    if word == "goto":
        text = rule.next_word()
        rule.target = read_unsigned(rule.at, text, lenient=False)
        if rule.target is None:
            raise UnusableLine(f"Invalid target {word} specified")
        rule.act("goto")
        rule.options.append(("goto", text))
    elif word == "nop" or word in _ACTIONS:
        rule.act(word)
    elif word in ROUTE_KINDS:
        raise UnusableLine(f"Invalid rule action {word}")
    else:
        raise UnusableLine(f"Unknown rule option {word}")


def _check_rule(rule: _RuleDraft) -> None:
    preference = rule.fields.get("preference")
    if rule.action == "goto" and rule.target is not None:
        if preference is None:
            raise UnusableLine(f"Invalid rule - goto target {rule.target} specified without preference")
        if preference >= rule.target:
            raise UnusableLine(f"Invalid rule - preference {preference} >= goto target {rule.target}")
    if not rule.action:
        raise UnusableLine("No action specified for rule - ignoring")
    if rule.action != "table" and rule.needs_table:
        raise UnusableLine("suppressor/realm specified for non table action - skipping")
    if rule.fields.get("table") and ("l3mdev", "") in rule.options:
        raise UnusableLine("table cannot be specified for l3mdev rules")
    written = dict(rule.options).get("protocol")
    if not rule.fields.get("no_track") and written not in (None, "18"):
        rule.at.report("Rule cannot be tracked if protocol is not RTPROT_KEEPALIVED(18), resetting protocol")
