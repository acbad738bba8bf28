import contextlib
import io
import json
import re
import tempfile
import unittest
from pathlib import Path

import fixture
import numpy as np
import yaml

from analysis import compare, fig_tasks, load, paper_numbers, runs, stats

HOME = Path(__file__).resolve().parents[2]
W4, W6, W3 = "W4A4-Q4K4V4", "W6A6-Q6K6V6", "W3A16-Q16K16V16"
Q16 = "W4A4-Q16K4V4"
WEIGHTS = {"W4A16-Q16K16V16": 0.2, W3: 1.0}
BASELINES = [(name.split("-")[0], {**options, "quant.rounding": rounding}, 0.3 + 0.05 * place)
             for place, (name, options) in enumerate(paper_numbers.VARIANTS.items())
             for rounding in ("rtn", "gptq")]
SMALL = [("rtn", {}, 3.0), ("quarot", {}, 0.5), ("ruquant", {}, 0.45)]

LEVELS = [(method, {"quant.activation_levels": name}, loss)
          for method in ("rtn", "smoothquant", "quarot", "ruquant") for name, loss in fixture.LEVELS.items()]


def claims(name) -> list:
    """What configs/<name>.yaml expects."""
    text = (HOME / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    return [trend["claim"] for trend in yaml.safe_load(text).get("trends", [])]


def make_study(folder) -> Path:
    """Fabricated runs with the names, variants and claims of the study."""
    seeds = {"seeds": (1, 2, 3), "samples": False}
    fixture.make_run(folder / "baselines", BASELINES, widths={**fixture.WIDTHS, Q16: 0.9}, **seeds)
    rotations = [("ruquant", {"method.rotation": name}, 0.45) for name in ("composite", "hadamard")]
    for name, design in (("mechanisms", LEVELS), ("ablations", rotations)):
        fixture.make_run(folder / name, design, **seeds)
        trends = [{"claim": claim, "metric": "nll_over_float", "verdict": "confirmed",
                   "difference": -0.07, "half_width": 0.02, "pairs": 5} for claim in claims(name)]
        (folder / name / "trends.json").write_text(json.dumps(trends))
    weights = [("rtn", {"quant.rounding": rounding}, 0.2) for rounding in ("rtn", "gptq", "septq")]
    fixture.make_run(folder / "weight_only", weights, widths=WEIGHTS, **seeds)
    sizes = [(method, {"method.block_size": size}, loss) for method, loss in
             (("duquant", 0.5), ("ruquant", 0.45)) for size in ("64", "128", "256")]
    fixture.make_run(folder / "second_model", [*SMALL[:2], *sizes],
                     widths={W6: 0.1, "W4A4-Q16K16V16": 0.8}, **seeds)
    fixture.make_run(folder / "wikitext2", [*SMALL, ("duquant", {}, 0.55)],
                     widths={W4: 1.0, W6: 0.1}, **seeds)
    fixture.make_run(folder / "articles", [design for design in BASELINES
                                           if design[1]["quant.rounding"] == "rtn"],
                     widths={W4: 1.0}, **seeds)
    fixture.make_run(folder / "paper_schedules",
                     [SMALL[0], ("ruquant", {"method.global_reflection": "finetuned",
                                             "quant.rounding": "rtn"}, 0.4)],
                     widths={W4: 1.0}, **seeds)
    for path in (folder / "paper_schedules").glob("t*/timing.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "plan_cpu_seconds": 5400.0}))
    fixture.make_run(folder / "tasks", SMALL, tasks=("piqa", "arc_easy"), **seeds)
    fixture.make_run(folder / "sites", SMALL, **{**seeds, "samples": True})
    return folder


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = make_study(Path(holder.name))
        cls.runs = {name: load.load_run(cls.folder / name) for name in paper_numbers.RUNS
                    if (cls.folder / name).exists()}
        cls.numbers = paper_numbers.numbers(cls.runs)

    def group(self, method, widths, **settings):
        return next(g for g in self.runs["baselines"].groups
                    if g.method == method and g.widths == widths
                    and all(g.settings.get(k) == v for k, v in settings.items()))

    def test_processor_hours_are_the_sum_of_the_clocks(self):
        trials = [trial for run in self.runs.values() for trial in run.trials]
        hours = sum(t.timing["total_seconds"] * t.timing["threads"] for t in trials) / 3600
        self.assertEqual(self.numbers["processor-hours"], f"{hours:.1f}")

    def test_published_schedules_are_beside_the_short_ones_in_the_same_places(self):
        ratios = [ratio for group in self.runs["baselines"].groups
                  if group.widths == W4 and group.settings["quant.rounding"] == "rtn"
                  and group.settings.get("method.global_reflection") == "finetuned"
                  for trial in group.trials for ratio in trial.held_out_ratios().values()]
        self.assertEqual(len(ratios), 3 * 5)
        key = "paper_schedules.held-out.ruquant-finetuned"
        self.assertEqual(self.numbers[key], "0.90")
        self.assertEqual(self.numbers[f"{key}.short"], f"{np.exp(np.mean(np.log(ratios))):.2f}")
        # Half of the blocks took an hour and a half.
        self.assertEqual(self.numbers["paper_schedules.hours.ruquant-finetuned"], "3.0")
        self.assertNotIn("paper_schedules.held-out.rtn", self.numbers)

    def test_accuracy_kept_has_an_interval_over_items(self):
        run = self.runs["tasks"]
        group = next(g for g in run.groups if (g.method, g.widths) == ("quarot", W4))
        names = fig_tasks.task_names(run)
        score = fig_tasks.score(group, fig_tasks.KEPT, names, {})
        self.assertEqual(self.numbers[f"tasks.kept.quarot.{W4}"],
                         f"{score.seeds.mean:.1f} ± {score.items_half:.1f}")
        self.assertIn(f"tasks.kept-above-chance.ruquant.{W4}", self.numbers)

    def test_levels_are_held_against_midpoints(self):
        groups = {g.settings["quant.activation_levels"]: g for g in self.runs["mechanisms"].groups
                  if (g.method, g.widths) == ("ruquant", W4)}
        mean = stats.mean_interval(groups["lloyd_max"].losses).mean
        self.assertIn(f"{mean:.3f} ± ", self.numbers["mechanisms.levels.ruquant.lloyd_max"])
        pair = compare.compare(groups["lloyd_max"], groups["midpoint"])
        self.assertIn(f"{abs(pair.windows.mean):.3f} ± ",
                      self.numbers["mechanisms.levels.ruquant.lloyd_max.minus"])
        self.assertNotIn("mechanisms.levels.ruquant.midpoint.minus", self.numbers)

    def test_an_interval_is_the_wider_of_two(self):
        group = self.group("quarot", W4, **{"quant.rounding": "gptq", "method.smoothing": "0.6"})
        seeds = stats.mean_interval(group.losses)
        windows = stats.paired_over_windows(group.windows("nll"), group.windows("nll_float"))
        text = self.numbers[f"baselines.loss.quarot.gptq.{W4}"]
        self.assertEqual(text, f"{seeds.mean:.3f} ± {max(seeds.half, windows.half):.3f}")
        self.assertNotEqual(f"{seeds.half:.3f}", f"{windows.half:.3f}")

    def test_variants_are_told_apart(self):
        for variant in ("quarot", "quarot-unsmoothed", "duquant", "duquant-lwc", "ruquant",
                        "ruquant-finetuned"):
            self.assertIn(f"baselines.loss.{variant}.rtn.{W6}", self.numbers)
        self.assertNotEqual(self.numbers[f"baselines.loss.duquant.rtn.{W4}"],
                            self.numbers[f"baselines.loss.duquant-lwc.rtn.{W4}"])

    def test_a_comparison_has_a_word_and_a_signed_difference(self):
        end = f"ruquant.rtn.rtn.{W4}"
        self.assertEqual(self.numbers[f"baselines.word.{end}"], "a higher loss than")
        self.assertRegex(self.numbers[f"baselines.difference.{end}"], r"^\+0\.\d+ ± 0\.\d+$")

    def test_provenance_and_preview(self):
        self.assertEqual(self.numbers["baselines.tokens"], "8,192")
        self.assertEqual(self.numbers["baselines.model"], "toy-model")
        self.assertEqual(self.numbers["preview"], "PREVIEW: 3 seeds")

    def test_verdicts(self):
        verdict = self.numbers["ablations.trend.zigzag-beats-blocks-as-they-come"]
        self.assertEqual(verdict, "confirmed, −0.070 ± 0.020, 5 pairs")
        self.assertEqual(self.numbers["ablations.confirmed"], str(len(claims("ablations"))))
        self.assertEqual(self.numbers["ablations.unresolved"], "0")

    def test_all_that_the_paper_cites_is_there(self):
        cited = cited_numbers((HOME / "paper" / "main.tex").read_text(encoding="utf-8"))
        self.assertGreater(len(cited), 40)
        self.assertEqual([key for key in cited if key not in self.numbers], [])

    def numbers_of(self, design):
        with tempfile.TemporaryDirectory() as holder:
            folder = fixture.make_run(Path(holder) / "baselines", design, samples=False,
                                      seeds=(1,))
            return paper_numbers.numbers({"baselines": load.load_run(folder)})

    def test_two_groups_of_one_name_are_refused(self):
        with self.assertRaisesRegex(runs.RunError, "are both smoothquant, rtn, W4A4"):
            self.numbers_of([("smoothquant", {"method.smoothing": alpha}, 0.5)
                             for alpha in ("0.5", "0.6")])

    def test_what_departs_in_another_option_is_no_variant(self):
        found = self.numbers_of([("rtn", {"calibration.windows": "4"}, 0.5),
                                 ("rtn", {"calibration.windows": "16"}, 0.25),
                                 ("rtn", {"calibration.windows": "4",
                                          "quant.rounding": "gptq"}, 0.4)])
        self.assertTrue(found[f"baselines.loss.rtn.rtn.{W4}"].startswith("0.5"), found)


def cited_numbers(text: str) -> list:
    """The keys that main.tex asks for, its macros spelled out."""
    body = text[text.index(r"\begin{document}"):]
    found = re.findall(r"\\num\{([^}]*)\}", body)
    for rounding, variant in re.findall(r"\\loss(?:\[(\w+)\])?\{([^}]*)\}", body):
        found.append(f"baselines.loss.{variant}.{rounding or 'rtn'}.{W4}")
    for rounding, variant, other in re.findall(
            r"\\compared(?:\[(\w+)\])?\{([^}]*)\}\{([^}]*)\}", body):
        found += [f"baselines.{kind}.{variant}.{other}.{rounding or 'rtn'}.{W4}"
                  for kind in ("word", "difference")]
    found += [f"{run}.trend.{claim}" for run, claim in
              re.findall(r"\\verdict\{([^}]*)\}\{([^}]*)\}", body)]
    return found


class Written(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def main(self):
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = paper_numbers.main([str(self.folder), "--out", str(self.folder / "paper")])
        return code, told.getvalue()

    def test_one_changed_value_changes_the_file(self):
        make_study(self.folder)
        self.assertEqual(self.main(), (0, ""))
        path = self.folder / "paper" / "tables" / "numbers.tex"
        before = path.read_text()
        self.assertIn(r"\setnumber{preview}{PREVIEW: 3 seeds}", before)
        self.assertIn(r"$\pm$", before)
        changed = sorted((self.folder / "baselines").glob("t*/results.json"))[0]
        data = json.loads(changed.read_text())
        data["metrics"]["nll_over_float"] += 0.5
        changed.write_text(json.dumps(data))
        self.assertEqual(self.main()[0], 0)
        self.assertFalse(path.read_text() == before)

    def test_every_missing_run_is_named(self):
        fixture.make_run(self.folder / "baselines", BASELINES, samples=False)
        code, told = self.main()
        self.assertEqual(code, 2)
        needed = [name for name in paper_numbers.RUNS if name not in load.OPTIONAL_RUNS]
        self.assertEqual(len(told.splitlines()), len(needed) - 1)
        for name in needed[1:]:
            self.assertIn(str(self.folder / name), told)


if __name__ == "__main__":
    unittest.main()
