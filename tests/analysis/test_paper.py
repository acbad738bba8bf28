import contextlib
import csv
import io
import json
import shutil
import tempfile
import unittest
from pathlib import Path

import fixture
import h5py

from analysis import paper, style


def setUpModule():
    style.DPI["png"], style.DPI["pdf"] = 40, 40  # what is compared is bytes, not beauty


def tearDownModule():
    style.DPI["png"], style.DPI["pdf"] = 200, 300


def built(folder) -> dict:
    """name → bytes of everything in a folder of figures or tables."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def change_everything(runs) -> None:
    """Another value wherever a figure could read one, in some trials of every run."""
    for run in runs.iterdir():
        if run.name == "construction":
            path = run / "construction.json"
            data = json.loads(path.read_text())
            data["rows"][0]["seconds"][0] *= 3
            path.write_text(json.dumps(data))
            path = run / "roundings.json"
            data = json.loads(path.read_text())
            data["rows"][-1]["bytes"] *= 2
            path.write_text(json.dumps(data))
            continue
        for place, trial in enumerate(_some(run)):
            _change_trial(trial, 0.3 + 0.01 * place)  # differences between trials change too
        path = run / "trends.json"
        if path.exists():
            path.write_text(path.read_text().replace("-0.07", "-0.09"))


def _change_trial(trial, shift) -> None:
    data = json.loads((trial / "results.json").read_text())
    data["windows"]["nll"] = [value + shift for value in data["windows"]["nll"]]
    for key in data["metrics"]:
        if key.startswith(("nll", "ppl.", "tensor.", "task.")) and "float" not in key \
                or key == "nll_over_float":
            data["metrics"][key] += shift
    for measures in data["sites"].values():
        measures["output_error_db"] += 3
    for record in data.get("learning", []):
        record["held_out_final"] *= 2
        record["losses"] = [2 * loss for loss in record.get("losses", [])]
    (trial / "results.json").write_text(json.dumps(data))
    timing = json.loads((trial / "timing.json").read_text())
    (trial / "timing.json").write_text(json.dumps({**timing, "plan_seconds": 77.0,
                                                     "plan_cpu_seconds": 99.0}))
    _change_arrays(trial / "results.h5")


def _some(run) -> list:
    """The trials of RUQuant and InfoQuant with seed 1, of rtn where there are none."""
    found = {path: json.loads((path / "results.json").read_text())
             for path in sorted(run.glob("t*")) if path.is_dir()}
    own = [path for path, data in found.items()
           if data["method"] in ("ruquant", "infoquant") and data["seed"] == 1]
    return own or [path for path, data in found.items() if data["method"] == "rtn"]


def _change_arrays(path) -> None:
    if not path.exists():
        return
    with h5py.File(path, "a") as file:
        for group in file.get("samples", {}).values():
            group["after"][...] = 2 * group["after"][()]
        for sides in file.get("bins", {}).values():
            sides["after/shift"][...] = 0.5 * sides["after/shift"][()]
        for name, right in file.get("items", {}).items():
            if not name.endswith("_float"):
                right[...] = 1 - right[()]


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.runs = fixture.make_study(cls.base / "runs", seeds=(1, 2, 3))
        cls.made, cls.failed, cls.unused = paper.build(cls.runs, cls.base / "out")

    def test_everything_is_made_from_its_run(self):
        self.assertEqual(self.failed, [])
        self.assertEqual(len(self.made), len(paper.FIGURES) + len(paper.TABLES))
        for entry in paper.FIGURES:
            for kind in ("pdf", "png", "csv"):
                path = self.base / "out" / "figures" / f"{entry.name}.{kind}"
                self.assertGreater(path.stat().st_size, 100, path)
        for entry in paper.TABLES:
            for kind in ("md", "tex"):
                self.assertTrue((self.base / "out" / "tables" / f"{entry.name}.{kind}").exists())

    def test_a_failed_trial_is_named(self):
        self.assertEqual(self.unused, [])
        other = self.base / "with-failure"
        fixture.make_run(other / "second_model", [("rtn", {}, 2.0), ("quarot", {}, 0.5)],
                         samples=False)
        (other / "second_model" / "t002" / "status").write_text("failed: NaN\n")
        _, _, unused = paper.build(other, self.base / "with-failure-out")
        self.assertEqual(unused[-1], "second_model: t002 not used: failed: NaN")
        self.assertIn(unused[-1], (self.base / "with-failure-out" / "contents.md").read_text())

    def test_names_are_distinct(self):
        for entries in (paper.FIGURES, paper.TABLES):
            names = [entry.name for entry in entries]
            self.assertEqual(len(names), len(set(names)))

    def test_contents_name_run_topic_and_mark(self):
        text = (self.base / "out" / "contents.md").read_text()
        self.assertRegex(text, r"\| figure \| centroids \| .* \| sites \| midpoint against")
        self.assertRegex(text, r"\| table \| tasks \| .* \| tasks \|  \| PREVIEW: 2 seeds \|")
        self.assertIn("inferred topic", text)
        self.assertNotRegex(text, r"Figure \d")

    def test_drawn_again_the_same_bytes_and_after_a_change_others(self):
        for kind in ("figures", "tables"):
            shutil.copytree(self.base / "out" / kind, self.base / "first" / kind)
        other = shutil.copytree(self.runs, self.base / "other")
        paper.build(other, self.base / "again")
        for kind in ("figures", "tables"):
            self.assertEqual(built(self.base / "again" / kind), built(self.base / "first" / kind))
        change_everything(other)
        _, failed, _ = paper.build(other, self.base / "changed")
        self.assertEqual(failed, [])
        before, after = (built(self.base / name / "figures") for name in ("first", "changed"))
        for name in before:
            if not name.startswith("overview"):  # holds no measurement
                self.assertTrue(before[name] != after[name], name)
        before, after = (built(self.base / name / "tables") for name in ("first", "changed"))
        for entry in paper.TABLES:
            if entry.runs:
                self.assertTrue(before[f"{entry.name}.tex"] != after[f"{entry.name}.tex"],
                                entry.name)


class Missing(unittest.TestCase):
    """Of a study most of which is not there."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.base = Path(holder.name)
        self.runs = self.base / "runs"
        fixture.write_construction(self.runs / "construction")
        fixture.make_run(self.runs / "second_model", [("rtn", {}, 2.0), ("quarot", {}, 0.5)],
                         samples=False)
        fixture.make_run(self.runs / "tasks", [("rtn", {}, 2.0)], samples=False)

    def build(self):
        errors, lines = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(lines):
            status = paper.main([str(self.runs), "--out", str(self.base / "out")])
        return status, lines.getvalue().splitlines(), errors.getvalue().splitlines()

    def test_each_entry_fails_by_name_and_the_rest_is_drawn(self):
        stale = self.base / "out" / "figures" / "centroids.pdf"
        stale.parent.mkdir(parents=True)
        stale.write_text("of an earlier call")
        status, made, failed = self.build()
        self.assertEqual(status, 2)
        self.assertEqual(len(made) + len(failed), len(paper.FIGURES) + len(paper.TABLES))
        for name, run in (("wikitext2", "wikitext2"), ("schedules", "paper_schedules"),
                          ("rounding_costs", "roundings"), ("curves", "paper_schedules")):
            kind = "figure" if name == "curves" else "table"
            line = f"{kind} {name} left out: there is no run {run}"
            self.assertIn(line, made)
            self.assertIn(line, (self.base / "out" / "contents.md").read_text())
        self.assertTrue(any(line.startswith("paper: figure centroids (from sites): ")
                            and line.endswith("sites: no such run folder") for line in failed))
        self.assertIn("paper: figure tasks (from tasks): no zero-shot task was scored", failed)
        self.assertFalse(stale.exists())
        for name in ("overview", "construction", "loss_second_model"):
            self.assertTrue((self.base / "out" / "figures" / f"{name}.png").exists())

    def test_a_deleted_run_is_named_and_what_it_fed_is_removed(self):
        self.build()
        drawn = self.base / "out" / "figures" / "construction.csv"
        self.assertTrue(drawn.exists())
        shutil.rmtree(self.runs / "construction")
        status, _, failed = self.build()
        self.assertEqual(status, 2)
        self.assertEqual(sum("construction.json is missing" in line for line in failed), 1)
        self.assertFalse(drawn.exists())

    def test_an_optional_run_is_left_out_until_a_trial_ends_and_must_not_have_failed(self):
        table = self.base / "out" / "tables" / "wikitext2.tex"
        fixture.make_run(self.runs / "wikitext2", [("rtn", {}, 2.0)], samples=False)
        self.assertFalse(any("wikitext2" in line for line in self.build()[2]))
        self.assertIn("float", table.read_text())
        for status in (self.runs / "wikitext2").glob("t*/status"):
            status.write_text("running\n")
        self.assertFalse(any("wikitext2" in line for line in self.build()[2]))
        self.assertFalse(table.exists())
        for status in (self.runs / "wikitext2").glob("t*/status"):
            status.write_text("failed: out of memory\n")
        self.assertTrue(any(line.startswith("paper: table wikitext2 (from wikitext2): ")
                            and "no finished trial" in line for line in self.build()[2]))
        self.assertFalse(table.exists())

    def test_a_changed_time_changes_the_numbers(self):
        self.build()
        path = self.runs / "construction" / "construction.json"
        data = json.loads(path.read_text())
        data["rows"][0]["seconds"] = [1.0, 3.0]
        path.write_text(json.dumps(data))
        self.build()
        with (self.base / "out" / "figures" / "construction.csv").open() as file:
            row = next(row for row in csv.DictReader(file)
                       if (row["method"], row["width"]) == ("ruquant", "576"))
        self.assertEqual((row["seconds_mean"], row["repetitions"]), ("2", "2"))


if __name__ == "__main__":
    unittest.main()
