# SPDX-License-Identifier: GPL-2.0-only
"""Our own tables of nftables: VIPs kept silent, and packets to a VIP redirected.

The tables follow from the real servers there are, as a whole, and each change
replaces them in one transaction: no packet sees half of one.  Nobody else's rules are
touched, and to take ours back is to delete our tables.

A silent VIP is more than one that is not answered for.  The kernel asks for a neighbour
with the address as sender that its packet has, and who is asked learns that the VIP
is here: so such questions go out as from the interface's own address.
"""

from __future__ import annotations

import subprocess
from ipaddress import IPv6Address

from xlvs.errors import Unavailable, XlvsError
from xlvs.realserver.interfaces import Interface
from xlvs.realserver.wanted import NFT, REDIRECT, RealServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "xlvs_realserver"
_FAMILIES = ("arp", "ip6", "inet")
_SOLICITATIONS, _ADVERTISEMENTS = "nd-neighbor-solicit", "nd-neighbor-advert"


def concerns(server: RealServer) -> bool:
    """Has this real server something in our tables?"""
    return server.arp == NFT or (server.arp == REDIRECT and not server.rule)


def tables(servers: Iterable[RealServer], interfaces: Iterable[Interface]) -> dict[str, str]:
    """The text of each of our tables that these real servers need, by its family."""
    chosen, ways = list(servers), list(interfaces)
    silent = [server for server in chosen if server.arp == NFT]
    four = [server.vip for server in silent if not server.ipv6]
    # IPv6's VIP on lo is silent by itself; one on an interface is not.
    six = [server.vip for server in silent if server.ipv6 and server.device != "lo"]
    redirected = [server for server in chosen if server.arp == REDIRECT and not server.rule]
    found = {}
    if four:
        found["arp"] = _arp(four, ways)
    if six:
        found["ip6"] = _neighbours(six, ways)
    if redirected:
        found["inet"] = _redirection([server.vip for server in redirected])
    return found


def _arp(vips: list[str], interfaces: list[Interface]) -> str:
    own = [
        f'oifname "{each.name}" arp saddr ip @vips arp saddr ip set {each.address}'
        for each in interfaces
        if each.address
    ]
    incoming = ["arp daddr ip @vips drop"]
    outgoing = ["arp operation reply arp saddr ip @vips drop", "arp daddr ip @vips drop", *own]
    return _table(
        "arp",
        [
            _set("ipv4_addr", vips),
            _chain("input", "type filter hook input priority 0", incoming),
            _chain("output", "type filter hook output priority 0", [*outgoing, "arp saddr ip @vips drop"]),
        ],
    )


def _neighbours(vips: list[str], interfaces: list[Interface]) -> str:
    # The target of a solicitation or an advertisement: 16 bytes behind 8 of ICMPv6 (RFC 4861, 4.3).
    targets = [f"@th,64,128 {int(IPv6Address(vip)):#x}" for vip in vips]
    incoming = [f"icmpv6 type {_SOLICITATIONS} {target} drop" for target in targets]
    outgoing = [
        f"icmpv6 type {kind} {target} drop"
        for kind in (_SOLICITATIONS, _ADVERTISEMENTS)
        for target in targets
    ]
    asking = f"ip6 saddr @vips icmpv6 type {_SOLICITATIONS}"
    own = [
        f'oifname "{each.name}" {asking} ip6 saddr set {each.address6}'
        for each in interfaces
        if each.address6
    ]
    return _table(
        "ip6",
        [
            _set("ipv6_addr", vips),
            _chain("input", "type filter hook input priority 0", incoming),
            _chain("output", "type filter hook output priority 0", [*outgoing, *own, f"{asking} drop"]),
        ],
    )


def _redirection(vips: list[str]) -> str:
    rules = [f"{'ip6' if ':' in vip else 'ip'} daddr {vip} redirect" for vip in vips]
    return _table("inet", [_chain("prerouting", "type nat hook prerouting priority -100", rules)])


def _table(family: str, parts: list[str]) -> str:
    return f"table {family} {TABLE} {{\n{''.join(parts)}}}\n"


def _set(kind: str, elements: list[str]) -> str:
    return f"\tset vips {{\n\t\ttype {kind}\n\t\telements = {{ {', '.join(elements)} }}\n\t}}\n"


def _chain(name: str, hook: str, rules: list[str]) -> str:
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"\tchain {name} {{\n\t\t{hook}; policy accept;\n{lines}\t}}\n"


def replace(wanted: dict[str, str]) -> None:
    """Put these tables in the place of ours, in one transaction; raises `XlvsError`."""
    text = []
    for family in _FAMILIES:
        # To delete a table that may not be there: add it first.
        text.append(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
        text.append(wanted.get(family, ""))
    _run(["-f", "-"], "".join(text))


def present() -> set[str]:
    """The families in which there is a table of ours."""
    found = set()
    for line in _run(["list", "tables"]).splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == TABLE:
            found.add(words[1])
    return found


def _run(words: list[str], text: str = "") -> str:
    try:
        ran = subprocess.run(["nft", *words], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(
            "the command nft is not installed, which --arp nft and --arp redirect need",
            "apt-get install nftables; or choose another way: --arp sysctl, --arp ebpf",
        ) from None
    if ran.returncode != 0:
        said = ran.stderr.strip().partition("\n")[0]
        raise XlvsError(
            f"nft {' '.join(words)}: {said}", "has the kernel nf_tables, with its families arp and inet?"
        )
    return ran.stdout
