"""The one look of all figures, and how a figure is opened and saved.

Colours are Okabe and Ito's, which colour-blind readers tell apart; marker and line style repeat the
distinction so that a grey print reads as well. A figure is saved as PDF and PNG with its caption
drawn below and kept in the file's metadata, and the same numbers go beside it as CSV.
"""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import (FixedLocator, FuncFormatter, LogLocator, NullFormatter,
                               SymmetricalLogLocator)


WIDTH = 7.0         # inches, the text width of a two-column page
SEEDS_WANTED = 5    # a random method on fewer is a preview
DPI = {"pdf": 300, "png": 200}
DIFFERENCE_RANGE = 6  # largest over median difference from which an axis is bent
LEGEND_LETTERS = 130  # in a line of a legend below the panels, handles counted as six
LOG_RANGE = 5       # largest over smallest value from which an axis is logarithmic
INK, MUTED, FAINT, MARK = "#222222", "#666666", "#d9d9d9", "#a33b00"

# colour, marker, line style; grey stands for Okabe and Ito's yellow, which is faint on white.
METHOD_LOOK = {
    "rtn": ("#000000", "s", (0, (1, 1))),
    "smoothquant": ("#7f7f7f", "P", (0, (3, 1, 1, 1))),
    "hadamard": ("#56b4e9", "^", (0, (5, 1.5))),
    "householder": ("#e69f00", "v", (0, (5, 1, 1, 1))),
    "givens": ("#cc79a7", "X", (0, (2, 1))),
    "quarot": ("#0072b2", "D", (0, (4, 1, 1, 1, 1, 1))),
    "duquant": ("#009e73", "p", (0, (7, 2))),
    "singlequant": ("#cc79a7", "*", (0, (6, 1, 1, 1))),
    "omniquant": ("#7f7f7f", "<", (0, (5, 1))),
    "infoquant": ("#56b4e9", "h", (0, (1, 1))),
    "spinquant": ("#0072b2", ">", (0, (3, 2))),
    "flatquant": ("#e69f00", "d", (0, (4, 2))),
    "learned_rotation": ("#009e73", "H", (0, (2, 1, 1, 1))),
    "ruquant": ("#d55e00", "o", "solid"),
}
EXTRA_LOOKS = [("#7f7f7f", "<", (0, (5, 1))), ("#000000", ">", (0, (3, 2))),
               ("#0072b2", "h", (0, (1, 1))), ("#cc79a7", "*", (0, (6, 1, 1, 1)))]

SETTINGS = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 8, "axes.labelsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#888888",
    "xtick.color": "#555555", "ytick.color": "#555555", "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5, "axes.axisbelow": True, "lines.linewidth": 1.2,
    "lines.markersize": 4, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "pdf.fonttype": 42, "svg.hashsalt": "ruquant",
}


class Unsupported(Exception):
    """The run holds no data for a figure; the message says what is missing."""


@dataclass(frozen=True)
class Drawn:
    """A figure on disk."""

    name: str
    title: str
    caption: str
    mark: str
    png: Path
    pdf: Path
    csv: Path


@dataclass
class Sheet:
    """A figure being drawn."""

    figure: plt.Figure
    title: str
    caption: str
    mark: str

    def legend(self, below: bool = False, entries: dict | None = None) -> None:
        """A legend right of the panels, level with their top, or below them. entries: label →
        handle; without them what the panels have labelled, each label once."""
        if entries is None:
            entries = {}
            for panel in self.figure.axes:
                for handle, text in zip(*panel.get_legend_handles_labels()):
                    entries.setdefault(text, handle)
        engine = self.figure.get_layout_engine()
        left, low, width, height = engine.get()["rect"]
        place = {"loc": "upper right", "bbox_to_anchor": (0.998, low + height), "handlelength": 3.2}
        if below:
            longest = max(len(text) for text in entries)
            columns = max(1, min(8 if longest < 16 else 5, LEGEND_LETTERS // (longest + 6)))
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, low), "handlelength": 2.6,
                     "columnspacing": 1.1, "ncols": min(len(entries), columns)}
        legend = self.figure.legend(entries.values(), entries.keys(), labelspacing=0.6,
                                    borderaxespad=0.2, **place)
        # The panels give up exactly the room that the legend takes.
        legend.set_in_layout(False)
        extent = legend.get_window_extent(self.figure.canvas.get_renderer())
        share = extent.transformed(self.figure.transFigure.inverted())
        rect = (left, low + share.height, width, height - share.height) if below \
            else (left, low, width - share.width, height)
        engine.set(rect=rect)


def look(method: str, methods: list) -> tuple:
    """Colour, marker and line style of a method: fixed for known ones, else by its place."""
    if method in METHOD_LOOK:
        return METHOD_LOOK[method]
    others = [name for name in methods if name not in METHOD_LOOK]
    return EXTRA_LOOKS[others.index(method) % len(EXTRA_LOOKS)]


def method_order(method: str) -> tuple:
    """From plain rounding to the most elaborate method; others by alphabet behind them."""
    known = list(METHOD_LOOK)
    return (known.index(method), "") if method in known else (len(known), method)


def looks_of_lines(groups: list, methods: list) -> list:
    """A look for each line where one method may have several: its own first, then darker and
    lighter shades of its colour with other markers and line styles."""
    seen, looks = Counter(), []
    for group in groups:
        colour, marker, line = look(group.method, methods)
        place = seen[group.method]
        seen[group.method] += 1
        if place:
            marker = [name for name in "sD^vPXo" if name != marker][(place - 1) % 6]
            line = [(0, (4, 1.2)), (0, (1, 1)), (0, (6, 1, 1, 1))][(place - 1) % 3]
            other, share = [((0, 0, 0), 0.5), ((1, 1, 1), 0.35), ((0, 0, 0), 0.75)][(place - 1) % 3]
            colour = tuple((1 - share) * a + share * b for a, b in zip(to_rgb(colour), other))
        looks.append((colour, marker, line))
    return looks


def preview_mark(groups) -> str:
    """"PREVIEW: n seeds" where a random method rests on fewer than five seeds, else empty."""
    counts = [len(group.trials) for group in groups if group.is_random]
    fewest = min(counts, default=SEEDS_WANTED)
    if fewest >= SEEDS_WANTED:
        return ""
    return f"PREVIEW: {fewest} seed{'' if fewest == 1 else 's'}"


def provenance(trials) -> str:
    """What the numbers rest on, taken from the trials: model, text, tokens, widths, seeds."""
    trials = list(trials)

    def distinct(values) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    seeds = _numbers({t.seed for t in trials if t.random})
    parts = [f"Model: {distinct(t.inputs['model'] for t in trials)}; "
             f"{distinct(t.inputs['model_note'] for t in trials).rstrip('.')}.",
             f"Text: {distinct(t.inputs.get('text', 'a dump') for t in trials)}; "
             f"{distinct(_tokens(t) for t in trials)}.",
             f"Widths: {distinct(t.widths for t in trials)}. "
             + (f"Seeds: {seeds}." if seeds else "No method here depends on a seed.")]
    presets = sorted({t.config["method.preset"] for t in trials if "method.preset" in t.config})
    if presets:
        parts.append(f"Presets: {', '.join(presets)}.")
    parts.append(f"Build: {distinct(t.build_preset for t in trials)}, "
                 f"{distinct(t.math_backend for t in trials)}.")
    return " ".join(parts)


def _tokens(trial) -> str:
    parts = []
    if "nll" in trial.windows:
        tokens = trial.config.get("evaluation.window_tokens")
        size = f" of {tokens} tokens" if tokens else ""
        parts.append(f"{len(trial.windows['nll'])} windows{size}")
    for name, (begin, end) in sorted(trial.token_ranges.items()):
        parts.append(f"{name} tokens {begin:,} to {end:,}")
    return ", ".join(parts) or f"activations of {trial.inputs['stream']}"


def _numbers(values: set) -> str:
    """1-3, 7: runs of consecutive numbers are joined."""
    parts, ordered = [], sorted(values)
    for value in ordered:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in parts)


def open_sheet(title: str, caption: str, body: float, mark: str) -> Sheet:
    """A figure with `body` inches for its panels, under a title and over its caption."""
    plt.rcParams.update(SETTINGS)
    lines = _wrapped(caption, 148)
    top, bottom = 0.30, 0.135 * len(lines) + 0.12
    height = top + body + bottom
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0, bottom / height, 1, body / height), w_pad=0.04,
                                   h_pad=0.04)
    figure.text(0.012, 1 - 0.09 / height, title, size=9, weight="bold", va="top")
    figure.text(0.012, (bottom - 0.07) / height, "\n".join(lines), size=6.3, color=MUTED,
                va="top", linespacing=1.4)
    if mark:
        figure.text(0.985, 1 - 0.1 / height, mark, size=7, weight="bold", color=MARK, ha="right",
                    va="top", bbox={"boxstyle": "round,pad=0.35", "facecolor": "#fff4ea",
                                    "edgecolor": MARK, "linewidth": 0.7})
    return Sheet(figure, title, caption, mark)


def _wrapped(text: str, width: float) -> list:
    """Lines of about `width` small letters; capitals and digits are wider."""
    lines, room = [[]], width
    for word in text.split():
        size = 1 + sum(1.3 if letter.isupper() or letter.isdigit() else 1 for letter in word)
        if size > room and lines[-1]:
            lines.append([])
            room = width
        lines[-1].append(word)
        room -= size
    return [" ".join(words) for words in lines]


def save(sheet: Sheet, folder: Path, name: str, rows: list) -> Drawn:
    """Writes name.pdf, name.png and name.csv (rows: dicts with the same keys); no clock in them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}.{kind}" for kind in ("pdf", "png", "csv")}
    subject = f"{sheet.mark + '. ' if sheet.mark else ''}{sheet.caption}"
    sheet.figure.savefig(paths["pdf"], dpi=DPI["pdf"], metadata={
        "Title": sheet.title, "Subject": subject, "CreationDate": None})
    sheet.figure.savefig(paths["png"], dpi=DPI["png"], metadata={
        "Title": sheet.title, "Description": subject, "Software": None})
    plt.close(sheet.figure)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    paths["csv"].write_text(text.getvalue(), encoding="utf-8")
    return Drawn(name, sheet.title, sheet.caption, sheet.mark, paths["png"], paths["pdf"],
                 paths["csv"])


def _cell(value):
    if isinstance(value, float):
        return format(value, ".6g") if math.isfinite(value) else ""
    return value


def scale_axis(axis, values) -> tuple:
    """Sets scale, limits and ticks for positive or mixed values; logarithmic where the range
    demands it. axis is axes.xaxis or axes.yaxis. Returns the limits."""
    values = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    if not len(values):
        values = np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    letter = axis.axis_name
    set_limits = getattr(axis.axes, f"set_{letter}lim")
    if low > 0 and high / low > LOG_RANGE:
        getattr(axis.axes, f"set_{letter}scale")("log")
        margin = (high / low) ** 0.06
        subs = (1, 2, 5) if high / low < 200 else (1,)
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_minor_formatter(NullFormatter())
        limits = (low / margin, high * margin)
    elif low <= 0 and high > 2 * LOG_RANGE * _typical(values):
        # Losses on both sides of zero and far apart: linear up to the typical size, log beyond.
        linear = 10.0 ** math.floor(math.log10(_typical(values)))
        getattr(axis.axes, f"set_{letter}scale")("symlog", linthresh=linear)
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear))
        limits = (1.5 * low - 0.1 * linear, 1.5 * high)
    else:
        margin = 0.08 * ((high - low) or abs(high) or 1)
        limits = (low - margin, high + margin)
        if low >= 0 and low - margin < 0.35 * high:
            limits = (0, high + margin)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    set_limits(*limits)
    return limits


def _typical(values) -> float:
    """A low but usual size among values: the tenth part of them is smaller."""
    sizes = np.abs(values[values != 0])
    return float(np.quantile(sizes, 0.1)) if len(sizes) else 1.0


def reach(groups_of_values, intervals) -> list:
    """Values for scale_axis: all of them, and the ends of their intervals as far as these stay
    within half the range of the values, so that one wide interval does not flatten a panel."""
    values = [v for group in groups_of_values for v in group if math.isfinite(v)]
    if not values:
        return values
    low, high = min(values), max(values)
    # Values that agree have no range to keep readable: then the widest interval sets it.
    widest = max((i.half for i in intervals if math.isfinite(i.half)), default=0)
    room = 0.5 * (high - low) or widest
    floor = max(low - room, 0.8 * low) if low > 0 else low - room
    ends = [end for i in intervals if math.isfinite(i.half) for end in (i.low, i.high)]
    return values + [min(max(end, floor), high + room) for end in ends]


def scale_differences(axis, values) -> tuple:
    """Sets scale, limits and ticks for differences, with zero in view: linear, but where some are
    far larger than most linear up to about the median size and logarithmic beyond. Returns the
    limits."""
    finite = np.array([v for v in values if math.isfinite(v)] or [1.0])
    low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
    letter, span = axis.axis_name, (high - low) or 1.0
    median = float(np.median(np.abs(finite)))
    margins = (0.08 * span, 0.08 * span)
    if max(-low, high) > DIFFERENCE_RANGE * median > 0:
        linear = _round_up(median)
        getattr(axis.axes, f"set_{letter}scale")("symlog", linthresh=linear)
        axis.set_major_locator(FixedLocator(_symmetric_ticks(linear, max(-low, high),
                                                                2 if letter == "x" else 4)))
        margins = tuple(0.2 * max(end, linear) for end in (-low, high))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    limits = (low - margins[0], high + margins[1])
    getattr(axis.axes, f"set_{letter}lim")(*limits)
    return limits


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _symmetric_ticks(linear: float, largest: float, factor: float) -> list:
    """Zero, the linear part halved on a wide axis, and steps of about the factor beyond."""
    sizes = [linear / 2, linear] if factor < 4 else [linear]
    while sizes[-1] < largest:
        sizes.append(_round_up(factor * sizes[-1]))
    return sorted([-size for size in sizes] + [0.0] + sizes)


def stripe_rows(panel, places) -> None:
    """Grey behind those of these rows (at whole heights) that are even, to lead the eye along."""
    for place in places:
        if place % 2 == 0:
            panel.axhspan(place - 0.5, place + 0.5, color="#f6f6f6", linewidth=0, zorder=0)


def bent(panel, letter: str) -> str:
    """What to add to an axis label where the axis is not linear throughout."""
    scale = getattr(panel, f"get_{letter}scale")()
    return "\n(linear near zero, logarithmic beyond)" if scale == "symlog" else ""


def clipped(interval, limits: tuple) -> tuple:
    """Ends of an interval within axis limits, as an interval may run past zero on a log axis."""
    return (max(interval.low, limits[0]), min(interval.high, limits[1]))
