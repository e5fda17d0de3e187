# SPDX-License-Identifier: GPL-2.0-only
"""The modes in which the packet path is attached to an interface, by name.

Command lines name them before anything is loaded: this module imports nothing.
"""

AUTO = "auto"
TC = "tc"
XDP = "xdp"
XDP_GENERIC = "xdp-generic"

CHOICES = (AUTO, XDP, XDP_GENERIC, TC)
"""What an operator may ask for."""
