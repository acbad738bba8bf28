"""What learning gave, block by block: the error on sequences that nothing was learned from, at the
result over that at the start."""

import math

import numpy as np

from analysis import style
from analysis.runs import Run

NAME = "learning"
TITLE = "Held-out error after learning over that before, block by block"


def draw(run: Run, folder):
    lines = [(group, curve) for group in run.groups if (curve := _curve(group))]
    if not lines:
        raise style.Unsupported("nothing was learned block by block")
    widths = [name for name in run.widths if any(g.widths == name for g, _ in lines)]
    names = _names(run, [group for group, _ in lines])
    labels = sorted(set(names.values()))
    columns = min(len(widths), 2)
    floors = -(-len(widths) // columns)
    sheet = style.open_sheet(TITLE, _caption(names, lines), 1.9 * floors + 0.16 * len(labels),
                             style.preview_mark([group for group, _ in lines]))
    panels = list(sheet.figure.subplots(floors, columns, squeeze=False, sharey=True).flat)
    for panel in panels[len(widths):]:
        panel.set_axis_off()
    first = {names[group.label]: group for group, _ in lines}
    looks = dict(zip(labels, style.looks_of_lines([first[label] for label in labels],
                                                  run.methods)))
    rows = []
    for panel, name in zip(panels, widths):
        panel.axhline(1, color=style.INK, linewidth=0.8, zorder=1)
        panel.set_title(name, loc="left")
        panel.set_xlabel("block")
        for group, curve in lines:
            if group.widths == name:
                rows += _draw_line(panel, names[group.label], group, curve, looks)
    style.scale_axis(panels[0].yaxis, [1.0, *(row["held_out_ratio"] for row in rows)])
    for panel in panels[::columns]:
        panel.set_ylabel("after over before")
    sheet.legend(below=True)
    return style.save(sheet, folder, NAME, rows)


def _names(run: Run, groups) -> dict:
    """label → name: by the optimizer where that tells the groups of RUQuant apart, else by where the
    groups of a method differ."""
    names = run.among(groups)
    tuned = {group.label: _tuned_by(group.trials[0].config) for group in groups
             if group.method == "ruquant"}
    if len(set(tuned.values())) == len(tuned):
        names |= tuned
    return names


def _tuned_by(config: dict) -> str:
    if config.get("method.global_reflection") == "optimized":
        return "ruquant · smooth objective"
    if config.get("method.finetune_optimizer") != "lbfgs":
        return "ruquant · AdamW"
    budget = config.get("method.finetune_evaluations", "0")
    return "ruquant · L-BFGS" + ("" if budget == "0" else f", {budget} evaluations")


def _curve(group) -> dict:
    """block → ratio of every seed, where blocks were learned from their outputs."""
    curve = {}
    for trial in group.trials:
        for where, ratio in trial.held_out_ratios().items():
            parts = where.split(".")
            if len(parts) == 2:
                curve.setdefault(int(parts[1]), {})[trial.seed] = ratio
    return curve


def _draw_line(panel, label, group, curve, looks) -> list:
    colour, marker, line = looks[label]
    blocks = sorted(curve)
    means = [math.exp(np.mean([math.log(r) for r in curve[b].values()])) for b in blocks]
    panel.plot(blocks, means, color=colour, marker=marker, linestyle=line, label=label,
               markersize=3, zorder=4)
    low = [min(curve[b].values()) for b in blocks]
    high = [max(curve[b].values()) for b in blocks]
    panel.fill_between(blocks, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    return [{"label": group.label, "widths": group.widths, "block": block, "seed": seed,
             "held_out_ratio": ratio}
            for block in blocks for seed, ratio in sorted(curve[block].items())]


def _caption(names: dict, lines) -> str:
    improved = []
    for group, curve in lines:
        ratios = [ratio for block in curve.values() for ratio in block.values()]
        share = 100 * sum(ratio < 1 for ratio in ratios) / len(ratios)
        improved.append(f"{names[group.label]} ({group.widths.split('-')[0]}) {share:.0f} %")
    trials = [trial for group, _ in lines for trial in group.trials]
    return ("Line: geometric mean over seeds of the quantized block's output error against the "
            "float block, on sequences kept out of learning; band: least and greatest seed. Below "
            f"one is better. Blocks improved: {'; '.join(improved)}. Named by where the groups of "
            f"a method differ here; the CSV file has all settings. {style.provenance(trials)}")
