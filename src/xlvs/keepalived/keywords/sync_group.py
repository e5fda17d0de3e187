# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of vrrp_sync_group."""

from __future__ import annotations

from xlvs.keepalived.drafts import Draft, SyncGroupDraft
from xlvs.keepalived.keywords.shapes import flag, switch
from xlvs.keepalived.keywords.vrrp_common import NO_VRRP, add_notification, add_tracking
from xlvs.keepalived.statements import Cursor, Section


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


def _global_tracking(group: SyncGroupDraft, at: Cursor) -> None:
    at.report(
        f"({group.name}) global_tracking is deprecated. Use track_interface/script/file on the sync group"
    )
    group.tracking_weight = True


SYNC_GROUP = Section("vrrp_sync_group")
SYNC_GROUP.add("group", _members, "{ NAME … }", "The instances.")
SYNC_GROUP.add(
    "smtp_alert",
    switch("smtp_alert", "Invalid vrrp_group smtp_alert parameter {}"),
    "[BOOL]",
    "Mail at each change.",
)
SYNC_GROUP.add("global_tracking", _global_tracking, "", "The old name of sync_group_tracking_weight.")
SYNC_GROUP.add("sync_group_tracking_weight", flag("tracking_weight"), "", "Members' weights count.")
SYNC_GROUP.add(
    "notify_priority_changes",
    switch(
        "notify_priority_changes",
        "({1}) Invalid value '{0}' for sync group notify_priority_changes specified",
    ),
    "[BOOL]",
    "Events for priorities, too.",
)
add_tracking(SYNC_GROUP)
add_notification(SYNC_GROUP)


def add_sync_group_roots(root: Section) -> None:
    """Enter the block of this module."""
    root.add(
        "vrrp_sync_group",
        _vrrp_sync_group,
        "NAME",
        "Instances that change together.",
        remark=NO_VRRP,
        block=SYNC_GROUP,
    )
