# SPDX-License-Identifier: GPL-2.0-only
"""Bar charts as SVG, without a library: labels on the left, a bar for each, its figure behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LABELS, _BARS, _FIGURES = 330, 430, 120
"""Widths of the three columns, in pixels."""
_ROW, _BAR, _TITLE, _MARGIN = 20, 12, 44, 16
_FONT = "font-family='sans-serif' font-size='12'"
_COLOURS = ("#9aa5b1", "#2b6cb0")
"""Of what is compared with, and of what is ours."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure.  ``low`` and ``high`` are its spread; ``ours`` decides the colour."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of one unit, all on one scale from zero."""

    title: str
    unit: str
    bars: Sequence[Bar]


def svg(charts: Sequence[Chart]) -> str:
    """The charts, one below the other, as the text of an SVG file.  Values are not negative."""
    height = sum(_TITLE + _ROW * len(chart.bars) for chart in charts) + _MARGIN
    width = _LABELS + _BARS + _FIGURES
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' {_FONT}>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
    ]
    top = 0
    for chart in charts:
        lines += _drawn(chart, top)
        top += _TITLE + _ROW * len(chart.bars)
    return "\n".join([*lines, "</svg>", ""])


def figure(value: float) -> str:
    """A figure as people read it: three digits that count, thousands apart."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def _drawn(chart: Chart, top: int) -> Iterator[str]:
    yield (
        f"<text x='{_MARGIN}' y='{top + 26}' font-weight='bold'>{escape(chart.title)}"
        f" <tspan font-weight='normal' fill='#666'>{escape(chart.unit)}</tspan></text>"
    )
    largest = max((max(bar.value, bar.high or 0) for bar in chart.bars), default=0) or 1
    for number, bar in enumerate(chart.bars):
        middle = top + _TITLE + _ROW * number
        length = _BARS * bar.value / largest
        yield (
            f"<text x='{_LABELS - 8}' y='{middle + 4}' text-anchor='end'>{escape(bar.label)}</text>"
            f"<rect x='{_LABELS}' y='{middle - _BAR / 2:.0f}' width='{length:.1f}' height='{_BAR}' "
            f"fill='{_COLOURS[bar.ours]}'/>"
        )
        end = length
        if bar.low is not None and bar.high is not None:
            low, end = (_BARS * each / largest for each in (bar.low, bar.high))
            yield (
                f"<path d='M{_LABELS + low:.1f} {middle}H{_LABELS + end:.1f}' stroke='#333' fill='none'/>"
            )
        yield (
            f"<text x='{_LABELS + max(end, length) + 6:.1f}' y='{middle + 4}' fill='#333'>"
            f"{figure(bar.value)}</text>"
        )
