# SPDX-License-Identifier: GPL-2.0-only
"""The Linux Virtual Server, in Python on an eBPF data plane.

This file holds the version and imports nothing: every command pays for it.
"""

__version__ = "0.1.0"
