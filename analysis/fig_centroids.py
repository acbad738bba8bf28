"""Midpoint against centroid: where the entries of every quantizer bin lie, before and after each
method's transform."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from analysis import stats, style
from analysis.fig_site_error import KINDS
from analysis.runs import Run

NAME = "centroids"
TITLE = "Centroid against midpoint of every quantizer bin ({widths})"
LINES = {"shift": "centroid − midpoint\n(steps Δ)", "within": "density inside\ninner bins",
         "share": "share of entries"}
BEFORE = ("#9a9a9a", "none", "solid")
LEAST_SHARE = 1e-5  # a bin with fewer entries has no centroid worth drawing


def draw(run: Run, folder):
    widths, found = _binned(run)
    groups = [group for group, _ in found]
    kinds = [kind for kind in KINDS if any(kind in bins for _, bins in found)]
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, found), 4.4,
                             style.preview_mark(groups))
    panels = sheet.figure.subplots(len(LINES), len(kinds), sharey="row", squeeze=False)
    rows = []
    for line, (name, words) in zip(panels, LINES.items()):
        for panel, kind in zip(line, kinds):
            rows += _draw_panel(run, panel, name, kind, found)
        line[0].set_ylabel(words)
    for panel, kind in zip(panels[0], kinds):
        panel.set_title(KINDS[kind], loc="left", size=7)
    sheet.legend(below=True)
    return style.save(sheet, folder, NAME, rows)


def shift_shares(group, kind: str, side: str = "after") -> list:
    """Of every seed, what the shift of the centroids of inner bins adds to the error, over Δ²/12,
    which a density that is flat inside the bins would have: 12 Σ p (c − m)² / (Δ² Σ p), mean over
    layers. Not pooled, or shifts of layers would cancel."""
    shares = []
    for trial in group.trials:
        layers = [sides[side] for site, sides in trial.bins().items()
                  if site.rpartition(".")[2] == kind]
        if layers:
            shares.append(float(np.mean([_shift_share(layer) for layer in layers])))
    return shares


def _shift_share(layer) -> float:
    share = np.asarray(layer["share"])[1:-1]
    shift = np.nan_to_num(np.asarray(layer["shift"])[1:-1])
    return 12 * float(np.sum(share * shift**2) / np.sum(share))


def _binned(run: Run) -> tuple:
    """The fewest bits at which bins were recorded, and the bases with kind → side → curves."""
    for widths in run.widths:
        found = [(group, _pooled(group)) for group in run.representatives(widths)]
        found = sorted(((group, bins) for group, bins in found if bins),
                       key=lambda pair: style.method_order(pair[0].method))
        if found:
            return widths, found
    raise style.Unsupported("no results.h5 holds bins")


def _pooled(group) -> dict:
    """kind → side → name → [seeds, bins or cells], the layers of a trial pooled."""
    pooled = {}
    for trial in group.trials:
        by_kind = {}
        for site, sides in trial.bins().items():
            by_kind.setdefault(site.rpartition(".")[2], []).append(sides)
        for kind, layers in by_kind.items():
            for side in ("before", "after"):
                here = pooled.setdefault(kind, {}).setdefault(side, {})
                for name, values in _over_layers([layer[side] for layer in layers]).items():
                    here.setdefault(name, []).append(values)
    return {kind: {side: {name: np.array(values) for name, values in curves.items()}
                   for side, curves in sides.items()} for kind, sides in pooled.items()}


def _over_layers(layers) -> dict:
    """Layers have equally many entries, so bins pool by share. A bin without entries is NaN."""
    share = np.array([layer["share"] for layer in layers])
    shift = np.array([layer["shift"] for layer in layers])
    total = share.sum(axis=0)
    sums = np.where(share > 0, share * np.nan_to_num(shift), 0).sum(axis=0)
    enough = total / len(layers) >= LEAST_SHARE
    mean = np.divide(sums, total, out=np.full(len(total), np.nan), where=enough)
    return {"code": layers[0]["code"], "share": total / len(layers), "shift": mean,
            "within": np.mean([layer["within"] for layer in layers], axis=0)}


def _draw_panel(run: Run, panel, name, kind, found) -> list:
    rows = []
    own = [(group, bins[kind]) for group, bins in found if kind in bins]
    if own:
        rows += _draw_line(panel, name, kind, own[0][0], "before", own[0][1], BEFORE,
                           "before any transform")
    for group, sides in own:
        if np.array_equal(sides["before"]["shift"], sides["after"]["shift"], equal_nan=True):
            continue
        rows += _draw_line(panel, name, kind, group, "after", sides,
                           style.look(group.method, run.methods), f"after {run.short(group)}")
    if name == "share":
        panel.set_yscale("log")
    else:
        panel.axhline(0 if name == "shift" else 1, color=style.INK, linewidth=0.8,
                      linestyle=(0, (4, 1.5)), zorder=1)
    if name == "within":
        panel.set_xticks([-0.5, 0, 0.5])
        panel.set_xlabel("place in the bin (steps Δ)")
    else:
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_xlabel("code")
    return rows


def _draw_line(panel, name, kind, group, side, sides, look, label) -> list:
    curves = sides[side]
    colour, marker, line = look
    cells = curves["within"].shape[1]
    places = (np.arange(cells) + 0.5) / cells - 0.5 if name == "within" else curves["code"][0]
    values = curves[name].copy()
    if name == "shift":
        values[:, [0, -1]] = np.nan  # the range ends there, not the bin
    intervals = [stats.mean_interval(column) for column in values.T]
    means = [interval.mean for interval in intervals]
    panel.plot(places, means, color=colour, marker="none" if name == "within" else marker,
               linestyle=line, markersize=2.6, linewidth=2.6 if side == "before" else 1,
               label=label if name == "shift" else None, zorder=2 if side == "before" else 4)
    half = np.nan_to_num([interval.half for interval in intervals])
    if half.any():
        panel.fill_between(places, means - half, means + half, color=colour, alpha=0.18,
                           linewidth=0)
    return [{"label": group.label, "widths": group.widths, "kind": kind, "side": side,
             "curve": name, "place": float(place), "seeds": interval.n, "mean": interval.mean,
             "half95_over_seeds": interval.half} for place, interval in zip(places, intervals)]


def _site_words(sites) -> str:
    """attention input (q, k, v) of layers 0, 4: kinds with equal layers joined."""
    layers = {}
    for site in sites:
        layer, _, kind = site.rpartition(".")
        layers.setdefault(kind, set()).add(int(layer))
    kinds = {}
    for kind in [*(kind for kind in KINDS if kind in layers), *sorted(set(layers) - set(KINDS))]:
        kinds.setdefault(tuple(sorted(layers[kind])), []).append(KINDS.get(kind, kind))
    return "; ".join(f"{', '.join(names)} of layer{'s' if len(own) > 1 else ''} "
                     f"{', '.join(map(str, own))}" for own, names in kinds.items())


def _caption(run: Run, found) -> str:
    groups = [group for group, _ in found]
    trials = [trial for group in groups for trial in group.trials]
    same = [group.method for group, bins in found
            if all(np.array_equal(s["before"]["shift"], s["after"]["shift"], equal_nan=True)
                   for s in bins.values())]
    plain = f"No transform: {', '.join(same)}. " if same else ""
    sites = {site for trial in trials for site in trial.bins()}
    return ("Entries of held-out tokens in the bins of the activation quantizer, layers pooled by "
            f"kind of site ({_site_words(sites)}). Top: centroid of a bin over its midpoint, in "
            "steps, without the outermost bins, where the range ends, and bins with less than "
            f"{LEAST_SHARE:g} of the entries; zero is where the midpoint is the best level. Middle: density of the place inside a bin, over all bins but the "
            "outermost; one is uniform. Bottom: use of the codes. Line: mean over seeds; shade: "
            f"95 % t-interval over seeds. {plain}{run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
