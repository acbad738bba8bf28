"""How close transformed activations come to uniform, token by token: five measures, a row a method,
a marker a kind of site."""

import math
import re

import numpy as np
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
BELLS = 400  # simulated Gaussian tokens
LOOKS = {"attn_in": ("#0072b2", "o"), "attn_out": ("#e69f00", "s"), "mlp_in": ("#009e73", "^"),
         "mlp_out": ("#d55e00", "D")}


def draw(run: Run, folder):
    widths, groups = _measured(run)
    measures = [name for name in MEASURES
                if any(values(group, name, kind) for group in groups for kind in KINDS)]
    groups.sort(key=lambda group: (style.method_order(group.method), len(run.short(group))))
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, groups),
                             0.95 + 0.3 * len(groups), style.preview_mark(groups))
    panels = sheet.figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    bells = gaussians(groups, widths)
    rows = []
    for panel, measure in zip(panels, measures):
        rows += _draw_panel(panel, groups, measure,
                            sorted(bell[measure] for bell in bells if measure in bell))
    panels[0].set_yticks(range(len(groups)), [run.short(group) for group in groups])
    panels[0].set_ylim(len(groups) - 0.4, -0.6)
    sheet.legend(below=True, entries={KINDS[kind]: Line2D(
        [], [], color=colour, marker=marker, linestyle="none")
        for kind, (colour, marker) in LOOKS.items()})
    return style.save(sheet, folder, NAME, rows)


def _measured(run: Run) -> tuple:
    """The measured widths and all variants there; the base of each method alone where there are too
    many to draw."""
    widths = measured_widths(run)
    groups = [group for group in run.groups if group.widths == widths and _is_measured(group)]
    bases = [group for group in run.representatives(widths) if group in groups]
    return widths, groups if len(groups) <= CROWD else bases


def measured_widths(run: Run) -> str:
    """The fewest bits at which methods have these measures."""
    for widths in run.widths:
        if any(group.widths == widths and _is_measured(group) for group in run.groups):
            return widths
    raise style.Unsupported("no trial measured how uniform its sites are")


def _is_measured(group) -> bool:
    return any(values(group, name, kind) for name in MEASURES for kind in KINDS)


def values(group, measure, kind) -> list:
    key = f"tensor.{measure}.{kind}"
    return [trial.metrics[key] for trial in group.trials if key in trial.metrics]


def gaussians(groups, widths) -> list:
    """What gaussian() says for the sites of which samples were kept, the narrowest first."""
    trials = [group.trials[0] for group in groups]
    kept = next((found for trial in trials if (trial.folder / "results.h5").exists()
                 and (found := trial.samples())), {})
    bits = int(re.search(r"A(\d+)", widths)[1])
    return [gaussian(channels, bits)
            for channels in sorted({after.shape[1] for _, after in kept.values()})]


def gaussian(channels: int, bits: int) -> dict:
    """Measures of Gaussian tokens of this width, each on a grid from its smallest to its largest
    entry: means over BELLS simulated ones, the same at every call."""
    tokens = np.random.default_rng(channels).standard_normal((BELLS, channels))
    low = tokens.min(axis=1, keepdims=True)
    span = tokens.max(axis=1, keepdims=True) - low
    places = np.sort((tokens - low) / span, axis=1)
    ranks = np.arange(channels + 1) / channels
    distance = np.maximum(np.abs(places - ranks[:-1]), np.abs(places - ranks[1:])).max(axis=1)
    step = span / (2**bits - 1)
    error = np.sum((np.round((tokens - low) / step) * step + low - tokens) ** 2)
    return {"uniformity_ks": float(distance.mean()),
            "range_over_rms": float(np.mean(span[:, 0] / np.sqrt(np.mean(tokens**2, axis=1)))),
            "uniform_gap_db": float(10 * np.log10(error / np.sum(tokens**2)) + 20 * bits
                                    * np.log10(2))}


def _draw_panel(panel, groups, measure, bell) -> list:
    title, unit, ideal = MEASURES[measure]
    intervals = {(place, kind): stats.mean_interval(values(group, measure, kind))
                 for place, group in enumerate(groups) for kind in KINDS
                 if values(group, measure, kind)}
    means = [[interval.mean] for interval in intervals.values()]
    limits = style.scale_axis(panel.xaxis, style.reach(
        [*means, [ideal] if ideal is not None else [], bell], intervals.values()))
    if ideal is not None:
        panel.axvline(ideal, color=style.INK, linewidth=0.9, linestyle=(0, (4, 1.5)), zorder=1)
    if bell:
        panel.axvspan(bell[0], bell[-1], color="#9a9a9a", alpha=0.55, linewidth=0.8, zorder=1)
    style.stripe_rows(panel, range(len(groups)))
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
             "half95_over_seeds": interval.half, "uniform": "" if ideal is None else ideal,
             "gaussian_low": bell[0] if bell else "", "gaussian_high": bell[-1] if bell else ""}
            for (place, kind), interval in intervals.items()]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Means over tokens that calibrated nothing and over the measured layers, one marker a "
            "kind of site; bar: 95 % t-interval over seeds. Dashed: what a token that is uniform "
            "on its range has; grey: Gaussian tokens as wide as the narrowest to the widest site "
            "that samples were kept of, by simulation. Lower is closer to uniform. Best levels are the Lloyd-Max levels "
            "of each token by itself before any transform; a negative value means that the "
            "uniform quantizer does better after the transform than any levels could before. The "
            "last measure says little alone: a bin of one token holds few entries, so its centroid "
            "is off the midpoint by chance too, and less so where most entries share a bin. "
            f"{run.base_note(groups)} {style.provenance(trials)}").replace("  ", " ")
