"""Loss over the float model against the bit widths, one line a method or variant; a panel for each
choice of what is quantized, within which bits alone differ."""

import math

import numpy as np

from analysis import departures, stats, style
from analysis.labels import ATTENTION_APART, two_lines, width_family, width_order
from analysis.runs import Run

NAME = "bits"
TITLE = "Loss over the float model against bit widths"
CROWD = 16  # more variants than this are left to the tables


def draw(run: Run, folder):
    groups = departures.variants(run, run.widths, CROWD)
    widths = sorted({group.widths for group in groups}, key=width_order)
    if len(widths) < 2:
        raise style.Unsupported("losses at one width setting only")
    families = {}
    for name in sorted(widths, key=width_family):
        families.setdefault(width_family(name), []).append(name)
    sheet = style.open_sheet(TITLE, _caption(run, groups), 2.9, style.preview_mark(groups))
    panels = sheet.figure.subplots(1, len(families), sharey=True, squeeze=False, gridspec_kw={
        "width_ratios": [len(own) for own in families.values()]})[0]
    labels = list(dict.fromkeys(run.short(group) for group in groups))
    firsts = [next(g for g in groups if run.short(g) == label) for label in labels]
    looks = dict(zip(labels, style.looks_of_lines(firsts, run.methods)))
    limits = style.scale_axis(panels[0].yaxis, style.reach(
        [group.losses for group in groups], [stats.mean_interval(g.losses) for g in groups]))
    rows = []
    for panel, ((_, words), names) in zip(panels, families.items()):
        rows += _draw_panel(run, panel, words, sorted(names, key=width_order), groups, looks,
                            limits)
    panels[0].set_ylabel("loss over float (nats per token)")
    sheet.legend(below=len(labels) > 8)
    return style.save(sheet, folder, NAME, rows)


def _draw_panel(run: Run, panel, words, widths, groups, looks, limits) -> list:
    panel.set_xticks(range(len(widths)), [two_lines(name) for name in widths], size=6.2)
    panel.set_xlim(-0.5, len(widths) - 0.5)
    panel.set_title(words, loc="left", size=7)
    panel.grid(axis="x", visible=False)
    joined = words != ATTENTION_APART
    step = min(0.075, 0.4 / len(looks))
    rows = []
    for place, (label, look) in enumerate(looks.items()):
        own = sorted((group for group in groups if group.widths in widths
                      and run.short(group) == label), key=lambda g: widths.index(g.widths))
        shift = step * (place - (len(looks) - 1) / 2)
        # Lines join what differs in bits alone.
        line = look[2] if joined else "none"
        rows += _draw_line(panel, label, own, widths, shift, (*look[:2], line), limits)
    return rows


def _draw_line(panel, label, groups, widths, shift, look, limits) -> list:
    colour, marker, line = look
    places = [widths.index(group.widths) + shift for group in groups]
    means = [float(np.mean(group.losses)) for group in groups]
    panel.plot(places, means, color=colour, marker=marker, linestyle=line, linewidth=0.9,
               markersize=3.8, zorder=4, label=label)
    rows = []
    for place, group in zip(places, groups):
        interval = stats.mean_interval(group.losses)
        if math.isfinite(interval.half):
            panel.plot([place, place], style.clipped(interval, limits), color=colour, zorder=3,
                       linewidth=0.9)
        rows += [{"label": group.label, "widths": group.widths, "seed": trial.seed,
                  "nll_over_float": trial.loss, "mean": interval.mean,
                  "half95_over_seeds": interval.half} for trial in group.trials]
    return rows


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Marker: mean over seeds; bar: 95 % t-interval over seeds, cut at the panel's edge, "
            "none where nothing is drawn at random; "
            "methods are set apart for legibility. Lines join settings that differ in their bits "
            "alone: of weights (W), inputs of linear layers (A), queries, keys and values (Q, K, "
            f"V). {run.base_note(groups)} {style.provenance(trials)}").replace("  ", " ")
