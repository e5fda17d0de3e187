# SPDX-License-Identifier: GPL-2.0-only
"""What blocks of their own have in common: a name, and fields of a value to be."""

from __future__ import annotations

from typing import Any

from xlvs.keepalived.drafts import Draft, Fields
from xlvs.keepalived.origin import Position
from xlvs.keepalived.statements import Cursor


class BlockDraft(Fields):
    """A block while it is read: fields of its value by name."""

    def __init__(self, draft: Draft, name: str, position: Position) -> None:
        self.draft = draft
        self.name = name
        self.position = position
        self.fields: dict[str, Any] = {}

    @property
    def label(self) -> str:
        return self.name

    def set(self, field: str, value: object) -> None:
        self.fields[field] = value


def read_reverse(block: BlockDraft, at: Cursor, complaint: str) -> None:
    """``reverse`` after a weight; ``complaint`` stands before any other word."""
    if len(at.words) > 2:
        if at.words[2] == "reverse":
            block.fields["reverse"] = True
        else:
            at.report(f"{complaint} {at.words[2]}")
