# SPDX-License-Identifier: GPL-2.0-only
"""Setting a real server up, and taking it back: what ``xlvs realserver`` does.

Three ideas carry it.  `wanted` says what an operator asked for, one value for each
VIP.  `plan` turns all of them into *changes* of this machine, each of which can look
what there is, make itself, and be taken back (`changes`), and into rules and programs
of our own that follow from the whole (`nft`, `programs`).  `record` remembers both
in a file, with what every change found before it was made, so that any later call, by
whatever process, after whatever crash, can take back exactly what was changed.

It works without a director, without the data plane, and without eBPF unless that is
asked for: it is of use beside kernel IPVS, too.
"""
