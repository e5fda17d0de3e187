# SPDX-License-Identifier: GPL-2.0-only
"""A rule of ``xlvs mark``, read and written: the words of ``add``.

Every rule has one spelling: ports are sorted, those that touch become one
range, a source of length 0 is none.  Two rules that are equal so match the
same packets.  Nothing is resolved: numbers and literal addresses alone.
"""

from __future__ import annotations

import argparse
import socket

from xlvs.cli.address import format_address
from xlvs.errors import UsageError
from xlvs.model import SCTP, TCP, UDP, MarkRule, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROTOCOLS = {"any": 0, "tcp": TCP, "udp": UDP, "sctp": SCTP}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

_Ranges = tuple[tuple[int, int], ...]


def parse_mark(text: str) -> int:
    """A firewall mark, decimal or with 0x; raises `UsageError` unless it is 1 to 2^32 - 1."""
    digits, base = (text[2:], 16) if text[:2].lower() == "0x" else (text, 10)
    known = "0123456789abcdef"[:base]
    number = 0
    if 0 < len(digits) <= 10 and all(digit in known for digit in digits.lower()):
        number = int(digits, base)
    if not 1 <= number <= 0xFFFFFFFF:
        raise UsageError(f"{text!r} is no firewall mark", "A mark is 1 to 4294967295, or 0x1 to 0xffffffff.")
    return number


def parse_prefix(text: str) -> Prefix:
    """``ADDRESS/LENGTH``, or an address alone for its full length.

    Raises `UsageError`, also where bits beyond the length are set: such a
    prefix is as often a wrong address as a wrong length.
    """
    address_text, slash, length_text = text.partition("/")
    try:
        address = socket.inet_pton(socket.AF_INET6 if ":" in address_text else socket.AF_INET, address_text)
    except (OSError, ValueError):
        raise UsageError(
            f"{text!r} is no prefix",
            "A prefix is like 203.0.113.0/24 or 2001:db8::/64, an address alone like 203.0.113.7; "
            "names are not looked up.",
        ) from None
    bits = len(address) * 8
    length = _number(length_text, bits) if slash else bits
    if length is None:
        raise UsageError(f"{text!r}: the length of a prefix is 0 to {bits} here")
    number, beyond = int.from_bytes(address, "big"), (1 << bits - length) - 1
    if number & beyond:
        network = Prefix((number & ~beyond).to_bytes(len(address), "big"), length)
        raise UsageError(
            f"{text!r} has bits set beyond its length",
            f"Is the network meant, {format_prefix(network)}, or the address alone, {address_text}?",
        )
    return Prefix(address, length)


def parse_ports(text: str) -> _Ranges:
    """``80,443,8000-8100`` (or 8000:8100): sorted, without overlaps; raises `UsageError`."""
    ranges = []
    for word in text.split(","):
        first_text, dash, last_text = word.replace(":", "-", 1).partition("-")
        first = _number(first_text, 65535)
        last = _number(last_text, 65535) if dash else first
        if not first or last is None or last < first:
            raise UsageError(
                f"{text!r} are no ports",
                "Ports are numbers from 1 to 65535 and ranges of them, like 80,443,8000-8100.",
            )
        ranges.append((first, last))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def _number(text: str, highest: int) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        return None
    number = int(text)
    return number if number <= highest else None


class _Once(argparse.Action):
    """Takes an option's value; a second one would silently replace the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)


def add_conditions(parser: argparse.ArgumentParser, required: bool) -> None:
    """Give a parser the options that say to which packets a rule applies."""
    parser.add_argument(
        "--dst",
        required=required,
        action=_Once,
        metavar="PREFIX",
        help="where packets go to: an address or a network",
    )
    for option, meaning in (
        ("--src", "where they come from (default: anywhere)"),
        ("--proto", "their protocol (default: any)"),
        ("--port", "their destination ports, like 80,443,8000-8100 (default: any)"),
        ("--source-port", "their source ports, likewise"),
    ):
        parser.add_argument(
            option,
            action=_Once,
            metavar="PORTS" if "port" in option else "PREFIX" if option == "--src" else None,
            choices=PROTOCOLS if option == "--proto" else None,
            help=meaning,
        )


def has_conditions(arguments: argparse.Namespace) -> bool:
    """Whether any of those options was given."""
    return any(
        value is not None
        for value in (arguments.dst, arguments.src, arguments.proto, arguments.port, arguments.source_port)
    )


def rule_of(arguments: argparse.Namespace) -> MarkRule:
    """The rule that ``mark`` and the options of `add_conditions` say; raises `UsageError`."""
    if arguments.dst is None:
        raise UsageError("a rule needs --dst PREFIX", "For every destination: --dst 0.0.0.0/0 or --dst ::/0")
    destination = parse_prefix(arguments.dst)
    source = None if arguments.src is None else parse_prefix(arguments.src)
    if source is not None and source.family != destination.family:
        raise UsageError(
            f"--src {arguments.src} and --dst {arguments.dst} are of different address families"
        )
    if source is not None and source.length == 0:
        source = None
    return MarkRule(
        parse_mark(arguments.mark),
        destination,
        source,
        PROTOCOLS[arguments.proto or "any"],
        parse_ports(arguments.port) if arguments.port is not None else (),
        parse_ports(arguments.source_port) if arguments.source_port is not None else (),
    )


class _LineParser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse_lines(text: str) -> list[MarkRule]:
    """The rules that `format_line` wrote; blank lines and those that begin with # are left out.

    Raises `UsageError` with the line's number.
    """
    parser = _LineParser(prog="", add_help=False, allow_abbrev=False)
    parser.add_argument("word", choices=["add"], metavar="add")
    parser.add_argument("mark", metavar="MARK")
    add_conditions(parser, required=True)
    rules = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rules.append(rule_of(parser.parse_args(words)))
        except UsageError as error:
            hint = error.hint or "A line is like: add 1 --dst 203.0.113.0/24 --proto tcp --port 80,443"
            raise UsageError(f"line {number}: {error.message}", f"{hint}\nNothing was changed.") from None
    return rules


def format_prefix(prefix: Prefix) -> str:
    """A prefix as `parse_prefix` reads it; of full length, the address alone."""
    address = format_address(prefix.address)
    return address if prefix.length == len(prefix.address) * 8 else f"{address}/{prefix.length}"


def format_ports(ranges: _Ranges) -> str:
    """Ports as `parse_ports` reads them."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def format_line(rule: MarkRule) -> str:
    """A rule as a line of ``xlvs mark save``."""
    words = [f"add {rule.mark} --dst {format_prefix(rule.destination)}"]
    if rule.source is not None:
        words.append(f"--src {format_prefix(rule.source)}")
    if rule.protocol:
        words.append(f"--proto {PROTOCOL_NAMES[rule.protocol]}")
    if rule.ports:
        words.append(f"--port {format_ports(rule.ports)}")
    if rule.source_ports:
        words.append(f"--source-port {format_ports(rule.source_ports)}")
    return " ".join(words)
