# SPDX-License-Identifier: GPL-2.0-only
"""The verifiers of Debian's kernels, old and new, accept the packet path, and an upgrade of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.guest.kernel import DEFAULT_PACKAGE, NEWER_PACKAGE
from tests.guest.runner import Guest
from tests.guest.scenario import PROJECT

_COMMANDS = Path(sys.executable).parent
_SCRIPT = f"""
set -e
PATH={_COMMANDS}:$PATH
uname -r
xlvsadm -A -t 192.0.2.100:80 -s rr
xlvs upgrade
xlvsadm -Ln | grep 192.0.2.100:80
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("package", "release"), [(DEFAULT_PACKAGE, "6.1."), (NEWER_PACKAGE, "6.12.")])
def test_verifier_accepts_every_program(package: str, release: str) -> None:
    with Guest(package=package) as guest:
        ran = guest.run(["sh", "-c", f"cd /run; {_SCRIPT}"], directory=PROJECT, timeout=500).check()
    assert ran.stdout.startswith(release)
    assert "The packet path is" in ran.stdout
