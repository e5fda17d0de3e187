# SPDX-License-Identifier: GPL-2.0-only
"""The whole of a keepalived.conf as values.

`Configuration` is what a file means, not what it says: defaults are filled
in, inherited values are with those that inherit them, ranges are written out,
what keepalived corrects is corrected.  Values are frozen and compare by
meaning; where they come from (``position``) does not count.

    Configuration
    ├── settings: GlobalSettings        (settings.py)
    ├── virtual_servers: VirtualServer
    │   ├── services: model.Service     one, or those of a virtual_server_group
    │   ├── sorry_server: SorryServer
    │   └── real_servers: RealServer
    │       └── checkers: Checker       (checks.py)
    ├── tls: TlsClient                  the SSL block
    ├── track_files, bfd_instances
    └── redundancy: Redundancy          VRRP and static addresses (redundancy.py)

Identity across reloads is keepalived's: a virtual server is the same one while
its `VirtualServer.key` is, a real server while its `RealServer.key` is, a
checker while all of it but its schedule is (`checker_identity`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from xlvs.keepalived.addresses import format_address
from xlvs.keepalived.checks import Checker, Schedule
from xlvs.keepalived.origin import Position, Script
from xlvs.keepalived.redundancy import BfdInstance, Redundancy, TrackFile
from xlvs.keepalived.settings import GlobalSettings
from xlvs.model import IPV4, MASQUERADE, PROTOCOL_NAMES, Destination, Service

DEFAULT_PERSISTENCE = 360
"""The persistence timeout that keepalived gives where none is said, in seconds."""


@dataclass(frozen=True, slots=True)
class TlsClient:
    """The SSL block: what SSL_GET shows a server that asks for a client's certificate."""

    password: str = ""
    authorities: str = ""
    certificate: str = ""
    key: str = ""
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A line of a virtual_server_group: a range of addresses with a port, or a firewall mark.

    ``first`` and ``last`` are packed and equal for a single address, empty for
    a mark.  ``family`` is 0 for a mark that says none.
    """

    first: bytes = b""
    last: bytes = b""
    port: int = 0
    fwmark: int = 0
    family: int = 0
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class VirtualServerGroup:
    """A virtual_server_group; its ``entries`` are in the order of the file."""

    name: str
    entries: tuple[GroupEntry, ...] = ()
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class SorryServer:
    """The server of last resort; ``inhibit`` (sorry_server_inhibit) gives it weight 0 when unused."""

    destination: Destination
    inhibit: bool = False
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server: what goes into the table, and how its health is found out.

    ``destination`` has the configured weight and the port as written (for the
    port in one service's table see `VirtualServer.destination_for`).
    ``inhibit_on_failure``: on failure it gets weight 0 and stays in the table.
    ``slow_start`` are the seconds over which a server that comes back gets
    its weight again, 0 at once.
    """

    destination: Destination
    checkers: tuple[Checker, ...] = ()
    inhibit_on_failure: bool = False
    alpha: bool = False
    notify_up: Script | None = None
    notify_down: Script | None = None
    smtp_alert: bool = True
    virtualhost: str = ""
    snmp_name: str = ""
    slow_start: float = 0.0
    position: Position = field(default=Position(), compare=False)

    @property
    def key(self) -> tuple[bytes, int]:
        """What makes it the same real server after a reload: address and port."""
        return self.destination.address, self.destination.port


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server: one virtual service, or all of a virtual_server_group's, on one set of real servers.

    ``services`` has every entry written out, ranges address by address.
    ``group`` is the group's name; else ``address`` and ``port``, or
    ``fwmark``, say what it is.  ``protocol`` is 0 where only marks count.
    ``member`` counts the virtual servers of one group, from 0.
    ``quorum`` is never above the sum of the weights, ``hysteresis`` never as
    high as the quorum.
    """

    services: tuple[Service, ...]
    real_servers: tuple[RealServer, ...]
    protocol: int = 0
    address: bytes = b""
    port: int = 0
    fwmark: int = 0
    group: str = ""
    member: int = 0
    family: int = IPV4
    quorum: int = 1
    hysteresis: int = 0
    quorum_up: Script | None = None
    quorum_down: Script | None = None
    alpha: bool = False
    omega: bool = False
    ha_suspend: bool = False
    smtp_alert: bool = False
    sorry_server: SorryServer | None = None
    virtualhost: str = ""
    snmp_name: str = ""
    delay_loop: float = 60.0
    position: Position = field(default=Position(), compare=False)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same virtual server after a reload."""
        if self.group:
            return "group", self.group, self.protocol
        if self.fwmark:
            return "fwmark", self.fwmark, self.family
        return "address", self.address, self.port, self.protocol

    @property
    def name(self) -> str:
        """The virtual server as keepalived's log has it: ``[10.0.0.1]:tcp:80``, ``FWM 5``, ``[web]:0``."""
        if self.group:
            return f"[{self.group}]:{self.member}"
        if self.fwmark:
            return f"FWM {self.fwmark}"
        return trio(self.address, self.port, self.protocol)

    def real_server_name(self, real_server: RealServer | SorryServer) -> str:
        """A real server of this virtual server as keepalived's log has it: ``[10.0.0.11]:tcp:80``."""
        destination = real_server.destination
        return trio(destination.address, destination.port, self.protocol)

    def destination_for(self, service: Service, real_server: RealServer | SorryServer) -> Destination:
        """A real server as it stands in the table of one of our services.

        Only masquerading can translate a port: by any other method the real
        server has the service's own (keepalived: ipvs_group_cmd()).
        """
        destination = real_server.destination
        if destination.method == MASQUERADE or destination.port == service.key.port:
            return destination
        return destination.replace(port=service.key.port)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a keepalived.conf says.

    ``files`` are those that it was read from, the first one first.
    """

    settings: GlobalSettings = GlobalSettings()
    virtual_servers: tuple[VirtualServer, ...] = ()
    groups: tuple[VirtualServerGroup, ...] = ()
    tls: TlsClient = TlsClient()
    track_files: tuple[TrackFile, ...] = ()
    bfd_instances: tuple[BfdInstance, ...] = ()
    redundancy: Redundancy = Redundancy()
    files: tuple[str, ...] = field(default=(), compare=False)


def checker_identity(checker: Checker) -> Checker:
    """What of a checker must be the same for its state to outlive a reload.

    That is all but its schedule: a changed interval or number of retries does
    not make a real server's health unknown.
    """
    return replace(checker, schedule=_ANY_SCHEDULE)


_ANY_SCHEDULE = Schedule()


def trio(address: bytes, port: int, protocol: int) -> str:
    """Address, protocol and port as keepalived's log has them: ``[10.0.0.1]:tcp:80``."""
    name = PROTOCOL_NAMES.get(protocol, "none" if not protocol else "?").lower()
    return f"[{format_address(address)}]:{name}:{port}"
