# SPDX-License-Identifier: GPL-2.0-only
"""Python's view of the shared layouts is what the compiler made of bpf/abi.h."""

from __future__ import annotations

import subprocess
import sys
from ctypes import Structure, sizeof
from pathlib import Path

from xlvs import model
from xlvs.datapath import runs
from xlvs.kernel import abi

ROOT = Path(__file__).resolve().parents[3]


def test_generated_from_the_header() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts/generate_abi.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


def test_sizes_that_the_packet_path_counts_on() -> None:
    """Cache lines, and words that are compared whole."""
    assert sizeof(abi.Flow) == 40
    assert sizeof(abi.Connection) == 64
    assert sizeof(abi.Service) == 128
    assert sizeof(abi.Destination) == 192
    assert abi.Connection.flow.offset == 8
    assert abi.Destination.active.offset == 64  # type: ignore[attr-defined]


def test_no_layout_has_padding_at_its_end() -> None:
    """Python would leave it out, and hand the kernel too short a key."""
    for name, layout in vars(abi).items():
        if isinstance(layout, type) and issubclass(layout, Structure) and layout.__module__ == abi.__name__:
            assert f", {sizeof(layout)} bytes." in str(layout.__doc__), name


def test_numbers_that_two_worlds_share() -> None:
    """Schedulers are numbered from 1 in the model's order, 0 is none; timeouts have room for every state."""
    for name, number in runs.SCHEDULERS.items():
        assert getattr(abi, f"SCHEDULER_{name.upper()}") == number
        assert (model.NO_SCHEDULER, *model.SCHEDULERS)[number] == name
    assert len(model.TCP_STATES) == abi.TIMEOUT_UDP
    assert abi.TIMEOUT_UDP < abi.TIMEOUT_SCTP
    assert abi.TIMEOUT_SCTP + len(model.SCTP_STATES) <= abi.TIMEOUT_COUNT
    assert abi.TIMEOUT_COUNT & (abi.TIMEOUT_COUNT - 1) == 0
