# SPDX-License-Identifier: GPL-2.0-only
"""A keepalived.conf into a `Configuration`, with everything that was found wrong with it.

keepalived reads a configuration once for global_defs and then once for each of
its processes.  So global_defs hold for everything, wherever they stand; all
else has to come before what refers to it.  The statements are read once here
and walked twice.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xlvs.keepalived.blocks import Block, grouped
from xlvs.keepalived.completion import Completion
from xlvs.keepalived.configuration import Configuration, TlsClient
from xlvs.keepalived.diagnostics import Diagnostic, Findings, Verdict
from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.global_settings import global_settings
from xlvs.keepalived.keywords.bfd import add_bfd_roots
from xlvs.keepalived.keywords.global_defs import add_global_roots
from xlvs.keepalived.keywords.group import add_group_roots
from xlvs.keepalived.keywords.host_network import add_host_network_roots
from xlvs.keepalived.keywords.instance import add_instance_roots
from xlvs.keepalived.keywords.sync_group import add_sync_group_roots
from xlvs.keepalived.keywords.tracking import add_tracking_roots
from xlvs.keepalived.keywords.virtual_server import add_server_roots
from xlvs.keepalived.memory import BlockReading, Memory
from xlvs.keepalived.reader import Reader
from xlvs.keepalived.redundancy_completion import redundancy
from xlvs.keepalived.script_review import review_scripts
from xlvs.keepalived.statements import Cursor, Incomplete, Section
from xlvs.keepalived.surroundings import Surroundings

GLOBALS = Section("")
"""What is read first: global_defs and a few keywords outside of blocks."""
OTHERS = Section("")
"""Everything else."""
add_global_roots(GLOBALS)
add_group_roots(OTHERS)
add_server_roots(OTHERS)
add_tracking_roots(OTHERS)
add_bfd_roots(OTHERS)
add_host_network_roots(OTHERS)
add_sync_group_roots(OTHERS)
add_instance_roots(OTHERS)
_GLOBAL_NAMES = tuple(GLOBALS.table)
GLOBALS.ignore(tuple(OTHERS.table))
OTHERS.ignore(_GLOBAL_NAMES)
CHECKING = Section("")
"""What keepalived's process for virtual servers reads; the one for VRRP comes after it."""
add_group_roots(CHECKING)
add_server_roots(CHECKING)
add_tracking_roots(CHECKING)
add_bfd_roots(CHECKING)
CHECKING.ignore(OTHERS.table.keys() - CHECKING.table.keys() | {"vrrp_script", "vrrp_track_process"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading a configuration came to.

    ``configuration`` is what can be run; with `Verdict.INCOMPLETE` and
    `Verdict.UNUSABLE` keepalived would not run it.
    """

    configuration: Configuration
    diagnostics: tuple[Diagnostic, ...]
    verdict: Verdict


def parse(path: str, surroundings: Surroundings | None = None, memory: Memory | None = None) -> Outcome:
    """Read a configuration and all that it includes.

    Errors in it are in the outcome, and what they are about is left out.
    `ConfigurationError` only when there is nothing to read, or no end of it.
    With a ``memory`` of earlier readings, virtual servers whose text has not changed are the
    same objects as before; their positions move with the text.
    """
    with _collection_paused():
        return _parse(path, surroundings or Surroundings.of_this_host(), memory or Memory())


def _parse(path: str, around: Surroundings, memory: Memory) -> Outcome:
    findings = Findings()
    draft = Draft()
    reader = Reader(path, around, findings, memory.known)
    items: list[tuple[int, str | Block]] = []
    try:
        source = _recorded(reader.items(), items)
        Cursor(reader, source, around, findings).run(GLOBALS, draft)
        completion = Completion(draft, findings)
        defaults = completion.defaults
        blocks = BlockReading(memory, defaults, reader, OTHERS, draft, around, findings)
        Cursor(reader, grouped(items), around, findings, blocks.read).run(OTHERS, draft)
    except Incomplete:
        return _incomplete(path, around, findings)
    configuration = Configuration(
        settings=global_settings(draft, around, findings),
        virtual_servers=completion.virtual_servers(),
        groups=completion.groups(),
        tls=draft.tls or TlsClient(),
        track_files=tuple(draft.track_files.values()),
        bfd_instances=tuple(draft.bfd_instances.values()),
        redundancy=redundancy(draft, around, findings),
        files=tuple(reader.names),
    )
    memory.learn(draft.virtual_servers, defaults)
    configuration = review_scripts(
        configuration,
        findings,
        vrrp_counts=not draft.missing_interface,
        unscripted={id(one.server) for one in memory.known.values()},
    )
    return Outcome(configuration, tuple(findings.entries), findings.verdict)


def _incomplete(path: str, around: Surroundings, found: Findings) -> Outcome:
    """Where a statement lacks a parameter: what keepalived says of the rest.

    Its process for virtual servers reads first, and passes VRRP over: so what is wrong with them is
    said although a statement of VRRP ends the reading; but not the other way round.
    """
    findings, draft = Findings(), Draft()
    reader = Reader(path, around, findings)
    items: list[tuple[int, str | Block]] = []
    try:
        Cursor(reader, _recorded(reader.items(), items), around, findings).run(GLOBALS, draft)
        completion = Completion(draft, findings)
        blocks = BlockReading(Memory(), completion.defaults, reader, CHECKING, draft, around, findings)
        Cursor(reader, grouped(items), around, findings, blocks.read).run(CHECKING, draft)
        completion.groups()
        completion.virtual_servers()
    except Incomplete:
        pass
    else:
        for one in found.entries:
            findings.add(one.severity, one.message, one.position, one.remedy)
        findings.aborted = True
    return Outcome(Configuration(files=tuple(reader.names)), tuple(findings.entries), findings.verdict)


@contextmanager
def _collection_paused() -> Iterator[None]:
    """No garbage collection: a large configuration is a million objects, and none of them is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _recorded(
    source: Iterable[tuple[int, str | Block]], record: list[tuple[int, str | Block]]
) -> Iterator[tuple[int, str | Block]]:
    for item in source:
        record.append(item)
        yield item
