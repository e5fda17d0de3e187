# SPDX-License-Identifier: GPL-2.0-only
"""Bidirectional Forwarding Detection: is there a way to a neighbour, and is he alive?

Asynchronous mode of RFC 5880, over one hop (RFC 5881) or several (RFC 5883), without
authentication and echo.  `packet` has the bytes, `session` the state machine, `engine`
sockets and timers, `sessions` the thread that they live in.
"""
