# SPDX-License-Identifier: GPL-2.0-only
"""What xlvs costs, measured; see docs/performance.md.

    packet       nanoseconds for a packet                 (walk, traffic, arrivals)
    guest        instructions, beside kernel IPVS         (guest_player, pktgen, programs)
    lab          end to end, beside HAProxy and nginx     (loads, proxies, live)
    scale        real servers, processors, table, memory  (arrivals, two_cpus, filling, footprint)

What follows from figures is in ``packet_goals``, ``guest_rows``, ``lab_goals`` and
``scale_goals``, pure values; ``rounds`` takes turns, ``report`` and ``bars`` write.
"""
