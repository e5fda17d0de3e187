# SPDX-License-Identifier: GPL-2.0-only
"""The system-call floor: ctypes, struct and sockets.  Imports nothing of xlvs but errors."""
