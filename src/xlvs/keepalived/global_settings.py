# SPDX-License-Identifier: GPL-2.0-only
"""What global_defs said, into `GlobalSettings`: fields by name, then what follows from the host."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.origin import NotifyFifo
from xlvs.keepalived.settings import GlobalSettings, Nftables
from xlvs.keepalived.surroundings import Surroundings


def global_settings(draft: Draft, around: Surroundings, findings: Findings) -> GlobalSettings:
    """The value of all settings that were made; FIFOs that cannot be both are reported and dropped."""
    said = dict(draft.settings)
    _settle_fifos(said, findings)
    _settle_nftables(said)
    inner: dict[str, dict[str, Any]] = {}
    outer: dict[str, Any] = {}
    for name, value in said.items():
        whole, dot, part = name.partition(".")
        if dot:
            inner.setdefault(whole, {})[part] = value
        else:
            outer[name] = value
    defaults = GlobalSettings()
    for whole, parts in inner.items():
        standing = getattr(defaults, whole)
        if standing is None:
            outer[whole] = Nftables(**parts)
        else:
            assert is_dataclass(standing) and not isinstance(standing, type)
            outer[whole] = replace(standing, **parts)
    user = draft.script_user
    outer["script_user"], outer["script_group"] = user.name, user.group
    outer["script_uid"], outer["script_gid"] = user.settled or (around.uid, around.gid)
    known = {field.name for field in fields(GlobalSettings)}
    assert outer.keys() <= known, outer.keys() - known
    return GlobalSettings(**outer)


def _settle_fifos(said: dict[str, Any], findings: Findings) -> None:
    """One FIFO cannot be the global one and another, too; a script reads its FIFO, whose path it gets."""
    common: NotifyFifo | None = said.get("notify_fifo")
    for field, name in (("vrrp_notify_fifo", "vrrp"), ("lvs_notify_fifo", "LVS")):
        fifo: NotifyFifo | None = said.get(field)
        if fifo and common and fifo.path and fifo.path == common.path:
            message = (
                f"notify FIFO {fifo.path} has been specified for global and {name} FIFO"
                f" - ignoring {name} FIFO"
            )
            findings.add(Severity.NOTE, message, fifo.position)
            del said[field]


def _settle_nftables(said: dict[str, Any]) -> None:
    """A table's other settings mean nothing without the table."""
    for whole in ("nftables", "nftables_ipvs"):
        if f"{whole}.table" not in said:
            for name in [name for name in said if name.startswith(f"{whole}.")]:
                del said[name]
