# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's packet generator: what it is told, and what it says.

Documentation/networking/pktgen.rst, net/core/pktgen.c.  It sends UDP over IPv4
from one device of this network namespace, packet by packet, and says how long
that took; whatever the packets bring about on the same CPU is in that time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path("/proc/thread-self/net/pktgen")
_RESULT = re.compile(r"Result: OK: (\d+)\(c\d+\+d\d+\) usec, (\d+) \(\d+byte")


@dataclass(frozen=True, slots=True)
class Packets:
    """UDP packets of ``flows`` flows, one after the other, which differ in one port.

    With ``answers`` that port is where they go to, else where they come from.
    """

    device: str
    mac: str
    source: str
    destination: str
    port: int
    flows: int
    answers: bool = False
    size: int = 60
    """Bytes of a frame, without its check sequence."""

    def settings(self, count: int) -> list[str]:
        """What is written to the device's file."""
        first, last = 1024, 1023 + self.flows
        clients, services = ("dst", "src") if self.answers else ("src", "dst")
        return [
            "flag UDPCSUM",
            f"count {count}",
            "clone_skb 0",
            "delay 0",
            f"pkt_size {self.size}",
            f"dst_mac {self.mac}",
            f"src_min {self.source}",
            f"src_max {self.source}",
            f"dst_min {self.destination}",
            f"dst_max {self.destination}",
            f"udp_{clients}_min {first}",
            f"udp_{clients}_max {last + 1}",  # the maximum itself is not reached
            f"udp_{services}_min {self.port}",
            f"udp_{services}_max {self.port}",
        ]


class Failed(Exception):
    """The generator did not send what it was told; shows what it said."""


def nanoseconds(result: str, count: int) -> float:
    """For each packet, of what a device's file says after a run; raises `Failed`."""
    found = _RESULT.search(result)
    if not found or int(found[2]) != count:
        raise Failed(f"pktgen has not sent {count} packets; it says:\n{result}")
    return int(found[1]) * 1000 / count


def send(packets: Packets, count: int) -> float:
    """Send so many and return nanoseconds for each; raises `Failed`."""
    thread = _FOLDER / "kpktgend_0"
    thread.write_text("rem_device_all\n")
    thread.write_text(f"add_device {packets.device}\n")
    device = _FOLDER / packets.device
    for line in packets.settings(count):
        device.write_text(f"{line}\n")
    (_FOLDER / "pgctrl").write_text("start\n")  # returns when all are sent
    said = device.read_text()
    thread.write_text("rem_device_all\n")
    return nanoseconds(said, count)
