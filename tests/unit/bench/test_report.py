# SPDX-License-Identifier: GPL-2.0-only
"""What a part of the benchmark leaves: JSON, tables, bars, and whether goals are met."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import report
from bench.bars import Bar, Chart, figure, svg
from bench.report import Goal
from bench.rounds import Figure, interleaved

_SVG = "{http://www.w3.org/2000/svg}"


def _bars(text: str) -> list[float]:
    """The widths of a drawing's bars, without its white ground."""
    return [float(each.attrib["width"]) for each in ElementTree.fromstring(text).iter(f"{_SVG}rect")][1:]


def test_bars_are_as_long_as_their_figures() -> None:
    first = Chart("one", "ns", [Bar("a", 10), Bar("b", 40, ours=True), Bar("c", 0)])
    second = Chart("two", "requests/s", [Bar("d", 5)])
    text = svg([first, second])
    a, b, c, d = _bars(text)
    assert b / a == pytest.approx(4, rel=0.01)
    assert (c, d) == (0, b), "each chart has a scale of its own"
    written = [each.text for each in ElementTree.fromstring(text).iter(f"{_SVG}text")]
    assert written == ["one ", "a", "10", "b", "40", "c", "0", "two ", "d", "5"]


def test_a_spread_fits_into_the_picture() -> None:
    text = svg([Chart("x", "ns", [Bar("a", 10, 5, 40)])])
    drawn = ElementTree.fromstring(text)
    (spread,) = drawn.iter(f"{_SVG}path")
    begin, end = (float(each) for each in re.findall(r"[MH]([0-9.]+)", spread.attrib["d"]))
    (length,) = _bars(text)
    assert end < float(drawn.attrib["width"])
    # The spread goes from half the bar to four times the bar.
    assert (end - begin) / length == pytest.approx(3.5, rel=0.01)


def test_any_label_is_text() -> None:
    text = svg([Chart("<&", "'ns'", [Bar("a<b>&\"'", 1)])])
    assert [each.text for each in ElementTree.fromstring(text).iter(f"{_SVG}text")][1] == "a<b>&\"'"


def test_nothing_to_draw_is_a_picture() -> None:
    assert _bars(svg([])) == _bars(svg([Chart("empty", "ns", [])])) == []
    assert _bars(svg([Chart("zero", "ns", [Bar("a", 0)])])) == [0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.1234, "0.123"), (9.876, "9.88"), (99.96, "100"), (1234.5, "1,234"), (2e6, "2,000,000")],
)
def test_figures_for_people(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_goals_know_their_direction() -> None:
    assert Goal("fast", 2.0, 1.9, at_least=True).met and not Goal("fast", 1.8, 1.9, at_least=True).met
    assert Goal("cheap", 1.8, 1.9).met and not Goal("cheap", 2.0, 1.9).met
    assert Goal("equal", 1.9, 1.9).met and Goal("equal", 1.9, 1.9, at_least=True).met
    assert Goal("cheap", 2.0, 1.9).as_json() == {"what": "cheap", "value": 2, "at_most": 1.9, "met": False}
    assert "at least 1.9" in str(Goal("fast", 1.8, 1.9, at_least=True)) and "MISSED" in str(Goal("x", 2, 1))


def test_a_table_divides_minima() -> None:
    figures = {"floor": Figure(10, 20, 30), "ours": Figure(25, 26, 27)}
    *_, floor, ours = report.table("Title", "ns", figures, "floor")
    assert floor.split()[-1] == "1.00" and ours.split() == ["ours", "25", "26", "27", "2.50"]
    assert report.table("Title", "ns", figures)[-1].split() == ["ours", "25", "26", "27"]


def test_the_first_round_does_not_count() -> None:
    values = iter([100.0, 3.0, 1.0, 2.0])
    assert interleaved({"a": lambda: next(values)}, 3) == {"a": Figure(1.0, 2.0, 3.0)}


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    figures = {"group": {"xlvs TC": Figure(1.23456789, 2, 3), "other": Figure(4, 5, 6)}}
    report.write(
        "part",
        figures,
        units={"group": "ns"},
        rounds=3,
        goals=[Goal("g", 1, 2)],
        lines=["", "a table"],
        charts=[report.chart("group", "ns", figures["group"])],
        more={"extra": 1},
    )
    written = json.loads((tmp_path / "results/part.json").read_text())
    assert written["figures"]["group"]["xlvs TC"] == {"minimum": 1.23457, "median": 2, "maximum": 3}
    assert (written["schema"], written["part"], written["units"]) == (1, "part", {"group": "ns"})
    assert written["goals"][0]["met"] and written["extra"] == 1
    assert (tmp_path / "results/part.txt").read_text() == "a table\n"
    ours, theirs = _bars((tmp_path / "results/part.svg").read_text())
    assert theirs / ours == pytest.approx(2.5, rel=0.01)
