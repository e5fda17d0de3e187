# SPDX-License-Identifier: GPL-2.0-only
"""The command lines: they parse, call and format, and hold no logic of their own."""
