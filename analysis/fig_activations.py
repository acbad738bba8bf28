"""Activations of one outlier-rich site before and after each method's transform.

Heat maps of the size of every value by token and channel, on one colour scale, each over the
profile of the largest size per channel."""

from collections import Counter

import numpy as np
from matplotlib.colors import LogNorm

from analysis import style
from analysis.fig_site_error import KINDS
from analysis.runs import Run

NAME = "activations"
TITLE = "Activations before and after the transform: {site}"
COLUMNS = 3
CELLS = 256          # columns of a heat map at most; more could not be told apart in print
DECADES = 3          # of the colour scale, down from the largest value
COLOURS = "magma_r"  # even in lightness, for grey prints and colour-blind readers


def draw(run: Run, folder, kinds=tuple(KINDS), name=NAME):
    """kinds: the kinds of site that are wanted; of these the one with the largest value."""
    groups, samples = _representatives(run)
    if not samples:
        raise style.Unsupported("no results.h5 holds samples")
    site = _common_site(samples, kinds)
    groups = sorted((group for group in groups if site in samples[group.label][0]),
                    key=lambda group: style.method_order(group.method))
    panels = _panels(run, groups, samples, site)
    lines = -(-len(panels) // COLUMNS)
    sheet = style.open_sheet(TITLE.format(site=_site_words(site)),
                             _caption(run, groups, samples, site),
                             1.72 * lines + 0.3, style.preview_mark(groups))
    grid = sheet.figure.add_gridspec(2 * lines, COLUMNS, height_ratios=[1.25, 1] * lines)
    top = max(float(profile.max()) for _, _, profiles in panels for profile in profiles)
    norm = LogNorm(top / 10**DECADES, top, clip=True)
    shared = None
    for place, (title, values, profiles) in enumerate(panels):
        line, column = divmod(place, COLUMNS)
        upper = sheet.figure.add_subplot(grid[2 * line, column])
        lower = sheet.figure.add_subplot(grid[2 * line + 1, column], sharex=upper, sharey=shared)
        shared = shared or lower
        image = _draw_panel(upper, lower, title, values, profiles, norm)
        if column == 0:
            upper.set_ylabel("token")
            lower.set_ylabel("largest |x|")
        if line == lines - 1:
            lower.set_xlabel("channel")
        lower.tick_params(labelleft=column == 0, labelbottom=line == lines - 1)
        upper.tick_params(labelleft=column == 0)
    sheet.figure.colorbar(image, ax=sheet.figure.axes, label="|activation| (log scale)",
                          shrink=0.6, aspect=30, pad=0.01, extend="min")
    return style.save(sheet, folder, name, _rows(panels, site))


def _representatives(run: Run) -> tuple:
    """The base of each method at the fewest bits with samples, and label → samples by seed."""
    for widths in run.widths:
        groups, samples = [], {}
        for group in run.representatives(widths):
            found = [trial.samples() for trial in group.trials]
            if any(found):
                groups.append(group)
                samples[group.label] = [entry for entry in found if entry]
        if samples:
            return groups, samples
    return [], {}


def _common_site(samples, kinds) -> str:
    """The site that most methods sampled; the one with the largest value among equals."""
    counts = Counter(site for found in samples.values() for site in found[0]
                     if site.rpartition(".")[2] in kinds)
    if not counts:
        raise style.Unsupported(f"no results.h5 holds samples of {' or '.join(kinds)}")
    peaks = {site: max(float(np.abs(found[0][site][0]).max()) for found in samples.values()
                       if site in found[0]) for site in counts}
    return max(counts, key=lambda site: (counts[site], peaks[site], site))


def _panels(run: Run, groups, samples, site) -> list:
    """(title, |values| of the first seed, largest size per channel of every seed)."""
    before = samples[groups[0].label][0][site][0]
    panels = [("before any transform", np.abs(before), [np.abs(before).max(axis=0)])]
    for group in groups:
        found = [entry[site] for entry in samples[group.label] if site in entry]
        if np.array_equal(found[0][0], found[0][1]):
            continue  # no transform: the picture is the first panel
        after = [np.abs(pair[1]) for pair in found]
        panels.append((f"after {run.short(group)}", after[0],
                       [values.max(axis=0) for values in after]))
    return panels


def _draw_panel(upper, lower, title, values, profiles, norm):
    upper.set_title(title, loc="left", size=7.5, pad=3)
    image = upper.imshow(_cells(values), aspect="auto", norm=norm, cmap=COLOURS, rasterized=True,
                         interpolation="nearest", extent=(0, values.shape[1], values.shape[0], 0))
    upper.grid(visible=False)
    upper.tick_params(labelbottom=False)
    upper.text(0.985, 0.93, f"largest {values.max():,.3g}", transform=upper.transAxes, size=6.5,
               ha="right", va="top", color=style.INK,
               bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "alpha": 0.85,
                     "linewidth": 0})
    channels = np.arange(values.shape[1]) + 0.5
    if len(profiles) > 1:
        lower.fill_between(channels, np.min(profiles, axis=0), np.max(profiles, axis=0),
                           color="#9ecae1", linewidth=0)
    lower.plot(channels, profiles[0], color="#0b3c5d", linewidth=0.5)
    lower.set_yscale("log")
    lower.set_ylim(norm.vmin, 2 * norm.vmax)
    lower.set_xlim(0, values.shape[1])
    return image


def _cells(values) -> np.ndarray:
    """Neighbouring channels joined by their largest value, so that no outlier falls between the
    dots of a picture."""
    joined = -(-values.shape[1] // CELLS)
    return np.maximum.reduceat(values, np.arange(0, values.shape[1], joined), axis=1)


def _rows(panels, site) -> list:
    return [{"site": site, "panel": title, "channel": channel,
             "largest_first_seed": float(profiles[0][channel]),
             "largest_lowest_seed": float(np.min([p[channel] for p in profiles])),
             "largest_highest_seed": float(np.max([p[channel] for p in profiles]))}
            for title, _, profiles in panels for channel in range(len(profiles[0]))]


def _site_words(site: str) -> str:
    """10.mlp_in: layer 10, MLP input (gate, up)."""
    layer, _, kind = site.rpartition(".")
    return f"layer {layer}, {KINDS.get(kind, kind)}"


def _exceptions(groups, samples, site) -> str:
    """Sentences about methods without a panel, and about those that start from another tensor."""
    first = {group.method: samples[group.label][0][site] for group in groups}
    before = next(iter(first.values()))[0]
    same = [name for name, (own, after) in first.items() if np.array_equal(own, after)]
    other = [name for name, (own, _) in first.items() if own.shape != before.shape
             or not np.allclose(own, before, rtol=0, atol=1e-3 * np.abs(before).max())]
    text = f"No transform at this site: {', '.join(same)}. " if same else ""
    return text + (f"Before their transform, {', '.join(other)} hold another tensor than the one "
                   "shown first. " if other else "")


def _caption(run: Run, groups, samples, site) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return (f"Sizes of the activations of one site, {_site_words(site)}, for a sample of "
            f"tokens. Upper panels: values of the first seed on one colour scale, neighbouring "
            f"channels joined by their largest where there are more than {CELLS}; lower panels: "
            "largest size in each channel, line for the first seed, shade from the lowest to the "
            f"highest seed. {_exceptions(groups, samples, site)}{run.base_note(groups)} "
            f"{style.provenance(trials)}").replace("  ", " ")
