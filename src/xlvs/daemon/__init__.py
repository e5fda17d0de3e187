# SPDX-License-Identifier: GPL-2.0-only
"""xlvsd: keeps the table what the configuration and the real servers' health say it should be.

    checks ──results──► health ──► desired ──► reconcile ──► datapath
                          ▲           ▲
              configuration        operator's overrides (drain, weight)

`health` and `desired` are pure: they have no clock, socket or file.  `reconcile`
compares and applies differences.  `service` holds them together, `main` is the
process around it.
"""
