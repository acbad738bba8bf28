"""Tables of the study that go beyond those of a single run: roundings side by side, what single
changes cost, weight-only rounding."""

import numpy as np

from analysis import compare, departures, mechanism_numbers, style, tables
from analysis.labels import WEIGHTS, grid_words, label, width_family
from analysis.runs import Run

ROUNDING = "quant.rounding"
ROUNDINGS = ("rtn", "gptq")


def weight_only(widths: str) -> bool:
    """W3A16-Q16K16V16 and the like."""
    return width_family(widths)[1] == WEIGHTS


def by_rounding(run: Run, name, title, cell_of, families: tuple) -> tables.Table:
    """A row a method with its settings; under each setting of widths, of the families that are
    named, a column a rounding."""
    widths = [w for w in run.widths if width_family(w)[1] in families]
    rows, groups = {}, [group for group in run.groups if group.widths in widths]
    for group in sorted(groups, key=lambda g: (style.method_order(g.method), g.label)):
        rest = {key: value for key, value in group.settings.items() if key != ROUNDING}
        rounding = group.trials[0].config.get(ROUNDING, ROUNDINGS[0])
        rows.setdefault(label(group.method, rest), {})[group.widths, rounding] = group
    columns = [(w, rounding) for w in widths for rounding in ROUNDINGS
               if any((w, rounding) in cells for cells in rows.values())]
    if not columns:
        raise style.Unsupported(f"no trial at widths for {name}")
    body = [[text, *(cell_of(cells[c]) if c in cells else "–" for c in columns)]
            for text, cells in rows.items()]
    shown = [group for cells in rows.values() for group in cells.values()]
    return tables.Table(name, title, ("method", *columns), tuple(body),
                        "Weights rounded to nearest (rtn) and by GPTQ. "
                        + tables.cell_note(cell_of, shown) + _note(shown))


def perplexity_and_loss(run: Run, name: str) -> tables.Table:
    """A row a method with its settings; under each setting of widths, both measures."""
    cells = {"perplexity": tables.perplexity_cell, "loss over float": tables.loss_cell}
    columns = [(widths, what) for widths in run.widths for what in cells]
    floats = ["float", *(f"{run.trials[0].float_ppl:.2f}" if what == "perplexity" else "–"
                         for _, what in columns)]
    body = [[text, *(cells[what](groups[widths]) if widths in groups else "–"
                     for widths, what in columns)]
            for text, groups in tables.rows_of(run).items()]
    return tables.Table(name, "Perplexity and loss over float", ("method", *columns),
                        (tuple(floats), *body),
                        "Perplexities are means over seeds ± a 95 % t-interval over seeds, losses ± "
                        "the wider of that and of the one over windows. "
                        + tables.diverged_note(run.groups) + tables.note(run))


def ablation(run: Run) -> tables.Table:
    """Every single change of a setting, its paired difference to the default and the verdict."""
    widths = departures.best_covered_widths(run)
    found = departures.departures(run, widths)
    if not found:
        raise style.Unsupported("no method was measured at two settings")
    bases = {d.base.method: d.base for d in found}
    rows = [[f"{method}, default", tables.loss_cell(base), *["–"] * 3, str(len(base.trials)), "–"]
            for method, base in bases.items()]
    rows += [[d.words, tables.loss_cell(d.group),
              compare.signed(d.pair.windows.mean, "+.3f"), _half(d.pair.seeds.half),
              _half(d.pair.windows.half), str(len(d.group.trials)), d.pair.verdict]
             for d in found]
    return tables.Table(
        "ablation", f"Single changes of settings ({widths})",
        ("change", "loss over float", *(("minus the default", what) for what in
                                        ("mean", "± seeds", "± windows")), "seeds", "verdict"),
        tuple(rows),
        "Nats per token; half widths of 95 % t-intervals of differences, paired over windows, and "
        "over seeds where both sides have the same. "
        f"Default: {departures.defaults_words(found)}. "
        + _note([g for d in found for g in (d.base, d.group)]))


def _half(half: float) -> str:
    return f"{half:.3f}" if np.isfinite(half) else "–"


def roundings(run: Run, name: str, paired: bool = False) -> tables.Table:
    """Weight-only rounding: a row a method, rounding and grid; with `paired` also what each loses
    against rounding to nearest on the same grid and windows."""
    groups = [group for group in run.groups
              if weight_only(group.widths) and group.trials[0].has_language]
    if not groups:
        raise style.Unsupported("no trial rounds weights alone")
    widths = sorted({group.widths for group in groups}, reverse=True)
    rows = {}
    for group in groups:
        config = group.trials[0].config
        # Levels of activations are of no account where activations are not rounded.
        key = (run.short(group, without=(ROUNDING, "quant.activation_levels", *OF_GRID)),
               config.get(ROUNDING, "rtn"), grid_words(config))
        cells = rows.setdefault(key, {})
        # What has levels of its own is the same on every grid: the row with most seeds stands.
        if group.widths not in cells or len(group.trials) > len(cells[group.widths].trials):
            cells[group.widths] = group
    names = ("loss", *(("minus rtn",) if paired else ()), "bits")
    columns = [(w, what) for w in widths for what in names]
    nearest = {}  # the plainest variant of every method, to nearest
    for (_, rounding, grid), cells in sorted(rows.items()):
        for group in cells.values() if rounding == ROUNDINGS[0] else ():
            nearest.setdefault((group.method, group.widths, grid), group)
    body = [[*key, *(_rounding_cell(cells, *c, key[2], nearest) for c in columns)]
            for key, cells in sorted(rows.items())]
    against = "minus rtn: paired over windows with a 95 % t-interval; " if paired else ""
    return tables.Table(
        name, "Weight-only rounding", ("method", "rounding", "grid", *columns), tuple(body),
        "Loss in nats per token over float, mean over seeds ± the wider of its 95 % t-intervals "
        f"over seeds and over windows; {against}bits of a weight with scales, zero points and masks. "
        "Method rtn: no transform before rounding. "
        f"{tables.diverged_note(groups)}Grid: min-max has the ends of a row, searched the range "
        "around zero that errs least; levels of its own look at no grid. Variants are named by where they depart from their method's "
        "most common settings in the run. " + _note(groups))


OF_GRID = ("quant.weight.rule", "quant.weight.search", "quant.weight.clip_ratio",
           "quant.weight.group_size")


def _rounding_cell(cells, widths, name, grid, nearest) -> str:
    if widths not in cells:
        return "–"
    if name == "loss":
        return tables.loss_cell(cells[widths])
    if name == "minus rtn":
        reference = nearest.get((cells[widths].method, widths, grid))
        if reference in (None, cells[widths]):
            return "–"
        over = compare.compare(cells[widths], reference).windows
        return f"{compare.signed(over.mean, '+.3f')} ± {over.half:.3f}"
    bits = [trial.metrics["weight.effective_bits"] for trial in cells[widths].trials
            if "weight.effective_bits" in trial.metrics]
    return f"{np.mean(bits):.2f}" if bits else "–"


SITE_BY_SITE = ("singlequant", "infoquant", "learned_rotation")
DETAILS = (("gradient noise", "start", "gradient_noise_start", ".2f"),
           ("gradient noise", "end", "gradient_noise_end", ".2f"),
           ("kept promise", "start", "kept_promise_start", ".2f"),
           ("kept promise", "end", "kept_promise_end", ".2f"))


def site_rotations(run: Run) -> tables.Table:
    """Rotations of single sites without smoothing, in closed form and learned: what each loses, and
    what its learning was like."""
    own = [group for group in run.groups if group.method in SITE_BY_SITE
           and group.trials[0].has_language
           and group.trials[0].config.get("method.smoothing", "none") == "none"]
    if not own:
        raise style.Unsupported("no trial rotates single sites without smoothing")
    counts = {name: sum(group.widths == name for group in own) for name in run.widths}
    widths = max(run.widths, key=lambda name: counts[name])
    groups = sorted((group for group in own if group.widths == widths),
                    key=lambda g: (style.method_order(g.method), len(run.short(g)), g.label))
    without = _same_in_all(groups)
    rows = [[run.short(group, without), tables.loss_cell(group),
             str(len(group.trials)) if group.is_random else "–",
             _learned_cell(group), *(_spread_cell(group, key, form) for *_, key, form in DETAILS)]
            for group in groups]
    return tables.Table(
        "site_rotations", f"Rotations of single sites, not smoothed ({widths})",
        ("method", "loss over float", "seeds", ("held-out", "site error"),
         *((upper, lower) for upper, lower, *_ in DETAILS)), tuple(rows),
        f"{run.base_note(groups, without)} Nats per token, mean over seeds ± the wider of two 95 % "
        "t-intervals, over seeds and over windows. Held-out site error: rounding error of a site's "
        "output over that of its start, geometric mean. Gradient noise: variance of the gradient "
        "over minibatches over the square of its mean. Kept promise: what a step that turns "
        "channels by a thousandth of a radian takes off the loss, over what the gradient foretells. "
        "Both are medians over sites and seeds, with the quartiles. " + _note(groups))


def _same_in_all(groups) -> tuple:
    """Settings in which no two groups of one method differ."""
    values = {}
    for group in groups:
        for key, value in group.settings.items():
            values.setdefault(key, {}).setdefault(group.method, set()).add(value)
    return tuple(key for key, own in values.items() if all(len(found) == 1 for found in own.values()))


def _learned_cell(group) -> str:
    ratio = mechanism_numbers.held_out(group)
    return f"{ratio:.3f}" if np.isfinite(ratio) else "–"


def _spread_cell(group, key: str, form: str) -> str:
    quarters = mechanism_numbers.quartiles(group, key)
    return mechanism_numbers.spread(quarters, form) if quarters else "–"


def _note(groups) -> str:
    mark = style.preview_mark(groups)
    trials = {trial.folder: trial for group in groups for trial in group.trials}
    return f"{mark + '. ' if mark else ''}{style.provenance(trials.values())}"
