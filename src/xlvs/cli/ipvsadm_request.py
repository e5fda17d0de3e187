# SPDX-License-Identifier: GPL-2.0-only
"""What one ipvsadm command line asks for, once it has been read.

A plain record that `xlvs.cli.ipvsadm_parse` fills and
`xlvs.cli.ipvsadm_execute` carries out; its methods put it into the model's
words.
"""

from __future__ import annotations

from xlvs.cli.address import mask_to_prefix
from xlvs.errors import NotSupported
from xlvs.model import ROUTE, TUNNEL, Destination, Service, ServiceKey, Timeouts, Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.cli.connection_filter import Test


class Request:
    """What one command line asks for.  Its fields start as ipvsadm's defaults."""

    def __init__(self) -> None:
        self.command = ""
        self.options: set[str] = set()
        """The options given, by the names of `ipvsadm_grammar.OPTION_ORDER`."""

        # The service.  The family is 0 until an option says which.
        self.family = 0
        self.protocol = 0
        self.address = b""
        self.port = 0
        self.fwmark = 0
        self.scheduler = ""
        self.scheduler_flags_text = ""
        self.scheduler_flags = 0
        self.persistence = 0
        self.netmask: int | bytes = 32
        """A prefix length, or an IPv4 mask as it was given."""
        self.engine = ""
        self.one_packet = False
        self.idle_timeout = 0

        # The real server.
        self.real_address = b""
        self.real_port = 0
        self.method = ROUTE
        self.weight = 1
        self.upper_threshold = 0
        self.lower_threshold = 0
        self.tunnel_kind = "ipip"
        self.tunnel_port = 0
        self.tunnel_checksum = "nocsum"

        # What a connection must be to be listed.
        self.connection_tests: list[Test] = []

        # --set and the sync daemons.
        self.timeouts = Timeouts(0, 0, 0)
        self.daemon_state = ""
        self.daemon_interface = ""
        self.daemon_group = b""
        self.daemon_numbers: dict[str, int] = {}

    def has_service(self) -> bool:
        """Whether a service was named."""
        return "service-address" in self.options

    def service_key(self) -> ServiceKey:
        """The key of the service that was named."""
        if self.fwmark:
            return ServiceKey(self.family, fwmark=self.fwmark)
        return ServiceKey(self.family, self.protocol, self.address, self.port)

    def service(self) -> Service:
        """The service to add or to edit; raises `NotSupported` for a mask with gaps."""
        netmask = self.netmask
        if isinstance(netmask, bytes):
            prefix = mask_to_prefix(netmask)
            if prefix is None and self.persistence:
                text = ".".join(map(str, netmask))
                raise NotSupported(
                    f"The persistence mask {text} is not supported: its ones have gaps.",
                    "Give a mask such as 255.255.255.0.",
                )
            # Without persistence nothing looks at the mask, and nothing shows it.
            netmask = 32 if prefix is None else prefix
        return Service(
            self.service_key(),
            self.scheduler,
            self.scheduler_flags,
            self.persistence,
            netmask,
            self.engine,
            self.one_packet,
            self.idle_timeout,
            "reject-gone" in self.options,
            "rehome" in self.options,
        )

    def destination(self) -> Destination:
        """The real server to add or to edit."""
        tunnel = None
        if self.method == TUNNEL:
            tunnel = Tunnel(self.tunnel_kind, self.tunnel_port, self.tunnel_checksum)
        return Destination(
            self.real_address,
            self.real_port,
            self.method,
            self.weight,
            self.upper_threshold,
            self.lower_threshold,
            tunnel,
        )
