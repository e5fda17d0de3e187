# SPDX-License-Identifier: GPL-2.0-only
"""What xlvs costs, measured; see docs/performance.md."""
