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
ip link add eth0 type veth peer name far
ip link set eth0 up; ip link set far up
ip address add 192.0.2.100/24 dev eth0
xlvsadm -A -t 192.0.2.100:80 -s rr
xlvsadm -a -t 192.0.2.100:80 -r 192.0.2.101 -g
xlvs attach --mode xdp-generic eth0
xlvs status --json >before
xlvs upgrade --check
xlvs upgrade
xlvs status --json >after
grep program_id before >ids-before; grep program_id after >ids-after
! cmp -s ids-before ids-after
xlvsadm -Ln | grep 192.0.2.101:80
xlvs lab up tun --bare --quiet
xlvs lab down
xlvs detach
"""


@pytest.mark.parametrize(("package", "release"), [(DEFAULT_PACKAGE, "6.1."), (NEWER_PACKAGE, "6.12.")])
def test_verifier_accepts_every_program(package: str, release: str) -> None:
    with Guest(package=package) as guest:
        ran = guest.run(["sh", "-c", f"cd /run; {_SCRIPT}"], directory=PROJECT).check()
    assert ran.stdout.startswith(release)
    assert "The packet path is" in ran.stdout
