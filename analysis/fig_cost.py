"""What a method costs to build against what it loses: time of construction and peak memory."""

import math

import numpy as np
from matplotlib.lines import Line2D

from analysis import departures, stats, style
from analysis.runs import Run

NAME = "cost"
TITLE = "Loss against time and memory of construction ({widths})"
CROWD = 16  # more variants than this are left to the tables
AXES = {"plan_seconds": "time of construction (s)", "peak_memory_mib": "peak memory (MiB)"}


def draw(run: Run, folder):
    widths = departures.best_covered_widths(run)
    groups = _groups(run, widths)
    if len(groups) < 2:
        raise style.Unsupported("fewer than two methods with losses")
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, groups), 2.75,
                             style.preview_mark(groups))
    panels = sheet.figure.subplots(1, 2, sharey=True)
    limits = style.scale_axis(panels[0].yaxis, style.reach(
        [group.losses for group in groups], [stats.mean_interval(g.losses) for g in groups]))
    looks = style.looks_of_lines(groups, run.methods)
    for panel, key in zip(panels, AXES):
        style.scale_axis(panel.xaxis, [v for group in groups for v in _costs(group, key)])
        panel.set_xlabel(AXES[key])
        for group, look in zip(groups, looks):
            _draw_point(panel, group, key, look, limits)
    panels[0].set_ylabel("loss over float (nats per token)")
    sheet.legend(entries={run.short(group): Line2D([], [], color=colour, marker=marker,
                                                   linestyle="none", markersize=5)
                          for group, (colour, marker, _) in zip(groups, looks)})
    return style.save(sheet, folder, NAME, [row for group in groups for row in _rows(group)])


def _groups(run: Run, widths) -> list:
    """Every variant of a method that rounds as the method's base does; bases alone in a crowd."""
    bases = {group.method: group for group in run.representatives(widths)}
    found = [group for group in run.groups if group.widths == widths and group.method in bases
             and _quantizers(group) == _quantizers(bases[group.method])]
    chosen = found if len(found) <= CROWD else list(bases.values())
    measured = [group for group in chosen
                if group.trials[0].has_language and not group.diverged]
    return sorted(measured, key=lambda group: (style.method_order(group.method),
                                               group is not bases[group.method], group.label))


def _quantizers(group) -> dict:
    return {key: value for key, value in group.settings.items() if key.startswith("quant.")}


def _costs(group, key) -> list:
    return [trial.timing[key] for trial in group.trials]


def _draw_point(panel, group, key, look, limits) -> None:
    colour, marker, _ = look
    costs, loss = _costs(group, key), stats.mean_interval(group.losses)
    middle = float(np.median(costs))
    panel.plot([min(costs), max(costs)], [loss.mean] * 2, color=colour, linewidth=0.9, zorder=3)
    if math.isfinite(loss.half):
        panel.plot([middle] * 2, style.clipped(loss, limits), color=colour, zorder=3)
    panel.plot([middle], [loss.mean], marker=marker, color=colour, markersize=5.5,
               markeredgecolor="white", markeredgewidth=0.5, linestyle="none", zorder=4)


def _rows(group) -> list:
    loss = stats.mean_interval(group.losses)
    return [{"label": group.label, "widths": group.widths, "seed": trial.seed,
             "nll_over_float": trial.loss, "mean": loss.mean, "half95_over_seeds": loss.half,
             **{key: trial.timing[key] for key in AXES}, "threads": trial.timing["threads"]}
            for trial in group.trials]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    threads = sorted({trial.timing["threads"] for trial in trials})
    return (f"Time from calibration to the plan of the whole model, on "
            f"{' / '.join(str(t) for t in threads)} thread(s), channel maxima of calibration "
            "shared by all methods apart; and the peak memory of the process by the end of a "
            "trial, evaluation and earlier trials of that process included, so an upper bound. "
            "Marker: median cost, mean loss over seeds; bars: lowest to highest cost, 95 % "
            f"t-interval of the loss over seeds. Left and down is better. {run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
