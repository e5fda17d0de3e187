# SPDX-License-Identifier: GPL-2.0-only
"""A real server that is in a table beside one that is wanted there."""

from __future__ import annotations

from xlvs.model import LOCAL, TUNNEL, Destination, Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xlvs.datapath.rows import DestinationRow


def is_same(row: DestinationRow, wanted: Destination) -> bool:
    """Whether a real server is what it should be; one on the director itself is ``local`` by any method."""
    if row[3] != wanted.weight or (row[2] != wanted.method and row[2] != LOCAL):
        return False
    if row[7] != wanted.upper_threshold or row[8] != wanted.lower_threshold:
        return False
    return row[2] != TUNNEL or (row[9] or Tunnel()) == (wanted.tunnel or Tunnel())


def destination_of(row: DestinationRow) -> Destination:
    """A row as a value of the model."""
    return Destination(row[0], row[1], row[2], row[3], row[7], row[8], row[9])
