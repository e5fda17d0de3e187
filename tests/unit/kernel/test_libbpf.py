# SPDX-License-Identifier: GPL-2.0-only
"""What is said of a refusal by libbpf or the kernel: what is wrong, and what to do about it."""

from __future__ import annotations

import errno

import pytest

from xlvs.kernel import libbpf


@pytest.mark.parametrize(
    ("error", "log", "advice"),
    [
        (errno.EPERM, "", "Run it as root"),
        (errno.ENOMEM, "", "Choose a smaller one"),
        (errno.ENOSYS, "", "a kernel with eBPF"),
        (
            errno.EINVAL,
            "callbacks are not allowed in non-JITed programs\nprocessed 213919 insns (limit 1000000)\n",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        (errno.EINVAL, "invalid func unknown#1\n", "xlvs needs Linux 6.1 or later.\ninvalid func unknown#1"),
    ],
)
def test_what_to_do_about_it(error: int, log: str, advice: str) -> None:
    refusal = libbpf._failure("cannot load the packet path into the kernel", error, log)
    assert refusal.message.startswith("cannot load the packet path into the kernel: ")
    assert advice in refusal.hint
