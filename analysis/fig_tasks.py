"""Zero-shot accuracy against bit widths: what is kept of the float model's, and each task by
itself."""

import math
import re
from dataclasses import dataclass

import numpy as np

from analysis import stats, style
from analysis.runs import Run

NAME = "tasks"
TITLE = "Zero-shot accuracy against bit widths"
KINDS = ("acc_norm", "acc")  # the first that a task has
COLUMNS = 4
CROWD = 8  # variants at one setting of widths
KEPT, ABOVE = "kept", "kept above chance"


def draw(run: Run, folder):
    names = task_names(run)
    if not names:
        raise style.Unsupported("no zero-shot task was scored")
    groups = [group for name in run.widths for group in _shown(run, name)
              if all(measure(group.trials[0], task) for task in names)]
    widths = [name for name in run.widths if any(group.widths == name for group in groups)]
    shown = [KEPT, ABOVE, *names]
    lines = -(-len(shown) // COLUMNS)
    sheet = style.open_sheet(TITLE, _caption(run, groups, names), 0.45 + 1.75 * lines,
                             style.preview_mark(groups))
    panels = list(sheet.figure.subplots(lines, COLUMNS, squeeze=False).flat)
    labels = list(dict.fromkeys(run.short(group) for group in groups))
    firsts = [next(g for g in groups if run.short(g) == label) for label in labels]
    looks = dict(zip(labels, style.looks_of_lines(firsts, run.methods)))
    guess = {task: chance(run, task) for task in names}
    rows = []
    for panel, what in zip(panels, shown):
        scores = {id(group): score(group, what, names, guess) for group in groups}
        rows += _draw_panel(run, panel, what, scores, groups, looks, widths)
    for panel in panels[len(shown):]:
        panel.set_axis_off()
    sheet.legend(below=True)
    return style.save(sheet, folder, NAME, rows)


def _shown(run: Run, widths) -> list:
    """All variants at these widths; bases alone where there are too many to draw."""
    bases = run.representatives(widths)
    own = sorted((group for group in run.groups if group.widths == widths),
                 key=lambda group: (style.method_order(group.method), group not in bases))
    return own if len(own) <= CROWD else bases


def task_names(run: Run) -> list:
    """Tasks of which every trial that has tasks has an accuracy."""
    found = [{match[1] for key in trial.metrics if (match := re.fullmatch(
        r"task\.(\w+)\.acc_float", key))} for trial in run.trials]
    found = [names for names in found if names]
    return sorted(set.intersection(*found)) if found else []


def measure(trial, task) -> str:
    """task.<name>.acc_norm where the task has it, else .acc; empty without either."""
    keys = (f"task.{task}.{kind}" for kind in KINDS)
    return next((key for key in keys if key in trial.metrics), "")


def chance(run: Run, task) -> float:
    """What guessing gives on a task; NaN where no trial says so."""
    return next((trial.metrics[f"task.{task}.chance"] for trial in run.trials
                 if f"task.{task}.chance" in trial.metrics), math.nan)


@dataclass(frozen=True)
class Score:
    """Percent: an interval over seeds, and the half width of one over items."""

    seeds: stats.Interval
    items_half: float
    level: float  # what the float model has


def score(group, what, names, guess) -> Score:
    """An accuracy, or the mean accuracy over tasks relative to the float model's, above chance or
    as it is. A ratio of means and not a mean of ratios: on a task that the float model only guesses
    a ratio says nothing. Over items: a bootstrap of the items, on which both models were scored."""
    tasks = [what] if what in names else names
    floor = np.array([guess[task] if what == ABOVE else 0.0 for task in tasks])

    def value(own, floats):  # [..., tasks] each, accuracies
        if what in names:
            return 100 * own[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):  # where the float model only guesses
            return 100 * (own - floor).sum(axis=-1) / (floats - floor).sum(axis=-1)

    accuracies = np.array([[trial.metrics[measure(trial, task)] for task in tasks]
                           for trial in group.trials])
    floats = np.array([group.trials[0].metrics[f"{measure(group.trials[0], task)}_float"]
                       for task in tasks])
    items = [scored_items(group, task) for task in tasks]
    half = math.nan
    if all(found is not None for found in items):
        low, high = stats.bootstrap(items, lambda means: value(
            np.stack([task[:, 0] for task in means], axis=-1),
            np.stack([task[:, 1] for task in means], axis=-1)))
        half = (high - low) / 2 if math.isfinite(high - low) else math.nan
    return Score(stats.mean_interval(value(accuracies, floats)), half,
                 100 * float(floats[0]) if what in names else 100.0)


def scored_items(group, task) -> np.ndarray | None:
    """[items, 2]: right or wrong, the mean over seeds and the float model's; None where the items
    were not kept."""
    name = measure(group.trials[0], task).removeprefix("task.")
    own = [trial.items() for trial in group.trials]
    if any(name not in items or f"{name}_float" not in items for items in own):
        return None
    return np.stack([np.mean([items[name] for items in own], axis=0), own[0][f"{name}_float"]],
                    axis=1)


def _draw_panel(run: Run, panel, what, scores, groups, looks, widths) -> list:
    over_items = [stats.Interval(s.seeds.mean, s.items_half, 2) for s in scores.values()]
    reached = style.reach(
        [[s.seeds.mean for s in scores.values()], [s.level for s in scores.values()]],
        [*over_items, *(s.seeds for s in scores.values())])
    margin = 0.05 * ((max(reached) - min(reached)) or 1)
    limits = (min(reached) - margin, max(reached) + margin)
    panel.set_ylim(*limits)
    panel.axhline(scores[id(groups[0])].level, color=style.INK, linewidth=0.9,
                  linestyle=(0, (4, 1.5)), zorder=1)
    panel.set_xticks(range(len(widths)), [name.split("-")[0] for name in widths])
    panel.set_xlim(-0.5, len(widths) - 0.5)
    panel.grid(axis="x", visible=False)
    is_mean = what in (KEPT, ABOVE)
    panel.set_title(what, loc="left", size=7.5, weight="bold" if is_mean else "normal")
    panel.set_ylabel("% of the float model's" if is_mean else "accuracy (%)")
    rows = []
    for place, (label, look) in enumerate(looks.items()):
        own = [group for group in groups if run.short(group) == label]
        shift = 0.4 / len(looks) * (place - (len(looks) - 1) / 2)
        places = [widths.index(group.widths) + shift for group in own]
        _draw_line(panel, label, look, places, [scores[id(group)] for group in own], limits)
        rows += [_row(group, what, scores[id(group)]) for group in own]
    return rows


def _draw_line(panel, label, look, places, scores, limits) -> None:
    colour, marker, line = look
    panel.plot(places, [score.seeds.mean for score in scores], color=colour, marker=marker,
               linestyle=line, markersize=3.6, linewidth=0.8, label=label, zorder=4)
    for place, score in zip(places, scores):
        for half, options in ((score.items_half, {"alpha": 0.3, "linewidth": 3}),
                              (score.seeds.half, {"linewidth": 0.9})):
            if math.isfinite(half):
                bar = stats.Interval(score.seeds.mean, half, 2)
                panel.plot([place, place], style.clipped(bar, limits), color=colour,
                           solid_capstyle="butt", zorder=3, **options)


def _row(group, what, score) -> dict:
    return {"label": group.label, "widths": group.widths, "measure": what,
            "seeds": score.seeds.n, "percent": score.seeds.mean,
            "half95_over_seeds": score.seeds.half, "half95_over_items": score.items_half,
            "float_percent": score.level}


def _caption(run: Run, groups, names) -> str:
    trials = [trial for group in groups for trial in group.trials]
    limit = {trial.config.get("tasks.items", "0") for trial in trials}
    items = "all items" if limit == {"0"} else f"the first {', '.join(sorted(limit))} items"
    return (f"Accuracy on {', '.join(names)} ({items} of each), by length-normalized likelihood "
            "where the task has it. Kept: mean accuracy over tasks relative to the float model's; "
            "above chance: what guessing gives is taken from both means first. Dashed: the float "
            "model. Marker: mean over seeds; thin bar: 95 % t-interval over seeds; pale bar: "
            "95 % bootstrap interval over the items of the tasks, paired with the float model; cut "
            f"at the panel's edge. {run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
