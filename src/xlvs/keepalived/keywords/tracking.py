# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of what can be tracked: files, scripts, processes."""

from __future__ import annotations

from xlvs.keepalived.drafts import Draft
from xlvs.keepalived.keywords.block import BlockDraft, read_reverse
from xlvs.keepalived.keywords.shapes import flag
from xlvs.keepalived.numbers import (
    INT_MAX,
    SECOND,
    UINT_MAX,
    read_decimal,
    read_int,
    read_unsigned,
)
from xlvs.keepalived.origin import Script
from xlvs.keepalived.redundancy import ParameterMatch, TrackFile, TrackProcess, TrackScript
from xlvs.keepalived.scripts import command, find_user, quoted
from xlvs.keepalived.statements import Action, Cursor, Section

_MOST_SECONDS = UINT_MAX // SECOND


def _track_file(draft: Draft, at: Cursor) -> BlockDraft:
    if at.words[0] == "vrrp_track_file":
        at.note('"vrrp_track_file" is deprecated, please use "track_file"')
    return BlockDraft(draft, at.word(1), at.position)


def _file_path(block: BlockDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report("track file file name missing")
    elif "path" in block.fields:
        at.report(f"File already set for track file {block.name} - ignoring {at.words[1]}")
    else:
        block.fields["path"] = at.words[1]


def _file_weight(block: BlockDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report(f"No weight specified for track file {block.name} - ignoring")
        return
    if block.fields.get("weight", 1) != 1:
        at.report(f"Weight already set for track file {block.name} - ignoring {at.words[1]}")
        return
    weight = read_int(at, at.words[1], -254, 254)
    if weight is None:
        at.report(
            f"Weight ({at.words[1]}) for track_file {block.name} must be between"
            " [-254..254] inclusive. Ignoring..."
        )
    block.fields["weight"] = 1 if weight is None else weight
    read_reverse(block, at, f"track_file {block.name} unknown weight option")


def _init_file(block: BlockDraft, at: Cursor) -> None:
    block.fields["initialise"] = 0
    for word in at.words[1:]:
        text = word.lstrip(" \t\f\n\r\v")
        if text[:1] == "-" or (text[:1].isdigit() and text[:1].isascii()):
            value = read_int(at, text, lenient=False)
            if value is None:
                at.report(f"Track file {block.name} init value {text} is invalid")
            elif not -254 <= value <= 254:
                at.report(
                    f"Track file {block.name} init value {value} is outside sensible range [-254, 254]"
                )
            block.fields["initialise"] = value or 0
        elif text == "overwrite":
            block.fields["overwrite"] = True
        else:
            at.report(f"Unknown track file init option {text}")


def _end_of_track_file(block: BlockDraft, at: Cursor) -> None:
    if "path" not in block.fields:
        at.report(f"No file set for track_file {block.name} - ignoring")
    elif block.name not in block.draft.track_files:
        block.draft.track_files[block.name] = TrackFile(block.name, position=block.position, **block.fields)


def _vrrp_script(draft: Draft, at: Cursor) -> BlockDraft:
    return BlockDraft(draft, at.word(1), at.position)


def _script(block: BlockDraft, at: Cursor) -> None:
    block.fields["script"] = command(at, at.escaped_words())


def _script_time(field: str, words: str) -> Action:
    def action(block: BlockDraft, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), 0, _MOST_SECONDS)
        if value is None:
            at.report(f"({block.name}): vrrp script {field} '{at.words[1]}' {words} - ignoring")
            return
        if not value:
            at.report(f"({block.name}): vrrp script {field} must be greater than 0, setting to 1")
        block.fields[field] = value or 1

    return action


def _script_weight(block: BlockDraft, at: Cursor) -> None:
    weight = read_int(at, at.word(1), -253, 253)
    if weight is None:
        at.report(f"vrrp_script {block.name} weight {at.words[1]} must be in [-253, 253]")
    else:
        block.fields["weight"] = weight
    read_reverse(block, at, f"vrrp_script {block.name} unknown weight option")


def _script_count(field: str) -> Action:
    def action(block: BlockDraft, at: Cursor) -> None:
        value = read_unsigned(at, at.word(1), 1, INT_MAX)
        if value is None:
            at.report(f"({block.name}): vrrp script {field} value '{at.words[1]}' invalid, defaulting to 1")
        block.fields[field] = value or 1

    return action


def _script_run_as(block: BlockDraft, at: Cursor) -> None:
    ids = find_user(at, at.word(1), at.words[2] if len(at.words) > 2 else "")
    if ids is None:
        shown = quoted(block.fields.get("script", ()))
        at.report(f"Unable to set uid/gid for script {shown}")
    block.fields["ids"] = ids
    block.fields["user"] = at.words[1], at.words[2] if len(at.words) > 2 else ""


def _end_of_vrrp_script(block: BlockDraft, at: Cursor) -> None:
    fields = block.fields
    arguments = fields.pop("script", ())
    named = "ids" in fields
    ids = fields.pop("ids", None)
    user, group = fields.pop("user", ("", ""))
    if not arguments or not arguments[0]:
        at.report(f"No script set for vrrp_script {block.name} - removing")
        return
    if not named:
        ids = block.draft.script_user.ids(at)
        if ids is None:
            at.report(f"Unable to set default user for vrrp script {block.name} - removing")
    if ids is None:
        return
    script = Script(arguments, ids[0], ids[1], user, group, block.position)
    if block.name not in block.draft.track_scripts:
        block.draft.track_scripts[block.name] = TrackScript(
            block.name, script, position=block.position, **fields
        )


def _vrrp_track_process(draft: Draft, at: Cursor) -> BlockDraft:
    block = BlockDraft(draft, at.word(1), at.position)
    block.fields.update(quorum=1, quorum_max=None)
    return block


def _process(block: BlockDraft, at: Cursor) -> None:
    if "path" in block.fields:
        at.report(f"Process already set for track process {block.name} - ignoring {at.word(1)}")
        return
    block.fields["path"] = at.word(1)
    if len(at.words) > 2:
        block.fields["arguments"] = tuple(at.words[2:])
        block.fields.setdefault("match", ParameterMatch.EXACT)
        block.fields["full_command"] = True


def _param_match(block: BlockDraft, at: Cursor) -> None:
    kind = at.words[1] if len(at.words) > 1 else "exact"
    if kind not in ("initial", "partial") and len(at.words) > 1:
        at.report(f"Invalid param_match type {kind} - ignoring")
        return
    block.fields["match"] = ParameterMatch(kind)
    block.fields["full_command"] = True


def _process_weight(block: BlockDraft, at: Cursor) -> None:
    if len(at.words) < 2:
        at.report(f"No weight specified for track process {block.name} - ignoring")
        return
    if block.fields.get("weight"):
        at.report(f"Weight already set for track process {block.name} - ignoring {at.words[1]}")
        return
    weight = read_int(at, at.words[1], -254, 254)
    if weight is None:
        at.report(
            f"Weight ({at.words[1]}) for vrrp_track_process {block.name} must be between"
            " [-254..254] inclusive. Ignoring..."
        )
        return
    read_reverse(block, at, f"vrrp_track_process {block.name} unknown weight option")
    block.fields["weight"] = weight


def _process_quorum(block: BlockDraft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1), 1, 65535)
    most = block.fields["quorum_max"]
    if value is None:
        at.report(
            f"Quorum ({at.words[1]}) for vrrp_track_process {block.name} must be between"
            " [1..65535] inclusive. Ignoring..."
        )
    elif most is not None and value > most:
        at.report("Quorum is greater than quorum_max - ignoring")
    else:
        block.fields["quorum"] = value


def _process_quorum_max(block: BlockDraft, at: Cursor) -> None:
    value = read_unsigned(at, at.word(1), 0, 65535)
    quorum = block.fields["quorum"]
    if value is None:
        at.report(
            f"quorum_max ({at.words[1]}) for vrrp_track_process {block.name} must be between"
            " [0..65535] inclusive. Ignoring..."
        )
    elif (value or quorum > 1) and value < quorum:
        at.report("quorum_max is less than quorum - ignoring")
    else:
        block.fields["quorum_max"] = value
        block.fields["quorum"] = (quorum or 1) if value else 0


def _process_delay(*fields: str) -> Action:
    def action(block: BlockDraft, at: Cursor) -> None:
        value = read_decimal(at, at.word(1), 1, 3600 * SECOND, 6)
        if value is None:
            at.report(
                f"{at.words[0]} ({at.words[1]}) for vrrp_track_process {block.name} must be between"
                " [0.000001..3600] inclusive. Ignoring..."
            )
            return
        for field in fields:
            block.fields[field] = value / SECOND

    return action


def _end_of_track_process(block: BlockDraft, at: Cursor) -> None:
    if "path" not in block.fields:
        at.report(f"track process '{block.name}' process name not specified")
    elif block.name not in block.draft.track_processes:
        block.draft.track_processes[block.name] = TrackProcess(
            block.name, position=block.position, **block.fields
        )


TRACK_FILE = Section("track_file", _end_of_track_file)
TRACK_FILE.add("file", _file_path, "PATH", "The file with the number.")
TRACK_FILE.add("weight", _file_weight, "N [reverse]", "Its factor; default 1.")
TRACK_FILE.add("init_file", _init_file, "[N] [overwrite]", "Write this number if there is no file.")

VRRP_SCRIPT = Section("vrrp_script", _end_of_vrrp_script)
VRRP_SCRIPT.add("script", _script, "COMMAND", "The script and its arguments, in quotes.")
VRRP_SCRIPT.add(
    "interval", _script_time("interval", f"must be between 1 and {_MOST_SECONDS}"), "SECONDS", "Default 1."
)
VRRP_SCRIPT.add("timeout", _script_time("timeout", "invalid"), "SECONDS", "Default: the interval.")
VRRP_SCRIPT.add("weight", _script_weight, "N [reverse]", "Default 0: a failure is FAULT.")
VRRP_SCRIPT.add("rise", _script_count("rise"), "N", "Successes before it counts; default 1.")
VRRP_SCRIPT.add("fall", _script_count("fall"), "N", "Failures before it counts; default 1.")
VRRP_SCRIPT.add("user", _script_run_as, "USER [GROUP]", "Who runs it.")
VRRP_SCRIPT.add("init_fail", flag("init_fail"), "", "It counts as failed at first.")

TRACK_PROCESS = Section("vrrp_track_process", _end_of_track_process)
TRACK_PROCESS.add("process", _process, "COMMAND [ARGUMENT …]", "The process to look for.")
TRACK_PROCESS.add("param_match", _param_match, "[initial|partial]", "How arguments are compared.")
TRACK_PROCESS.add("weight", _process_weight, "N [reverse]", "Default 0: FAULT.")
TRACK_PROCESS.add("quorum", _process_quorum, "N", "How many there must be; default 1.")
TRACK_PROCESS.add("quorum_max", _process_quorum_max, "N", "How many there may be.")
TRACK_PROCESS.add("delay", _process_delay("terminate_delay", "fork_delay"), "SECONDS", "Both delays.")
TRACK_PROCESS.add("terminate_delay", _process_delay("terminate_delay"), "SECONDS", "Before an end counts.")
TRACK_PROCESS.add("fork_delay", _process_delay("fork_delay"), "SECONDS", "Before a start counts.")
TRACK_PROCESS.add("full_command", flag("full_command"), "", "Compare the whole command line.")


def add_tracking_roots(root: Section) -> None:
    """Enter the blocks of this module."""
    root.add("track_file", _track_file, "NAME", "A file with a number.", block=TRACK_FILE)
    root.add("vrrp_track_file", _track_file, "NAME", "Its old name.", block=TRACK_FILE)
    root.add("vrrp_script", _vrrp_script, "NAME", "A script that VRRP instances track.", block=VRRP_SCRIPT)
    root.add("vrrp_track_process", _vrrp_track_process, "NAME", "A process to track.", block=TRACK_PROCESS)
