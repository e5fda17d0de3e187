# SPDX-License-Identifier: GPL-2.0-only
"""``xlvsadm``: the command of ipvsadm 1.31, on whichever data plane there is.

    command line ──> request ──> data plane ──> lines
       (popt, grammar, parse)   (execute)    (listing)

This module is the outer shell: streams, exit statuses, the data plane opened
and closed.  It runs often and must start fast: nothing here or below may
import ``dataclasses``, ``typing``, ``re``, ``enum``, ``argparse`` or
``logging``, and ``socket`` only where a name has to be looked up.

The command line is looked at before the data plane, so a usage error needs no
privileges; with them, everything comes out as ipvsadm has it.
"""

from __future__ import annotations

import gc
import io
import os
import sys

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.ipvsadm_execute import check_carried, execute, needs_load, needs_write, refusal, streams
from xlvs.cli.ipvsadm_grammar import CommandLineError
from xlvs.cli.ipvsadm_help import VERSION_LINE, examples, help_text
from xlvs.cli.ipvsadm_parse import parse, try_help
from xlvs.cli.ipvsadm_request import Request
from xlvs.cli.ipvsadm_restore import command_lines, words_of
from xlvs.errors import NotPermitted, TableError, Unavailable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol, TextIO

    from xlvs.cli.ipvsadm_additions import Addition
    from xlvs.datapath.interface import Datapath

    Step = Request | CommandLineError | Addition

    class Opener(Protocol):
        """How the command gets its data plane: `xlvs.datapath.open_datapath`, or a test's own."""

        def __call__(
            self, *, write: bool, load: bool, locked: bool = True
        ) -> AbstractContextManager[Datapath]: ...


EXIT_FAILURE = 1
EXIT_UNAVAILABLE = 2
EXIT_INTERRUPTED = 128 + 2
EXIT_BROKEN_PIPE = 128 + 13
"""What a shell sees of ipvsadm when SIGPIPE has ended it."""

DEBUG_VARIABLE = "XLVS_DEBUG"
"""Set in the environment, it lets an unexpected error show its trace."""


class _OutputError(Exception):
    """Standard output cannot be written; its cause is the `OSError`."""


def main(argv: list[str] | None = None) -> int:
    """Run xlvsadm on the process's own streams; return its exit status."""
    from xlvs.datapath import open_datapath

    arguments = sys.argv[1:] if argv is None else argv
    program = shown(os.path.basename(sys.argv[0])) or "ipvsadm"
    stdin, stdout, stderr = _standard_streams()
    return run(arguments, stdin, stdout, stderr, open_datapath, program)


def run(
    arguments: list[str],
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
    opener: Opener,
    program: str = "ipvsadm",
) -> int:
    """Run one command line, without the program's name; return its exit status.

    Raises nothing but what a debugging operator asked for.
    """
    command = _Command(stdin, stdout, stderr, opener, program)
    try:
        status = command.run(arguments)
        _flush(stdout)
    except _OutputError as failure:
        status = command.output_failed(failure)
    except Unavailable as error:
        command.complain(_unavailable_text(error))
        status = EXIT_UNAVAILABLE
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        command.complain(_unexpected_text(error, program))
        status = EXIT_FAILURE
    return status


class _Command:
    """One run of the program: its streams, its name, its way to a data plane."""

    def __init__(self, stdin: TextIO, stdout: TextIO, stderr: TextIO, opener: Opener, program: str) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr
        self._opener = opener
        self._program = program

    def run(self, arguments: list[str]) -> int:
        # Without any argument ipvsadm lists the table.
        step = self._parse(arguments or ["-L"])
        if isinstance(step, CommandLineError):
            self.complain(step.message)
            return step.status
        if _is_answered_here(step):
            self._print((self._own_answer(step),))
            return 0
        return self._uncollected(step)

    def complain(self, text: str) -> None:
        """Write to standard error; there is nowhere to say that it failed."""
        try:
            self._stderr.write("\n".join(map(shown, f"{text}\n".split("\n"))))
        except OSError:
            return

    def output_failed(self, failure: _OutputError) -> int:
        """Close what cannot be written, so that the interpreter does not try again at its end."""
        _close(self._stdout)
        if isinstance(failure.__cause__, BrokenPipeError):
            return EXIT_BROKEN_PIPE  # the reader has gone; ipvsadm dies without a word
        self.complain(f"{self._program}: cannot write to standard output: {_reason(failure.__cause__)}")
        return EXIT_FAILURE

    def _parse(self, arguments: list[str]) -> Request | CommandLineError:
        try:
            request = parse(arguments, self._program)
            check_carried(request)
        except CommandLineError as error:
            return error
        return request

    def _uncollected(self, request: Request) -> int:
        """Work without the garbage collector, which would look through all rows again and again."""
        collects = gc.isenabled()
        gc.disable()
        try:
            if request.command == grammar.RESTORE:
                return self._restore(not request.options.isdisjoint(("atomic", "extended")))
            return self._perform_alone(request)
        finally:
            if collects:
                gc.enable()

    def _own_answer(self, request: Request) -> str:
        if request.command != grammar.HELP:
            return VERSION_LINE
        return help_text(self._program) + (examples(self._program) if "extended" in request.options else "")

    def _perform_alone(self, request: Request) -> int:
        """Carry out one command.

        A listing that goes to a pager may take hours to print, so nothing is
        printed under the table's lock.
        """
        lines: Iterable[str] = ()
        failure: _OutputError | TableError | None = None
        with self._opener(
            write=needs_write(request), load=needs_load(request), locked=not streams(request)
        ) as datapath:
            try:
                lines = execute(request, datapath)
                if streams(request):
                    self._print(lines)
                    lines = ()
            except (_OutputError, TableError) as error:
                failure = error  # neither is the data plane's: it is left in peace
        if isinstance(failure, _OutputError):
            raise failure
        if failure is not None:
            return self._refuse(failure, request)
        self._print(lines)
        if request.command == grammar.ADD_SERVICE and self._stderr.isatty():
            self._warn(request)
        return 0

    def _warn(self, request: Request) -> None:
        """Say what is special here to whoever watches; scripts get what ipvsadm prints and nothing else.

        The service is there already: whatever fails here must not look like a failure of the command.
        """
        from xlvs.cli import ipvsadm_warning

        if os.environ.get(ipvsadm_warning.SILENCE):
            return
        try:
            text = ipvsadm_warning.about_input_rules(request.service_key(), self._program)
        except (OSError, ValueError, KeyboardInterrupt):
            return
        if text:
            self.complain(text)

    def _restore(self, at_once: bool) -> int:
        """Read all commands first: the table is locked only while they are carried out."""
        from xlvs.cli.ipvsadm_additions import Addition, Additions

        steps: list[Step] = []
        lines: list[str] = []
        """The line of each step, or that with which it begins."""
        additions = Additions(self._program)
        for line in command_lines(self._stdin.read()):
            addition = additions.take(line)
            if addition is not None:
                if len(addition.lines) == 1:
                    lines.append(line)
                    steps.append(addition)
                continue
            words = words_of(line)
            if not words:
                continue
            lines.append(" ".join(words))
            step = self._read_line(words)
            steps.append(step)
            if _ends_the_run(step):
                break
        if at_once:
            return self._restore_at_once(steps, lines)
        requests = [step for step in steps if isinstance(step, Request) and not _is_answered_here(step)]
        adds = any(isinstance(step, Addition) for step in steps)
        if not requests and not adds:
            return self._perform_all(steps, None)
        failure = None
        with self._opener(
            write=adds or any(map(needs_write, requests)), load=adds or any(map(needs_load, requests))
        ) as datapath:
            try:
                status = self._perform_all(steps, datapath)
            except _OutputError as error:
                failure = error
        if failure is not None:
            raise failure
        return status

    def _read_line(self, words: list[str]) -> Request | CommandLineError:
        step = self._parse(words)
        if isinstance(step, Request) and step.command == grammar.RESTORE:
            return try_help(self._program)
        return step

    def _restore_at_once(self, steps: list[Step], lines: list[str]) -> int:
        """Carry out all steps or none."""
        from xlvs.cli.ipvsadm_additions import Addition
        from xlvs.cli.ipvsadm_atomic import LineError, Staged

        requests: list[tuple[str, Request | Addition]] = []
        answers: list[str] = []
        for step, line in zip(steps, lines, strict=True):
            if isinstance(step, CommandLineError):
                self.complain(step.message)
                self.complain(_nothing_done(line))
                return step.status
            if not isinstance(step, Addition) and _is_answered_here(step):
                answers = [self._own_answer(step)]
            else:
                requests.append((line, step))
        adds = any(isinstance(one, Addition) for _, one in requests)
        plain = [one for _, one in requests if isinstance(one, Request)]
        try:
            # Tried before anything is loaded for it; what there is now may be another table later.
            with self._opener(write=False, load=False) as datapath:
                staged = Staged(requests, datapath, self._program)
            if adds or any(map(needs_write, plain)):
                with self._opener(write=True, load=adds or any(map(needs_load, plain))) as datapath:
                    staged = Staged(requests, datapath, self._program)
                    staged.apply(datapath)
        except LineError as error:
            status = self._refuse(error.cause, error.request)
            self.complain(_nothing_done(error.line))
            return status
        except TableError as error:
            self.complain(f"{error}\nNothing was changed.")
            return grammar.EXIT_REFUSED
        self._print((*staged.answers, *answers))
        return 0

    def _perform_all(self, steps: Sequence[Step], datapath: Datapath | None) -> int:
        """Carry out the steps of a restore in their order; return the last one's status."""
        from xlvs.cli.ipvsadm_additions import Addition

        status = 0
        unsupported = 0
        place = 0
        while place < len(steps):
            step = steps[place]
            place += 1
            if isinstance(step, CommandLineError):
                self.complain(step.message)
                status = step.status
                if step.fatal:
                    return status
            elif isinstance(step, Addition):
                assert datapath is not None, "whoever adds has opened the data plane"
                together = [step]
                while place < len(steps) and isinstance(following := steps[place], Addition):
                    together.append(following)
                    place += 1
                status = self._add(together, datapath)
            elif datapath is None or _is_answered_here(step):
                self._print((self._own_answer(step),))
                return 0
            else:
                try:
                    self._print(execute(step, datapath))
                    status = 0
                except TableError as error:
                    status = self._refuse(error, step)
                if status and step.command == grammar.LIST:
                    return status  # ipvsadm gives up at once when it cannot list
            if status == grammar.EXIT_USAGE:
                unsupported = status
        # A table that was restored only in part must not pass for a whole one.
        return status or unsupported

    def _add(self, additions: Sequence[Addition], datapath: Datapath) -> int:
        """Add services with their real servers at once, or line by line if any of that is refused."""
        try:
            datapath.add_services([(one.service, one.destinations[::-1]) for one in additions])
            return 0
        except TableError:
            pass  # nothing was changed; the line that cannot be will say why
        if len(additions) == 1:
            return self._perform_all(additions[0].requests(self._program), datapath)
        status = unsupported = 0
        for one in additions:
            status = self._add([one], datapath)
            if status == grammar.EXIT_USAGE:
                unsupported = status
        return status or unsupported

    def _refuse(self, error: TableError, request: Request) -> int:
        text, status = refusal(error, request)
        self.complain(text)
        return status

    def _print(self, lines: Iterable[str]) -> None:
        write = self._stdout.write
        for line in lines:
            try:
                write(line)
            except OSError as error:
                raise _OutputError from error


def _nothing_done(line: str) -> str:
    return f"Nothing was changed; the line is: {line}"


def _ends_the_run(step: Request | CommandLineError) -> bool:
    return step.fatal if isinstance(step, CommandLineError) else _is_answered_here(step)


def _is_answered_here(request: Request) -> bool:
    return request.command in (grammar.HELP, grammar.VERSION)


def _flush(stdout: TextIO) -> None:
    try:
        stdout.flush()
    except OSError as error:
        raise _OutputError from error


def _close(stdout: TextIO) -> None:
    try:
        stdout.close()
    except OSError:
        return  # what could not be written is known; the stream is closed all the same


def _reason(error: BaseException | None) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _unavailable_text(error: Unavailable) -> str:
    """ipvsadm's first line, then what is wrong and what to do about it."""
    denied = "Permission denied (you must be root)"
    if isinstance(error, NotPermitted) and error.message != denied:
        return f"Can't initialize ipvs: {denied}\n{error}"
    return f"Can't initialize ipvs: {error}"


def _unexpected_text(error: Exception, program: str) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{program}: {where}{_reason(error)}"
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    return f"{program}: unexpected error: {what} (set {DEBUG_VARIABLE}=1 to see where)"


class _ClosedOutput(io.StringIO):
    """Stands for a standard output that was closed before the program began."""

    def write(self, _text: str) -> int:
        raise OSError(9, "Bad file descriptor")


def _standard_streams() -> tuple[TextIO, TextIO, TextIO]:
    """The process's streams, made to pass on any byte that an argument can hold."""
    encoding = sys.getfilesystemencoding()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A carriage return is a blank to -R, not the end of a line.
            stream.reconfigure(encoding=encoding, errors="surrogateescape", newline="\n")
    return (
        sys.stdin if sys.stdin is not None else io.StringIO(),
        sys.stdout if sys.stdout is not None else _ClosedOutput(),
        sys.stderr if sys.stderr is not None else io.StringIO(),
    )


if __name__ == "__main__":
    sys.exit(main())
