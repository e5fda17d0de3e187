# SPDX-License-Identifier: GPL-2.0-only
"""Records what the real ipvsadm answers, and reads the records.

    python -m tests.guest.ipvsadm_transcript [-o OUTPUT] FILE

runs every command of FILE through Debian's ipvsadm on a guest with kernel IPVS
(one boot for all) and writes the transcript.  A transcript is plain text, and
can be given as FILE again to record it anew:

    # a comment
    !reset
    $ ipvsadm -A -t 192.0.2.1:80 -s rr
    = 0
    $ ipvsadm -R
    < -a -t 192.0.2.1:80 -r 10.0.0.1
    < -a -t 192.0.2.9:80 -r 10.0.0.1
    2|Service not defined
    = 255

``$``   a command; the words are quoted as for a shell.  In a FILE to be recorded
        the ``$ ipvsadm`` may be left out.
``<``   a line of the command's standard input (else empty)
``1|``  a line of its stdout, ``2|`` of its stderr, trailing blanks included;
        ``1~`` and ``2~``: the same for a last line without a newline
``=``   its exit code
``!``   a directive, obeyed before the next command: ``!reset`` clears the
        table, the timeouts and the sync daemons; ``!run WORDS`` runs a shell
        command in the namespace (to make connections, say), which must succeed
``#``   a comment; it is kept, and so are empty lines

Commands run in a network namespace with an interface ``eth0`` that has the
addresses in `ADDRESSES`.  Names resolve by `HOSTS` alone, services by the
guest's /etc/services.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runner import Guest

ADDRESSES = (
    "192.0.2.254/24", "198.51.100.254/24", "203.0.113.254/24", "10.0.0.254/8", "172.16.0.254/12",
    "192.168.0.254/16", "2001:db8::254/32", "fd00::254/64",
)  # fmt: skip
HOSTS = """\
127.0.0.1 localhost
::1 localhost
192.0.2.10 www.example.com
10.0.0.11 rs1.example.com
10.0.0.12 rs2.example.com
2001:db8::10 www6.example.com
2001:db8::11 rs6.example.com
"""
COMMAND_TIMEOUT = 20
"""Seconds that one ipvsadm may take in the guest."""
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a transcript with its answer, or one directive."""

    line: int
    """Where it stands in the text, from 1."""
    directive: str = ""
    """``reset``, or ``run WORDS``; empty for a command, and then the rest holds."""
    arguments: tuple[str, ...] = ()
    """What follows the program's name."""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


class TranscriptError(ValueError):
    """A line that is no transcript; the message has its number."""


def parse(text: str) -> list[Step]:
    """Read a transcript.  Raises `TranscriptError`."""
    steps = []
    for number, line, answer in _blocks(text):
        if line.startswith("!"):
            steps.append(Step(number, directive=line[1:].strip()))
        else:
            exit_codes = [value for mark, value in answer if mark == "="]
            if len(exit_codes) > 1:
                raise TranscriptError(f"line {number}: a command with {len(exit_codes)} exit codes")
            steps.append(
                Step(
                    number,
                    arguments=_arguments(number, line),
                    stdin=_stream(answer, "<", ""),
                    stdout=_stream(answer, "1|", "1~"),
                    stderr=_stream(answer, "2|", "2~"),
                    exit_code=int(exit_codes[0]) if exit_codes else 0,
                )
            )
    return steps


def format_answer(stdout: str, stderr: str, exit_code: int) -> str:
    """Write what a command answered, as it stands below the command in a transcript."""
    lines = []
    for mark, content in (("1", stdout), ("2", stderr)):
        *finished, unfinished = content.split("\n")
        lines += [f"{mark}|{line}" for line in finished]
        lines += [f"{mark}~{unfinished}"] if unfinished else []
    return "\n".join([*lines, f"= {exit_code}"]) + "\n"


def record(text: str, guest: Guest | None = None) -> str:
    """Run the commands of `text` in a guest and return the transcript.

    Boots a guest unless one is given.  Raises `TranscriptError` for a text that
    cannot be read and `runner.GuestError` when the guest or a directive fails.
    """
    from .runner import Guest

    parse(text)
    if guest is None:
        with Guest() as own:
            return record(text, own)
    count = sum(1 for _ in _blocks(text))
    hosts = f"mkdir -p /etc/netns/transcript; printf %s {shlex.quote(HOSTS)} >/etc/netns/transcript/hosts"
    addresses = "\n".join(f"ip -n transcript address add {address} dev eth0 nodad" for address in ADDRESSES)
    script = f"""
        ip netns delete transcript 2>/dev/null || true
        {hosts}
        echo 'hosts: files' >/etc/netns/transcript/nsswitch.conf
        modprobe ip_vs
        ip netns add transcript
        trap 'ip netns delete transcript' EXIT
        ip -n transcript link set lo up
        ip -n transcript link add eth0 type veth peer name wire
        {addresses}
        ip -n transcript link set wire up
        ip -n transcript link set eth0 up
        ip netns exec transcript {shlex.quote(sys.executable)} -m tests.guest.ipvsadm_transcript --play -
    """
    return guest.run_script(script, stdin=text, timeout=60 + count, directory=PROJECT).check().stdout


def _blocks(text: str) -> Iterator[tuple[int, str, list[tuple[str, str]]]]:
    """Yield each command or directive with its line number and the marked lines that belong to it."""
    number, head, answer = 0, "", list[tuple[str, str]]()
    for position, line in enumerate(text.split("\n"), 1):
        mark = line[:2]
        if mark in ("1|", "2|", "1~", "2~", "< ", "= ") or line == "<":
            if not head or head.startswith("!"):
                raise TranscriptError(f"line {position}: {line!r} belongs to no command")
            answer.append((mark.strip(), line[2:]))
        elif line.strip() and not line.startswith("#"):
            if head:
                yield number, head, answer
            number, head, answer = position, line, []
    if head:
        yield number, head, answer


def _arguments(number: int, line: str) -> tuple[str, ...]:
    try:
        words = shlex.split(line.removeprefix("$ "))
    except ValueError as error:
        raise TranscriptError(f"line {number}: {error}") from None
    return tuple(words[1:] if words and words[0] == "ipvsadm" else words)


def _stream(answer: Iterable[tuple[str, str]], finished: str, unfinished: str) -> str:
    return "".join(
        f"{value}\n" if mark == finished else value
        for mark, value in answer
        if mark in (finished, unfinished)
    )


# --- inside the guest --------------------------------------------------------


def _play(text: str) -> Iterator[str]:
    """Run each command and yield the transcript piece by piece; comments pass through."""
    heads = {number: (line, answer) for number, line, answer in _blocks(text)}
    _obey("reset")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        if number not in heads:
            if not line.strip() or line.startswith("#"):
                yield f"{line}\n"
            continue
        if line.startswith("!"):
            _obey(line[1:].strip())
            yield f"{line}\n"
            continue
        arguments = _arguments(number, line)
        stdin = _stream(heads[number][1], "<", "")
        done = subprocess.run(
            ["ipvsadm", *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        exit_code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        yield f"$ {shlex.join(['ipvsadm', *arguments])}\n"
        yield "".join(f"< {given}\n" for given in stdin.removesuffix("\n").split("\n")) if stdin else ""
        yield format_answer(done.stdout, done.stderr, exit_code)


def _obey(directive: str) -> None:
    word, _, rest = directive.partition(" ")
    if word == "reset" and not rest:
        for arguments in ("-C", "--set 900 120 300"):
            subprocess.run(["ipvsadm", *arguments.split()], check=True)
        for role in ("master", "backup"):  # fails, rightly, when there is none
            subprocess.run(["ipvsadm", "--stop-daemon", role], capture_output=True, check=False)
    elif word == "run" and rest:
        subprocess.run(["/bin/bash", "-c", rest], stdout=sys.stderr, check=True)
    else:
        raise TranscriptError(f"unknown directive !{directive}")


def main() -> int:
    """Record a transcript, or (``--play -``, in the guest) produce it."""
    parser = argparse.ArgumentParser(description="Record a transcript of the real ipvsadm in a guest.")
    parser.add_argument("file", help="commands, or a transcript to record anew; - is stdin")
    parser.add_argument("-o", "--output", type=Path, help="default: stdout")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
    if options.play:
        sys.stdout.writelines(_play(text))
        return 0
    transcript = record(text)
    if options.output:
        options.output.write_text(transcript)
    else:
        sys.stdout.write(transcript)
    return 0


if __name__ == "__main__":
    sys.exit(main())
