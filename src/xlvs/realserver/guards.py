# SPDX-License-Identifier: GPL-2.0-only
"""What follows from all real servers together: our tables of nftables and our programs.

Unlike changes these have no "before": they are ours alone, made and removed whole.
"""

from __future__ import annotations

from xlvs.realserver import nft
from xlvs.realserver.interfaces import Interface, ethernet
from xlvs.realserver.wanted import EBPF, MSS_OFF, RealServer


def check(servers: list[RealServer]) -> None:
    """Raise `UsageError` for interfaces that are not there."""
    for server in servers:
        ethernet((), server.interfaces)


def put(servers: list[RealServer]) -> list[str]:
    """Have all that these need in force; returns what was done.  Raises `XlvsError`."""
    done = []
    if any(map(nft.concerns, servers)):
        tables = nft.tables(servers, ethernet(server.vip for server in servers))
        new = sorted(set(tables) - nft.present())
        if new:
            done.append(f"nft: {', '.join(f'table {family} {nft.TABLE}' for family in new)}")
        nft.replace(tables)
    if any(map(_has_programs, servers)):
        from xlvs.realserver import programs  # with ctypes and libbpf, which others do without

        done += programs.put(servers)
    return done


def take(before: list[RealServer], after: list[RealServer]) -> list[str]:
    """Take away what those before needed and those after do not; returns what was done."""
    done: list[str] = []
    if before == after:
        return done
    if any(map(nft.concerns, before)):
        tables = nft.tables(after, ethernet(server.vip for server in after))
        gone = sorted(nft.present() - set(tables))
        if gone:
            done.append(f"taken back: nft: {', '.join(f'table {family} {nft.TABLE}' for family in gone)}")
        nft.replace(tables)
    if any(map(_has_programs, before)):
        from xlvs.realserver import programs

        done += programs.put(after)
    return done


def lacking(server: RealServer, interfaces: list[Interface]) -> list[str]:
    """What is not in force of that which a real server needs, at these interfaces."""
    found = []
    if nft.concerns(server):
        wanted = nft.tables([server], [])
        found += [
            f"there is no table {family} {nft.TABLE} of nftables" for family in set(wanted) - nft.present()
        ]
    if _has_programs(server):
        from xlvs.realserver import programs

        found += programs.lacking(server, interfaces)
    return found


def _has_programs(server: RealServer) -> bool:
    return EBPF in (server.arp, server.decapsulator) or server.mss != MSS_OFF
