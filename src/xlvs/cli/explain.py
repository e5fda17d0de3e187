# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs explain``: what would become of a client's packet, and why."""

from __future__ import annotations

import argparse
import socket

from xlvs.cli.address import parse_endpoint
from xlvs.errors import UsageError
from xlvs.model import SCTP, TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.explaining import Explanation, Question

_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
_LAST_MARK = 0xFFFFFFFF

_HELP = """\
Say what the director would do with a packet from a client to a virtual
service: the connection or template that it belongs to, the service, every real
server that could be chosen with the numbers by which it is, and how the packet
would leave.

Nothing is sent and nothing changes: the loaded packet path runs on a copy of
its tables, which takes as much memory as they do for that moment.

Without a client port the packet begins a connection that does not exist yet.
With one it belongs to the connection from that port, if there is one."""

_EPILOG = """\
examples:
  xlvs explain --client 203.0.113.7 --to 192.0.2.100:80
  xlvs explain --client 203.0.113.7:51034 --to 192.0.2.100:53 --proto udp
  xlvs explain --client [2001:db8::7]:51034 --to [2001:db8::100]:443 --json

exit codes: 0 it reaches a real server; 1 it does not, or could not be tried"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "explain",
        help="what would become of a client's packet, and why",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--client", required=True, metavar="IP[:PORT]", help="where the packet comes from")
    parser.add_argument("--to", required=True, metavar="VIP:PORT", help="where it goes")
    parser.add_argument("--proto", choices=_PROTOCOLS, default="tcp", help="tcp (the default), udp or sctp")
    parser.add_argument("--interface", metavar="NAME", help="by which it comes in (default: as routed)")
    parser.add_argument("--mark", type=int, default=0, metavar="MARK", help="a firewall mark it has already")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    from xlvs.datapath.explaining import explain
    from xlvs.datapath.maps import Maps
    from xlvs.errors import NotLoaded
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    question = _question(arguments)
    require_root()
    if bpffs.namespace_folder() is not None:
        with table_lock(exclusive=False):
            folder = bpffs.namespace_folder()
            if folder is not None:  # else it was detached while we waited for the lock
                maps = Maps(folder)
                try:
                    return _print(explain(maps, question), as_json=arguments.json)
                finally:
                    maps.close()
    raise NotLoaded(
        "nothing is loaded in this network namespace: every packet is the director's own business",
        "xlvs attach, or the first xlvsadm -A, loads the packet path.",
    )


def _print(found: Explanation, *, as_json: bool) -> int:
    from xlvs.cli import explanation

    if as_json:
        import json

        print(json.dumps(explanation.fields(found), indent=2))
    else:
        print("\n".join(explanation.page(found)))
    return 0 if found.leaves or found.local else 1


def _question(arguments: argparse.Namespace) -> Question:
    from xlvs.datapath.explaining import Question

    protocol = _PROTOCOLS[arguments.proto]
    client, client_port = _endpoint("--client", arguments.client, protocol)
    virtual, port = _endpoint("--to", arguments.to, protocol)
    if port is None:
        raise UsageError(f"--to {arguments.to!r} has no port", "Write VIP:PORT, an IPv6 VIP as [VIP]:PORT.")
    if len(client) != len(virtual):
        raise UsageError(
            f"--client {arguments.client} and --to {arguments.to} are of different families",
            "A packet is IPv4 or IPv6.",
        )
    if client_port == 0:
        raise UsageError("no connection comes from port 0", "Leave the client's port out for a new one.")
    if not 0 <= arguments.mark <= _LAST_MARK:
        raise UsageError(f"--mark {arguments.mark} is not between 0 and {_LAST_MARK}")
    interface = None
    if arguments.interface is not None:
        try:
            interface = socket.if_nametoindex(arguments.interface)
        except OSError:
            raise UsageError(f"there is no interface {arguments.interface!r}", "See: ip link") from None
    return Question(protocol, client, client_port, virtual, port, interface, arguments.mark)


def _endpoint(option: str, text: str, protocol: int) -> tuple[bytes, int | None]:
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    endpoint = parse_endpoint(inside, protocol)
    if endpoint is None:
        raise UsageError(f"{option} {text!r} is no address", "Write IP:PORT, an IPv6 address as [IP]:PORT.")
    return endpoint
