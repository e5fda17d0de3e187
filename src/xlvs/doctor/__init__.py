# SPDX-License-Identifier: GPL-2.0-only
"""The doctor: looks at running LVS clusters and finds the mistakes that everybody makes.

`observation` gathers what is configured on one host, `probe`, `arp`, `ndp` and `path` ask the
network, `cluster` holds the answers of all, and each module of `checks` judges
them.  Looking changes nothing; `mending` does, and can take it back.
"""
