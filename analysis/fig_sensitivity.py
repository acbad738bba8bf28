"""Sensitivity to single numeric settings: loss against the value, and its difference to the
method's default, one column a setting."""

import math

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from analysis import compare, departures, stats, style
from analysis.labels import label, number
from analysis.runs import Run

NAME = "sensitivity"
TITLE = "Sensitivity of {method} to single settings ({widths})"
# What one axis of a panel turns: clip ratios that are set together move together.
PANELS = {
    "method.block_size": ("block size B (channels)", ("method.block_size",)),
    "method.steps": ("steps of a block map K", ("method.steps",)),
    "method.permutations": ("permutations T", ("method.permutations",)),
    "method.givens_per_step": ("Givens rounds a step λ", ("method.givens_per_step",)),
    "calibration.mean_windows": ("sequences in the mean", ("calibration.mean_windows",)),
    "method.epochs": ("epochs of tuning", ("method.epochs",)),
    "quant.activation.clip_ratio": (
        "clip ratio of activations", ("quant.activation.clip_ratio", "quant.queries.clip_ratio",
                                      "quant.keys.clip_ratio", "quant.values.clip_ratio")),
    "quant.weight.clip_ratio": ("clip ratio of weights", ("quant.weight.clip_ratio",)),
}
COLUMNS = 4
LOG_FROM = 8  # largest over smallest setting from which an axis is logarithmic
LINE, REFERENCE = "#0b3c5d", style.MARK


def draw(run: Run, folder, keys=tuple(PANELS), name=NAME):
    widths = departures.best_covered_widths(run)
    base, columns = _method(run, widths, keys)
    groups = [base] + [group for _, own in columns for group in own]
    lines = -(-len(columns) // COLUMNS)
    sheet = style.open_sheet(TITLE.format(method=base.method, widths=widths),
                             _caption(run, base, groups), 2.75 * lines,
                             style.preview_mark(groups))
    grid = sheet.figure.add_gridspec(2 * lines, min(COLUMNS, len(columns)),
                                     height_ratios=[1.15, 1] * lines)
    rows = []
    for place, (key, own) in enumerate(columns):
        line, column = divmod(place, COLUMNS)
        upper = sheet.figure.add_subplot(grid[2 * line, column])
        lower = sheet.figure.add_subplot(grid[2 * line + 1, column], sharex=upper)
        rows += _draw_column(upper, lower, key, own, base)
        if column == 0:
            upper.set_ylabel("loss over float\n(nats per token)")
            lower.set_ylabel("minus the default\n(nats per token)")
    return style.save(sheet, folder, name, rows)


def _method(run: Run, widths, keys) -> tuple:
    """The base and the columns of the method with the most of these settings varied."""
    found = {}
    for base in run.representatives(widths):
        if base.trials[0].has_language:
            own = [(key, _line(run, base, key)) for key in keys]
            found[base.method] = (base, [(key, line) for key, line in own if len(line) > 1])
    base, columns = max(found.values(), key=lambda pair: len(pair[1]), default=(None, []))
    if not columns:
        raise style.Unsupported("no method has losses at two values of a numeric setting")
    return base, columns


def _line(run: Run, base, key) -> list:
    """Groups that differ in one setting alone, by its value: those beside the base, or else the
    largest other such set (epochs vary among reflections that are tuned)."""
    turned = PANELS[key][1]
    sets = {}
    for group in run.groups:
        comparable = (group.method, group.widths) == (base.method, base.widths)
        if comparable and key in group.settings and number(group.settings[key]) is not None:
            rest = label("", {k: v for k, v in group.settings.items() if k not in turned})
            sets.setdefault(rest, []).append(group)
    own = label("", {k: v for k, v in base.settings.items() if k not in turned})

    def rank(rest):
        return (_values(sets[rest], key) > 1, rest == own, len(sets[rest]), rest)
    chosen = sets[max(sets, key=rank)] if sets else []
    if _values(chosen, key) != len(chosen):
        return []  # another setting of the same panel moved by itself
    return sorted(chosen, key=lambda group: number(group.settings[key]))


def _values(groups, key) -> int:
    return len({group.settings[key] for group in groups})


def _draw_column(upper, lower, key, groups, base) -> list:
    values = [number(group.settings[key]) for group in groups]
    pairs = [compare.compare(group, base) for group in groups]
    losses = [stats.mean_interval(group.losses) for group in groups]
    limits = style.scale_axis(upper.yaxis, style.reach([g.losses for g in groups], losses))
    upper.plot(values, [interval.mean for interval in losses], color=LINE, zorder=2)
    for value, group, interval in zip(values, groups, losses):
        _bar(upper, value, interval, limits)
        upper.plot([value] * len(group.losses), group.losses, linestyle="none", marker="_",
                   markersize=5, markeredgewidth=0.6, color=LINE, zorder=3)
        _marker(upper, value, interval.mean, group.label == base.label)
    _draw_differences(lower, values, groups, pairs, base)
    _scale_values(upper, lower, values)
    upper.tick_params(labelbottom=False)
    upper.set_title(PANELS[key][0], loc="left", size=7.5)
    if base not in groups:
        lower.set_title(_departs(groups[0], base, key), loc="left", size=6.5, pad=2,
                        color=style.MUTED)
    return [row for group, pair in zip(groups, pairs) for row in _rows(key, group, base, pair)]


def _draw_differences(lower, values, groups, pairs, base) -> None:
    # Whole intervals: whether one reaches zero is what the panel is for.
    ends = [end for pair in pairs for end in
            (pair.windows.mean, pair.seeds.low, pair.seeds.high)]
    limits = style.scale_differences(lower.yaxis, ends)
    lower.axhline(0, color=REFERENCE, linewidth=0.9, linestyle=(0, (4, 1.5)), zorder=1)
    lower.plot(values, [pair.windows.mean for pair in pairs], color=LINE, zorder=2)
    for value, group, pair in zip(values, groups, pairs):
        is_base = group.label == base.label
        if not is_base:
            _bar(lower, value, pair.seeds, limits)
        _marker(lower, value, 0.0 if is_base else pair.windows.mean, is_base)


def _bar(panel, value, interval, limits) -> None:
    if math.isfinite(interval.half):
        panel.plot([value, value], style.clipped(interval, limits), color=LINE, linewidth=1,
                   zorder=3)


def _marker(panel, value, height, is_base) -> None:
    look = {"marker": "D", "markersize": 6, "markerfacecolor": "white",
            "markeredgecolor": REFERENCE, "markeredgewidth": 1.3} if is_base else \
        {"marker": "o", "color": LINE}
    panel.plot([value], [height], linestyle="none", zorder=5, **look)


def _scale_values(upper, lower, values) -> None:
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_FROM:
        upper.set_xscale("log", base=2)
        upper.set_xlim(low / 1.35, high * 1.35)
    else:
        margin = 0.12 * (high - low)
        upper.set_xlim(low - margin, high + margin)
    lower.xaxis.set_major_locator(FixedLocator(values))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _departs(group, base, key) -> str:
    """What else these groups have other than the default."""
    rest = {k: v for k, v in group.settings.items()
            if v != base.settings.get(k) and k not in PANELS[key][1]}
    return f"with {label('', rest).strip(' ()')}"


def _rows(key, group, base, pair) -> list:
    interval = stats.mean_interval(group.losses)
    is_base = group.label == base.label
    return [{"setting": key, "value": group.settings[key], "default": is_base,
             "label": group.label, "widths": group.widths, "seed": trial.seed,
             "nll_over_float": trial.loss, "mean": interval.mean,
             "half95_over_seeds": interval.half,
             "minus_default": 0.0 if is_base else pair.windows.mean,
             "minus_default_half95_over_seeds": math.nan if is_base else pair.seeds.half}
            for trial in group.trials]


def _caption(run: Run, base, groups) -> str:
    trials = {trial.trial: trial for group in groups for trial in group.trials}
    loss = stats.mean_interval(base.losses)
    spread = f" ± {loss.half:.3f}" if math.isfinite(loss.half) else ""
    return (f"One setting is changed at a time around the default (diamond): "
            f"{departures.base_words(base)}, which loses {loss.mean:.3f}{spread} nats per token "
            "over float (95 % over seeds). Upper panels: mean over seeds, its 95 % t-interval, and single seeds as "
            "ticks. Lower panels: difference to the default, paired by seed where both have the "
            "same, with its 95 % t-interval; below the dashed line is better. Scales "
            "differ between panels; those of "
            "differences that lie far apart are linear near zero and logarithmic beyond; bars of "
            "upper panels are cut at the edge. "
            f"{style.provenance(trials.values())}")
