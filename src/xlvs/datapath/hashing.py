# SPDX-License-Identifier: GPL-2.0-only
"""The tables of the hash schedulers sh, dh and mh: which slot belongs to which real server.

Pure functions, and the kernel's rules to the bit (Linux 6.1,
net/netfilter/ipvs/ip_vs_{sh,dh,mh}.c): real servers stand in list order, the
newest first, and a table says for each slot the position of its server from 0.
The packet path looks slots up (bpf/sched_hash.h).
"""

from __future__ import annotations

from math import gcd

from xlvs.kernel import abi

_MH_KEYS = (2654435761, 2654446892)
"""Of the hashes that give a server's first slot and its stride (kernel: ``generate_hash_secret``)."""
_MH_SHARE_BITS = 6
"""Weights are scaled down to so many bits (kernel: ``IP_VS_MH_TAB_BITS``)."""
_ELEMENT_BITS = 64
_WORD = 0xFFFFFFFF
_LONG = 0xFFFFFFFFFFFFFFFF

_preferences: dict[int, tuple[int, int]] = {}
"""What `_preference` found, by its argument: a restore asks again for each server that it adds."""


def source_table(weights: list[int]) -> list[int]:
    """sh: each server as many slots as its weight, but at least one, in turn (``ip_vs_sh_reassign``)."""
    table: list[int] = []
    while weights and len(table) < abi.HASH_SLOTS:
        for position, weight in enumerate(weights):
            left = abi.HASH_SLOTS - len(table)
            if not left:
                break
            table += [position] * min(max(weight, 1), left)
    return table


def destination_table(count: int) -> list[int]:
    """dh: the servers in turn, whatever their weights (``ip_vs_dh_reassign``)."""
    return [slot % count for slot in range(abi.HASH_SLOTS)] if count else []


def maglev_table(servers: list[tuple[bytes, int, int]], ipv6: bool) -> list[int]:
    """mh: each server in turn takes the next free slots of its own order of all slots.

    ``servers`` are sixteen address bytes, the port and the last weight above 0
    that each had since it was added: one that is quiesced keeps its slots.
    ``ipv6`` is the service's family.  Empty where no server ever had a weight.
    """
    turns = _turns([weight for _, _, weight in servers])
    if not turns:
        return []
    slots = abi.MH_SLOTS
    order = [
        (position, turn, *_preference(_key(address, port, ipv6)))
        for position, ((address, port, _), turn) in enumerate(zip(servers, turns, strict=True))
        if turn
    ]
    places = [first for _, _, first, _ in order]
    table = [-1] * slots
    free = slots
    while True:
        for number, (position, turn, _, stride) in enumerate(order):
            place = places[number]
            for _ in range(turn):
                while table[place] >= 0:
                    place += stride
                    if place >= slots:
                        place -= slots
                table[place] = position
                free -= 1
                if not free:
                    return table
            places[number] = place


def _turns(weights: list[int]) -> list[int]:
    """The slots that mh gives each server in a round; empty where no weight is above 0.

    Kernel: ``ip_vs_mh_gcd_weight``, ``ip_vs_mh_shift_weight``, ``ip_vs_mh_permutate``.
    """
    divisor = gcd(*weights)
    if not divisor:
        return []
    shift = max((max(weights) // divisor).bit_length() - _MH_SHARE_BITS, 0)
    return [weight // divisor >> shift or int(weight != 0) for weight in weights]


def _key(address: bytes, port: int, ipv6: bool) -> int:
    """Address and port in 32 bits; the service's family says how much of the address counts."""
    folded = int.from_bytes(address[:4], "big")
    if ipv6:
        for start in (4, 8, 12):
            folded ^= int.from_bytes(address[start : start + 4], "big")
    return folded + port & _WORD


def _preference(key: int) -> tuple[int, int]:
    """A server's first slot and its stride from there."""
    found = _preferences.get(key)
    if found is None:
        first, stride = (hsiphash(key, secret) for secret in _MH_KEYS)
        found = _preferences[key] = first % abi.MH_SLOTS, stride % (abi.MH_SLOTS - 1) + 1
    return found


def hsiphash(value: int, secret: int) -> int:
    """Linux's ``hsiphash()`` of a 32-bit value on 64-bit machines: SipHash-1-3, the low 32 bits.

    ``secret`` is both halves of the key.  https://131002.net/siphash/; kernel: lib/siphash.c
    """
    a, b = 0x736F6D6570736575 ^ secret, 0x646F72616E646F6D ^ secret
    c, d = 0x6C7967656E657261 ^ secret, 0x7465646279746573 ^ secret
    block = 4 << 56 | value
    d ^= block
    for finishing in (False, True, True, True):
        a = a + b & _LONG
        b = (b << 13 & _LONG | b >> 51) ^ a
        a = a << 32 & _LONG | a >> 32
        c = c + d & _LONG
        d = (d << 16 & _LONG | d >> 48) ^ c
        a = a + d & _LONG
        d = (d << 21 & _LONG | d >> 43) ^ a
        c = c + b & _LONG
        b = (b << 17 & _LONG | b >> 47) ^ c
        c = c << 32 & _LONG | c >> 32
        if not finishing:
            a ^= block
            c ^= 0xFF
    return (a ^ b ^ c ^ d) & _WORD


def slot_width(highest: int) -> int:
    """The bits of a slot that holds positions up to ``highest``: a power of two."""
    needed = max(highest.bit_length(), 1)
    return 1 << (needed - 1).bit_length()


def packed_elements(slots: int, width: int) -> int:
    """The pool elements that a table takes."""
    return -(-slots * width // _ELEMENT_BITS)


def pack(table: list[int], width: int) -> list[int]:
    """A table as pool elements, the first slots in the low bits (layout: bpf/abi.h)."""
    in_each = _ELEMENT_BITS // width
    elements = [0] * packed_elements(len(table), width)
    for number in range(in_each):
        shift = number * width
        for element, position in enumerate(table[number::in_each]):
            elements[element] |= position << shift
    return elements
