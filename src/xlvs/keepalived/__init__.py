# SPDX-License-Identifier: GPL-2.0-only
"""keepalived.conf: its language, its keywords, and the values that they stand for.

    text ──► lines ──► blocks ──► keyword tables ──► Configuration (values)
            (reader)  (blocks)    (one a section)    (configuration)

Nothing here opens a socket, starts a process or touches a data plane: a
configuration is a value, and two of them are compared with ``==``.
"""
