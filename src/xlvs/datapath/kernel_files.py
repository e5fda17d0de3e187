# SPDX-License-Identifier: GPL-2.0-only
"""What kernel IPVS tells by files only: its connections, all services' counters, its settings.

/proc/net/ip_vs_conn, ip_vs_stats and ip_vs_stats_percpu, as ``ip_vs_conn.c`` and
``ip_vs_ctl.c`` write them; /proc/sys/net/ipv4/vs.  All of the caller's network namespace.
"""

from __future__ import annotations

import os

from xlvs import errors, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xlvs.datapath.rows import ConnectionRow

# Of the thread: /proc/net is that of the process's first one.
FOLDER = "/proc/thread-self/net"
SETTINGS = "/proc/sys/net/ipv4/vs"

_PROTOCOLS = {name: number for number, name in model.PROTOCOL_NAMES.items()} | {"IP": 0}
_AT_ONCE = 1024
"""Connections to hand on at a time."""


def connection_rows() -> Iterator[list[ConnectionRow]]:
    """Every connection, some at a time."""
    with open(f"{FOLDER}/ip_vs_conn", encoding="ascii", errors="backslashreplace") as file:
        next(file, None)
        rows = []
        for line in file:
            rows.append(read_connection(line))
            if len(rows) == _AT_ONCE:
                yield rows
                rows = []
        if rows:
            yield rows


def read_connection(line: str) -> ConnectionRow:
    """A line of ip_vs_conn.

    Which service took a connection it does not say, but of a firewall mark's templates:
    their virtual address is the mark.
    """
    words = line.split(maxsplit=9)
    protocol = _PROTOCOLS.get(words[0])
    if protocol is None:
        protocol = int(words[0].rpartition("_")[2]) if words[0].startswith("IP_") else 0
    client, virtual, server = (_address(words[place]) for place in (1, 3, 5))
    fwmark = int.from_bytes(virtual[:4], "big") if not protocol else 0
    engine_data = "".join(words[9:]).rstrip("\n").partition(" ")[2]
    return (
        protocol, client, int(words[2], 16), virtual, int(words[4], 16), server, int(words[6], 16),
        words[7], int(words[8]), fwmark, engine_data,
    )  # fmt: skip


def _address(word: str) -> bytes:
    return bytes.fromhex(word.replace(":", ""))


def totals() -> model.Totals:
    """What all services together have had."""
    with open(f"{FOLDER}/ip_vs_stats", encoding="ascii") as file:
        counted, a_second = read_totals(file)
    with open(f"{FOLDER}/ip_vs_stats_percpu", encoding="ascii") as file:
        by_cpu = read_by_cpu(file)
    return model.Totals(model.Stats(*counted), tuple(by_cpu), model.Rates(*a_second))


def read_totals(lines: Iterable[str]) -> list[list[int]]:
    """The two rows of ip_vs_stats: counters, and rates."""
    return [[int(word, 16) for word in words] for words in map(str.split, lines) if _are_numbers(words)]


def read_by_cpu(lines: Iterable[str]) -> list[model.Stats]:
    """The rows of ip_vs_stats_percpu that are a processor's."""
    rows = (words[1:] for words in map(str.split, lines) if len(words) == 6 and _are_numbers(words))
    return [model.Stats(*(int(word, 16) for word in words)) for words in rows]


def _are_numbers(words: list[str]) -> bool:
    return bool(words) and all(set(word) <= set("0123456789ABCDEF") for word in words)


def settings() -> dict[str, str]:
    """Every setting by its name, as its file reads."""
    return {name: _read(name) for name in sorted(os.listdir(SETTINGS))}


def set_settings(values: dict[str, str]) -> None:
    """Change settings, all or none; raises `InvalidOperation` for what the kernel does not take."""
    before = settings()
    for name in values:
        if name not in before:
            raise errors.InvalidOperation(f"this kernel's IPVS has no setting {name!r}")
    written: list[str] = []
    for name, text in values.items():
        try:
            _write(name, text)
        except OSError as error:
            for one in written:
                _write(one, before[one])
            raise errors.InvalidOperation(
                f"the kernel does not take {text!r} for {name}: {error.strerror}",
                f"What it has now: cat {SETTINGS}/{name}",
            ) from None
        written.append(name)


def _read(name: str) -> str:
    with open(f"{SETTINGS}/{name}", encoding="ascii") as file:
        return file.read().rstrip("\n")


def _write(name: str, text: str) -> None:
    with open(f"{SETTINGS}/{name}", "w", encoding="ascii") as file:
        file.write(f"{text}\n")
