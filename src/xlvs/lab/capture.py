# SPDX-License-Identifier: GPL-2.0-only
"""Counting the packets that pass a node's interface, by a real tcpdump in that node."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from xlvs.errors import XlvsError
from xlvs.lab import node
from xlvs.lab.state import Record

# 02:00:c0:00:02:02 > 02:00:c0:00:02:0a, IPv4, length 74: 192.0.2.2.5987 > 192.0.2.100.80: tcp 0
# and of a tunnel's packets, of which the outer addresses count and have no port:
# …, IPv4, length 94: 192.168.219.134 > 192.168.56.135: 192.168.219.2.5987 > 192.168.219.100.80: tcp 0
_ADDRESS = r"\d+\.\d+\.\d+\.\d+|[0-9a-f:]*:[0-9a-f:]*"
_LINE = re.compile(
    r"(?P<way>In|Out)?\s*(?P<mac>[0-9a-f:]{17}) > [0-9a-f:]{17}, IPv[46], length \d+: "
    rf"(?P<source>{_ADDRESS})(\.\d+)? > (?P<target>{_ADDRESS})(\.\d+)?: "
)
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Passage:
    """What packets are counted by: source MAC, source address, target address."""

    mac: str
    source: str
    target: str


class Capture:
    """A tcpdump in a node from entering to leaving the context; read the count after that.

    Raises `XlvsError` if tcpdump cannot start, or had to drop packets: a
    count that may be too small proves nothing.
    """

    def __init__(self, record: Record, name: str, interface: str, expression: str) -> None:
        self.command = ["tcpdump", "-i", interface, "-eqnt", *expression.split()]
        self.passages: Counter[Passage] = Counter()
        self._where = name
        self._record = record
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = node.popen(
            self._record,
            self._where,
            [self.command[0], "--immediate-mode", "-l", "-B", "8192", *self.command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        heard = []
        for line in self._process.stderr:
            heard.append(line)
            if line.startswith("listening on"):
                return self
        self._process.communicate()
        raise XlvsError(f"tcpdump in the node {self._where} did not start: {''.join(heard).strip()}")

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        process = self._process
        assert process is not None
        # The last packets may still be on their way from the kernel to tcpdump.
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            output, said = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            output, said = process.communicate()
        for line in output.splitlines():
            match = _LINE.search(line)
            if match:
                self.passages[Passage(match["mac"], match["source"], match["target"])] += 1
        dropped = re.search(r"(\d+) packets? dropped by kernel", said)
        if kind is None and (dropped is None or int(dropped[1])):
            raise XlvsError(f"tcpdump in the node {self._where} has not seen every packet: {said.strip()}")

    def count(self, source: str = "", target: str = "", mac: str = "") -> int:
        """How many packets had this source and target address and source MAC; empty is any."""
        return sum(
            number
            for passage, number in self.passages.items()
            if source in ("", passage.source) and target in ("", passage.target) and mac in ("", passage.mac)
        )
