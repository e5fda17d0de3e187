# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of bfd_instance."""

from __future__ import annotations

from xlvs.keepalived.addresses import family_of, format_address, read_address
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.block import BlockDraft, read_reverse
from xlvs.keepalived.keywords.shapes import flag, number
from xlvs.keepalived.numbers import (
    UINT_MAX,
    read_decimal,
    read_int,
)
from xlvs.keepalived.redundancy import BfdInstance
from xlvs.keepalived.statements import Action, Cursor, Section
from xlvs.model import IPV4

_LONGEST_BFD_NAME = 31


def _bfd_instance(draft: Draft, at: Cursor) -> BlockDraft:
    name = at.word(1)
    block = BlockDraft(draft, name, at.position)
    if len(name) > _LONGEST_BFD_NAME:
        at.report(
            f"Configuration error: BFD instance {name} name too long"
            f" (maximum length is {_LONGEST_BFD_NAME} characters), ignoring"
        )
        at.skip_block()
    elif name in draft.bfd_instances:
        at.report(f"Configuration error: BFD instance {name} already configured, ignoring")
        at.skip_block()
    return block


def _bfd_neighbor(block: BlockDraft, at: Cursor) -> None:
    address = read_address(at.word(1))
    if not address:
        at.report(
            f"Configuration error: BFD instance {block.name} has malformed neighbor address"
            f" {at.words[1]}, ignoring instance"
        )
        at.skip_block(opened=True)
        return
    block.fields["neighbor"] = address


def _bfd_source(block: BlockDraft, at: Cursor) -> None:
    address = read_address(at.word(1))
    if not address:
        at.report(
            f"Configuration error: BFD instance {block.name} has malformed source address"
            f" {at.words[1]}, ignoring"
        )
        return
    block.fields["source"] = address


def _bfd_interval(field: str, low: int) -> Action:
    high, sensible = UINT_MAX // 1000, 10000

    def action(block: BlockDraft, at: Cursor) -> None:
        value = read_decimal(at, at.word(1), low * 1000, high * 1000, 3, lenient=False)
        if value is None:
            at.report(
                f"Configuration error: BFD instance {block.name} {field} value {at.words[1]} is not valid"
                f" (must be in range [{low}-{high}]), ignoring"
            )
            return
        block.fields[field] = value / 1000
        if value > sensible * 1000:
            at.note(
                f"Configuration warning: BFD instance {block.name} {field} value {at.words[1]} is larger"
                f" than max sensible ({sensible})"
            )

    return action


def _small_number(field: str, what: str) -> Action:
    complaint = (
        f"Configuration error: BFD instance {{1}} {what} value {{0}} not valid"
        " (must be in range [1-255]), ignoring"
    )
    return number(field, complaint, 1, 255, lenient=False)


def _bfd_max_hops(block: BlockDraft, at: Cursor) -> None:
    value = read_int(at, at.word(1), -1, 255, lenient=False)
    if value is None:
        at.report(
            f"Configuration error: BFD instance {block.name} max_hops value {at.words[1]} not valid"
            " (must be in range [-1-255]), ignoring"
        )
    else:
        block.fields["max_hops"] = value


def _bfd_weight(block: BlockDraft, at: Cursor) -> None:
    value = read_int(at, at.word(1), -253, 253)
    if value is None:
        at.report(
            f"Configuration error: BFD instance {block.name} weight value {at.words[1]} not valid"
            " (must be in range [-253-253]), ignoring"
        )
    else:
        block.fields["weight"] = value
    read_reverse(block, at, f"Configuration error: BFD instance {block.name} unknown weight option")


def _end_of_bfd_instance(block: BlockDraft, at: Cursor) -> None:
    fields = block.fields
    neighbor, source = fields.get("neighbor", b""), fields.get("source", b"")
    if not neighbor:
        wrong = "no neighbor address set, disabling instance"
    elif source and family_of(source) != family_of(neighbor):
        at.report(
            f"Configuration error: BFD instance {block.name} source address {format_address(source)} and"
            f" neighbor address {format_address(neighbor)} are not of the same family, disabling instance"
        )
        return
    elif any(
        one.neighbor == neighbor and one.source == source for one in block.draft.bfd_instances.values()
    ):
        what = "source/neighbor address " if source else "neighbor address "
        shown = f"{format_address(source)}/" if source else ""
        wrong = f"duplicate {what}{shown}{format_address(neighbor)}, ignoring instance"
    else:
        wrong = ""
    if wrong:
        at.report(f"Configuration error: BFD instance {block.name} has {wrong}")
        return
    ttl = fields.setdefault("ttl", 255 if family_of(neighbor) == IPV4 else 64)
    if fields.get("max_hops", 0) > ttl:
        at.report(f"BFD instance {block.name}: max_hops exceeds ttl/hoplimit - setting to ttl/hoplimit")
        fields["max_hops"] = ttl
    if "vrrp" in fields or "checker" in fields:
        fields.setdefault("vrrp", False)
        fields.setdefault("checker", False)
    instance = BfdInstance(block.name, position=block.position, **fields)
    block.draft.bfd_instances[block.name] = instance
    if instance.checker:
        block.draft.bfd_names.add(block.name)


BFD_INSTANCE = Section("bfd_instance", _end_of_bfd_instance)
BFD_INSTANCE.add("source_ip", _bfd_source, "ADDRESS", "Our end.")
BFD_INSTANCE.add("neighbor_ip", _bfd_neighbor, "ADDRESS", "The other end.", aliases=("neighbour_ip",))
BFD_INSTANCE.add("min_rx", _bfd_interval("min_rx", 1), "MILLISECONDS", "Default 10.")
BFD_INSTANCE.add("min_tx", _bfd_interval("min_tx", 1), "MILLISECONDS", "Default 10.")
BFD_INSTANCE.add("idle_tx", _bfd_interval("idle_tx", 1000), "MILLISECONDS", "Default 1000.")
BFD_INSTANCE.add(
    "multiplier",
    _small_number("multiplier", "multiplier"),
    "N",
    "Missed messages before it is down; default 5.",
)
BFD_INSTANCE.add("passive", flag("passive"), "", "Wait for the other end to begin.")
BFD_INSTANCE.add(
    "ttl",
    _small_number("ttl", "ttl/hoplimit"),
    "N",
    "Default 255 (IPv4), 64 (IPv6).",
    aliases=("hoplimit",),
)
BFD_INSTANCE.add("max_hops", _bfd_max_hops, "N", "How far the other end may be; -1: any; default 0.")
BFD_INSTANCE.add(
    "weight", _bfd_weight, "N [reverse]", "For VRRP.", remark="it is for VRRP; BFD_CHECK knows no weight"
)
BFD_INSTANCE.add("vrrp", flag("vrrp"), "", "Only VRRP hears of it.")
BFD_INSTANCE.add("checker", flag("checker"), "", "Only checkers hear of it.")


def add_bfd_roots(root: Section) -> None:
    """Enter the block of this module."""
    root.add("bfd_instance", _bfd_instance, "NAME", "A BFD session.", block=BFD_INSTANCE)
