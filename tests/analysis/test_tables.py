import contextlib
import csv
import io
import json
import tempfile
import unittest
from pathlib import Path

import fixture
import numpy as np

from analysis import fig_curves, load, tables

DESIGN = [("rtn", {}, 3.0), ("quarot", {}, 0.5), ("ruquant", {}, 0.45)]


class Cells(unittest.TestCase):
    def test_means_and_intervals(self):
        self.assertEqual(tables.cell([1.0], 2), "1.00")
        self.assertEqual(tables.cell([1.0, 3.0], 1), "2.0 ± 12.7")
        self.assertEqual(tables.cell([-0.5], 1), "−0.5")
        self.assertEqual(tables.cell([1.0, float("nan")], 1), "diverged")
        self.assertEqual(tables.cell([], 1), "–")

    def test_latex_is_escaped(self):
        self.assertEqual(tables.escape("50 % of a_b & ±"), r"50 \% of a\_b \& $\pm$")


class Written(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = fixture.make_run(Path(holder.name) / "run", DESIGN, samples=False)

    def change(self, method, change):
        for path in self.folder.glob("t*/results.json"):
            data = json.loads(path.read_text())
            if data["method"] == method:
                change(data)
                path.write_text(json.dumps(data))

    def table(self, name):
        tables.write(load.load_run(self.folder))
        return [(self.folder / "tables" / f"{name}.{end}").read_text() for end in ("md", "tex")]

    def test_losses_by_method_and_widths(self):
        run = load.load_run(self.folder)
        markdown, latex = self.table("loss")
        group = next(g for g in run.groups if g.method == "quarot" and g.widths == run.widths[0])
        self.assertIn(f"| quarot | {tables.cell(group.losses, 3)} |", markdown)
        self.assertIn("| method | W4A4-Q4K4V4 | W6A6-Q6K6V6 |", markdown)
        for words in ("PREVIEW: 3 seeds", "toy-model", "10 windows of 1024 tokens"):
            self.assertIn(words, markdown)
        self.assertIn(r"quarot & " + tables.escape(tables.cell(group.losses, 3)), latex)
        self.assertIn(r"\begin{tabular}{lrr}", latex)

    def test_a_schedule_that_was_run_in_part_is_extrapolated(self):
        def learn(data):
            data["metrics"].update({"learning.share": 0.125, "learning.steps": 24.0,
                                    "learning.tokens": 6144.0, "learning.held_out_ratio": 0.9})
            data["config"]["method.schedule"] = "paper"
        self.change("ruquant", learn)
        for path in self.folder.glob("t*/timing.json"):
            timing = json.loads(path.read_text())
            path.write_text(json.dumps({**timing, "plan_cpu_seconds": 50.0}))
        markdown, _ = self.table("schedules")
        self.assertIn("| ruquant, W4A4-Q4K4V4 | paper | 24 | 6,144 | 0.900 | 50 | 12 % | 400 "
                      "(extrapolated) |", markdown)
        self.assertNotIn("quarot", markdown)
        self.change("ruquant", lambda data: data["metrics"].update({"learning.share": 1.0}))
        self.assertIn("| 50 | 100 % | 50 |", self.table("schedules")[0])

    def test_curves_are_means_of_steps_on_both_schedules(self):
        self.schedules()
        drawn = fig_curves.draw(load.load_run(self.folder), self.folder / "figures")
        with drawn.csv.open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual({row["schedule"] for row in rows}, set(fig_curves.LOOKS))
        first = [row for row in rows[:len(rows) // 2] if row["place"] == "layers.0"
                 and row["seed"] == "1" and row["schedule"] == "published schedule"]
        self.assertEqual([(float(row["step"]), float(row["loss_over_start"])) for row in first],
                         [(4.5, 0.965), (12.5, 0.885), (20.5, 0.805)])

    def schedules(self, **short):
        """Rows of learned trials on two schedules, the short one with these options besides."""
        for path in list(self.folder.glob("t*")):
            data = json.loads((path / "results.json").read_text())
            if data["method"] != "ruquant":
                continue
            data["metrics"].update({"learning.share": 1.0, "learning.held_out_ratio": 0.5})
            data["config"].update({"method.schedule": "paper", "method.epochs": "20"})
            fixture.write_trial(path, data)
            data["trial"] = f"{path.name}s"
            data["metrics"].update({"learning.held_out_ratio": 0.9, "learning.tokens": 100.0})
            data["config"].update({"method.schedule": "short", "method.epochs": "3", **short})
            for each in (data["config"], data["axes"]):
                each.update(data["config"])
            fixture.write_trial(self.folder / data["trial"], data)
        return tables.schedules(load.load_run(self.folder))

    def test_the_short_schedule_is_a_column_beside_the_published_one(self):
        table = self.schedules()
        self.assertEqual(table.head[5], "... on the short schedule")
        self.assertEqual([row[:2] + row[4:6] for row in table.rows],
                         [[f"ruquant, {widths}", "paper", "0.500", "0.900"]
                          for widths in ("W4A4-Q4K4V4", "W6A6-Q6K6V6")])

    def test_another_quantizer_or_step_count_is_no_short_schedule(self):
        for other in ({"quant.weight.clip_ratio": "0.7"}, {"method.smoothing": "none"},
                      {"method.steps": "4"}):
            with self.subTest(other):
                self.setUp()
                table = self.schedules(**other)
                self.assertEqual(len(table.rows), 4)
                self.assertNotIn("... on the short schedule", table.head)

    def test_a_rounding_learns_on_other_windows_in_its_short_schedule(self):
        design = [("rtn", {"quant.rounding": "uniquanf", "quant.learning.epochs": epochs,
                           "calibration.windows": windows}, 1.0)
                  for epochs, windows in (("20", "130"), ("2", "22"))]
        folder = fixture.make_run(self.folder.parent / "roundings", design, samples=False,
                                  widths={"W3A16-Q16K16V16": 1.0})
        for path in folder.glob("t*/results.json"):
            data = json.loads(path.read_text())
            data["metrics"]["learning.tokens"] *= float(data["config"]["quant.learning.epochs"])
            path.write_text(json.dumps(data))
        table = tables.schedules(load.load_run(folder))
        self.assertEqual([row[0] for row in table.rows], ["rtn, W3A16-Q16K16V16"])
        self.assertEqual(table.rows[0][4:6], ["0.900", "0.900"])

    def test_memory_is_the_most_of_all_trials_that_share_a_plan(self):
        design = [("quarot", {"quant.rounding": rounding, "method.smoothing": alpha}, 0.5)
                  for rounding in ("rtn", "gptq") for alpha in ("0.6", "none")]
        folder = fixture.make_run(self.folder.parent / "shared", design, samples=False)
        for path in folder.glob("t*"):
            config = json.loads((path / "results.json").read_text())["config"]
            timing = json.loads((path / "timing.json").read_text())
            drew = config["quant.rounding"] == "rtn" and config["method.smoothing"] == "0.6"
            timing["peak_memory_mib"] = 900.0 if drew else 400.0
            (path / "timing.json").write_text(json.dumps(timing))
        rows = tables.cost(load.load_run(folder)).rows
        self.assertEqual({row[0]: row[-2] for row in rows}, {
            "quarot (α=0.6, rtn rounding)": "900", "quarot (α=0.6, gptq rounding)": "900",
            "quarot (no smoothing, rtn rounding)": "400",
            "quarot (no smoothing, gptq rounding)": "400"})

    def test_one_changed_value_changes_the_table(self):
        before = self.table("perplexity")
        self.change("quarot", lambda data: data["metrics"].update({"ppl.w1024": 77.0}))
        after = self.table("perplexity")
        self.assertNotEqual(before, after)
        self.assertIn("| quarot | 77.00 ± 0.00 |", after[0])

    def test_a_lost_model_is_named(self):
        self.assertNotIn("Diverged", self.table("loss")[0])
        self.change("rtn", lambda data: data.update(diverged="a loss of 12 nats"))
        self.change("quarot", lambda data: data.update(
            diverged="by hand" if data["seed"] < 3 and "W4" in data["widths"] else ""))
        loss, perplexity = (self.table(name)[0] for name in ("loss", "perplexity"))
        self.assertRegex(loss, r"\| rtn \| [\d.]+ (± [\d.]+ )?\(diverged\) \|")
        self.assertRegex(loss, r"\| quarot \| [\d.]+ ± [\d.]+ \(diverged 2/3\) \| [\d.]+ ± "
                               r"[\d.]+ \|")
        self.assertRegex(perplexity, r"\| rtn \| diverged \|")
        self.assertRegex(perplexity, r"\| quarot \| diverged 2/3 \| [\d.]+ ± [\d.]+ \|")
        for table in (loss, perplexity):
            self.assertIn("Diverged n/m:", table)
        self.change("rtn", lambda data: data["metrics"].update(nll_over_float=None))
        self.assertRegex(self.table("loss")[0], r"\| rtn \| diverged \|")

    def test_tasks_and_cost(self):
        tasks = {"task.piqa.acc": 0.6, "task.piqa.acc_float": 0.7, "task.piqa.acc_norm": 0.625,
                 "task.piqa.acc_norm_float": 0.75, "task.piqa.acc_norm_kept_above_chance": 0.5,
                 "task.piqa.chance": 0.5, "task.boolq.chance": 5 / 12, "task.boolq.acc": 0.5, "task.boolq.acc_float": 0.75,
                 "task.boolq.acc_kept_above_chance": 0.25}
        self.change("ruquant", lambda data: data["metrics"].update(tasks))
        markdown = self.table("tasks")[0]
        # Kept: 1.125/1.5; chance is 1/2 for piqa and 5/12 for boolq: above it 5/24 of 7/12.
        self.assertIn("| method and widths | boolq | piqa | kept | kept above chance | seeds |",
                      markdown)
        self.assertIn("| float | 75.0 | 75.0 | 100.0 | 100.0 | – |", markdown)
        self.assertIn("| ruquant, W4A4-Q4K4V4 | 50.0 | 62.5 | 75.0 | 35.7 | 3 |", markdown)
        self.assertNotIn("| rtn,", markdown)

    def test_cost_has_bits_where_a_row_has_one_width(self):
        bits = "weight.effective_bits"
        self.assertNotIn("bits a weight", self.table("cost")[0])
        for method in ("rtn", "quarot", "ruquant"):
            self.change(method, lambda data: data["metrics"].update({bits: 4.046875}))
        self.assertIn("| 4.05 |", self.table("cost")[0])

    def test_a_folder_that_is_no_run_is_one_line_and_status_two(self):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            self.assertEqual(tables.main([str(self.folder / "nowhere")]), 2)
        self.assertIn("nowhere", errors.getvalue())


if __name__ == "__main__":
    unittest.main()
