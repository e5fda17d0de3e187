# SPDX-License-Identifier: GPL-2.0-only
"""`net.*.conf.lo.forwarding`: lets the packet path ask the routing table.

bpf_fib_lookup() answers only for an interface that forwards.  Asked for
``lo`` it can answer without ip_forward, and nothing comes in through ``lo``
that could be forwarded.

Writing ip_forward sets every interface's, ``lo``'s too.  Who turns it off
while the data plane is loaded takes the answers away until the next command
that changes something; till then the packet path goes on with the last ones,
and does not notice a VIP that leaves the director.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.kernel import abi

PATHS = {
    "ipv4": "/proc/sys/net/ipv4/conf/lo/forwarding",
    "ipv6": "/proc/sys/net/ipv6/conf/lo/forwarding",
}
"""In the order of the bits of ``settings.forwarding_set``."""

EVERY = 0b11
"""``settings.forwarding_set`` as if all of them had been changed."""

_NOT_ALLOWED = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM)


def is_on(path: str) -> bool:
    """Whether that setting is on, or not there to be turned on (no IPv6)."""
    try:
        with open(path) as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return True


def enable(settings: abi.Settings) -> None:
    """Turn it on where it is off, and note what was changed.

    Where that is not allowed the packet path does with what it learns
    from the incoming interface, or with the routes at the last command.
    """
    for bit, path in enumerate(PATHS.values()):
        if is_on(path):
            continue
        try:
            with open(path, "w") as file:
                file.write("1")
            settings.forwarding_set |= 1 << bit
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise


def restore(changed: int) -> None:
    """Undo what `enable` changed, by ``settings.forwarding_set``.

    ``lo`` gets what the other interfaces have by now: ip_forward may have
    been turned on meanwhile.
    """
    for bit, path in enumerate(PATHS.values()):
        if not changed & 1 << bit:
            continue
        try:
            with open(path.replace("/lo/", "/all/")) as file:
                value = file.read()
            with open(path, "w") as file:
                file.write(value)
        except OSError:
            continue
