# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs doctor``: what is wrong with this director, real server or lab, and mending it."""

from __future__ import annotations

import argparse
import json
import sys

from xlvs.errors import CannotLook, UsageError, XlvsError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xlvs.doctor.cluster import Cluster
    from xlvs.doctor.finding import Finding, Mend
    from xlvs.doctor.mending import Done
    from xlvs.doctor.patients import Patient

SCHEMA = 1
"""Raised when a field of the JSON output changes its meaning or goes."""

HEALTHY, FINDINGS = 0, 1

_HELP = """\
Look at the running system, ask the network, and say what is wrong with it: each
mistake with the evidence, what clients see of it, and the command that mends
it. On a director, on a real server, or on all nodes of a lab; also where kernel
IPVS serves. Looking changes nothing: real servers are asked one by one, past
the live table.

Exit code 0: healthy, 1: there are findings, 2: the doctor could not look."""

_EPILOG = """\
examples:
  xlvs doctor                      this host
  xlvs doctor --lab web            every node of the lab web; --lab alone: the lab there is
  xlvs doctor --lab --fix          mend what commands can mend, and say what was done
  xlvs doctor --lab --undo         take that back, to exactly what was before
  xlvs doctor --json | jq -r '.findings[].mends[].command'
  xlvs doctor --skip quiesced      leave a check out
  xlvs doctor --list               every check, with its first line"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="find what is wrong with a director, a real server or a lab, and mend it",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--lab", nargs="?", const="", metavar="NAME", help="look at every node of a lab instead of this host"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--fix", action="store_true", help="run the commands that mend what was found")
    what.add_argument("--undo", action="store_true", help="take back what --fix has done")
    what.add_argument("--list", action="store_true", help="list the checks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--notes", action="store_true", help="also say what is in order but worth knowing")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="CHECK", help="leave a check out; may be repeated"
    )
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS",
        help="how long a real server may take to answer (default: 2.5, which outlasts a lost packet)",
    )  # fmt: skip
    parser.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.01 to 60")
    return value


def _doctor(arguments: argparse.Namespace) -> int:
    from xlvs.doctor.checks import all_checks

    known = [check.name for check in all_checks()]
    for name in arguments.skip:
        if name not in known:
            raise UsageError(f"there is no check {name!r}", f"there are: {' '.join(known)}")
    if arguments.list:
        return _list(arguments.json)
    try:
        return _visit(arguments)
    except UsageError:
        raise
    except (XlvsError, OSError) as error:
        message = error.message if isinstance(error, XlvsError) else str(error)
        raise CannotLook(message, getattr(error, "hint", "")) from error


def _list(as_json: bool) -> int:
    from xlvs.doctor.checks import all_checks

    checks = all_checks()
    if as_json:
        print(json.dumps([{"check": check.name, "title": check.title} for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.name:<28} {check.title}")
    return HEALTHY


def _visit(arguments: argparse.Namespace) -> int:
    from xlvs.doctor import patients
    from xlvs.doctor.probe import PATIENCE
    from xlvs.kernel.privilege import require_root

    require_root()
    patience = PATIENCE if arguments.timeout is None else arguments.timeout
    patient = patients.this_host() if arguments.lab is None else patients.lab(arguments.lab or None)
    if arguments.undo:
        return _undo(patient, arguments.json)
    tell: Callable[[str], None] = (lambda _line: None) if arguments.json else _say
    done: list[Done] = []
    skip = tuple(arguments.skip)
    cluster, findings = patient.look(skip, patience)
    _check_anything(patient, cluster)
    if arguments.fix:
        done, findings = _mend(patient, findings, skip, patience, tell)
    return _report(patient, cluster, findings, done, arguments)


def _check_anything(patient: Patient, cluster: Cluster) -> None:
    """Raise `CannotLook` for a host that has no part in any cluster, or a cluster that serves nothing."""
    if cluster.directors:
        return
    if patient.whole:
        raise CannotLook(
            f"no node of the lab {patient.name} has a virtual service",
            "Fill the director's table first: xlvs lab exec director -- ipvsadm -A …",
        )
    host = cluster.hosts[0]
    if any(host.hidden_addresses()) or host.serves_as:
        return
    if host.director.note:
        raise CannotLook(f"the table cannot be read: {host.director.note}")
    raise CannotLook(
        f"{host.name} is neither a director nor a real server, as far as can be seen",
        "It has no virtual services, and no VIP on lo or on a tunnel's device.\n"
        "A whole lab: xlvs doctor --lab NAME",
    )


def _mend(
    patient: Patient, findings: list[Finding], skip: tuple[str, ...], patience: float,
    tell: Callable[[str], None],
) -> tuple[list[Done], list[Finding]]:  # fmt: skip
    """Mend and look again, as long as that leads on: a mistake may hide another."""
    from xlvs.doctor import mending

    done: list[Done] = []
    for _ in range(mending.ROUNDS):
        tried = {each.mend for each in done}
        wanted = [
            finding
            for finding in _serious(findings)
            if finding.mends and not tried.issuperset(finding.mends)
        ]
        if not wanted:
            break
        now = mending.mend(wanted, patient.journal, patient.run)
        for each in now:
            tell(_done_line(each.mend, each.mend.command, each.error))
        done += now
        findings = patient.look(skip, patience)[1]
    return done, findings


def _undo(patient: Patient, as_json: bool) -> int:
    from xlvs.doctor import mending

    done = mending.undo(patient.journal, patient.run)
    if as_json:
        print(json.dumps({"schema": SCHEMA, "undone": [_done_json(each) for each in done]}, indent=2))
    else:
        for each in done:
            _say(_done_line(each.mend, each.mend.undo, each.error))
        if not done:
            _say("The doctor has mended nothing here that could be undone.")
    return FINDINGS if any(each.error for each in done) else HEALTHY


def _done_line(mend: Mend, command: str, error: str) -> str:
    line = f"{mend.host}# {command}"
    return f"{line}\n    failed: {error}" if error else line


def _done_json(done: Done) -> dict[str, Any]:
    mend = done.mend
    return {"host": mend.host, "command": mend.command, "undo": mend.undo, "error": done.error or None}


def _serious(findings: list[Finding]) -> list[Finding]:
    from xlvs.doctor.finding import NOTE

    return [finding for finding in findings if finding.severity != NOTE]


def _report(
    patient: Patient, cluster: Cluster, findings: list[Finding], done: list[Done],
    arguments: argparse.Namespace,
) -> int:  # fmt: skip
    told = findings if arguments.notes else _serious(findings)
    if arguments.json:
        report = {
            "schema": SCHEMA,
            "looked_at": [host.name for host in cluster.hosts],
            "asked": len(cluster.asked),
            "mended": [_done_json(each) for each in done],
            "findings": [finding.as_json() for finding in told],
        }
        print(json.dumps(report, indent=2))
    else:
        if done:
            _say(f"\nTo take that back: xlvs doctor{_where(patient)} --undo\n")
        for finding in told:
            _say("\n".join([*_page(finding), ""]))
        _say(_summary(cluster, _serious(findings), patient, fixed=arguments.fix))
    return FINDINGS if _serious(findings) else HEALTHY


def _where(patient: Patient) -> str:
    return f" --lab {patient.name}" if patient.whole else ""


def _page(finding: Finding) -> list[str]:
    lines = [f"{finding.severity.upper()}: {finding.problem}  [{finding.check}]"]
    lines += [f"  seen     {each}" for each in finding.evidence]
    lines.append(f"  clients  {finding.effect}")
    lines += [f"  mend     {mend.host}# {mend.command}" for mend in finding.mends]
    if finding.advice:
        lines.append(f"  advice   {finding.advice}")
    return lines


def _summary(cluster: Cluster, findings: list[Finding], patient: Patient, *, fixed: bool) -> str:
    hosts = len(cluster.hosts)
    looked = f"{hosts} hosts looked at" if hosts > 1 else f"{cluster.hosts[0].name} looked at"
    asked = f", {len(cluster.asked)} real servers asked" if cluster.asked else ""
    if not findings:
        return f"Healthy: {looked}{asked}."
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    mendable = sum(1 for finding in findings if finding.mends)
    text = f"{count}: {looked}{asked}."
    if mendable and not fixed:
        text += f"\nMend what commands can: xlvs doctor{_where(patient)} --fix"
    return text


def _say(text: str) -> None:
    for line in text.split("\n"):
        sys.stdout.write(f"{shown(line)}\n")
    sys.stdout.flush()
