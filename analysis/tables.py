"""Tables of a run as Markdown and LaTeX, one file each, for papers and pages.

    python analysis/tables.py RUN_DIR

writes RUN_DIR/tables/<name>.md and .tex: `loss` (nats over float) and `perplexity`, a row a method
with its settings and a column a setting of widths; `cost`; `schedules` where something was learned;
and `tasks` where zero-shot tasks were scored. Notes say what intervals the cells have; a loss worse
than guessing is said to have diverged. Every table ends with what it rests on.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import compare, fig_tasks, phrases, stats, style  # noqa: E402
from analysis.labels import label  # noqa: E402
from analysis.load import load_run  # noqa: E402
from analysis.runs import Run, RunError  # noqa: E402

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
         "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "α": r"$\alpha$", "λ": r"$\lambda$",
         "→": r"$\to$", "–": "--"}


@dataclass(frozen=True)
class Table:
    """A cell of the head is a text, or a text over a text: neighbours with the same upper one
    share it."""

    name: str
    title: str
    head: tuple
    rows: tuple
    note: str

    def markdown(self) -> str:
        head = [cell if isinstance(cell, str) else " ".join(cell) for cell in self.head]
        lines = [head, ["---"] * len(head), *self.rows]
        body = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        return f"### {self.title}\n\n{body}\n\n{self.note}\n"

    def latex(self) -> str:
        rows = "\n".join(_line(row) for row in self.rows)
        return (f"% {self.title}\n\\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}\n\\toprule\n"
                f"{self._latex_head()}\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n"
                f"\\gdef\\tablenote{{{escape(self.note)}}}\n")

    def _latex_head(self) -> str:
        if all(isinstance(cell, str) for cell in self.head):
            return _line(self.head)
        pairs = [("", cell) if isinstance(cell, str) else cell for cell in self.head]
        spans = [(text, len(list(own))) for text, own in groupby(pairs, key=lambda pair: pair[0])]
        upper = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{escape(text)}}}"
                           for text, count in spans) + r" \\"
        return f"{upper}\n{_line([lower for _, lower in pairs])}"


def _line(cells) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"


def escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def cell(values, digits: int) -> str:
    """mean ± half width; the mean alone where there is no interval."""
    values = np.asarray(values, dtype=float)
    if not len(values) or not np.all(np.isfinite(values)):
        return phrases.DIVERGED if len(values) else "–"
    return phrases.number(stats.mean_interval(values), f".{digits}f")


def tables(run: Run) -> list:
    """All tables that the run has data for."""
    made = []
    if any(trial.has_language for trial in run.trials):
        made.append(by_widths(run, "loss", "Loss over float (nats per token)", loss_cell))
        made.append(by_widths(run, "perplexity", "Perplexity", perplexity_cell))
    made.append(cost(run))
    if any(learned(group) for group in run.groups):
        made.append(schedules(run))
    if fig_tasks.task_names(run):
        made.append(tasks(run))
        made.append(tasks_compared(run))
    return made


def rows_of(run: Run) -> dict:
    """label → {widths → group}, in the order of methods."""
    rows = {}
    for group in sorted(run.groups, key=lambda g: (style.method_order(g.method), g.label)):
        rows.setdefault(label(group.method, group.settings), {})[group.widths] = group
    return rows


def by_widths(run: Run, name, title, cell_of) -> Table:
    rows = []
    for text, groups in rows_of(run).items():
        rows.append([text, *(cell_of(groups[w]) if w in groups else "–" for w in run.widths)])
    return Table(name, title, ("method", *run.widths), tuple(rows),
                 cell_note(cell_of, run.groups) + note(run))


def loss_cell(group) -> str:
    """Mean loss over float ± the wider of its intervals over seeds and windows."""
    interval = compare.loss_interval(group)
    return _with_mark(phrases.plain(interval), group)


def perplexity_cell(group) -> str:
    """None where a seed diverged: beyond guessing a perplexity measures nothing."""
    return _diverged(group) if group.diverged else cell([trial.ppl for trial in group.trials], 2)


def _with_mark(text: str, group) -> str:
    """A number with the share of seeds that diverged, where some did."""
    if not group.diverged or text == phrases.DIVERGED:
        return text
    return f"{text} ({_diverged(group)})"


def _diverged(group) -> str:
    seeds = len(group.trials)
    return phrases.DIVERGED + (f" {group.diverged}/{seeds}" if seeds > 1 else "")


# What ± stands for in the cells of a function.
CELL_NOTES = {
    loss_cell: "Means over seeds ± the wider of two 95 % t-intervals, over seeds and over windows. ",
    perplexity_cell: "Means over seeds ± a 95 % t-interval over seeds, none where nothing is drawn. ",
}


def cell_note(cell_of, groups) -> str:
    return CELL_NOTES[cell_of] + diverged_note(groups)


def diverged_note(groups) -> str:
    """What the mark means, where a cell has it."""
    if not any(group.diverged for group in groups):
        return ""
    return "Diverged n/m: so many of the seeds lose more than guessing among all tokens does. "


def cost(run: Run) -> Table:
    peaks = {}
    for trial in run.trials:
        plan = _plan(trial)
        peaks[plan] = max(peaks.get(plan, 0.0), trial.timing["peak_memory_mib"])
    named = {text: [trial for group in groups.values() for trial in group.trials]
             for text, groups in rows_of(run).items()}
    bits = {text: sorted({round(trial.metrics["weight.effective_bits"], 2) for trial in trials
                          if "weight.effective_bits" in trial.metrics})
            for text, trials in named.items()}
    one_width = all(len(own) <= 1 for own in bits.values())
    rows = []
    for text, trials in named.items():
        def times(key, own=trials):
            return [trial.timing[key] for trial in own if key in trial.timing]
        weights = times("apply_seconds")
        plan = times("plan_cpu_seconds")
        rows.append([text, f"{np.mean(times('plan_seconds')):.1f}",
                     f"{np.mean(plan):.1f}" if plan else "–",
                     f"{np.mean(weights):.1f}" if weights else "–",
                     *((", ".join(f"{b:g}" for b in bits[text]) or "–",) if one_width else ()),
                     f"{max(peaks[_plan(trial)] for trial in trials):.0f}", str(len(trials))])
    return Table("cost", "Cost of construction",
                 ("method", "plan, s", "plan, processor s", "weights, s",
                  *(("bits a weight",) if one_width else ()), "peak memory, MiB", "trials"),
                 tuple(rows),
                 "Mean seconds by the clock, which other load lengthens, and of all processors. "
                 "Peak memory: the most that the process held at once, model and evaluation "
                 "included, over all trials with the row's plans; one of these drew the plan up, "
                 "others may have found it. " + note(run))


# Options of how weights are rounded in the end, which a plan does not depend on.
OF_ROUNDING = ("quant.rounding", "quant.hessian_inputs", "quant.gptq.", "quant.septq.",
               "quant.bcq.", "quant.uniquanf.", "quant.learning.")


def _plan(trial) -> tuple:
    """What the plan of a trial depends on: trials that agree in it share one."""
    return tuple(sorted((key, value) for key, value in trial.config.items()
                        if key.startswith(("method", "quant.", "calibration.", "seed"))
                        and not key.startswith(OF_ROUNDING)))


LEARNED_ROUNDINGS = ("uniquanf", "flexround")


def learned(group) -> bool:
    """Of the method or its rounding a known share was learned."""
    return all("learning.share" in trial.metrics for trial in group.trials)


def schedules(run: Run) -> Table:
    """What learning took, and what it would take in whole where a part was run. A learner on its
    short schedule has no row of its own where the run has it on the published one: there a column
    says what it reaches."""
    groups = [group for own in rows_of(run).values() for group in own.values() if learned(group)]
    if not groups:
        raise style.Unsupported("nothing was learned whose share of the whole is recorded")
    pairs = on_both_schedules(groups, run)
    partners = any(short for _, short in pairs)
    rows = []
    for group, short in pairs:
        ratios, settings = [_ratio_cell(group)], group.settings
        if partners:
            ratios.append(_ratio_cell(short) if short else "–")
            settings = {k: v for k, v in settings.items() if k not in _of_schedule(group)}
        share = mean_of(group, "learning.share")
        rows.append([f"{label(group.method, settings)}, {group.widths}",
                     group.trials[0].config.get("method.schedule", "–"),
                     f"{mean_of(group, 'learning.steps'):,.0f}",
                     f"{mean_of(group, 'learning.tokens'):,.0f}", *ratios,
                     f"{_learning_seconds(group):,.0f}", f"{100 * share:.0f} %",
                     f"{whole_seconds(group):,.0f}" + (" (extrapolated)" if share < 1 else "")])
    return Table("schedules", "What learning took",
                 ("method and widths", "schedule", "steps", "tokens", "held-out error of its start",
                  *(("... on the short schedule",) if partners else ()), "processor s", "share run",
                  "processor s of the whole"), tuple(rows),
                 "Steps and tokens over all blocks that were learned, repetitions counted. Held-out "
                 f"errors: {HELD_OUT_NOTE} "
                 + ("The short schedule has the same quantizer and the same blocks or sites. "
                    if partners else "") + "Time of "
                 "all processors to draw up the plan, or of rounding where that learns. Extrapolated: "
                 "divided by the share of the blocks (of the steps, for what is learned end to end) "
                 "that was run, so what is not learned is counted too often. " + note(run))


HELD_OUT_NOTE = (
    "geometric means over places of the error after learning over that before, on sequences that "
    "nothing was learned from. The error is that of a block's output where blocks are learned, the "
    "cross entropy for SpinQuant, and where single sites are learned the rounding error of the site's "
    "output, whatever was minimized.")

# Options in which a published schedule and the short one of the same learner may differ.
OF_SCHEDULE = ("method.schedule", "method.epochs", "method.learning_windows",
               "method.held_out_windows", "method.learning_tokens", "method.learning_batch",
               "method.learning_steps", "method.batch_tokens", "method.lwc_rate")
OF_STEPS = {"infoquant": ("method.steps",), "spinquant": ("method.steps",)}
OF_LEARNED_ROUNDING = ("quant.learning.epochs", "quant.learning.held_out", "calibration.windows",
                       "calibration.window_tokens")


def on_both_schedules(groups, run: Run) -> list:
    """(group, that on its short schedule or None) of every learner among the groups; those that are
    the short schedule of another have no entry of their own."""
    short = {id(group): on_short_schedule(group, run) for group in groups if learned(group)}
    partners = {id(other) for other in short.values() if other}
    return [(group, short[id(group)]) for group in groups
            if id(group) in short and id(group) not in partners]


def learned_rounding(group) -> str | None:
    """The name of the rounding, where that learns."""
    rounding = group.trials[0].config.get("quant.rounding")
    return rounding if rounding in LEARNED_ROUNDINGS else None


def on_short_schedule(group, run: Run):
    """The group of the run that learns the same on a shorter schedule and differs in nothing but
    options of the schedule; the one with the fewest tokens, None where there is none."""
    free = {*_of_schedule(group), "seed"}

    def rest(other):
        return {key: value for key, value in other.trials[0].config.items() if key not in free}
    tokens = {id(other): mean_of(other, "learning.tokens") for other in run.groups}
    shorter = [other for other in run.groups if other.method == group.method
               and learned(other) and tokens[id(other)] < tokens[id(group)]
               and rest(other) == rest(group)]
    return min(shorter, key=lambda other: tokens[id(other)], default=None)


def _of_schedule(group) -> tuple:
    """The options by which schedules of what the group learns differ."""
    return (*OF_SCHEDULE, *OF_STEPS.get(group.method, ()),
            *(OF_LEARNED_ROUNDING if learned_rounding(group) else ()))


def _ratio_cell(group) -> str:
    ratio = mean_of(group, "learning.held_out_ratio")
    return f"{ratio:.3f}" if math.isfinite(ratio) else "–"


def whole_seconds(group) -> float:
    """Of all processors for all blocks or steps, extrapolated where a share of them was learned."""
    return _learning_seconds(group) / mean_of(group, "learning.share")


def mean_of(group, name) -> float:
    values = [trial.metrics[name] for trial in group.trials if name in trial.metrics]
    return float(np.mean(values)) if values else math.nan


def _learning_seconds(group) -> float:
    learns = learned_rounding(group)
    return float(np.mean([trial.timing.get("plan_cpu_seconds", 0.0)
                          + (rounding_seconds(trial) if learns else 0.0) for trial in group.trials]))


def rounding_seconds(trial) -> float:
    """Of processors; of a clock beside its threads in records that do not tell."""
    return trial.timing.get("rounding_cpu_seconds", trial.timing["rounding_seconds"])


def tasks(run: Run) -> Table:
    """Accuracies in percent with 95 % intervals over items, and what is kept of the float
    model's."""
    names = fig_tasks.task_names(run)
    if not names:
        raise style.Unsupported("no zero-shot task was scored")
    guess = {task: fig_tasks.chance(run, task) for task in names}
    shown = [*names, fig_tasks.KEPT, fig_tasks.ABOVE]
    rows, floats = [], []
    for text, groups in rows_of(run).items():
        for widths, group in groups.items():
            if not all(fig_tasks.measure(group.trials[0], task) for task in names):
                continue
            scores = [fig_tasks.score(group, what, names, guess) for what in shown]
            rows.append([f"{text}, {widths}", *(_score_cell(score) for score in scores),
                         str(len(group.trials))])
            floats = [f"{score.level:.1f}" for score in scores]
    return Table("tasks", "Zero-shot accuracy (percent)",
                 ("method and widths", *shown, "seeds"),
                 (["float", *floats, "–"], *rows),
                 "acc_norm where the task has it, else acc; 95 % intervals over items. Kept: mean "
                 "accuracy relative to the float model's, as it is and above chance. " + note(run))


CLOSEST = "duquant"  # what RUQuant is published against


def tasks_compared(run: Run) -> Table:
    """Mean accuracy over tasks against that of the reference methods at the same widths: points,
    with a bootstrap over the items, which both were scored on."""
    names = fig_tasks.task_names(run)
    if not names:
        raise style.Unsupported("no zero-shot task was scored")
    references = [name for name in (*compare.REFERENCES, CLOSEST) if name in run.methods]
    rows = []
    for text, groups in rows_of(run).items():
        for widths, group in groups.items():
            bases = {base.method: base for base in run.representatives(widths)}
            # A pair of references stands once.
            known = references[:references.index(group.method)] if group.method in references \
                else references
            cells = [points_cell(group, bases.get(name) if name in known else None, names)
                     for name in references]
            if any(cell != "–" for cell in cells):
                rows.append([f"{text}, {widths}", *cells])
    return Table("tasks_compared", "Zero-shot accuracy against other methods (points)",
                 ("method and widths", *(f"minus {name}" for name in references)), tuple(rows),
                 f"Mean over {', '.join(names)} of the difference in accuracy, with 95 % bootstrap "
                 "intervals over items, paired; an interval that holds zero allows no order. "
                 + note(run))


def points_cell(group, base, names) -> str:
    """Mean accuracy minus that of another group in points, with a bootstrap interval over items."""
    if base is None or base.label == group.label:
        return "–"
    pairs = [(fig_tasks.scored_items(group, name), fig_tasks.scored_items(base, name))
             for name in names]
    if any(own is None or other is None or len(own) != len(other) for own, other in pairs):
        return "–"
    samples = [np.stack([own[:, 0], other[:, 0]], axis=1) for own, other in pairs]

    def gain(means):
        return 100 * np.mean([task[..., 0] - task[..., 1] for task in means], axis=0)

    low, high = stats.bootstrap(samples, gain)
    mean = float(gain([sample.mean(axis=0) for sample in samples]))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def _score_cell(score) -> str:
    mean = f"{score.seeds.mean:.1f}".replace("-", "−")
    return f"{mean} ± {score.items_half:.1f}" if math.isfinite(score.items_half) else mean


def note(run: Run) -> str:
    mark = style.preview_mark(run.groups)
    return f"{mark + '. ' if mark else ''}{style.provenance(run.trials)}"


def write(run: Run) -> list:
    """Writes all tables of a run; returns their paths without ending."""
    return [save(table, run.folder / "tables") for table in tables(run)]


def save(table: Table, folder: Path) -> Path:
    """Writes name.md and name.tex; returns the path without ending."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(table.latex(), encoding="utf-8")
    return folder / table.name


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="tables of a run folder")
    parser.add_argument("run", metavar="RUN_DIR", help="a folder that runexp wrote")
    try:
        for path in write(load_run(parser.parse_args(arguments).run)):
            print(f"{path}.md (.tex)")
    except (RunError, OSError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
