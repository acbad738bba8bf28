"""What levels away from midpoints give inside the model: loss over float at midpoints, at centroids
of the same bins and at Lloyd-Max levels, of activations and of weights; a row a method."""

import math

from matplotlib.lines import Line2D

from analysis import compare, stats, style
from analysis.runs import Run

NAME = "levels"
TITLE = "Midpoints, centroids and Lloyd-Max levels inside the model"
# axis → what has the levels, the value that each choice has there, and settings of no account.
AXES = {"quant.activation_levels": ("activations", ("midpoint", "centroid", "lloyd_max"),
                                    ("quant.rounding", "quant.weight.rule", "quant.weight.search")),
        "quant.rounding": ("weights", ("rtn", "centroid", "lloyd_max"),
                           ("quant.activation_levels",))}
CHOICES = {"midpoint": ("midpoints", "#7f7f7f", "s"),
           "centroid": ("centroids of the same bins", "#0072b2", "^"),
           "lloyd_max": ("Lloyd-Max levels", "#d55e00", "D")}


def draw(run: Run, folder):
    found = [(axis, *best) for axis in AXES if (best := most_compared(run, axis))]
    if not found:
        raise style.Unsupported("levels of quantizers were not varied")
    groups = [group for *_, rows in found for own in rows.values() for group in own.values()]
    sheet = style.open_sheet(TITLE, _caption(groups),
                             0.95 + 0.36 * max(len(rows) for *_, rows in found),
                             style.preview_mark(groups))
    panels = sheet.figure.subplots(1, len(found), squeeze=False)[0]
    table = []
    for panel, (axis, widths, rows) in zip(panels, found):
        table += _draw_panel(panel, axis, widths, rows)
    sheet.legend(below=True, entries={
        words: Line2D([], [], color=colour, marker=marker, linestyle="none")
        for words, colour, marker in CHOICES.values()})
    return style.save(sheet, folder, NAME, table)


def most_compared(run: Run, axis: str) -> tuple | None:
    """The widths with the most rows, the fewest bits among equals, and these rows."""
    rows = {widths: compared(run, axis, widths) for widths in run.widths}
    best = max(rows, key=lambda widths: len(rows[widths]))
    return (best, rows[best]) if rows[best] else None


def compared(run: Run, axis: str, widths: str) -> dict:
    """Row → choice → group, where a method was measured at midpoints and at other levels with the
    same seeds and nothing else differs."""
    what, values, ignored = AXES[axis]
    rows = {}
    for group in run.groups:
        value = group.trials[0].config.get(axis)
        if group.widths != widths or value not in values or not group.trials[0].has_language \
                or not _rounds(what, widths):
            continue
        rest = tuple(sorted((k, v) for k, v in group.settings.items() if k != axis))
        choice = list(CHOICES)[values.index(value)]
        rows.setdefault((group.method, rest), {})[choice] = group
    rows = {key: own for key, own in rows.items() if len(own) > 1 and "midpoint" in own
            and len({tuple(group.seeds) for group in own.values()}) == 1}
    order = sorted(rows, key=lambda key: (style.method_order(key[0]), len(key[1]), key[1]))
    names = run.among([rows[key]["midpoint"] for key in order], without=(axis, *ignored))
    return {names[rows[key]["midpoint"].label]: rows[key] for key in order}


def _rounds(what: str, widths: str) -> bool:
    return "A16" not in widths if what == "activations" else not widths.startswith("W16")


def _draw_panel(panel, axis, widths, rows) -> list:
    intervals = {(place, choice): stats.mean_interval(group.losses)
                 for place, own in enumerate(rows.values()) for choice, group in own.items()}
    limits = style.scale_axis(panel.xaxis, style.reach(
        [[i.mean] for i in intervals.values()], intervals.values()))
    style.stripe_rows(panel, range(len(rows)))
    for (place, choice), interval in intervals.items():
        _, colour, marker = CHOICES[choice]
        height = place + 0.22 * (list(CHOICES).index(choice) - 1)
        if math.isfinite(interval.half):
            panel.plot(style.clipped(interval, limits), [height] * 2, color=colour, zorder=3)
        panel.plot([interval.mean], [height], color=colour, marker=marker, markersize=4, zorder=4)
    panel.set_yticks(range(len(rows)), [label.replace(" · ", "\n", 1) for label in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.set_title(f"{AXES[axis][0]} ({widths.split('-')[0]})", loc="left")
    panel.set_xlabel("loss over float (nats per token)")
    return [_row(axis, label, choice, own[choice], own["midpoint"])
            for label, own in rows.items() for choice in CHOICES if choice in own]


def _row(axis, label, choice, group, base) -> dict:
    interval = stats.mean_interval(group.losses)
    pair = compare.compare(group, base)
    same = group is base
    return {"levels_of": AXES[axis][0], "label": label, "widths": group.widths, "levels": choice,
            "seeds": len(group.trials), "nll_over_float": interval.mean,
            "half95_over_seeds": interval.half,
            "minus_midpoint": 0.0 if same else pair.windows.mean,
            "half95_over_windows": math.nan if same else pair.windows.half,
            "minus_midpoint_half95_over_seeds": math.nan if same else pair.seeds.half,
            "verdict": "" if same else pair.verdict}


def _caption(groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Marker: mean over seeds; bar: 95 % t-interval over seeds, cut at the panel's edge, "
            "none where nothing is drawn at random. "
            "Centroids keep the thresholds of the uniform grid and move each level to the mean of "
            "what falls into its bin; Lloyd-Max moves thresholds too. Levels of activations are "
            "fitted once to calibration tokens, scaled to each token's range; those of weights to "
            "each row. What is rounded besides is in the names of the widths. Scales differ "
            f"between panels; the CSV file has all settings. {style.provenance(trials)}")
