# SPDX-License-Identifier: GPL-2.0-only
"""The keywords that checkers have in common."""

from __future__ import annotations

from xlvs.keepalived.addresses import format_address, is_link_local, read_address
from xlvs.keepalived.drafts import CheckerDraft, ConnectionDraft
from xlvs.keepalived.keywords.shapes import number, of_connection, switch, timer
from xlvs.keepalived.numbers import UINT_MAX
from xlvs.keepalived.statements import Cursor, Section

_MOST_INTERFACE_LETTERS = 15
CONNECT_TIMEOUT_LIMIT = UINT_MAX
"""The longest connect_timeout, in microseconds."""
_CONNECT_PORT = of_connection(number("port", "Invalid checker connect_port '{}'", 1, 65535))
_BIND_PORT = of_connection(number("bind_port", "Invalid checker bind_port '{}'", 1, 65535))
_CONNECT_TIMEOUT = of_connection(
    timer("timeout", "connect_timeout {} invalid - ignoring", 1, CONNECT_TIMEOUT_LIMIT)
)
_FWMARK = of_connection(number("fwmark", "Invalid fwmark connection value '{}'"))
read_alpha = switch("alpha", "Invalid alpha parameter {}")
"""``alpha [BOOL]``."""


def _connect_ip(checker: CheckerDraft, at: Cursor) -> None:
    connection = checker.connection
    text = at.word(1)
    address = read_address(text)
    if not address:
        at.report(f"Invalid connect_ip address {text} - ignoring")
    elif connection.bind_address and len(connection.bind_address) != len(address):
        at.report(f"connect_ip address {text} does not match address family of bindto - skipping")
    else:
        connection.address = address


def _bindto(checker: CheckerDraft, at: Cursor) -> None:
    text = at.word(1)
    address = read_address(text)
    expected = checker.connection.address or checker.real_server.address
    if not address:
        at.report(f"Invalid bindto address {text} - ignoring")
    elif len(expected) != len(address):
        at.report(f"bindto address {text} does not match address family of connect_ip - skipping")
    else:
        checker.connection.bind_address = address


def _bind_if(checker: CheckerDraft, at: Cursor) -> None:
    name = at.word(1)
    if len(name.encode("utf-8", "surrogateescape")) > _MOST_INTERFACE_LETTERS:
        at.report(f"Interface name {name} is too long - ignoring")
    else:
        checker.connection.bind_interface = name


def _via(checker: CheckerDraft, at: Cursor) -> None:
    if at.word(1) != "vip":
        at.report(f"Unknown via '{at.words[1]}': only 'via vip' is known - ignoring")
    else:
        checker.connection.via_vip = True


def _no_via(_checker: CheckerDraft, at: Cursor) -> None:
    at.report(
        "'via vip' is for checks by TCP - ignoring, the real server's own address is checked:"
        " remove it, or add a TCP_CHECK with 'via vip'"
    )


def add_common(section: Section, *, connects: bool = True, by_tcp: bool = True) -> None:
    """Enter what every checker has, and with ``connects`` what those have that connect.

    Only checks ``by_tcp`` can go through the VIP.
    """
    if connects:
        section.add("connect_ip", _connect_ip, "ADDRESS", "Connect there, not to the real server.")
        section.add(
            "connect_port",
            _CONNECT_PORT,
            "PORT",
            "Connect to that port.",
        )
        section.add("bindto", _bindto, "ADDRESS", "Connect from that address.")
        section.add(
            "bind_port",
            _BIND_PORT,
            "PORT",
            "Connect from that port.",
        )
        section.add("bind_if", _bind_if, "INTERFACE", "Connect through that interface.")
        section.add(
            "connect_timeout",
            of_connection(
                timer("timeout", "connect_timeout {} invalid - ignoring", 1, CONNECT_TIMEOUT_LIMIT)
            ),
            "SECONDS",
            "How long to wait; default 5.",
        )
        section.add(
            "fwmark",
            _FWMARK,
            "MARK",
            "The socket's firewall mark.",
        )
        if by_tcp:
            meaning = (
                "Check through the virtual server's own forwarding, at the virtual address. xlvs's own."
            )
        else:
            meaning = "An error: only checks by TCP go through the VIP."
        section.add("via", _via if by_tcp else _no_via, "vip", meaning)
    section.add(
        "retry",
        number("retry", "Invalid retry connection value '{}'"),
        "COUNT",
        "How many more tries before it counts as failed.",
    )
    section.add(
        "delay_before_retry",
        timer("delay_before_retry", "Invalid delay_before_retry connection value '{}'"),
        "SECONDS",
        "Time before each of those tries.",
    )
    section.add(
        "warmup",
        timer("warmup", "Invalid warmup connection value '{}'"),
        "SECONDS",
        "The first check comes within this time.",
    )
    section.add(
        "delay_loop",
        timer("delay_loop", "delay_loop '{}' is invalid - ignoring", 1),
        "SECONDS",
        "Time between checks.",
    )
    section.add("alpha", read_alpha, "[BOOL]", "The real server counts as failed until a check passed.")
    section.add(
        "log_all_failures",
        switch("log_all_failures", "Invalid log_all_failures parameter {}"),
        "[BOOL]",
        "Log failures that change nothing, too.",
    )


def connection_is_complete(checker: CheckerDraft, connection: ConnectionDraft, at: Cursor) -> bool:
    """Does the connection say all that it needs?  An IPv6 link-local address needs an interface."""
    address = connection.address or checker.real_server.address
    if is_link_local(address) and not connection.bind_interface:
        at.report(f"Checker link local address {format_address(address)} requires a bind_if")
        return False
    return True


def end_of_connecting(checker: CheckerDraft, at: Cursor) -> None:
    """The end of a checker that connects: it counts only if the connection is complete."""
    if connection_is_complete(checker, checker.connection, at):
        checker.real_server.checkers.append(checker)
