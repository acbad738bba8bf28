"""Error of a linear layer's output by place in the model, one line a method."""

import re

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import stats, style
from analysis.runs import Run

NAME = "site_error"
TITLE = "Output error of quantized linear layers, by site"
MEASURE = "output_error_db"
KINDS = {"attn_in": "attention input (q, k, v)", "attn_out": "attention output (o)",
         "mlp_in": "MLP input (gate, up)", "mlp_out": "MLP output (down)"}


def draw(run: Run, folder):
    groups = [group for name in run.widths for group in run.representatives(name)
              if _sites(group)]
    if not groups:
        raise style.Unsupported(f"no trial recorded {MEASURE} of a site")
    widths = [name for name in run.widths if any(group.widths == name for group in groups)]
    found = {kind for group in groups for _, kind in _sites(group)}
    kinds = [kind for kind in KINDS if kind in found] + sorted(found - set(KINDS))
    sheet = style.open_sheet(TITLE, _caption(run, groups), 0.5 + 1.75 * len(widths),
                             style.preview_mark(groups))
    panels = sheet.figure.subplots(len(widths), len(kinds), sharex=True, sharey="row",
                                   squeeze=False)
    rows = []
    for name, line in zip(widths, panels):
        own = [group for group in groups if group.widths == name]
        line[0].yaxis.set_major_locator(MaxNLocator(7, integer=True))
        line[0].set_ylabel(f"{name}\noutput error (dB)")
        for kind, panel in zip(kinds, line):
            rows += _draw_panel(run, panel, own, kind)
    for kind, panel in zip(kinds, panels[0]):
        panel.set_title(KINDS.get(kind, kind), size=7, loc="left")
    for panel in panels[-1]:
        panel.set_xlabel("decoder layer")
    _legend(run, sheet, groups)
    return style.save(sheet, folder, NAME, rows)


def _legend(run: Run, sheet, groups) -> None:
    entries = {}
    for method in sorted({group.method for group in groups}, key=style.method_order):
        colour, marker, line = style.look(method, run.methods)
        entries[method] = Line2D([], [], color=colour, marker=marker, linestyle=line)
    sheet.legend(below=True, entries=entries)


def _sites(group) -> dict:
    """(layer, kind) → output error of each seed, in dB."""
    errors = {}
    for trial in group.trials:
        for site, measures in trial.sites.items():
            place = re.fullmatch(r"layers\.(\d+)\.(\w+)", site)
            if place and MEASURE in measures:
                key = (int(place[1]), place[2])
                errors.setdefault(key, []).append(measures[MEASURE])
    return errors


def _draw_panel(run: Run, panel, groups, kind) -> list:
    rows, layers = [], set()
    for group in groups:
        colour, marker, line = style.look(group.method, run.methods)
        sites = {layer: e for (layer, name), e in sorted(_sites(group).items()) if name == kind}
        intervals = {layer: stats.mean_interval(errors) for layer, errors in sites.items()}
        layers |= set(sites)
        panel.plot(list(intervals), [i.mean for i in intervals.values()], color=colour,
                   marker=marker, linestyle=line, linewidth=1, markersize=3.4)
        if len(group.trials) > 1:
            panel.fill_between(list(sites), [min(e) for e in sites.values()],
                               [max(e) for e in sites.values()], color=colour, alpha=0.15,
                               linewidth=0)
        rows += [{"label": group.label, "widths": group.widths, "layer": layer, "kind": kind,
                  "seeds": interval.n, f"{MEASURE}_mean": interval.mean,
                  "half95_over_seeds": interval.half} for layer, interval in intervals.items()]
    if len(layers) <= 8:
        panel.set_xticks(sorted(layers))
    return rows


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Energy of the error of X·Wᵀ with both operands quantized, over the energy of the "
            "exact product, in decibels: lower is better, 10 dB is a factor of ten. Line: mean "
            "over seeds; shade: lowest to highest seed. Each method at its most common settings in "
            f"this run. {run.base_note(groups)} {style.provenance(trials)}").replace("  ", " ")
