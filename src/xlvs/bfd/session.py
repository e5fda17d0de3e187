# SPDX-License-Identifier: GPL-2.0-only
"""One BFD session as a state machine (RFC 5880 section 6.8), without clock, socket or thread.

Times are in seconds of the caller's clock.  The caller gives packets to `receive`, calls
`advance` when `due` has come, and sends what both return.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from xlvs.bfd.packet import Diagnostic, Packet, State
from xlvs.keepalived.redundancy import BfdInstance

_MICROSECONDS = 1_000_000
_SLOW = 1_000_000
"""Microseconds that must lie between packets while a session is not up (section 6.8.3)."""

Between = Callable[[float, float], float]
"""Chooses a number between two, as `random.uniform` does."""


class Session:
    """A session with one neighbour.  ``discriminator`` must be no other session's, and not 0."""

    def __init__(self, instance: BfdInstance, discriminator: int, between: Between, now: float) -> None:
        self.instance = instance
        self.discriminator = discriminator
        self.state = State.DOWN
        self.diagnostic: int = Diagnostic.NONE
        self.remote_state = State.DOWN
        self.remote_discriminator = 0
        self.heard: float | None = None
        """When the neighbour's last packet came."""
        self._between = between
        self._remote_min_rx = 1
        self._remote_min_tx = 0
        self._remote_multiplier = 0
        self._remote_demand = False
        self._polling = False
        self._receive_by = round(instance.min_rx * 1000)
        self._next = now
        self._transmit_by = self._desired_min_tx()

    # --- what holds ----------------------------------------------------------

    @property
    def detection_time(self) -> float:
        """Seconds without a packet after which the neighbour counts as gone (section 6.8.4)."""
        return self._remote_multiplier * max(self._receive_by, self._remote_min_tx) / _MICROSECONDS

    @property
    def interval(self) -> float:
        """Seconds between our packets, before jitter (section 6.8.7); infinite if none may be sent."""
        if not self._remote_min_rx or (self.instance.passive and not self.remote_discriminator):
            return math.inf
        both_up = self.state is State.UP and self.remote_state is State.UP
        if self._remote_demand and both_up and not self._polling:
            return math.inf
        return max(self._transmit_by, self._remote_min_rx) / _MICROSECONDS

    @property
    def due(self) -> float:
        """When `advance` has something to do; infinite for never."""
        return min(self._next if self.interval < math.inf else math.inf, self._expires)

    @property
    def _expires(self) -> float:
        if self.heard is None or not self.remote_discriminator:
            return math.inf
        return self.heard + self.detection_time

    def _desired_min_tx(self) -> int:
        """What we want to send by, in microseconds: slowly while the session is not up."""
        if self.state is State.UP:
            return round(self.instance.min_tx * 1000)
        return max(_SLOW, round(self.instance.idle_tx * 1000))

    # --- what happens --------------------------------------------------------

    def configure(self, instance: BfdInstance, now: float) -> None:
        """Go by other intervals; the neighbour hears of them by a poll (section 6.8.3)."""
        self.instance = instance
        if self.state is State.UP:
            self._polling = True
            # Faster sending and slower receiving hold at once; the rest when he has agreed.
            self._transmit_by = min(self._transmit_by, self._desired_min_tx())
            self._receive_by = max(self._receive_by, round(instance.min_rx * 1000))
        else:
            self._settle()
        self._next = min(self._next, now + self._pause())

    def receive(self, packet: Packet, now: float) -> list[Packet]:
        """Take in a packet that is for this session; returns the packets to send at once."""
        before = self.state
        interval = self.interval
        self.heard = now
        self.remote_discriminator = packet.my_discriminator
        self.remote_state = packet.state
        self._remote_demand = packet.demand
        self._remote_min_rx = packet.required_min_rx
        self._remote_min_tx = packet.desired_min_tx
        self._remote_multiplier = packet.multiplier
        if packet.final and self._polling:
            self._polling = False
            self._settle()
        self._change(packet.state)
        answers = []
        if packet.poll:
            answers.append(self._packet(final=True))
        elif self.state is not before and self.interval < math.inf:
            # Contents have changed: not only at the next beat (section 6.8.7).
            answers.append(self._packet())
            self._next = now + self._pause()
        if self.interval < interval:
            self._next = min(self._next, now + self._pause())
        return answers

    def _change(self, theirs: State) -> None:
        """The state machine of section 6.2, and what changes with the state."""
        if theirs is State.ADMIN_DOWN:
            if self.state is not State.DOWN:
                self._fall(Diagnostic.NEIGHBOR_DOWN)
        elif self.state is State.DOWN:
            if theirs is State.DOWN:
                self.state = State.INIT
            elif theirs is State.INIT:
                self._rise()
        elif self.state is State.INIT:
            if theirs is not State.DOWN:
                self._rise()
        elif theirs is State.DOWN:
            self._fall(Diagnostic.NEIGHBOR_DOWN)

    def _rise(self) -> None:
        self.state = State.UP
        self.diagnostic = Diagnostic.NONE
        self._polling = True  # the interval is another one from here on
        self._transmit_by = self._desired_min_tx()

    def _fall(self, why: Diagnostic) -> None:
        self.state = State.DOWN
        self.diagnostic = why
        self._polling = False
        self._settle()

    def _settle(self) -> None:
        self._transmit_by = self._desired_min_tx()
        self._receive_by = round(self.instance.min_rx * 1000)

    def advance(self, now: float) -> list[Packet]:
        """Do what is due; returns the packets to send."""
        if now >= self._expires:
            self.remote_discriminator = 0
            if self.state is not State.DOWN:
                self._fall(Diagnostic.EXPIRED)
                self._next = now
            self.remote_state = State.DOWN
        if now < self._next or self.interval == math.inf:
            return []
        self._next = now + self._pause()
        return [self._packet()]

    def _pause(self) -> float:
        """The interval less up to a quarter; less at least a tenth where one packet decides."""
        interval = self.interval
        if interval == math.inf:
            return 0.0
        return interval * self._between(0.75, 0.9 if self.instance.multiplier == 1 else 1.0)

    def farewell(self) -> Packet:
        """What tells the neighbour that we end on purpose (section 6.8.16)."""
        self.state = State.ADMIN_DOWN
        self.diagnostic = Diagnostic.ADMIN_DOWN
        self._polling = False
        return self._packet()

    def _packet(self, *, final: bool = False) -> Packet:
        return Packet(
            self.state,
            self.discriminator,
            self.remote_discriminator,
            self.diagnostic,
            self._polling and not final,
            final,
            False,
            self.instance.multiplier,
            self._desired_min_tx(),
            round(self.instance.min_rx * 1000),
        )
