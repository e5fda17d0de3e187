# SPDX-License-Identifier: GPL-2.0-only
"""FILE_CHECK: a number in a file changes the weight, or says that a real server has failed."""

from __future__ import annotations

from xlvs.checkers.connection import refusal
from xlvs.checkers.result import Result
from xlvs.keepalived.checks import FileCheck

FAULT = -(2**31 - 1)
"""The change of weight at which a real server counts as failed (keepalived: IPVS_WEIGHT_FAULT)."""
_MOST = 2**31 - 1
_LONGEST = 128
"""Octets that are read of the file."""


def check(checker: FileCheck) -> Result:
    """Read the file once; what is not there, or no number, is 0, as in keepalived."""
    number = 0
    why = ""
    try:
        with open(checker.path, "rb") as file:
            text = file.read(_LONGEST).split()
        number = int(text[0]) if text else 0
    except OSError as error:
        why = f" ({refusal(error)})"
    except ValueError:
        why = " (no number)"
    return judge(checker, max(-_MOST - 1, min(number, _MOST)), why)


def judge(checker: FileCheck, number: int, why: str = "") -> Result:
    """What a number says of a real server."""
    said = f"{checker.path} says {number}{why}"
    if not checker.weight:
        return Result(number == 0, said)
    change = number * checker.weight * (-1 if checker.reverse else 1)
    if change <= FAULT:
        return Result(False, said)
    return Result(True, said, weight_change=max(-_MOST, min(change, _MOST)))
