# SPDX-License-Identifier: GPL-2.0-only
"""The keywords of keepalived.conf, a module for each kind of block, with the words of its messages."""
