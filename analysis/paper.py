"""Draws every figure and table of the paper from the runs of the study, and says what is missing.

    python analysis/paper.py RUNS_DIR --out paper

writes paper/figures/<name>.pdf, .png, .csv, paper/tables/<name>.md, .tex and paper/contents.md.
Every entry names the run that feeds it. Exit status 2 and one line an entry where a run is missing,
cannot be read or lacks the data; a run that the study can do without may be missing. What an
earlier call drew of such an entry is removed, so nothing out of date is left to be taken in. What
the paper's own figures show is not known; the list of topics is inferred.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import (fig_ablation, fig_activations, fig_bits, fig_centroids,  # noqa: E402
                      fig_construction, fig_cost, fig_curves, fig_learning, fig_levels,
                      fig_loss_by_method, fig_overview, fig_sensitivity, fig_site_error, fig_spread, fig_tasks,
                      fig_trends, fig_uniformity, paper_tables, published, rounding_costs, style,
                      tables)
from analysis.labels import ACTIVATIONS, ALIKE, ATTENTION_APART, WEIGHTS  # noqa: E402
from analysis.load import lacking_optional, load_run  # noqa: E402
from analysis.runs import RunError  # noqa: E402

HYPER_PARAMETERS = ("method.block_size", "method.steps", "method.permutations",
                    "method.givens_per_step")
OTHER_SETTINGS = tuple(key for key in fig_sensitivity.PANELS if key not in HYPER_PARAMETERS)
NATS, PPL = "Loss over float (nats per token)", "Perplexity"


@dataclass(frozen=True)
class Entry:
    """A figure: make(run, folder) → Drawn; or a table: make(run, ...) → Table. topic: which
    inferred topic it answers, empty for what we add. also: optional runs that a table takes after
    the others where they are there."""

    name: str
    runs: tuple
    make: Callable
    topic: str = ""
    also: tuple = ()


def _figure(name, run, module, topic="", **options) -> Entry:
    draw = partial(module.draw, name=name, **options) if options or name != module.NAME \
        else module.draw
    return Entry(name, (run,) if run else (), draw, topic)


FIGURES = (
    _figure("centroids", "sites", fig_centroids, "midpoint against centroid"),
    _figure("overview", "", fig_overview, "overview of the two stages"),
    _figure("activations_behind_norm", "sites", fig_activations, "activations before and after",
            kinds=("attn_in", "mlp_in")),
    _figure("activations_mlp_out", "sites", fig_activations, "massive outliers at down_proj",
            kinds=("mlp_out",)),
    _figure("sensitivity_method", "ablations", fig_sensitivity, "sensitivity to B, K, T, λ",
            keys=HYPER_PARAMETERS),
    _figure("sensitivity_calibration", "ablations", fig_sensitivity,
            "sensitivity to calibration and tuning", keys=OTHER_SETTINGS),
    _figure("cost", "baselines", fig_cost, "time of construction"),
    _figure("construction", "construction", fig_construction, "time of construction"),
    _figure("ablation", "ablations", fig_ablation),
    _figure("uniformity", "sites", fig_uniformity),
    _figure("site_error", "sites", fig_site_error),
    _figure("loss_baselines", "baselines", fig_loss_by_method,
            only=("W4A4-Q4K4V4", "W6A6-Q6K6V6")),
    _figure("loss_second_model", "second_model", fig_loss_by_method),
    _figure("bits", "baselines", fig_bits),
    _figure("spread", "baselines", fig_spread),
    _figure("learning", "mechanisms", fig_learning),
    _figure("curves", "paper_schedules", fig_curves),
    _figure("levels", "mechanisms", fig_levels),
    _figure("trends_ablations", "ablations", fig_trends),
    _figure("trends_mechanisms", "mechanisms", fig_trends),
    _figure("tasks", "tasks", fig_tasks),
)


def _with_name(make, name):
    def made(*runs):
        table = make(*runs)
        return tables.Table(name, table.title, table.head, table.rows, table.note)
    return made


def _rounded(name, title, cell_of, *families):
    return Entry(name, ("baselines",),
                 lambda run: paper_tables.by_rounding(run, name, title, cell_of, families))


TABLES = (
    _rounded("loss_alike", NATS, tables.loss_cell, ALIKE),
    _rounded("loss_apart", NATS, tables.loss_cell, ATTENTION_APART, ACTIVATIONS),
    _rounded("loss_weights", NATS, tables.loss_cell, WEIGHTS),
    _rounded("perplexity_alike", PPL, tables.perplexity_cell, ALIKE),
    _rounded("perplexity_apart", PPL, tables.perplexity_cell, ATTENTION_APART, ACTIVATIONS),
    _rounded("perplexity_weights", PPL, tables.perplexity_cell, WEIGHTS),
    Entry("ablation", ("ablations",), paper_tables.ablation),
    Entry("cost", ("baselines",), tables.cost),
    Entry("weight_only", ("weight_only",), partial(paper_tables.roundings, name="weight_only",
                                                  paired=True)),
    Entry("rounding_rotated", ("mechanisms",),
          partial(paper_tables.roundings, name="rounding_rotated")),
    Entry("second_model", ("second_model",), _with_name(
        lambda run: tables.by_widths(run, "", NATS, tables.loss_cell), "second_model")),
    Entry("rounding_costs", ("roundings",), rounding_costs.table),
    Entry("tasks", ("tasks",), tables.tasks),
    Entry("tasks_compared", ("tasks",), tables.tasks_compared),
    Entry("wikitext2", ("wikitext2",), partial(paper_tables.perplexity_and_loss, name="wikitext2")),
    Entry("schedules", ("paper_schedules",), tables.schedules),
    Entry("site_rotations", ("mechanisms",), paper_tables.site_rotations),
    Entry("published_perplexity", (), lambda: published.perplexities(published.load())),
    Entry("published_tasks", (), lambda: published.accuracies(published.load())),
    Entry("published_claims", (), lambda: published.times(published.load())),
    Entry("published_beside_ours", ("baselines",),
          lambda *runs: published.beside_ours(published.load(), *runs), also=("wikitext2",)),
)


class Runs:
    """The runs of the study, each read once; a run that cannot be read fails everything that
    needs it, with the same words."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.known = {}

    def unused(self) -> list:
        """Lines about unfinished and failed trials of the runs that were read."""
        return [f"{name}: {item.trial} not used: {item.why}"
                for name, run in sorted(self.known.items()) for item in getattr(run, "skipped", [])]

    def get(self, name):
        if name not in self.known:
            try:
                self.known[name] = self._load(name)
            except (RunError, OSError) as error:
                self.known[name] = error
        if isinstance(self.known[name], Exception):
            raise self.known[name]
        return self.known[name]

    def _load(self, name):
        if name == "roundings":
            return rounding_costs.load(self.folder)
        return (fig_construction.load if name == "construction" else load_run)(self.folder / name)


def build(runs_folder, out) -> tuple:
    """Draws all; returns lines of what was made, of what failed, and of what was left out."""
    runs, out = Runs(runs_folder), Path(out)
    made, failed, left_out, contents = [], [], [], []
    for kind, entries in (("figures", FIGURES), ("tables", TABLES)):
        folder = out / kind
        for entry in entries:
            lacking = lacking_optional(runs.folder, entry.runs)
            if lacking:
                _remove(folder, entry.name)
                left_out.append(f"{kind[:-1]} {entry.name} left out: there is no run "
                                f"{', '.join(lacking)}")
                continue
            try:
                absent = lacking_optional(runs.folder, entry.also)
                found = [runs.get(name) for name in (*entry.runs, *entry.also)
                         if name not in absent]
                item = _make_figure(entry, found, folder) if kind == "figures" \
                    else _make_table(entry, found, folder)
                made.append(str(folder / entry.name))
                contents.append((kind, entry, item))
            except (RunError, OSError, style.Unsupported) as error:
                _remove(folder, entry.name)
                source = ", ".join(entry.runs) or "no run"
                failed.append(f"{kind[:-1]} {entry.name} (from {source}): {error}")
    left_out += runs.unused()
    _write_contents(out / "contents.md", contents, left_out)
    return made, failed, left_out


def _make_figure(entry, found, folder):
    return entry.make(found[0] if found else None, folder)


def _make_table(entry, found, folder):
    table = entry.make(*found)
    tables.save(table, folder)
    return table


def _remove(folder: Path, name: str) -> None:
    for kind in ("pdf", "png", "csv", "md", "tex"):
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _write_contents(path: Path, contents, left_out) -> None:
    """What was made, from which run, which inferred topic it answers; and what was left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["| | name | title | from run | inferred topic | mark |", "|---|---|---|---|---|---|"]
    for kind, entry, item in contents:
        preview = re.search(r"PREVIEW: \d+ seeds?", item.note if kind == "tables" else item.mark)
        lines.append(f"| {kind[:-1]} | {entry.name} | {item.title} | {', '.join(entry.runs)} | "
                     f"{entry.topic} | {preview[0] if preview else ''} |")
    lines += ["", "Left out:", "", *(f"- {line}" for line in left_out)] if left_out else []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="figures and tables of the paper")
    parser.add_argument("runs", metavar="RUNS_DIR", help="the folder that holds the run folders")
    parser.add_argument("--out", default="paper", help="where figures/ and tables/ go")
    options = parser.parse_args(arguments)
    made, failed, left_out = build(options.runs, options.out)
    print("\n".join([*(f"{path} written" for path in made), *left_out]))
    for line in failed:
        print(f"paper: {line}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
