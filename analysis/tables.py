"""Tables of a run as Markdown and LaTeX, one file each, for papers and pages.

    python analysis/tables.py RUN_DIR

writes RUN_DIR/tables/<name>.md and .tex: `loss` (nats over float) and `perplexity`, a row a method
with its settings and a column a setting of widths; `cost`; and `tasks` where zero-shot tasks were
scored. Cells are means over seeds with 95 % t-intervals; a loss worse than guessing is said to have
diverged. Every table ends with what it rests on.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import stats, style  # noqa: E402
from analysis.labels import label  # noqa: E402
from analysis.runs import Run, RunError, load_run  # noqa: E402

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
         "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "α": r"$\alpha$", "–": "--"}


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    head: tuple
    rows: tuple
    note: str

    def markdown(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        return f"### {self.title}\n\n{body}\n\n{self.note}\n"

    def latex(self) -> str:
        def line(cells):
            return " & ".join(escape(cell) for cell in cells) + r" \\"
        rows = "\n".join(line(row) for row in self.rows)
        return (f"% {self.title}\n\\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}\n\\toprule\n"
                f"{line(self.head)}\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n"
                f"\\gdef\\tablenote{{{escape(self.note)}}}\n")


def escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def cell(values, digits: int) -> str:
    """mean ± half width; the mean alone where there is no interval."""
    values = np.asarray(values, dtype=float)
    if not len(values) or not np.all(np.isfinite(values)):
        return "diverged" if len(values) else "–"
    interval = stats.mean_interval(values)
    mean = f"{interval.mean:.{digits}f}".replace("-", "−")
    return f"{mean} ± {interval.half:.{digits}f}" if math.isfinite(interval.half) else mean


def tables(run: Run) -> list:
    """All tables that the run has data for."""
    made = []
    if any(trial.has_language for trial in run.trials):
        made.append(_by_widths(run, "loss", "Loss over float (nats per token)", _loss_cell))
        made.append(_by_widths(run, "perplexity", "Perplexity", _perplexity_cell))
    made.append(_cost(run))
    tasks = sorted({key.split(".")[1] for trial in run.trials for key in trial.metrics
                    if key.startswith("task.")})
    if tasks:
        made.append(_tasks(run, tasks))
    return made


def _rows_of(run: Run) -> dict:
    """label → {widths → group}, in the order of methods."""
    rows = {}
    for group in sorted(run.groups, key=lambda g: (style.method_order(g.method), g.label)):
        rows.setdefault(label(group.method, group.settings), {})[group.widths] = group
    return rows


def _by_widths(run: Run, name, title, cell_of) -> Table:
    rows = []
    for text, groups in _rows_of(run).items():
        rows.append([text, *(cell_of(groups[w]) if w in groups else "–" for w in run.widths)])
    return Table(name, title, ("method", *run.widths), tuple(rows), _note(run))


def _loss_cell(group) -> str:
    text = cell(group.losses, 3)
    lost = any(trial.diverged for trial in group.trials)
    return f"{text} (diverged)" if lost and text != "diverged" else text


def _perplexity_cell(group) -> str:
    return cell([trial.ppl for trial in group.trials], 2)


def _cost(run: Run) -> Table:
    rows = []
    for text, groups in _rows_of(run).items():
        trials = [trial for group in groups.values() for trial in group.trials]

        def times(key, own=trials):
            return [trial.timing[key] for trial in own if key in trial.timing]
        bits = sorted({round(trial.metrics["weight.effective_bits"], 2) for trial in trials
                       if "weight.effective_bits" in trial.metrics})
        weights = times("apply_seconds")
        rows.append([text, f"{np.mean(times('plan_seconds')):.1f}",
                     f"{np.mean(weights):.1f}" if weights else "–",
                     ", ".join(f"{b:g}" for b in bits) or "–",
                     f"{max(times('peak_memory_mib')):.0f}", str(len(trials))])
    return Table("cost", "Cost of construction",
                 ("method", "plan, s", "weights, s", "bits a weight", "peak memory, MiB", "trials"),
                 tuple(rows), "Mean seconds; largest peak memory. " + _note(run))


def _tasks(run: Run, tasks) -> Table:
    rows = []
    for text, groups in _rows_of(run).items():
        for widths, group in groups.items():
            cells = [cell([100 * trial.metrics[f"task.{task}.{kind}"] for trial in group.trials], 1)
                     if (kind := _measure(group, task)) else "–" for task in tasks]
            rows.append([f"{text}, {widths}", *cells])
    return Table("tasks", "Zero-shot accuracy (percent)", ("method and widths", *tasks),
                 tuple(rows), "acc_norm where the task has it, else acc. " + _note(run))


def _measure(group, task) -> str | None:
    known = group.trials[0].metrics
    return next((kind for kind in ("acc_norm", "acc") if f"task.{task}.{kind}" in known), None)


def _note(run: Run) -> str:
    mark = style.preview_mark(run.groups)
    return f"{mark + '. ' if mark else ''}{style.provenance(run.trials)}"


def write(run: Run) -> list:
    """Writes all tables; returns their paths without ending."""
    folder = run.folder / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables(run):
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(table.latex(), encoding="utf-8")
        paths.append(folder / table.name)
    return paths


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
