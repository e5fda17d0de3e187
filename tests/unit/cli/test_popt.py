# SPDX-License-Identifier: GPL-2.0-only
"""popt's rules on a small option table; ipvsadm's own are in the transcripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlvs.cli.popt import OPTIONAL_ARGUMENT, REQUIRED_ARGUMENT, Option, OptionTable, Parser, PoptError

pytestmark = pytest.mark.unit

TABLE = OptionTable(
    (
        Option("list", "L"),
        Option("list", "l"),
        Option("quiet"),
        Option("name", "n", REQUIRED_ARGUMENT),
        Option("level", "p", OPTIONAL_ARGUMENT),
    )
)

ARGUMENTS = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.text(alphabet="-=Llnpx ", max_size=6),
        st.sampled_from(["--list", "--name", "--name=x", "--level", "--quiet=", "-", "--", "-Lnx"]),
    ),
    max_size=8,
)


def parse(*arguments: str, posix: bool = False) -> tuple[list[tuple[str, str | None]], list[str]]:
    parser = Parser(TABLE, arguments, posix)
    return [(option.name, value) for option, value in parser], parser.leftovers


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-L", "--quiet"], [("list", None), ("quiet", None)]),
        (["-Ll"], [("list", None), ("list", None)]),
        (["-Ln", "x"], [("list", None), ("name", "x")]),
        (["-nx"], [("name", "x")]),
        (["-n=x"], [("name", "x")]),
        (["-n==x"], [("name", "=x")]),
        (["-n", "-L"], [("name", "-L")]),
        (["-nL"], [("name", "L")]),
        (["--name", "x"], [("name", "x")]),
        (["--name=x=y"], [("name", "x=y")]),
        (["--name="], [("name", "")]),
        (["-p"], [("level", None)]),
        (["-p", "5"], [("level", "5")]),
        (["-p", "-L"], [("level", None), ("list", None)]),
        (["-p-L"], [("level", "-L")]),
        (["-p", ""], [("level", "")]),
        (["--level", "-L"], [("level", None), ("list", None)]),
    ],
)
def test_takes_options_and_values_apart(
    arguments: list[str], expected: list[tuple[str, str | None]]
) -> None:
    assert parse(*arguments) == (expected, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lis"], "--lis: unknown option"),
        (["--=x"], "--=x: unknown option"),
        (["-Lx"], "-Lx: unknown option"),
        (["-list"], "-list: unknown option"),
        (["-L", "-n"], "-n: missing argument"),
        (["-Ln"], "-Ln: missing argument"),
        (["--name"], "--name: missing argument"),
        (["--list=x"], "--list=x: option does not take an argument"),
        (["--list="], "--list=: option does not take an argument"),
        (["-L=x"], "-L=x: option does not take an argument"),
    ],
)
def test_words_its_errors_as_popt_does(arguments: list[str], message: str) -> None:
    with pytest.raises(PoptError) as caught:
        parse(*arguments)
    assert str(caught.value) == message


def test_gathers_what_is_no_option() -> None:
    assert parse("a", "-L", "-", "", "b") == ([("list", None)], ["a", "-", "", "b"])
    assert parse("-L", "--", "-L", "--x") == ([("list", None)], ["-L", "--x"])


def test_posix_ends_options_at_the_first_plain_word() -> None:
    assert parse("-L", "a", "-L", posix=True) == ([("list", None)], ["a", "-L"])


def test_gives_out_the_options_before_a_fault() -> None:
    parser = Parser(TABLE, ["-L", "--nonsense"])
    assert next(parser)[0].name == "list"
    with pytest.raises(PoptError):
        next(parser)


@given(ARGUMENTS, st.booleans())
def test_raises_nothing_but_its_own_error(arguments: list[str], posix: bool) -> None:
    parser = Parser(TABLE, arguments, posix)
    given_out = 0
    fault = arguments[:1]
    try:
        for option, value in parser:
            given_out += 1
            assert option.argument != REQUIRED_ARGUMENT or value is not None
    except PoptError as error:
        fault = [error.argument]
    assert set(fault) <= set(arguments)
    assert given_out + len(parser.leftovers) <= sum(map(len, arguments)) + len(arguments)
