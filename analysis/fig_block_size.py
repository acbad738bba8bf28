"""Loss over the float model against the block size, one line a method or variant."""

import math
import textwrap

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from analysis import stats, style
from analysis.runs import Run

NAME = "block_size"
TITLE = "Loss over the float model against block size"
BLOCK = ("method.block_size",)
FAR = 1.5  # a level line beyond this multiple of the highest point is named, not drawn


def draw(run: Run, folder):
    groups = [group for group in run.groups if group.trials[0].has_language]
    lines = {label: own for label, own in _lines(run, groups).items()
             if len({group.block_size for group in own}) > 1}
    if not lines:
        raise style.Unsupported("no method has losses at two block sizes")
    shown = [group for own in lines.values() for group in own]
    widths = [name for name in run.widths if any(group.widths == name for group in shown)]
    flat = [group for name in widths for group in run.representatives(name)
            if group.block_size is None and group.trials[0].has_language]
    sheet = style.open_sheet(TITLE, _caption(run, shown, flat), 2.9,
                             style.preview_mark(shown + flat))
    panels = sheet.figure.subplots(1, len(widths), squeeze=False)[0]
    looks = dict(zip(lines, style.looks_of_lines([own[0] for own in lines.values()],
                                                  run.methods)))
    rows = []
    for panel, name in zip(panels, widths):
        rows += _draw_panel(run, panel, name, lines, looks,
                            [group for group in flat if group.widths == name])
    panels[0].set_ylabel("loss over float (nats per token)")
    sheet.legend()
    return style.save(sheet, folder, NAME, rows)


def _lines(run: Run, groups) -> dict:
    """label without the block size → groups; the base of a method comes first."""
    lines = {}
    for group in groups:
        if group.block_size is not None:
            lines.setdefault(run.short(group, without=BLOCK), []).append(group)
    return dict(sorted(lines.items()))


def _draw_panel(run: Run, panel, widths, lines, looks, flat) -> list:
    own = {label: sorted((g for g in groups if g.widths == widths), key=lambda g: g.block_size)
           for label, groups in lines.items()}
    shown = [group for groups in own.values() for group in groups] + flat
    inside, above = _split_far(own, flat)
    drawn = [group for groups in [*own.values(), inside] for group in groups]
    limits = style.scale_axis(panel.yaxis, style.reach(
        [group.losses for group in drawn], [stats.mean_interval(g.losses) for g in drawn]))
    sizes = sorted({group.block_size for groups in own.values() for group in groups})
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(sizes))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    panel.set_xlabel("block size (channels)")
    for group in inside:
        colour, _, line = style.look(group.method, run.methods)
        panel.axhline(np.mean(group.losses), color=colour, linestyle=line, linewidth=0.9,
                      label=f"{group.method} (no blocks)", zorder=1)
    _name_above(run, panel, widths, above)
    for place, (label, groups) in enumerate(own.items()):
        # Lines are set apart a little so that the intervals at one block size can be told apart.
        shift = 2 ** (0.055 * (place - (len(own) - 1) / 2))
        _draw_line(panel, label, groups, looks[label], shift, limits)
    return [row for group in shown for row in _rows(group)]


def _name_above(run: Run, panel, widths, above) -> None:
    """Names methods that lie above the panel, between its title and its top."""
    notes = ", ".join(f"{group.method}\u00a0{np.mean(group.losses):#.3g}" for group in above)
    lines = textwrap.wrap(f"above: {notes}", 88 // len(run.widths)) if above else []
    panel.text(0, 1.015, "\n".join(lines), size=6.5, va="bottom", color=style.MUTED,
               transform=panel.transAxes).set_in_layout(False)
    panel.set_title(widths, loc="left", pad=5 + 9 * len(lines))


def _split_far(own, flat) -> tuple:
    """Methods without blocks that lie near the lines, and those so far above that showing them
    would press the lines together."""
    top = max((loss for groups in own.values() for g in groups for loss in g.losses
               if math.isfinite(loss)), default=math.inf)
    inside = [group for group in flat if np.mean(group.losses) <= FAR * top]
    return inside, [group for group in flat if group not in inside]


def _draw_line(panel, label, groups, look, shift, limits) -> None:
    colour, marker, line = look
    sizes = [group.block_size * shift for group in groups]
    means = [float(np.mean(group.losses)) for group in groups]
    panel.plot(sizes, means, color=colour, marker=marker, linestyle=line, label=label, zorder=4)
    for size, group in zip(sizes, groups):
        interval = stats.mean_interval(group.losses)
        if math.isfinite(interval.half):
            panel.plot([size, size], style.clipped(interval, limits), color=colour, linewidth=0.9,
                       zorder=3)
        panel.plot([size] * len(group.losses), group.losses, linestyle="none", marker="_",
                   markersize=4, markeredgewidth=0.7, color=colour, zorder=3)


def _rows(group) -> list:
    interval = stats.mean_interval(group.losses)
    return [{"label": group.label, "widths": group.widths, "block_size": group.block_size or "",
             "seed": trial.seed, "nll_over_float": trial.loss, "mean": interval.mean,
             "half95_over_seeds": interval.half} for trial in group.trials]


def _caption(run: Run, shown, flat) -> str:
    trials = [trial for group in shown + flat for trial in group.trials]
    return ("Marker: mean over seeds; ticks: single seeds; bar: 95 % t-interval over seeds, cut at "
            "the panel's edge; points of one block size are set apart for legibility. Level lines: "
            f"methods without blocks. {run.base_note(shown, without=BLOCK)} "
            f"{style.provenance(trials)}").replace("  ", " ")
