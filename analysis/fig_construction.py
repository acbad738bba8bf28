"""What the transform of one site costs to build against the width of the site, beside the least
that its products take: from the record of the construction benchmark, not from a run."""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import FixedLocator, NullLocator

from analysis import stats, style
from analysis.benchmarks import read_record

NAME = "construction"
TITLE = "Time to build the transform of one site against its width"
FORMAT = "ruquant-construction"
ROW_KEYS = ("method", "width", "tokens", "seconds", "flops", "floor_seconds")


@dataclass(frozen=True)
class Record:
    """rows: method, width (channels), tokens it is built from, seconds (of every repetition), flops
    and floor_seconds (0 where products are not counted)."""

    machine: dict
    conditions: dict
    rows: list


def load(folder) -> Record:
    """Reads construction.json of a folder. RunError naming what is wrong with it."""
    data = read_record(Path(folder) / "construction.json", FORMAT, ROW_KEYS)
    conditions = {key: data[key] for key in ("block_size",) if key in data}
    return Record(data["machine"], conditions, data["rows"])


def draw(record: Record, folder):
    methods = sorted({row["method"] for row in record.rows}, key=style.method_order)
    if not methods:
        raise style.Unsupported("the record has no rows")
    repetitions = min(len(row["seconds"]) for row in record.rows)
    sheet = style.open_sheet(TITLE, _caption(record, repetitions), 2.9, "")
    panel = sheet.figure.subplots()
    floors = [row["floor_seconds"] for row in record.rows if row["floor_seconds"] > 0]
    intervals = [stats.mean_interval(row["seconds"]) for row in record.rows]
    limits = style.scale_axis(panel.yaxis, [*floors, *style.reach(
        [row["seconds"] for row in record.rows], intervals)])
    widths = sorted({row["width"] for row in record.rows})
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(widths))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_xlabel("width of the site (channels)")
    panel.set_ylabel("time (s)")
    rows = []
    for method in methods:
        own = sorted((row for row in record.rows if row["method"] == method),
                     key=lambda row: row["width"])
        rows += _draw_line(panel, method, own, methods, limits)
    sheet.legend()
    return style.save(sheet, folder, NAME, rows)


def _draw_line(panel, method, rows, methods, limits) -> list:
    colour, marker, line = style.look(method, methods)
    widths = [row["width"] for row in rows]
    intervals = [stats.mean_interval(row["seconds"]) for row in rows]
    panel.plot(widths, [interval.mean for interval in intervals], color=colour, marker=marker,
               linestyle=line, label=method, zorder=4)
    for width, interval in zip(widths, intervals):
        if math.isfinite(interval.half):
            panel.plot([width, width], style.clipped(interval, limits), color=colour, zorder=3)
    if all(row["floor_seconds"] > 0 for row in rows):
        panel.plot(widths, [row["floor_seconds"] for row in rows], color=colour, linewidth=0.8,
                   marker=marker, markersize=3, markerfacecolor="white",
                   linestyle=(0, (1, 1.5)), label=f"{method}, floor", zorder=2)
    return [{"method": method, "width": row["width"], "seconds_mean": interval.mean,
             "half95_over_repetitions": interval.half, "repetitions": interval.n,
             "tokens": row["tokens"],
             "flops": float(row["flops"]), "floor_seconds": float(row["floor_seconds"])}
            for row, interval in zip(rows, intervals)]


def _caption(record: Record, repetitions) -> str:
    def listed(facts):
        words = (f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else
                 f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
        return "; ".join(words)
    counted = [row for row in record.rows if row["floor_seconds"] > 0]
    below = sum(min(row["seconds"]) < row["floor_seconds"] for row in counted)
    broken = f" In {below} of {len(counted)} cases the method took less: there it is no bound." \
        if below else ""
    conditions = f" Conditions: {listed(record.conditions)}." if record.conditions else ""
    tokens = {}
    for row in record.rows:
        tokens.setdefault(row["tokens"], {})[row["method"]] = None
    taken = "; ".join(f"{count:,} for {', '.join(names)}" for count, names in sorted(tokens.items()))
    return ("Filled: mean over repetitions, with its 95 % t-interval "
            f"({repetitions} or more repetitions). Hollow: the floor, what the method cannot do "
            "without, products with block maps or passes over all tokens, at the rate of such a "
            f"product or of a copy measured beside it; other methods have none.{broken} "
            "Activations are drawn from a generator, as many tokens as a method calibrates on by "
            f"default: {taken}.{conditions} "
            f"Machine: {listed(record.machine)}.")
