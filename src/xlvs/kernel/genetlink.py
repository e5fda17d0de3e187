# SPDX-License-Identifier: GPL-2.0-only
"""Generic netlink: requests to a family of the kernel's, by its name, and their answers.

An attribute is what include/uapi/linux/netlink.h calls nlattr: length, kind,
value, padded to four bytes, all in host order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_FAMILY_ID = struct.Struct("=H")

_NETLINK_GENERIC = 16
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_NLM_F_DUMP = 0x300
_NLA_F_NESTED = 0x8000
_KIND_MASK = 0x3FFF

_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2

_AT_ONCE = 1 << 16
"""Bytes to take at a time; the kernel fills its answers to a dump accordingly, up to 32 KiB."""
_ASKED_AT_ONCE = 64
"""Requests to send together: the refusals of so many fit into a socket's buffer of any usual size."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length & 3)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


def attributes(data: bytes) -> dict[int, bytes]:
    """The values of attributes by their kinds; of two of a kind the later counts, as in the kernel."""
    found = {}
    offset, end = 0, len(data)
    unpack, header = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size
    while offset + header <= end:
        length, kind = unpack(data, offset)
        if length < header:
            break
        found[kind & _KIND_MASK] = data[offset + header : offset + length]
        offset += length + 3 & ~3
    return found


class Family:
    """A conversation with a family of generic netlink, in the caller's network namespace; a context manager.

    Making one raises `FileNotFoundError` where the kernel has no such family.
    """

    def __init__(self, name: str, version: int = 1) -> None:
        self._version = version
        self._number = 0
        self._link = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC
        )
        try:
            self._link.bind((0, 0))
            asked = attribute(_CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
            answers = list(self._talk(_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _NLM_F_ACK, asked))
            self._id = _FAMILY_ID.unpack(answers[0][_CTRL_ATTR_FAMILY_ID])[0]
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def ask(self, command: int, body: bytes = b"") -> list[dict[int, bytes]]:
        """Send a request and return the attributes of each answer; `OSError` for a refusal."""
        return list(self._talk(self._id, command, _NLM_F_ACK, body))

    def ask_many(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """Send many requests that have no answer; the error numbers of those that were refused, by place.

        A refusal does not keep the kernel from the requests behind it.
        """
        refused: dict[int, int] = {}
        for first in range(0, len(requests), _ASKED_AT_ONCE):
            for place, code in self._ask_together(requests[first : first + _ASKED_AT_ONCE]).items():
                refused[first + place] = code
        return refused

    def _ask_together(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """The same with one system call; the kernel confirms the last, and else tells of refusals alone."""
        start = self._number + 1
        last = len(requests) - 1
        self._number = start + last
        messages = []
        for place, (command, body) in enumerate(requests):
            flags = _NLM_F_REQUEST | (_NLM_F_ACK if place == last else 0)
            size = _HEADER.size + _GENERIC.size + len(body)
            number = start + place & 0xFFFFFFFF
            messages += [
                _HEADER.pack(size, self._id, flags, number, 0), _GENERIC.pack(command, self._version, 0),
                body, bytes(-size & 3),
            ]  # fmt: skip
        self._link.send(b"".join(messages))
        refused: dict[int, int] = {}
        while True:
            data = self._link.recv(_AT_ONCE)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, answered, _ = _HEADER.unpack_from(data, offset)
                place = answered - start & 0xFFFFFFFF
                if place <= last and kind == _NLMSG_ERROR:
                    code = -_ERROR.unpack_from(data, offset + _HEADER.size)[0]
                    if code:
                        refused[place] = code
                    if place == last:
                        return refused
                offset += length + 3 & ~3
            if not data:
                raise OSError(errno.EIO, "the kernel's answer is empty")

    def dump(self, command: int, body: bytes = b"") -> Iterator[dict[int, bytes]]:
        """Ask for all that there is, and yield the attributes of each; `OSError` for a refusal."""
        return self._talk(self._id, command, _NLM_F_DUMP, body)

    def _talk(self, family: int, command: int, flags: int, body: bytes) -> Iterator[dict[int, bytes]]:
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        generic = _GENERIC.pack(command, self._version, 0)
        size = _HEADER.size + len(generic) + len(body)
        header = _HEADER.pack(size, family, _NLM_F_REQUEST | flags, number, 0)
        self._link.send(header + generic + body)
        while True:
            data = self._link.recv(_AT_ONCE)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, answered, _ = _HEADER.unpack_from(data, offset)
                payload = data[offset + _HEADER.size : offset + length]
                offset += length + 3 & ~3
                if answered != number:
                    continue  # the rest of a dump that its reader has left
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    # What ends a dump may lack the number that says whether all is well.
                    code = -_ERROR.unpack_from(payload)[0] if len(payload) >= _ERROR.size else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield attributes(payload[_GENERIC.size :])
            if not data:
                raise OSError(errno.EIO, "the kernel's answer is empty")
