# SPDX-License-Identifier: GPL-2.0-only
"""Linux as the other end of xlvs's tunnels, inside the guest: ``python -m tests.guest.tunnel_receivers``.

A client sends megabytes through each kind of tunnel to a real server that
unwraps with Linux's own fou and GRE devices.  The client's TCP leaves
checksums and segmentation to the card, so whatever xlvs makes of that has to
please a receiver that checks.  Writes, as JSON, how many bytes arrived whole.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
from functools import partial

from .network import DIRECTOR, VIP, Network, network, set_sysctl
from .operators import XlvsOperator

KINDS = (
    "ipip",
    "gue --tun-port 6080 --tun-nocsum",
    "gue --tun-port 6080 --tun-csum",
    "gue --tun-port 6080 --tun-remcsum",
    "gre --tun-csum",
)
SIZE = 4 << 20
FEW = 64 << 10
"""For GRE: it loses a part of each packet of several segments, so TCP takes its time."""
PATIENCE = 20.0
FIRST_PORT = 8000
SERVER = "rs1"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def _unwrap(address: str) -> None:
    """Have the real server take every kind; the caller is inside it."""
    _run(["modprobe", "-a", "fou", "ipip", "ip_gre"])
    _run(["ip", "fou", "add", "port", "6080", "gue"])
    _run(["ip", "link", "set", "tunl0", "up"])
    _run(["ip", "link", "add", "checked", "type", "gre", "local", address, "icsum"])
    _run(["ip", "link", "set", "checked", "up"])
    for name in ("all", "tunl0", "checked"):
        set_sysctl(f"ipv4/conf/{name}/rp_filter", 0)


def _take(listener: socket.socket, digests: list[tuple[int, str]]) -> None:
    """Take one connection to its end."""
    listener.settimeout(PATIENCE)
    connection, _ = listener.accept()
    connection.settimeout(PATIENCE)
    seen, count = hashlib.sha256(), 0
    with connection:
        while data := connection.recv(1 << 16):
            seen.update(data)
            count += len(data)
        digests.append((count, seen.hexdigest()))
        connection.send(b"thanks")


def main() -> int:
    """Send through every kind and print what arrived."""
    arrived: dict[str, int] = {}
    with network("taken-", 1) as built:
        address = built.addresses()[SERVER]
        with built.inside(SERVER):
            _unwrap(address)
        xlvs = XlvsOperator(partial(built.inside, DIRECTOR))
        try:
            for place, kind in enumerate(KINDS):
                port = FIRST_PORT + place
                service = f"{VIP[0]}:{port}"
                definition = f"-A -t {service} -s rr\n-a -t {service} -r {address} -i --tun-type {kind}\n"
                answer = xlvs.ipvsadm(["-R"], definition)
                assert answer == "= 0\n", answer
                arrived[kind] = _send(built, port, FEW if kind.startswith("gre") else SIZE)
        finally:
            xlvs.xlvs("detach")
    json.dump(arrived, sys.stdout)
    return 0


def _send(built: Network, port: int, size: int) -> int:
    """Send that many bytes to the VIP; how many came to the real server, 0 where they are others."""
    data = bytes(n * n >> 4 & 0xFF for n in range(1 << 16)) * (size >> 16)
    digests: list[tuple[int, str]] = []
    with built.inside(SERVER):
        listener = socket.create_server((VIP[0], port))
    taker = threading.Thread(target=_take, args=(listener, digests))
    taker.start()
    with built.inside("client"):
        client = socket.create_connection((VIP[0], port), PATIENCE)
    with client:
        client.settimeout(PATIENCE)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(100)
    taker.join()
    listener.close()
    ((count, digest),) = digests
    return count if digest == hashlib.sha256(data).hexdigest() else 0


if __name__ == "__main__":
    sys.exit(main())
