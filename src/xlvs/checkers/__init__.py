# SPDX-License-Identifier: GPL-2.0-only
"""Health checks: one module for each kind of checker in `xlvs.keepalived.checks`.

Each has a coroutine that asks once and returns a `Result`.  It knows nothing of
retries, services or tables, and never raises for what a real server or the
network does: that is a `Result`.  `run.py` finds the module for a checker;
`schedule.py` says when, and asks once for all who need the same.
"""
