"""Loss over the float model against the bit widths, one line a method."""

import math

import numpy as np

from analysis import stats, style
from analysis.runs import Run

NAME = "bits"
TITLE = "Loss over the float model against bit widths"


def draw(run: Run, folder):
    groups = [group for name in run.widths for group in run.representatives(name)
              if group.trials[0].has_language]
    widths = [name for name in run.widths if any(group.widths == name for group in groups)]
    if len(widths) < 2:
        raise style.Unsupported("losses at one width setting only")
    sheet = style.open_sheet(TITLE, _caption(run, groups), 2.7, style.preview_mark(groups))
    panel = sheet.figure.subplots()
    limits = style.scale_axis(panel.yaxis, style.reach(
        [group.losses for group in groups], [stats.mean_interval(g.losses) for g in groups]))
    panel.set_xticks(range(len(widths)), widths)
    panel.set_xlim(-0.35, len(widths) - 0.65)
    panel.set_xlabel("bits of weights (W), activations (A), queries, keys and values (Q, K, V)")
    panel.set_ylabel("loss over float (nats per token)")
    panel.grid(axis="x", visible=False)
    # Worst first, as the lines are met from the top of the panel.
    methods = sorted({g.method for g in groups}, key=lambda m: _first_loss(groups, m))[::-1]
    rows = []
    for place, method in enumerate(methods):
        own = [group for group in groups if group.method == method]
        rows += _draw_line(run, panel, own, widths, 0.022 * (place - (len(methods) - 1) / 2),
                           limits)
    sheet.legend()
    return style.save(sheet, folder, NAME, rows)


def _first_loss(groups, method) -> float:
    mean = float(np.mean(next(group.losses for group in groups if group.method == method)))
    return mean if math.isfinite(mean) else math.inf


def _draw_line(run: Run, panel, groups, widths, shift, limits) -> list:
    colour, marker, line = style.look(groups[0].method, run.methods)
    places = [widths.index(group.widths) + shift for group in groups]
    means = [float(np.mean(group.losses)) for group in groups]
    panel.plot(places, means, color=colour, marker=marker, linestyle=line, zorder=4,
               label=groups[0].method)
    rows = []
    for place, group in zip(places, groups):
        interval = stats.mean_interval(group.losses)
        if math.isfinite(interval.half):
            panel.plot([place, place], style.clipped(interval, limits), color=colour, zorder=3)
        panel.plot([place] * len(group.losses), group.losses, linestyle="none", marker="_",
                   markersize=4, markeredgewidth=0.7, color=colour, zorder=3)
        rows += [{"label": group.label, "widths": group.widths, "seed": trial.seed,
                  "nll_over_float": trial.loss, "mean": interval.mean,
                  "half95_over_seeds": interval.half} for trial in group.trials]
    return rows


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Marker: mean over seeds; ticks: single seeds; bar: 95 % t-interval over seeds, cut at "
            "the panel's edge; methods are set apart for legibility. Each method at its most "
            f"common settings in this run. {run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
