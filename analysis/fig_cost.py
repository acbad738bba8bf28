"""What a method costs to build against what it loses: time of construction. Memory is in the tables:
it is that of the model and of a block, whatever the method."""

import math

import numpy as np
from matplotlib.lines import Line2D

from analysis import departures, stats, style
from analysis.runs import Run

NAME = "cost"
TITLE = "Loss against time of construction ({widths})"
CROWD = 16  # more variants than this are left to the tables
AXES = {"plan_cpu_seconds": "processor time of construction (s)",
        "plan_seconds": "time of construction (s)"}


def draw(run: Run, folder):
    widths = departures.best_covered_widths(run)
    groups = [group for group in departures.variants(run, [widths], CROWD) if not group.diverged]
    if len(groups) < 2:
        raise style.Unsupported("fewer than two methods with losses")
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, groups), 2.75,
                             style.preview_mark(groups))
    panel, key = sheet.figure.subplots(), time_key(groups)
    limits = style.scale_axis(panel.yaxis, style.reach(
        [group.losses for group in groups], [stats.mean_interval(g.losses) for g in groups]))
    looks = style.looks_of_lines(groups, run.methods)
    style.scale_axis(panel.xaxis, [v for group in groups for v in _costs(group, key)])
    panel.set_xlabel(AXES[key])
    panel.set_ylabel("loss over float (nats per token)")
    for group, look in zip(groups, looks):
        _draw_point(panel, group, key, look, limits)
    sheet.legend(entries={run.short(group): Line2D([], [], color=colour, marker=marker,
                                                   linestyle="none", markersize=5)
                          for group, (colour, marker, _) in zip(groups, looks)})
    return style.save(sheet, folder, NAME, [row for group in groups for row in _rows(group)])


def time_key(groups) -> str:
    """Processor time where every trial recorded it: other load does not lengthen it."""
    recorded = all("plan_cpu_seconds" in trial.timing for group in groups for trial in group.trials)
    return "plan_cpu_seconds" if recorded else "plan_seconds"


def _costs(group, key) -> list:
    return [trial.timing[key] for trial in group.trials]


def _draw_point(panel, group, key, look, limits) -> None:
    colour, marker, _ = look
    costs, loss = _costs(group, key), stats.mean_interval(group.losses)
    middle = float(np.median(costs))
    panel.plot([min(costs), max(costs)], [loss.mean] * 2, color=colour, linewidth=0.9, zorder=3)
    if math.isfinite(loss.half):
        panel.plot([middle] * 2, style.clipped(loss, limits), color=colour, zorder=3)
    panel.plot([middle], [loss.mean], marker=marker, color=colour,
               markersize=8 if marker == "*" else 5.5,
               markeredgecolor="white", markeredgewidth=0.5, linestyle="none", zorder=4)


def _rows(group) -> list:
    loss = stats.mean_interval(group.losses)
    return [{"label": group.label, "widths": group.widths, "seed": trial.seed,
             "nll_over_float": trial.loss, "mean": loss.mean, "half95_over_seeds": loss.half,
             **{key: trial.timing.get(key, math.nan) for key in AXES},
             "threads": trial.timing["threads"]}
            for trial in group.trials]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    threads = sorted({trial.timing["threads"] for trial in trials})
    clock = "Time of all processors" if time_key(groups) == "plan_cpu_seconds" else "Time"
    plural = "" if threads == [1] else "s"
    return (f"{clock} from calibration to the plan of the whole model, "
            f"{' / '.join(str(t) for t in threads)} thread{plural}, without the channel maxima, "
            "which all methods share. Marker: "
            "median cost, mean loss over seeds; bars: lowest to highest cost, 95 % t-interval of "
            "the loss over seeds, none where nothing is drawn at random. Left and down is better. {run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
