# SPDX-License-Identifier: GPL-2.0-only
"""What one reading of a configuration leaves for the next: virtual servers whose text has not changed.

A block is read by itself, and it is watched what it asks for.  What came of one that
has asked for nothing but its own text is kept: its virtual server, and what was found
wrong with it.  A block that needs a script's user, a tracked file, a BFD session or a
virtual_server_group is read again each time.  Where a block stands may change: all
that came of it knows its lines from its `Beginning`, which is moved.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from xlvs.keepalived.blocks import LINE_BITS, Block
from xlvs.keepalived.configuration import VirtualServer
from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.drafts import Draft, VirtualServerDraft
from xlvs.keepalived.origin import Beginning, Position
from xlvs.keepalived.reader import Reader
from xlvs.keepalived.statements import Cursor, Incomplete, Section
from xlvs.keepalived.surroundings import Surroundings

Finding = tuple[Severity, str, Position, str]
"""The arguments of `Findings.add`."""


class Kept:
    """What came of a block.

    ``draft`` is there until its virtual server is complete; both are None for a block that
    has none.  ``read`` was found in the text, ``completed`` when the virtual server was made of it.
    """

    __slots__ = ("beginning", "block_draft", "completed", "draft", "name", "read", "server")

    def __init__(self, name: Hashable, beginning: Beginning) -> None:
        self.name = name
        self.beginning = beginning
        self.block_draft: BlockDraft | None = None
        self.draft: VirtualServerDraft | None = None
        self.server: VirtualServer | None = None
        self.read: list[Finding] = []
        self.completed: list[Finding] = []

    @property
    def depends(self) -> bool:
        """Whether it needed anything but its own text."""
        return self.block_draft is not None and self.block_draft.depends


class Memory:
    """What is kept from reading to reading.

    ``defaults`` are global settings that virtual servers take over: when they change,
    nothing counts.
    """

    def __init__(self) -> None:
        self.known: dict[Hashable, Kept] = {}
        self.defaults: tuple[object, ...] = ()

    def learn(self, entries: list[Kept | VirtualServerDraft], defaults: tuple[object, ...]) -> None:
        """Keep what this reading has found, and nothing else."""
        self.defaults = defaults
        self.known = {}
        for one in entries:
            if isinstance(one, Kept) and not one.depends:
                one.block_draft = None
                self.known.setdefault(one.name, one)


class BlockDraft(Draft):
    """The draft of the whole configuration as a block sees it: its own virtual servers, all else watched."""

    def __init__(self, whole: Draft) -> None:
        # Not through __setattr__, which is watched.
        self.__dict__.update(_whole=whole, virtual_servers=[], depends=False)

    depends: bool
    """Whether anything was looked at or changed but the virtual servers."""

    def __getattr__(self, name: str) -> Any:
        self.__dict__["depends"] = True
        return getattr(self.__dict__["_whole"], name)

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__["depends"] = True
        setattr(self.__dict__["_whole"], name, value)


class RecordingFindings(Findings):
    """Findings that are passed on, and remembered for when the same is found again."""

    __slots__ = ("_record", "_whole")

    def __init__(self, whole: Findings, record: list[Finding]) -> None:
        super().__init__()
        self._whole = whole
        self._record = record

    def add(self, severity: Severity, message: str, position: Position, remedy: str = "") -> None:
        """Note a finding."""
        self._record.append((severity, message, position, remedy))
        self._whole.add(severity, message, position, remedy)


def replay(record: list[Finding], findings: Findings) -> None:
    """Find again what was found, where it stands now."""
    for severity, message, position, remedy in record:
        findings.add(severity, message, position, remedy)


class BlockCursor(Cursor):
    """A cursor in one block: positions count from its beginning, and what else it is asked for is noted."""

    __slots__ = ("_around", "_beginning", "depends")

    def __init__(
        self, reader: Reader, block: Block, beginning: Beginning, around: Surroundings, findings: Findings
    ) -> None:
        super().__init__(reader, (), around, findings)
        self._source = iter(block.statements)  # there is no block in it
        self._beginning = beginning
        self.depends = False

    @property
    def position(self) -> Position:
        """Where the statement is."""
        return Position("", self.code, self._beginning)

    @property
    def reader(self) -> Reader:
        """Where statements come from."""
        self.depends = True
        return self._reader

    @property
    def surroundings(self) -> Surroundings:
        """What the configuration is read against."""
        self.depends = True
        return self._around

    @surroundings.setter
    def surroundings(self, around: Surroundings) -> None:
        self._around = around


class BlockReading:
    """Reads the blocks of one configuration, or knows what comes of them."""

    def __init__(
        self,
        memory: Memory,
        defaults: tuple[object, ...],
        reader: Reader,
        section: Section,
        draft: Draft,
        around: Surroundings,
        findings: Findings,
    ) -> None:
        self._known = memory.known if memory.defaults == defaults else {}
        self._met: set[Hashable] = set()
        self._reader = reader
        self._section = section
        self._draft = draft
        self._around = around
        self._findings = findings

    def read(self, block: Block) -> int:
        """Add what comes of a block to the draft; see `Cursor`."""
        file = self._reader.names[block.code >> LINE_BITS]
        line = block.code & ((1 << LINE_BITS) - 1)
        kept = self._known.get(block.name)
        if kept is not None and block.name not in self._met:
            # Of two that say the same, only one can be in two places.
            self._met.add(block.name)
            kept.beginning.file, kept.beginning.line = file, line
            replay(kept.read, self._findings)
            self._draft.virtual_servers.append(kept)
            return 0
        self._met.add(block.name)
        return self._read_anew(block, Beginning(file, line))

    def _read_anew(self, block: Block, beginning: Beginning) -> int:
        kept = Kept(block.name, beginning)
        findings = RecordingFindings(self._findings, kept.read)
        draft = BlockDraft(self._draft)
        cursor = BlockCursor(self._reader, block, beginning, self._around, findings)
        try:
            cursor.run(self._section, draft)
        except Incomplete:
            self._findings.aborted = True
            raise
        depends = cursor.depends or draft.depends or cursor.skipping or len(draft.virtual_servers) > 1
        if depends or any(isinstance(one, Kept) or one.group for one in draft.virtual_servers):
            self._draft.virtual_servers += draft.virtual_servers
        else:
            for server in draft.virtual_servers:
                assert isinstance(server, VirtualServerDraft)
                kept.draft = server
            kept.block_draft = draft
            draft.virtual_servers.clear()  # they refer back to it
            self._draft.virtual_servers.append(kept)
        return cursor.skipping
