# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsd``: the daemon's command line.  It tests a configuration, or hands over to `xlvs.daemon.main`."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xlvs import __version__
from xlvs.cli.xlvsd_options import DEFAULT_FILE, CommandLine, read_options, usage
from xlvs.errors import UsageError, XlvsError, shown

if TYPE_CHECKING:
    from xlvs.keepalived.configuration import Configuration
    from xlvs.keepalived.memory import Memory
    from xlvs.keepalived.parse import Outcome

_log = logging.getLogger("xlvsd")

EXIT_USAGE = 1
EXIT_ERROR = 2
EXIT_CONFIGURATION = 3
"""The configuration cannot be run: to start again is of no use before it is mended."""

SIGNALS = {
    "STOP": signal.SIGTERM,
    "RELOAD": signal.SIGHUP,
    "DATA": signal.SIGUSR1,
    "STATS": signal.SIGUSR2,
    "STATS_CLEAR": signal.SIGRTMAX - 1,
    "JSON": signal.SIGRTMIN + 2,
}
"""keepalived's names for the signals that it takes."""

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
"""syslog(3)'s numbers, by the least level that has them."""
_FACILITIES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
_MOST_UMASK = 0o777


def main(argv: Sequence[str] | None = None) -> int:
    """Run xlvsd; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        line = read_options(sys.argv[1:] if argv is None else argv)
        return _run(line)
    except UsageError as error:
        print(f"xlvsd: {error}", file=sys.stderr)
        return EXIT_USAGE
    except XlvsError as error:
        print(f"xlvsd: {error}", file=sys.stderr)
        return _exit_status(error)
    except BrokenPipeError:
        return EXIT_ERROR


def _exit_status(error: XlvsError) -> int:
    from xlvs.keepalived.diagnostics import ConfigurationError

    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_ERROR


def _run(line: CommandLine) -> int:
    if line.has("help"):
        print(usage(), end="")
        return 0
    if line.has("version"):
        print(f"xlvsd {__version__}, for configurations of Keepalived v2.2.7")
        return 0
    if line.has("signum"):
        return _print_signal(line.values["signum"])
    for remark in line.remarks:
        print(f"xlvsd: {remark}", file=sys.stderr)
    if line.has("umask"):
        os.umask(_umask(line.values["umask"]))
    if line.has("config-test"):
        return _test(line)
    return _serve(line)


def _print_signal(name: str) -> int:
    if name not in SIGNALS:
        raise UsageError(f"Unknown sigfunc {name}")
    print(int(SIGNALS[name]))
    return 0


def _umask(text: str) -> int:
    try:
        mask = int(text, 8 if text.startswith("0") and not text.startswith("0x") else 0)
    except ValueError:
        mask = -1
    if not 0 <= mask <= _MOST_UMASK:
        raise UsageError(f"Invalid umask '{text}': give an octal number such as 0022")
    return mask


# Reading the configuration.


def _parse(line: CommandLine, memory: Memory | None = None) -> Outcome:
    from xlvs.keepalived.parse import parse
    from xlvs.keepalived.surroundings import Surroundings

    around = Surroundings.of_this_host(line.values.get("config-id", ""), line.has("all-config"))
    return parse(line.values.get("use-file", DEFAULT_FILE), around, memory)


def _test(line: CommandLine) -> int:
    """Say what is wrong with the configuration; the exit status is keepalived's."""
    from xlvs.keepalived.diagnostics import ConfigurationError, Verdict

    try:
        outcome = _parse(line)
        found, status = [str(one) for one in outcome.diagnostics], int(outcome.verdict)
    except ConfigurationError as error:
        found, status = [str(error)], int(Verdict.UNUSABLE)
    text = "".join(f"{one}\n" for one in found)
    path = line.values["config-test"]
    if not path:
        sys.stderr.write(text)
        return status
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, flags, 0o644), "w", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"Unable to open config-test log file {path}: {error.strerror}") from error
    return status


def _read(line: CommandLine, memory: Memory) -> Configuration:
    """The configuration to run, with everything wrong with it logged; `XlvsError` if it cannot be run.

    What has not changed since the last reading with that ``memory`` is not read again.
    """
    from xlvs.keepalived.diagnostics import ConfigurationError, Severity, Verdict

    path = line.values.get("use-file", DEFAULT_FILE)
    _log.info("Configuration file %s", shown(path))
    outcome = _parse(line, memory)
    for diagnostic in outcome.diagnostics:
        level = logging.INFO if diagnostic.severity is Severity.NOTE else logging.WARNING
        _log.log(level, "%s", diagnostic)
    if outcome.verdict in (Verdict.UNUSABLE, Verdict.INCOMPLETE):
        first = next((one for one in outcome.diagnostics if one.severity), None)
        raise ConfigurationError(f"{path} cannot be run: {first}", f"Look at it with: xlvsd -t -f {path}")
    return outcome.configuration


# Running.


def _serve(line: CommandLine) -> int:
    from xlvs.daemon.main import Options, run

    datapath = _datapath(line)
    on_standard_error = _start_log(line)
    # A reload reads it again, from a process that is elsewhere by then.
    line.values["use-file"] = os.path.abspath(line.values.get("use-file", DEFAULT_FILE))
    if line.has("core-dump"):
        limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    if not line.has("dont-fork") and not _detach():
        return 0
    from xlvs.keepalived.memory import Memory

    memory = Memory()
    options = Options(
        read=lambda: _read(line, memory),
        datapath=datapath,
        leave_services=line.has("dont-release-ipvs"),
        bfd=not line.has("no_bfd"),
        pid_file=line.values.get("pid", ""),
    )
    try:
        return _or_say_why(lambda: run(options))
    except XlvsError as error:
        _log.error("%s", str(error).replace("\n", ". "))
        if on_standard_error:
            return _exit_status(error)  # there it is said already
        raise


def _or_say_why(run: Callable[[], int]) -> int:
    """Run; an error of the system that nobody foresaw is raised as an `XlvsError`, which is logged."""
    try:
        return run()
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise XlvsError(f"xlvsd cannot go on: {what}") from error


def _datapath(line: CommandLine) -> str:
    """The data plane that was asked for.  `Unavailable` where there is none: while a terminal is there."""
    from xlvs.daemon.main import EBPF, KERNEL

    name = line.values.get("datapath", EBPF)
    if name not in (EBPF, KERNEL):
        raise UsageError(f"Unknown data plane '{name}': {EBPF} or {KERNEL}")
    if name == KERNEL:
        from xlvs.datapath.kernel import load_kernel

        load_kernel()
    return name


def _start_log(line: CommandLine) -> bool:
    """Log to standard error (-l, and under systemd, whose journal it is), and to syslog (not with -G).

    Returns whether it is standard error.
    """
    _log.setLevel(logging.DEBUG if line.has("log-detail") else logging.INFO)
    journal = _is_journal()
    on_standard_error = journal or line.has("log-console")
    if on_standard_error:
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(
            _ForJournal()
            if journal
            else logging.Formatter("%(asctime)s: %(message)s", "%a %b %d %H:%M:%S %Y")
        )
        _log.addHandler(console)
    if not journal and not line.has("no-syslog") and os.path.exists("/dev/log"):
        from logging.handlers import SysLogHandler  # it is slow to import

        syslog = SysLogHandler("/dev/log", _facility(line.values.get("log-facility", "daemon")))
        syslog.setFormatter(logging.Formatter("xlvsd[%(process)d]: %(message)s"))
        _log.addHandler(syslog)
    if not _log.handlers:
        _log.addHandler(logging.NullHandler())
    _log.propagate = False
    return on_standard_error


def _is_journal() -> bool:
    """Whether standard error is the journal (systemd.exec(5)); what it is not inherits the variable, too."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _ForJournal(logging.Formatter):
    """Each line with its priority before it (sd-daemon(3)), so that ``journalctl -p warning`` works."""

    def format(self, record: logging.LogRecord) -> str:
        level = next(number for least, number in _PRIORITIES if record.levelno >= least)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def _facility(name: str) -> int:
    number = _FACILITIES.get(name, _FACILITIES.get(f"local{name}"))
    if number is None:
        raise UsageError(f"Invalid log facility '{name}': 0 to 7, local0 to local7, user or daemon")
    return number


def _detach() -> bool:
    """Go to the background; False in the process that stays and may end."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if _is_journal() else (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    return True


if __name__ == "__main__":
    sys.exit(main())
