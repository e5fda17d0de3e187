# SPDX-License-Identifier: GPL-2.0-only
"""What survives the daemon: the operator's decisions, what was found out, which services are ours.

Three files in /run/xlvs/xlvsd/NAMESPACE, each replaced as a whole: ``decisions.json`` is
written before an operator hears that a command is done, ``owned.json`` before a service is
made, ``health.json`` every few seconds while something changes.  A file that cannot be read
counts as missing: what it says can be found out again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from xlvs.daemon.describe import key_text
from xlvs.daemon.health import RealServerState, ServerKey, VirtualServerState
from xlvs.daemon.overrides import Drain, Overrides, Target
from xlvs.kernel.bpffs import make_run_folder
from xlvs.kernel.namespaces import gone
from xlvs.model import Destination, ServiceKey, Tunnel

_VERSION = 1


class Store:
    """The files of one daemon."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._health: dict[ServerKey, str] = {}

    def make_folder(self) -> None:
        """Make the folder, root's alone; raises `OSError`."""
        make_run_folder(os.path.dirname(self.folder))
        os.makedirs(self.folder, 0o700, exist_ok=True)

    def forget_others(self) -> None:
        """Remove what was kept for network namespaces that are gone.

        Raises `PermissionError` where one may not look into all of them.
        """
        above, own = os.path.split(self.folder)
        others = set(os.listdir(above)) - {own}
        for name in gone(others):
            import shutil

            shutil.rmtree(f"{above}/{name}", ignore_errors=True)

    def write_decisions(self, overrides: Overrides) -> None:
        """Keep the operator's decisions; they are on their way to survive when this returns."""
        self._write("decisions.json", _overrides_out(overrides))

    def read_decisions(self) -> Overrides:
        """The operator's decisions; none where there is no file."""
        found = self._read("decisions.json")
        try:
            return _overrides_in(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            return Overrides()

    def write_owned(self, owned: Iterable[ServiceKey]) -> None:
        """Keep which services are ours; those that were removed are nobody's."""
        self._write("owned.json", {"owned": [_service_out(key) for key in owned]})

    def read_owned(self) -> set[ServiceKey]:
        """The services that are ours; none where there is no file."""
        try:
            return {_service_in(one) for one in self._read("owned.json")["owned"]}
        except (KeyError, TypeError, ValueError, AttributeError):
            return set()

    def write_health(
        self, states: dict[ServerKey, VirtualServerState], changed: Iterable[ServerKey] | None = None
    ) -> None:
        """Keep what was found out; with ``changed`` all but these are as they were written last."""
        if changed is None:
            self._health = {}
            changed = states
        for key in changed:
            if key in states:
                self._health[key] = f"{json.dumps(key_text(key))}: {json.dumps(_state_out(states[key]))}"
            else:
                self._health.pop(key, None)
        text = ", ".join(self._health.values())
        self._replace("health.json", f'{{"version": {_VERSION}, "virtual_servers": {{{text}}}}}')

    def read_health(self) -> dict[str, VirtualServerState]:
        """States by the text of a virtual server's key."""
        found = self._read("health.json")
        try:
            return {
                key: VirtualServerState(
                    one["quorum"],
                    one["since"],
                    {
                        _place_in(place): RealServerState(*fields)
                        for place, fields in one["real_servers"].items()
                    },
                )
                for key, one in found["virtual_servers"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # Not json.dump: it goes through Python for each value, and takes ten times as long.
        self._replace(name, json.dumps({"version": _VERSION, **content}))

    def _replace(self, name: str, text: str) -> None:
        path = f"{self.folder}/{name}"
        unfinished = f"{path}.new"
        with open(unfinished, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        os.replace(unfinished, path)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("version") == _VERSION else {}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _state_out(state: VirtualServerState) -> dict[str, Any]:
    return {
        "quorum": state.quorum,
        "since": state.since,
        "real_servers": {
            f"{address.hex()}:{port}": [one.up, one.since, one.reason, one.weight, one.ramp]
            for (address, port), one in state.real_servers.items()
        },
    }


def _place_in(text: str) -> tuple[bytes, int]:
    address, _, port = text.partition(":")
    return bytes.fromhex(address), int(port)


def _service_out(key: ServiceKey) -> list[Any]:
    return [key.family, key.protocol, key.address.hex(), key.port, key.fwmark]


def _service_in(found: list[Any]) -> ServiceKey:
    family, protocol, address, port, fwmark = found
    return ServiceKey(family, protocol, bytes.fromhex(address), port, fwmark)


def _key_in(text: str) -> ServerKey:
    parts = json.loads(text)
    return tuple(bytes.fromhex(part) if at == 1 and parts[0] == "address" else part
                 for at, part in enumerate(parts))  # fmt: skip


def _target_out(target: Target) -> str:
    return json.dumps([key_text(target[0]), target[1][0].hex(), target[1][1]])


def _target_in(text: str) -> Target:
    key, address, port = json.loads(text)
    return _key_in(key), (bytes.fromhex(address), port)


def _destination_out(one: Destination) -> list[Any]:
    tunnel = [one.tunnel.kind, one.tunnel.port, one.tunnel.checksum] if one.tunnel else None
    return [
        one.address.hex(), one.port, one.method, one.weight, one.upper_threshold, one.lower_threshold, tunnel
    ]  # fmt: skip


def _destination_in(found: list[Any]) -> Destination:
    address, port, method, weight, upper, lower, tunnel = found
    return Destination(
        bytes.fromhex(address), port, method, weight, upper, lower, Tunnel(*tunnel) if tunnel else None
    )


def _overrides_out(overrides: Overrides) -> dict[str, Any]:
    return {
        "drains": {
            _target_out(target): [drain.since, drain.deadline, drain.removed]
            for target, drain in overrides.drains.items()
        },
        "weights": {_target_out(target): weight for target, weight in overrides.weights.items()},
        "added": [
            [_service_out(key), place[0].hex(), place[1], _destination_out(one)]
            for (key, place), one in overrides.added.items()
        ],
        "removed": [[_service_out(key), place[0].hex(), place[1]] for key, place in overrides.removed],
    }


def _overrides_in(found: dict[str, Any]) -> Overrides:
    if not found:
        return Overrides()
    return Overrides(
        {_target_in(target): Drain(*fields) for target, fields in found["drains"].items()},
        {_target_in(target): int(weight) for target, weight in found["weights"].items()},
        {
            (_service_in(key), (bytes.fromhex(address), port)): _destination_in(one)
            for key, address, port, one in found["added"]
        },
        frozenset(
            (_service_in(key), (bytes.fromhex(address), port)) for key, address, port in found["removed"]
        ),
    )
