"""Loss over the float model by method: one row a method or variant, one panel a width setting."""

import math

import numpy as np

from analysis import stats, style
from analysis.runs import Run

NAME = "loss_by_method"
TITLE = "Loss over the float model, by method"
COLUMNS = 3
LONG = 36  # letters of a label from which a row holds a panel less


def draw(run: Run, folder, name=NAME, only=()):
    """only: the settings of widths to show; all without it."""
    groups = [group for group in run.groups if group.trials[0].has_language
              and (not only or group.widths in only)]
    if not groups:
        raise style.Unsupported(f"no trial measured language loss {' or '.join(only)}".rstrip())
    widths = [w for w in run.widths if any(group.widths == w for group in groups)]
    labels = _order(run, groups, widths)
    columns = min(len(widths), COLUMNS if max(map(len, labels)) < LONG else COLUMNS - 1)
    lines = -(-len(widths) // columns)
    sheet = style.open_sheet(TITLE, _caption(run, groups), (0.75 + 0.165 * len(labels)) * lines,
                             style.preview_mark(groups))
    panels = list(sheet.figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for panel in panels[len(widths):]:
        panel.set_axis_off()
    rows = []
    for panel, setting in zip(panels, widths):
        own = [group for group in groups if group.widths == setting]
        rows += _draw_panel(run, panel, own, labels, setting)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    return style.save(sheet, folder, name, rows)


def _order(run: Run, groups, widths) -> list:
    """Short labels, best first at the fewest bits at which a variant was measured."""
    rank = {}
    for group in groups:
        mean = float(np.mean(group.losses))
        key = (widths.index(group.widths), math.inf if math.isnan(mean) else mean)
        label = run.short(group)
        rank[label] = min(rank.get(label, key), key)
    return sorted(rank, key=rank.get)


def _draw_panel(run: Run, panel, groups, labels, widths) -> list:
    intervals = [stats.mean_interval(group.losses) for group in groups]
    intervals += [_over_windows(group) for group in groups]
    limits = style.scale_axis(panel.xaxis, style.reach([g.losses for g in groups], intervals))
    few = len(panel.figure.axes) < COLUMNS
    panel.set_xlabel("loss over float (nats per token)" if few else "nats per token")
    panel.set_title(widths, loc="left")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.text(1.13, 1.0, "perplexity", transform=panel.transAxes, ha="right", va="bottom",
               size=6.5, color=style.MUTED)
    rows = []
    for group in groups:
        place = labels.index(run.short(group))
        style.stripe_rows(panel, [place])
        rows += _draw_group(run, panel, group, place, limits)
    return rows


def _over_windows(group) -> stats.Interval:
    return stats.paired_over_windows(group.windows("nll"), group.windows("nll_float"))


def _draw_group(run: Run, panel, group, place, limits) -> list:
    colour, marker, _ = style.look(group.method, run.methods)
    over_seeds = stats.mean_interval(group.losses)
    over_windows = _over_windows(group)
    if group.diverged:
        panel.text(0.99, place, f"diverged: {group.diverged} of {len(group.trials)}",
                   transform=panel.get_yaxis_transform(), ha="right", va="center", size=6.5,
                   color=style.MARK)
    else:
        low, high = style.clipped(over_windows, limits)
        panel.plot([low, high], [place, place], color=colour, alpha=0.25, linewidth=5,
                   solid_capstyle="butt", zorder=1)
        if math.isfinite(over_seeds.half):
            low, high = style.clipped(over_seeds, limits)
            panel.plot([low, high], [place, place], color=style.INK, linewidth=0.9, zorder=3)
        panel.plot(over_seeds.mean, place, marker=marker, color=colour, markersize=5,
                   markeredgecolor="white", markeredgewidth=0.5, zorder=4)
    if len(group.trials) > 1:
        panel.plot(group.losses, np.full(len(group.losses), place - 0.27), linestyle="none",
                   marker="o", markersize=1.8, color=style.INK, markeredgewidth=0, zorder=5)
    ppl = stats.mean_interval([trial.ppl for trial in group.trials])
    text = f"{ppl.mean:,.2f}" if ppl.mean < 100 else f"{ppl.mean:,.0f}" if ppl.mean < 1e4 else \
        f"{ppl.mean / 1000:,.0f}k" if ppl.mean < 1e7 else f"{ppl.mean:.0e}"
    panel.text(1.13, place, text if math.isfinite(ppl.mean) else "–",
               transform=panel.get_yaxis_transform(), ha="right", va="center", size=6.5,
               color=style.MUTED)
    return [{"label": group.label, "widths": group.widths, "seed": trial.seed,
             "nll_over_float": trial.loss, "ppl": trial.ppl, "mean": over_seeds.mean,
             "half95_over_seeds": over_seeds.half, "half95_over_windows": over_windows.half}
            for trial in group.trials]


def _caption(run: Run, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    floats = sorted({f"{np.mean(trial.windows['nll_float']):.3f} nats per token (perplexity "
                     f"{trial.float_ppl:.2f})" for trial in trials})
    return ("Negative log-likelihood over that of the float model, best first at the fewest bits. "
            "Large marker: mean over seeds; thin line: its 95 % t-interval over seeds; pale band: "
            "95 % t-interval over windows; dots: single seeds. Intervals are cut at the panel's "
            f"edge. The float model loses {' / '.join(floats)}. "
            f"{run.base_note(groups)} {style.provenance(trials)}").replace("  ", " ")
