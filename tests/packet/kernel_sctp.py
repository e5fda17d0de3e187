# SPDX-License-Identifier: GPL-2.0-only
"""What kernel IPVS would do with SCTP, written from its rules.

Nothing of xlvs is imported.  The rules are those of Linux 6.1,
net/netfilter/ipvs/ip_vs_proto_sctp.c.  A rule names only the states that an
event changes, all others stay; "*" is every state that is not named.
"""

from __future__ import annotations

from tests.packet.packets import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    ERROR,
    INIT,
    INIT_ACK,
    SHUTDOWN,
    SHUTDOWN_ACK,
    SHUTDOWN_COMPLETE,
)

INPUT, OUTPUT, INPUT_ONLY = "input", "output", "input only"
"""A packet of the client, of the real server, of the client where no answers are seen."""

STATES = (
    "NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED",
    "S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED",
)  # fmt: skip
_LATE = "ESTABLISHED S-SENT S-RECEIVED S-ACK-SENT REJECTED CLOSED"
_DATA = -1
_RULES = {
    (INPUT, _DATA): {"NONE": "ESTABLISHED"},
    (INPUT, INIT): {"NONE": "INIT1", "INIT1 REJECTED CLOSED": "INIT"},
    (INPUT, INIT_ACK): {"NONE INIT1 INIT": "C-WAIT", "C-WAIT": "COOKIE"},
    (INPUT, COOKIE_ECHO): {"NONE C-SENT": "C-REPLIED", "INIT1": "INIT"},
    (INPUT, COOKIE_ACK): {"NONE C-ECHOED": "ESTABLISHED"},
    (INPUT, SHUTDOWN): {"NONE ESTABLISHED": "S-RECEIVED"},
    (INPUT, SHUTDOWN_ACK): {"NONE S-SENT S-ACK-SENT": "CLOSED", "INIT1": "INIT"},
    (INPUT, SHUTDOWN_COMPLETE): {"NONE INIT1 INIT S-ACK-SENT": "CLOSED"},
    (INPUT, ERROR): {"NONE C-ECHOED": "CLOSED"},
    (INPUT, ABORT): {"C-WAIT": "REJECTED", "*": "CLOSED"},
    (OUTPUT, _DATA): {"NONE": "ESTABLISHED"},
    (OUTPUT, INIT): {"ESTABLISHED": "ESTABLISHED", "*": "C-WAIT"},
    (OUTPUT, INIT_ACK): {"NONE INIT1 INIT": "C-SENT"},
    (OUTPUT, COOKIE_ECHO): {_LATE: "", "*": "C-ECHOED"},
    (OUTPUT, COOKIE_ACK): {_LATE: "", "*": "ESTABLISHED"},
    (OUTPUT, SHUTDOWN): {"S-RECEIVED S-ACK-SENT REJECTED CLOSED": "", "*": "S-SENT"},
    (OUTPUT, SHUTDOWN_ACK): {"C-WAIT COOKIE C-ECHOED ESTABLISHED REJECTED CLOSED": "", "*": "S-ACK-SENT"},
    (OUTPUT, SHUTDOWN_COMPLETE): {"NONE": "CLOSED"},
    (OUTPUT, ERROR): {"NONE INIT1 INIT C-SENT C-REPLIED": "CLOSED"},
    (OUTPUT, ABORT): {"INIT1": "REJECTED", "*": "CLOSED"},
    (INPUT_ONLY, _DATA): {"NONE C-WAIT": "ESTABLISHED"},
    (INPUT_ONLY, INIT): {"NONE": "INIT1", "INIT1 C-SENT C-REPLIED C-WAIT REJECTED CLOSED": "INIT"},
    (INPUT_ONLY, INIT_ACK): {f"COOKIE {_LATE}": "", "*": "C-ECHOED"},
    (INPUT_ONLY, COOKIE_ECHO): {f"COOKIE C-ECHOED {_LATE}": "", "*": "ESTABLISHED"},
    (INPUT_ONLY, COOKIE_ACK): {"NONE C-SENT C-REPLIED COOKIE C-ECHOED": "ESTABLISHED"},
    (INPUT_ONLY, SHUTDOWN): {"NONE ESTABLISHED": "S-RECEIVED"},
    (INPUT_ONLY, SHUTDOWN_ACK): {"NONE ESTABLISHED S-SENT S-ACK-SENT": "CLOSED", "INIT1": "INIT"},
    (INPUT_ONLY, SHUTDOWN_COMPLETE): {
        "NONE INIT1 INIT C-SENT C-REPLIED S-RECEIVED S-ACK-SENT": "CLOSED"
    },
    (INPUT_ONLY, ERROR): {"NONE": "CLOSED"},
    (INPUT_ONLY, ABORT): {"C-WAIT": "REJECTED", "*": "CLOSED"},
}  # fmt: skip

TIMEOUTS = dict.fromkeys(STATES, 61) | {"NONE": 2, "INIT1": 4, "REJECTED": 4, "ESTABLISHED": 900}


def next_state(state: str, kinds: tuple[int, ...], direction: str) -> str:
    """An association's state after a packet with those chunks."""
    if not kinds:
        return state
    deciding = kinds[0]
    if deciding in (COOKIE_ECHO, COOKIE_ACK) and kinds[1:2] == (ABORT,):
        deciding = ABORT
    rules = _RULES.get((direction, deciding), _RULES[direction, _DATA])
    for before, after in rules.items():
        if state in before.split():
            return after or state
    return rules.get("*", state)
