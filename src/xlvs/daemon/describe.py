# SPDX-License-Identifier: GPL-2.0-only
"""Services, real servers and differences in words, as operators write them."""

from __future__ import annotations

import json

from xlvs.daemon.health import RealServerKey, ServerKey
from xlvs.daemon.reconcile import Change
from xlvs.keepalived.addresses import format_address
from xlvs.model import IPV6, PROTOCOL_NAMES, Destination, Service, ServiceKey


def service_name(key: ServiceKey) -> str:
    """A service as `ipvsadm -L` names it: ``TCP 10.0.0.1:80``, ``FWM 5``."""
    if key.fwmark:
        return f"FWM {key.fwmark}{' IPv6' if key.family == IPV6 else ''}"
    return f"{PROTOCOL_NAMES.get(key.protocol, str(key.protocol))} {place_name((key.address, key.port))}"


def place_name(place: RealServerKey) -> str:
    """Address and port: ``10.0.0.11:80``, ``[2001:db8::1]:80``."""
    address = format_address(place[0])
    return f"[{address}]:{place[1]}" if ":" in address else f"{address}:{place[1]}"


def key_text(key: ServerKey) -> str:
    """A virtual server's key as text that can be told apart from all others, for files."""
    return json.dumps([part.hex() if isinstance(part, bytes) else part for part in key])


def change_text(change: Change) -> str:
    """A difference as what somebody has done to the table."""
    key, place, have, want = change
    service = service_name(key)
    if place is None:
        if have is None:
            return f"{service} was removed"
        if want is None:
            return f"{service} was added"
        return f"{service} was changed: {_fields(want, have)}"
    server = place_name(place)
    if have is None:
        return f"{server} was removed from {service}"
    if want is None:
        return f"{server} was added to {service}"
    return f"{server} of {service} was changed: {_fields(want, have)}"


def _fields(want: Service | Destination | None, have: Service | Destination | None) -> str:
    assert want is not None and have is not None
    return ", ".join(
        f"{name} {getattr(want, name)} to {getattr(have, name)}"
        for name in want.__slots__
        if getattr(want, name) != getattr(have, name)
    )
