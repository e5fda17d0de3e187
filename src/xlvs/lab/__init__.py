# SPDX-License-Identifier: GPL-2.0-only
"""Labs: clusters of network namespaces, for learning, demonstrations and tests.

    addresses    what was asked for -> every address of the lab, checked
    topology     which nodes, on which segments, set up by which commands: data
    state        the lab's folder under /run, its record and its lock
    namespaces   named network namespaces and the processes in them
    wiring       bridges, veth pairs, addresses and routes, by ``ip -batch``
    node         a node's private files, and running a command as if logged in there
    native       what native XDP in the director needs of the switch
    nginx        the web server of a node
    decapsulator what stands in for tunnel devices on real servers
    traces       what labs need on the machine itself, taken back with the last one
    interruption Ctrl-C between two steps, not within one
    lifecycle    up, repair, down, and what there is
    demo         a topology shown step by step

A lab never has an uplink, and nothing here touches an interface of the
machine's own.  Nothing here knows the director's data plane: it is used as an
operator would, by the commands ``ipvsadm`` and ``xlvs``.
"""
