# SPDX-License-Identifier: GPL-2.0-only
"""What ``xlvsadm -A`` tells whoever is at a terminal: INPUT rules that pass the service by.

Imported only then: it costs what the firewall's own programs take, where there are rules at all.
"""

from __future__ import annotations

import os
import subprocess
import time
from ipaddress import ip_address

from xlvs.doctor import firewall, ruleset
from xlvs.model import IPV6, PROTOCOL_NAMES, ServiceKey

SILENCE = "XLVS_NO_WARNINGS"
"""Set in the environment, not empty, it keeps these warnings away."""
_SECONDS = 1.0
"""For all of the firewall's programs together; what has not answered by then is not waited for."""


def about_input_rules(key: ServiceKey, program: str) -> str:
    """A line on the first INPUT rule that no longer keeps anybody from this service; empty if none does."""
    if key.fwmark:
        return ""  # which packets have the mark is said elsewhere
    family = ruleset.IPV6 if key.family == IPV6 else ruleset.IPV4
    end = time.monotonic() + _SECONDS
    rules = ruleset.observe(lambda command: _printed(command, end), ruleset.tables(), family)
    address = ip_address(key.address)
    protocol = PROTOCOL_NAMES.get(key.protocol, "").lower()
    rule = next((each for each in rules if firewall.keeps_out(each, protocol, address, key.port)), None)
    if rule is None:
        return ""
    endpoint = f"[{address}]:{key.port}" if address.version == 6 else f"{address}:{key.port}"
    return (
        f'{program}: warning: "{rule}" does not apply to {endpoint}, whose packets leave before netfilter '
        f"sees them (raw and PREROUTING as well): filter on the real servers, or in front of this director "
        f"({SILENCE}=1 silences this)"
    )


def _printed(command: list[str], end: float) -> str | None:
    left = end - time.monotonic()
    if left <= 0:
        return None
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=False, timeout=left, env={**os.environ, "PATH": path, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.decode(errors="replace") if ran.returncode == 0 else None
