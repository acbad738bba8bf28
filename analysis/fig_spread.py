"""Spread over seeds: the loss of every seed around its method's mean, a row a method or variant."""

import math

import numpy as np

from analysis import stats, style
from analysis.departures import best_covered_widths
from analysis.runs import Run

NAME = "spread"
TITLE = "Spread of the loss over seeds ({widths})"


def draw(run: Run, folder):
    widths = best_covered_widths(run)
    groups = sorted((group for group in run.groups if _spreads(group, widths)), key=_deviation)
    if not groups:
        raise style.Unsupported("no random method has losses at two seeds")
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, groups),
                             0.6 + 0.165 * len(groups), style.preview_mark(groups))
    panel = sheet.figure.subplots()
    ends = [v for g in groups for v in (*_around(g), *_ends(g))]
    limits = (1.08 * min(ends), 1.08 * max(ends))
    panel.set_xlim(*limits)
    panel.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    for place, group in enumerate(groups):
        _draw_row(run, panel, place, group, limits)
    panel.set_yticks(range(len(groups)), [run.short(group) for group in groups])
    panel.set_ylim(len(groups) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("loss of a seed minus the mean over seeds (nats per token)")
    panel.text(1.01, 1.0, "mean loss, SD", transform=panel.transAxes, size=6.5, va="bottom",
               color=style.MUTED)
    return style.save(sheet, folder, NAME, [row for group in groups for row in _rows(group)])


def _spreads(group, widths) -> bool:
    return (group.widths == widths and group.is_random and len(group.trials) > 1
            and group.trials[0].has_language and not group.diverged)


def _around(group) -> np.ndarray:
    return group.losses - np.mean(group.losses)


def _deviation(group) -> float:
    return float(np.std(group.losses, ddof=1))


def _ends(group) -> tuple:
    half = stats.mean_interval(group.losses).half
    return (-half, half)


def _draw_row(run: Run, panel, place, group, limits) -> None:
    colour, marker, _ = style.look(group.method, run.methods)
    style.stripe_rows(panel, [place])
    half = stats.mean_interval(group.losses).half
    panel.plot(style.clipped(stats.Interval(0, half, 2), limits), [place, place], color=colour,
               alpha=0.35, linewidth=5, solid_capstyle="butt", zorder=2)
    panel.plot(_around(group), [place] * len(group.trials), linestyle="none", marker=marker,
               color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.4, zorder=4)
    panel.text(1.01, place, f"{np.mean(group.losses):.3f}, {_deviation(group):.3f}", size=6.5,
               va="center", color=style.MUTED, transform=panel.get_yaxis_transform())


def _rows(group) -> list:
    interval = stats.mean_interval(group.losses)
    return [{"label": group.label, "widths": group.widths, "seed": trial.seed,
             "nll_over_float": trial.loss, "mean": interval.mean,
             "half95_over_seeds": interval.half, "standard_deviation": _deviation(group)}
            for trial in group.trials]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    windows = [stats.paired_over_windows(g.windows("nll"), g.windows("nll_float")).half
               for g in groups]
    finite = [half for half in windows if math.isfinite(half)]
    span = f" (for comparison: over windows {min(finite):.3f} to {max(finite):.3f})" \
        if finite else ""
    return ("Marker: one seed; pale bar: half width of the 95 % t-interval of the mean over "
            f"seeds, to both sides of it{span}. Smallest standard deviation first; methods that "
            f"draw nothing are left out. {run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
