# SPDX-License-Identifier: GPL-2.0-only
"""What `lo` must allow: two settings under `net.*.conf.lo`, neither of which reaches beyond it.

`accept_local` lets answers come back to clients on the director itself: their
source is the VIP, an address of the director, and by any other interface that
would be a forgery.

`forwarding` lets the packet path ask the routing table.  bpf_fib_lookup()
answers only for an interface that forwards.  Asked for ``lo`` it can answer
without ip_forward, and nothing comes in through ``lo`` that could be forwarded.

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

FORWARDING_IPV4, FORWARDING_IPV6, ACCEPT_LOCAL = range(3)
"""The bits of ``settings.loopback_set`` and ``loopback_wanted``."""
SYSCTLS = (
    "net.ipv4.conf.lo.forwarding",
    "net.ipv6.conf.lo.forwarding",
    "net.ipv4.conf.lo.accept_local",
)
"""In the order of those bits."""

EVERY = 0b111
"""``settings.loopback_set`` as if all of them had been changed."""

_IPV6_INTERFACES = "/proc/sys/net/ipv6/conf"
_NOT_ALLOWED = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)


def _path(bit: int) -> str:
    return "/proc/sys/" + SYSCTLS[bit].replace(".", "/")


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


def enable(settings: abi.Settings, bit: int) -> None:
    """Turn one setting on where it is off, and note what was changed.

    Where that is not allowed the packet path does with what it learns
    from the incoming interface, or with the routes at the last command, and
    clients on the director itself get no answers.
    """
    settings.loopback_wanted |= 1 << bit
    path = _path(bit)
    if is_on(path):
        return
    try:
        if bit == FORWARDING_IPV6:
            with _router_advertisements_kept():
                _write(path, "1")
        else:
            _write(path, "1")
        settings.loopback_set |= 1 << bit
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def enable_again(settings: abi.Settings) -> None:
    """Turn on what `enable` found on or turned on, and somebody turned off since."""
    for bit in range(len(SYSCTLS)):
        if settings.loopback_wanted & 1 << bit:
            enable(settings, bit)


def changed(settings: abi.Settings) -> list[str]:
    """The settings that were turned on here."""
    return [name for bit, name in enumerate(SYSCTLS) if settings.loopback_set & 1 << bit]


def wanted(settings: abi.Settings) -> dict[str, bool]:
    """Whether it is on, for each setting that is needed."""
    return {
        name: is_on(_path(bit)) for bit, name in enumerate(SYSCTLS) if settings.loopback_wanted & 1 << bit
    }


def restore(bits: int) -> None:
    """Undo what `enable` changed: the bits of ``settings.loopback_set``.

    ``lo`` gets what the other interfaces have by now: ip_forward may have
    been turned on meanwhile.
    """
    for bit in range(len(SYSCTLS)):
        if not bits & 1 << bit:
            continue
        path = _path(bit)
        with suppress(OSError):
            others = _read(path.replace("/lo/", "/all/"))
            if _read(path) != others:
                _write(path, others)
