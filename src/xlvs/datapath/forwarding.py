# SPDX-License-Identifier: GPL-2.0-only
"""`net.*.conf.lo.forwarding`: lets the packet path ask the routing table.

bpf_fib_lookup() answers only for an interface that forwards.  Asked for
``lo`` it can answer without ip_forward, and nothing comes in through ``lo``
that could be forwarded.

Writing ip_forward sets every interface's, ``lo``'s too.  Who turns it off
while the data plane is loaded takes the answers away until the next command
that changes something; till then the packet path goes on with the last way to
a real server, and takes every VIP for the director's.

Whoever turns IPv6 forwarding on, for whichever interface, loses the default
routes learned from router advertisements, unless accept_ra is 2 (kernel:
``rt6_purge_dflt_routers``).  So IPv6 waits for the first IPv6 service, and
accept_ra is 2 while it is written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.kernel import abi

IPV4, IPV6 = 0, 1
"""The bits of ``settings.forwarding_set`` and ``forwarding_wanted``."""
PATHS = {
    "ipv4": "/proc/sys/net/ipv4/conf/lo/forwarding",
    "ipv6": "/proc/sys/net/ipv6/conf/lo/forwarding",
}
"""In the order of those bits."""

EVERY = 0b11
"""``settings.forwarding_set`` as if all of them had been changed."""

_IPV6_INTERFACES = "/proc/sys/net/ipv6/conf"
_NOT_ALLOWED = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)


def is_on(path: str) -> bool:
    """Whether that setting is on, or not there to be turned on (no IPv6)."""
    try:
        return _read(path) != "0"
    except FileNotFoundError:
        return True


@contextmanager
def _router_advertisements_kept() -> Iterator[None]:
    """Have every interface keep the default routes that routers advertised to it."""
    changed = []
    try:
        for name in os.listdir(_IPV6_INTERFACES):
            path = f"{_IPV6_INTERFACES}/{name}/accept_ra"
            with suppress(OSError):  # an interface may go
                if name not in ("all", "default") and _read(path) == "1":
                    _write(path, "2")
                    changed.append(path)
        yield
    finally:
        for path in changed:
            with suppress(OSError):
                _write(path, "1")


def enable(settings: abi.Settings, family: int) -> None:
    """Turn it on for `IPV4` or `IPV6` where it is off, and note what was changed.

    Where that is not allowed the packet path does with what it learns
    from the incoming interface, or with the routes at the last command.
    """
    settings.forwarding_wanted |= 1 << family
    path = list(PATHS.values())[family]
    if is_on(path):
        return
    try:
        if family == IPV6:
            with _router_advertisements_kept():
                _write(path, "1")
        else:
            _write(path, "1")
        settings.forwarding_set |= 1 << family
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def enable_again(settings: abi.Settings) -> None:
    """Turn on what `enable` found on or turned on, and somebody turned off since."""
    for family in (IPV4, IPV6):
        if settings.forwarding_wanted & 1 << family:
            enable(settings, family)


def changed(settings: abi.Settings) -> list[str]:
    """The families for which it was turned on here."""
    return [name for family, name in enumerate(PATHS) if settings.forwarding_set & 1 << family]


def wanted(settings: abi.Settings) -> dict[str, bool]:
    """Whether it is on, for each family that needs it."""
    return {
        name: is_on(path)
        for family, (name, path) in enumerate(PATHS.items())
        if settings.forwarding_wanted & 1 << family
    }


def restore(bits: int) -> None:
    """Undo what `enable` changed: the bits of ``settings.forwarding_set``.

    ``lo`` gets what the other interfaces have by now: ip_forward may have
    been turned on meanwhile.
    """
    for family, path in enumerate(PATHS.values()):
        if not bits & 1 << family:
            continue
        with suppress(OSError):
            wanted = _read(path.replace("/lo/", "/all/"))
            if _read(path) != wanted:
                _write(path, wanted)
