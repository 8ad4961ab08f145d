"""The sensitivity of layers as a picture: an SVG file that needs nothing but a viewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from planish.pipeline.sensitivity import LayerSensitivity, Sensitivity

_ROW, _TOP, _NAME, _BAR, _GAP = 18, 64, 260, 300, 90  # pixels
_NOISE, _TIME, _LOSS, _INK, _FAINT = "#c2410c", "#15803d", "#b91c1c", "#1f2937", "#e5e7eb"
_STYLE = "font-family:ui-sans-serif,system-ui,sans-serif;font-size:12px"
_QUIET = 60.0  # dB at which a bar has no length any more


def sensitivity_svg(found: Sensitivity, title: str) -> str:
    """A row for each layer: how much noise it brings by itself, and how much time it saves.

    Args:
        found: What was measured.
        title: A heading.
    """
    timed = any(row.saved is not None for row in found.layers)
    width = _NAME + _BAR + _GAP + (_BAR + _GAP if timed else 0)
    height = _TOP + _ROW * len(found.layers) + 16
    whole = _decibels(found.output_sqnr)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="{_STYLE}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(8, 20, title, weight="bold", size=14),
        _text(8, 38, f"all layers in 8 bits: {whole} of signal to noise in the outputs"),
        _text(_NAME, 56, "noise in the outputs, this layer alone (signal to noise, dB)"),
    ]
    if timed:
        parts.append(_text(_NAME + _BAR + _GAP, 56, "time saved, microseconds (red: lost)"))
    longest = max((abs(row.saved or 0.0) for row in found.layers), default=0.0) or 1.0
    for number, row in enumerate(found.layers):
        parts += _row(row, _TOP + number * _ROW, longest if timed else 0.0)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(row: LayerSensitivity, y: int, longest: float) -> Sequence[str]:
    name = row.name if len(row.name) <= 38 else f"{row.name[:18]}…{row.name[-19:]}"
    noise = _BAR * min(1.0, max(0.0, 1.0 - row.output_sqnr / _QUIET))
    middle = y + _ROW - 6
    parts = [
        f"<g><title>{escape(row.name)} ({escape(row.op)})</title>",
        f'<line x1="0" y1="{y}" x2="{_NAME + _BAR}" y2="{y}" stroke="{_FAINT}"/>',
        _text(8, middle, name),
        _bar(_NAME, y, noise, _NOISE),
        _text(_NAME + noise + 6, middle, _decibels(row.output_sqnr)),
    ]
    if longest and row.saved is not None:
        start = _NAME + _BAR + _GAP
        length = _BAR * abs(row.saved) / longest
        parts.append(_bar(start, y, length, _TIME if row.saved >= 0 else _LOSS))
        parts.append(_text(start + length + 6, middle, f"{row.saved:.1f}"))
    return [*parts, "</g>"]


def _bar(x: float, y: float, length: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y + 3}" width="{max(length, 1.0):.1f}" height="{_ROW - 6}" '
        f'fill="{colour}"/>'
    )


def _text(x: float, y: float, text: str, weight: str = "normal", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{_INK}" font-weight="{weight}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _decibels(ratio: float) -> str:
    return (
        f"{ratio:.1f} dB" if math.isfinite(ratio) else ("no noise" if ratio > 0 else "noise only")
    )
