# SPDX-License-Identifier: GPL-2.0-only
"""Whether the connection table is, or was, full: what bpf/overload.h makes of the time since then."""

from __future__ import annotations

from xlvs.datapath.records import ticks_now
from xlvs.kernel import abi
from xlvs.model import SCTP_STATES, TCP_STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["room", "full", "settling", "remembered"]

_IDLE_TIMEOUTS = (
    TCP_STATES.index("ESTABLISHED"),
    abi.TIMEOUT_UDP,
    abi.TIMEOUT_SCTP + SCTP_STATES.index("ESTABLISHED"),
)
_TICKS_PER_SECOND = 10**9 >> abi.TICK_SHIFT
_TICKS = 1 << 32


def overload(settings: abi.Settings) -> tuple[Phase, int | None]:
    """What happens to packets without an entry, and seconds since a connection found no room.

    None stands for long ago.
    "full": new connections get no entry, a hash names their real server; "settling": they get
    one again, and still go by the hash; "remembered": only packets of connections that began
    without an entry do.  The last one ends with the longest of the timeouts for all services;
    those of a service with a longer one of its own are taken on for that long.
    """
    if not settings.full_at:
        return "room", None
    # The packet path may have written its stamp after we have read the clock.
    ticks = (ticks_now() - settings.full_at) % _TICKS
    if ticks > _TICKS // 2:
        ticks = 0
    seconds = ticks // _TICKS_PER_SECOND
    longest = max(settings.timeout[index] for index in _IDLE_TIMEOUTS)
    if seconds < abi.FULL_SECONDS:
        return "full", seconds
    if seconds < abi.SETTLING_SECONDS:
        return "settling", seconds
    if ticks < abi.FULL_SECONDS * _TICKS_PER_SECOND + longest:
        return "remembered", seconds
    return "room", None
