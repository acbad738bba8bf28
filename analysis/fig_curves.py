"""The loss while something learns, step by step, on the published and on the short schedule."""

import math

import numpy as np
from matplotlib.lines import Line2D

from analysis import style, tables
from analysis.runs import Run

NAME = "curves"
TITLE = "Loss while learning, over that of the start"
POINTS, FEWEST = 20, 8  # of a curve, and steps behind each; short schedules have eight sequences
LOOKS = {"published schedule": ("#0072b2", "-"), "short schedule": ("#e69f00", (0, (4, 1.2)))}
COLUMNS = 4


def draw(run: Run, folder):
    panels = [(name, own) for name, own in _learners(run).items() if any(map(curves, own))]
    if not panels:
        raise style.Unsupported("nothing was learned whose losses are recorded")
    groups = [group for _, own in panels for group in own]
    floors = -(-len(panels) // COLUMNS)
    sheet = style.open_sheet(TITLE, _caption(groups), 1.7 * floors + 0.3,
                             style.preview_mark(groups))
    axes = list(sheet.figure.subplots(floors, min(COLUMNS, len(panels)), squeeze=False,
                                      sharex=True).flat)
    for panel in axes[len(panels):]:
        panel.set_axis_off()
    rows = []
    for panel, (name, own) in zip(axes, panels):
        panel.axhline(1, color=style.INK, linewidth=0.8, zorder=1)
        panel.set_title(name, loc="left", fontsize=7.5)
        panel.tick_params(labelbottom=True)
        drawn = [row for group in own for row in _draw_lines(
            panel, group, list(LOOKS)[group is not own[0] or _is_short(group)])]
        style.scale_axis(panel.yaxis, [1.0, *(row["loss_over_start"] for row in drawn)])
        rows += drawn
    style.scale_axis(axes[0].xaxis, [row["step"] for row in rows])
    for panel in axes[max(0, len(panels) - COLUMNS):len(panels)]:
        panel.set_xlabel("steps")
    for panel in axes[:len(panels):COLUMNS]:
        panel.set_ylabel("loss over start")
    sheet.legend(below=True, entries={
        name: Line2D([], [], color=colour, linestyle=line) for name, (colour, line) in
        LOOKS.items()})
    return style.save(sheet, folder, NAME, rows)


def _learners(run: Run) -> dict:
    """name → the groups of a learner: on its published schedule, and on the short one where that is
    there too."""
    return {f"{tables.learned_rounding(group) or group.method}\n{group.widths}":
            (group, short) if short else (group,)
            for group, short in tables.on_both_schedules(run.groups, run)}


def _is_short(group) -> bool:
    return group.trials[0].config.get("method.schedule") == "short"


def curves(group) -> list:
    """(seed, place, steps, losses over the start) of every record that has its losses."""
    found = []
    for trial in group.trials:
        for record in trial.learning:
            losses = record.get("losses", [])
            if losses and record["initial_loss"] > 0:
                count = min(POINTS, max(2, len(losses) // FEWEST))
                parts = np.array_split(np.asarray(losses, float), min(count, len(losses)))
                ends = np.cumsum([len(part) for part in parts])
                steps = [end - (len(part) - 1) / 2 for end, part in zip(ends, parts)]
                found.append((trial.seed, record["where"], steps,
                              [part.mean() / record["initial_loss"] for part in parts]))
    return found


def gained(group, share: float) -> list:
    """Of every curve that ends below its start: how much of that is there after a share of the
    steps, by the points around it."""
    found = []
    for _, _, steps, values in curves(group):
        if values[-1] < 1:
            reached = np.interp(share * (steps[0] + steps[-1]), steps, values)
            found.append(float((1 - reached) / (1 - values[-1])))
    return found


def _draw_lines(panel, group, schedule) -> list:
    colour, line = LOOKS[schedule]
    rows = []
    for seed, place, steps, values in curves(group):
        panel.plot(steps, values, color=colour, linestyle=line, linewidth=0.9, marker="o",
                   markersize=1.8, zorder=3)
        rows += [{"label": group.label, "schedule": schedule, "seed": seed, "place": place,
                  "step": step, "loss_over_start": value} for step, value in zip(steps, values)
                 if math.isfinite(value)]
    return rows


def _caption(groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("One line a block, or a site where sites are learned, or the model; a point is the "
            f"mean over {FEWEST} steps or more (fewer where there are not twice as many), at their "
            "middle, of the loss that is minimized, over that of the start on all sequences that "
            "teach, or where the model is learned on those of its first step. A step takes other "
            "tokens on the two schedules, so a line says how far and how evenly learning goes and not "
            "which of two is better; the held-out errors say that. "
            f"{style.provenance(trials)}")
