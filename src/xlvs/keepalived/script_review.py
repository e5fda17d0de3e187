# SPDX-License-Identifier: GPL-2.0-only
"""All scripts of a configuration are judged; those that may not run are taken out of it.

keepalived removes what it may not run, and says no more than that.  Here each
refusal names the script, whose permissions are at fault, and what mends it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from xlvs.keepalived.checks import MiscCheck
from xlvs.keepalived.configuration import Configuration, RealServer, VirtualServer
from xlvs.keepalived.diagnostics import Findings, Severity
from xlvs.keepalived.origin import NotifyFifo, Position, Script
from xlvs.keepalived.redundancy import NotifyScripts, Redundancy, Tracking, TrackScript
from xlvs.keepalived.script_security import Judgement, Standing, explanation, judge


class _Review:
    """The judgements of one configuration; the same script is judged once."""

    def __init__(self, security: bool, findings: Findings) -> None:
        self._security = security
        self._findings = findings
        self._judgements: dict[Script, Judgement] = {}
        self._replacements: dict[Script, Script] = {}
        self.found: dict[str, set[Standing]] = {}

    def allowed(self, script: Script | None, kind: str) -> Script | None:
        """The script with its path found, or None, noted, if it may not run."""
        if script is None:
            return None
        judgement = self._judgements.get(script)
        if judgement is None:
            judgement = self._judgements[script] = judge(script)
        if judgement.is_script:
            self.found.setdefault(kind, set()).add(judgement.standing)
        if not judgement.may_run(self._security):
            self._refuse(script, judgement)
            return None
        if judgement.standing is Standing.UNSAFE:
            self._warn(script, judgement)
        if judgement.standing is Standing.NOT_RUN or judgement.path == script.path:
            return script
        known = self._replacements.get(script)
        if known is None:
            arguments = (judgement.path, *script.arguments[1:])
            known = self._replacements[script] = replace(script, arguments=arguments)
        return known

    def _refuse(self, script: Script, judgement: Judgement) -> None:
        message = f"Disabling script {' '.join(script.arguments)}: {explanation(judgement)}"
        self._findings.add(Severity.NOTE, message, script.position)

    def _warn(self, script: Script, judgement: Judgement) -> None:
        self._findings.add(Severity.NOTE, explanation(judgement), script.position)

    def violation(self, kind: str, words: str) -> None:
        """Say it if scripts of that kind run without script security."""
        standings = self.found.get(kind)
        if standings and not self._security:
            insecure = " There are insecure scripts." if Standing.UNSAFE in standings else ""
            message = (
                f"SECURITY VIOLATION - {words} are being executed but script_security not enabled.{insecure}"
            )
            remedy = "Write enable_script_security into global_defs."
            self._findings.add(Severity.SECURITY, message, Position(), remedy)


def review_scripts(
    configuration: Configuration,
    findings: Findings,
    *,
    vrrp_counts: bool = True,
    unscripted: Container[int] = frozenset(),
) -> Configuration:
    """The configuration without scripts that may not run.

    ``unscripted`` are the identities of virtual servers that are known to have none.
    Without ``vrrp_counts`` those of VRRP are no violation: keepalived looks no
    further at VRRP once an interface is missing.
    """
    settings = configuration.settings
    review = _Review(settings.enable_script_security, findings)
    redundancy = _review_redundancy(configuration.redundancy, review, findings)
    servers = tuple([
        server if id(server) in unscripted else _review_virtual_server(server, review)
        for server in configuration.virtual_servers
    ])  # fmt: skip
    # Without virtual servers or instances keepalived does not look at the FIFOs' scripts.
    kind = "check" if servers else "vrrp" if redundancy.instances else ""
    settings = replace(
        settings,
        startup_script=review.allowed(settings.startup_script, "start"),
        shutdown_script=review.allowed(settings.shutdown_script, "start"),
        notify_fifo=_review_fifo(settings.notify_fifo, review, kind),
        lvs_notify_fifo=_review_fifo(settings.lvs_notify_fifo, review, "check" if servers else ""),
        vrrp_notify_fifo=_review_fifo(settings.vrrp_notify_fifo, review, "vrrp"),
    )
    review.violation("start", "start/shutdown scripts")
    review.violation("check", "check scripts")
    if vrrp_counts:
        review.violation("vrrp", "scripts")
    return replace(configuration, settings=settings, virtual_servers=servers, redundancy=redundancy)


def _review_fifo(fifo: NotifyFifo, review: _Review, kind: str) -> NotifyFifo:
    if fifo.script is None:
        return fifo
    return replace(fifo, script=review.allowed(fifo.script, kind))


def _review_virtual_server(server: VirtualServer, review: _Review) -> VirtualServer:
    up = review.allowed(server.quorum_up, "check")
    down = review.allowed(server.quorum_down, "check")
    real_servers = tuple([_review_real_server(one, review) for one in server.real_servers])
    unchanged = all(a is b for a, b in zip(real_servers, server.real_servers, strict=True))
    if unchanged and up is server.quorum_up and down is server.quorum_down:
        return server
    return replace(server, quorum_up=up, quorum_down=down, real_servers=real_servers)


def _review_real_server(one: RealServer, review: _Review) -> RealServer:
    if not (one.notify_up or one.notify_down or any(isinstance(check, MiscCheck) for check in one.checkers)):
        return one
    checkers = []
    for check in one.checkers:
        if isinstance(check, MiscCheck):
            script = review.allowed(check.script, "check")
            if script is None:
                continue
            check = check if script is check.script else replace(check, script=script)
        checkers.append(check)
    return replace(
        one,
        checkers=tuple(checkers),
        notify_up=review.allowed(one.notify_up, "check"),
        notify_down=review.allowed(one.notify_down, "check"),
    )


def _review_redundancy(redundancy: Redundancy, review: _Review, findings: Findings) -> Redundancy:
    scripts: list[TrackScript] = []
    for one in redundancy.scripts:
        allowed = review.allowed(one.script, "vrrp")
        if allowed is None:
            message = f"Disabling track script {one.name} since not found/accessible"
            findings.add(Severity.ERROR, message, one.position)
        else:
            scripts.append(replace(one, script=allowed))
    names = {one.name for one in scripts}
    instances = tuple(
        replace(one, notify=_review_notify(one.notify, review), tracking=_without(one.tracking, names))
        for one in redundancy.instances
    )
    groups = tuple(
        replace(one, notify=_review_notify(one.notify, review), tracking=_without(one.tracking, names))
        for one in redundancy.sync_groups
    )
    if instances:
        trackings = [one.tracking for one in instances] + [one.tracking for one in groups]
        scripts = _used(scripts, trackings, findings)
    return replace(redundancy, scripts=tuple(scripts), instances=instances, sync_groups=groups)


def _used(scripts: list[TrackScript], trackings: list[Tracking], findings: Findings) -> list[TrackScript]:
    """The track scripts that something tracks; of the others ``keepalived -t`` says nothing, we a note."""
    used = {one.name for tracking in trackings for one in tracking.scripts}
    for script in scripts:
        if script.name not in used:
            findings.add(Severity.NOTE, f"no instance or group tracks script {script.name}", script.position)
    return [script for script in scripts if script.name in used]


def _without(tracking: Tracking, names: set[str]) -> Tracking:
    """What is tracked, without scripts that are no more."""
    scripts = tuple(one for one in tracking.scripts if one.name in names)
    return tracking if len(scripts) == len(tracking.scripts) else replace(tracking, scripts=scripts)


def _review_notify(notify: NotifyScripts, review: _Review) -> NotifyScripts:
    return NotifyScripts(
        *(review.allowed(getattr(notify, name), "vrrp") for name in NotifyScripts.__dataclass_fields__)
    )
