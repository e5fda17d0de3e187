# SPDX-License-Identifier: GPL-2.0-only
"""What follows from all real servers together: our tables of nftables and our programs.

Unlike changes these have no "before": they are ours alone, made and removed whole.
"""

from __future__ import annotations

from xlvs.errors import XlvsError
from xlvs.realserver import nft
from xlvs.realserver.interfaces import ethernet
from xlvs.realserver.wanted import EBPF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.realserver.wanted import RealServer


def check(servers: list[RealServer]) -> None:
    """Raise `XlvsError` for what certainly cannot be put in force here."""
    for server in servers:
        ethernet((), server.interfaces)
        if server.arp == EBPF or server.decapsulator == EBPF:
            raise XlvsError("programs of real servers come with the next change")


def put(servers: list[RealServer]) -> list[str]:
    """Have all that these need in force; returns what was done.  Raises `XlvsError`."""
    done = []
    if any(map(nft.concerns, servers)):
        tables = nft.tables(servers, ethernet(server.vip for server in servers))
        if set(tables) - nft.present():
            done.append(f"nft: {', '.join(f'table {family} {nft.TABLE}' for family in tables)}")
        nft.replace(tables)
    return done


def take(before: list[RealServer], after: list[RealServer]) -> list[str]:
    """Take away what those before needed and those after do not; returns what was done."""
    done = []
    if any(map(nft.concerns, before)) and before != after:
        tables = nft.tables(after, ethernet(server.vip for server in after))
        gone = nft.present() - set(tables)
        if gone:
            done.append(
                f"taken back: nft: {', '.join(f'table {family} {nft.TABLE}' for family in sorted(gone))}"
            )
        nft.replace(tables)
    return done


def lacking(server: RealServer) -> list[str]:
    """What is not in force of that which a real server needs."""
    found = []
    if nft.concerns(server):
        wanted = nft.tables([server], [])
        for family in set(wanted) - nft.present():
            found.append(f"there is no table {family} {nft.TABLE} of nftables")
    return found
