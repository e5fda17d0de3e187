# SPDX-License-Identifier: GPL-2.0-only
"""What a configuration is read against: the host's name, interfaces, users and processors.

keepalived checks a configuration against the machine that it runs on.  The
parser asks this value and nothing else, so that a test can say what machine
it is on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

_FLAG_MULTICAST = 0x1000
_FLAG_LOOPBACK = 0x8


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A machine as far as configurations can tell.

    ``config_id`` is what ``@id`` lines are compared with (``-i``; the host's
    short name).  ``interfaces`` maps names to interface flags (``IFF_…``).
    ``include_checks`` is ``-e``: every include must find what it names.
    ``uid`` and ``gid`` are the daemon's own.
    """

    config_id: str = ""
    host_name: str = ""
    interfaces: Mapping[str, int] = field(default_factory=dict)
    processors: int = 1
    uid: int = 0
    gid: int = 0
    include_checks: bool = False

    @classmethod
    def of_this_host(cls, config_id: str = "", include_checks: bool = False) -> Surroundings:
        """What holds here and now, in this network namespace."""
        name = os.uname().nodename
        return cls(
            config_id=config_id or name.partition(".")[0],
            host_name=name,
            interfaces={name: _flags(name) for _, name in socket.if_nameindex()},
            processors=os.cpu_count() or 1,
            uid=os.geteuid(),
            gid=os.getegid(),
            include_checks=include_checks,
        )

    def is_loopback(self, interface: str) -> bool:
        """Is that interface a loopback?"""
        return bool(self.interfaces.get(interface, 0) & _FLAG_LOOPBACK)

    def user(self, name: str) -> tuple[int, int] | None:
        """A user's uid and gid by name; None if there is no such user."""
        import pwd

        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            return None
        return entry.pw_uid, entry.pw_gid

    def group(self, name: str) -> int | None:
        """A group's gid by name; None if there is no such group."""
        import grp

        try:
            return grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):
            return None

    def has_multicast(self, interface: str) -> bool:
        """Can that interface send multicast?"""
        return bool(self.interfaces.get(interface, 0) & _FLAG_MULTICAST)


def _flags(name: str) -> int:
    """An interface's flags, as SIOCGIFFLAGS has them; 0 when it has gone meanwhile."""
    import fcntl
    import struct

    request = struct.pack("16sH14x", name.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, 0x8913, request)
        except OSError:
            return 0
    return int(struct.unpack("16xH14x", answer)[0])
