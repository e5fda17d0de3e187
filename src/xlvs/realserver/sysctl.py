# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's settings of interfaces, under /proc/sys/net.

/proc/sys/net shows the network namespace of whoever opens it, so nothing here has
to know which one this is.
"""

from __future__ import annotations

from pathlib import Path

from xlvs.errors import XlvsError

ROOT = Path("/proc/sys/net")

ARP_IGNORE, ARP_ANNOUNCE, RP_FILTER, HIDDEN = "arp_ignore", "arp_announce", "rp_filter", "hidden"
SILENT = ("1", "2", "8")
"""Values of arp_ignore by which an address of ``lo`` is answered for on no other interface (arp.c:
``arp_ignore()``; 3 answers for addresses of global scope, 4 to 7 mean 0)."""
STRICT, LOOSE = 1, 2
"""Values of rp_filter (RFC 3704)."""


def name(interface: str, setting: str) -> str:
    """The name of an interface's IPv4 setting, as `read` takes it."""
    return f"ipv4/conf/{interface}/{setting}"


def read(setting: str) -> str | None:
    """A setting as the kernel shows it; None where this kernel, or this namespace, has none of that name."""
    try:
        return (ROOT / setting).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(setting: str, value: str) -> None:
    """Change a setting; raises `XlvsError`."""
    try:
        (ROOT / setting).write_text(f"{value}\n")
    except OSError as error:
        raise XlvsError(
            f"cannot write {value} to {ROOT / setting}: {error.strerror}",
            "Where the settings are somebody else's, as in most containers, take --arp nft or --arp ebpf.",
        ) from None


def effective(interface: str, setting: str) -> int:
    """What counts for an interface: the higher of ``all`` and its own (``IN_DEV_MAXCONF``)."""
    found = [read(name(each, setting)) for each in ("all", interface)]
    return max((int(value) for value in found if value is not None), default=0)


def has_hidden() -> bool:
    """Has this kernel the setting ``hidden``, which some distributions patched in?"""
    return read(name("all", HIDDEN)) is not None
