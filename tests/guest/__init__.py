# SPDX-License-Identifier: GPL-2.0-only
"""The guest: a Debian kernel with IPVS, under emulation, on this machine's own files.

The host needs the Debian packages ``qemu-system-x86`` and ``kmod`` (and
``xz-utils`` for kernels from 6.12).  Everything else (kernel, busybox,
ipvsadm and its libraries) is downloaded into a cache by `kernel` and is never
installed.  See README.md beside this file.
"""
