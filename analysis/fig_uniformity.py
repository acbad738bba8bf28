"""How close transformed activations come to uniform, token by token: five measures, a row a method,
a marker a kind of site."""

import math

from matplotlib.lines import Line2D

from analysis import stats, style
from analysis.fig_site_error import KINDS
from analysis.runs import Run

NAME = "uniformity"
TITLE = "How uniform activations are after the transform ({widths})"
# measure → panel title, unit, what a uniform token has.
MEASURES = {
    "uniformity_ks": ("Kolmogorov distance\nto uniform", "share of entries", 0.0),
    "range_over_rms": ("range of a token", "over its rms", 2 * math.sqrt(3)),
    "uniform_gap_db": ("error above that of\na uniform source", "dB", 0.0),
    "lloyd_max_gap_db": ("error above that of\nbest levels, untouched", "dB", None),
    "centroid_shift": ("centroid against\nmidpoint", "rms, steps Δ", 0.0),
}
CROWD = 16  # rows
LOOKS = {"attn_in": ("#0072b2", "o"), "attn_out": ("#e69f00", "s"), "mlp_in": ("#009e73", "^"),
         "mlp_out": ("#d55e00", "D")}


def draw(run: Run, folder):
    widths, groups = _measured(run)
    measures = [name for name in MEASURES
                if any(_values(group, name, kind) for group in groups for kind in KINDS)]
    groups.sort(key=lambda group: (style.method_order(group.method), len(run.short(group))))
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, groups),
                             0.95 + 0.3 * len(groups), style.preview_mark(groups))
    panels = sheet.figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    rows = []
    for panel, measure in zip(panels, measures):
        rows += _draw_panel(run, panel, groups, measure)
    panels[0].set_yticks(range(len(groups)), [run.short(group) for group in groups])
    panels[0].set_ylim(len(groups) - 0.4, -0.6)
    sheet.legend(below=True, entries={KINDS[kind]: Line2D(
        [], [], color=colour, marker=marker, linestyle="none")
        for kind, (colour, marker) in LOOKS.items()})
    return style.save(sheet, folder, NAME, rows)


def _measured(run: Run) -> tuple:
    """The fewest bits at which methods have these measures, and all variants there; the base of
    each method alone where there are too many to draw."""
    for widths in run.widths:
        groups = [group for group in run.groups if group.widths == widths
                  and any(_values(group, name, kind) for name in MEASURES for kind in KINDS)]
        if groups:
            bases = [group for group in run.representatives(widths) if group in groups]
            return widths, groups if len(groups) <= CROWD else bases
    raise style.Unsupported("no trial measured how uniform its sites are")


def _values(group, measure, kind) -> list:
    key = f"tensor.{measure}.{kind}"
    return [trial.metrics[key] for trial in group.trials if key in trial.metrics]


def _draw_panel(run: Run, panel, groups, measure) -> list:
    title, unit, ideal = MEASURES[measure]
    intervals = {(place, kind): stats.mean_interval(_values(group, measure, kind))
                 for place, group in enumerate(groups) for kind in KINDS
                 if _values(group, measure, kind)}
    means = [[interval.mean] for interval in intervals.values()]
    limits = style.scale_axis(panel.xaxis, style.reach(
        means + ([[ideal]] if ideal is not None else []), intervals.values()))
    if ideal is not None:
        panel.axvline(ideal, color=style.INK, linewidth=0.9, linestyle=(0, (4, 1.5)), zorder=1)
    for place in range(0, len(groups), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="#f6f6f6", linewidth=0, zorder=0)
    for (place, kind), interval in intervals.items():
        colour, marker = LOOKS[kind]
        height = place + 0.2 * (list(KINDS).index(kind) - 1.5)
        if math.isfinite(interval.half):
            panel.plot(style.clipped(interval, limits), [height] * 2, color=colour, zorder=3)
        panel.plot([interval.mean], [height], color=colour, marker=marker, markersize=3.6, zorder=4)
    panel.set_title(title, loc="left", size=7)
    panel.set_xlabel(unit)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    return [{"label": groups[place].label, "widths": groups[place].widths, "measure": measure,
             "kind": kind, "seeds": interval.n, "mean": interval.mean,
             "half95_over_seeds": interval.half, "uniform": "" if ideal is None else ideal}
            for (place, kind), interval in intervals.items()]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Means over tokens that calibrated nothing and over the measured layers, one marker a "
            "kind of site; bar: 95 % t-interval over seeds. Dashed: what a token that is uniform "
            "on its range has. Lower is closer to uniform. Best levels are the Lloyd-Max levels "
            "of each token by itself before any transform; a negative value means that the "
            "uniform quantizer does better after the transform than any levels could before. The "
            "last measure says little alone: a bin of one token holds few entries, so its centroid "
            "is off the midpoint by chance too, and less so where most entries share a bin. "
            f"{run.base_note(groups)} {style.provenance(trials)}").replace("  ", " ")
