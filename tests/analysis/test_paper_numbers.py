import contextlib
import dataclasses
import io
import json
import re
import tempfile
import unittest
from pathlib import Path

import fixture
import numpy as np
import yaml

from analysis import (compare, fig_construction, fig_tasks, load, mechanism_numbers, paper_numbers,
                      phrases, published, rounding_costs, runs, stats, tables)

HOME = Path(__file__).resolve().parents[2]
W4, W6, W3 = "W4A4-Q4K4V4", "W6A6-Q6K6V6", "W3A16-Q16K16V16"
Q16, A4 = "W4A4-Q16K4V4", "W16A4-Q16K16V16"
WEIGHTS = {"W4A16-Q16K16V16": 0.2, W3: 1.0}
ALONE = {**WEIGHTS, "W2A16-Q16K16V16": 3.0}
OPTIONS = {**paper_numbers.VARIANTS, "spinquant": {"method.weights_in_learning": "true"}}
FLOAT_WEIGHTS = {("spinquant", "gptq"): {"method.weights_in_learning": "false"}}
BASELINES = [(name.split("-")[0], {**options, "quant.rounding": rounding,
                                   **FLOAT_WEIGHTS.get((name, rounding), {})}, 0.3 + 0.05 * place)
             for place, (name, options) in enumerate(OPTIONS.items())
             for rounding in ("rtn", "gptq")]
SMALL = [("rtn", {}, 3.0), ("quarot", {}, 0.5), ("ruquant", {}, 0.45)]

LEVELS = [(method, {**options, "quant.activation_levels": name}, loss)
          for method, options in (*((name, paper_numbers.VARIANTS[name]) for name in
                                    ("rtn", "smoothquant", "quarot", "singlequant", "duquant",
                                     "ruquant")),
                                  *((name, {}) for name in ("infoquant", "spinquant", "flatquant")))
          for name, loss in fixture.LEVELS.items()]
MIN_MAX = {"quant.weight.rule": "omniquant", "quant.weight.search": "false"}
WEIGHT_LEVELS = [(method, {**MIN_MAX, "quant.rounding": name,
                           **({"method.smoothing": "none"} if method == "quarot" else {})}, loss)
                 for method in ("rtn", "smoothquant", "quarot", "duquant", "singlequant", "ruquant",
                                "infoquant", "spinquant", "flatquant")
                 for name, loss in zip(("rtn", "centroid", "lloyd_max"), (0.5, 0.45, 0.3))]
M = mechanism_numbers
ROTATED = [("quarot", {**M.ROTATED, "quant.rounding": rounding, **changes}, 0.4 + 0.02 * place)
           for place, (rounding, changes) in enumerate(M.ROUNDINGS.values())]
SITES = [*((method, options, 1.4 + 0.1 * place)
           for place, (method, options) in enumerate(M.LEARNED.values())),
         ("learned_rotation", {**M.STARTS["learned_rotation"], "method.objective": "psot"}, 1.6),
         ("infoquant", {"method.steps": "0", "method.learn_clips": "false"}, 1.5),
         ("infoquant", {"method.steps": "40", "method.learn_clips": "true"}, 1.3),
         *(("singlequant", {**M.SINGLEQUANT, **changes}, 1.5 + 0.1 * place)
           for place, changes in enumerate(M.SINGLEQUANT_PARTS.values())),
         *(("duquant", {"method.lwc": "false", "method.index": index}, 0.5)
           for index in ("row", "channel")),
         *(("spinquant", {"quant.rounding": "gptq", "method.learn": learn,
                          "method.learning_rate": rate}, loss)
           for learn, rate, loss in (("none", "1.5", 0.7), ("both", "0.15", 0.3)))]
FINETUNED = {"method.global_reflection": "finetuned"}
TUNED = [*(("ruquant", {**FINETUNED, **options}, 0.4) for options in M.TUNED.values()),
         ("ruquant", {"method.global_reflection": "optimized",
                      "method.finetune_optimizer": "adamw"}, 0.45)]
ABLATIONS = [{"method.rotation": "composite"}, {"method.rotation": "hadamard"},
             {"method.calibration": "samples"}, {"method.calibration": "float"},
             FINETUNED, {**FINETUNED, "method.preset": "paper"}]
SCHEDULES = {"paper": {"method.schedule": "paper", "method.epochs": "20"},
             "short": {"method.schedule": "short", "method.epochs": "3"}}


def claims(name) -> list:
    """What configs/<name>.yaml expects."""
    text = (HOME / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    return [trend["claim"] for trend in yaml.safe_load(text).get("trends", [])]


def edit(folder, change) -> None:
    """Changes the results of trials in place."""
    for path in folder.glob("t*/results.json"):
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))


def make_mechanisms(folder) -> None:
    seeds = {"seeds": (1, 2, 3), "samples": False}
    fixture.make_run(folder, LEVELS, widths={A4: 1.0}, **seeds)
    fixture.make_run(folder, WEIGHT_LEVELS, widths={"W4A16-Q16K16V16": 0.2}, prefix="tl", **seeds)
    fixture.make_run(folder, ROTATED, widths=ALONE, prefix="tw", **seeds)
    fixture.make_run(folder, SITES + TUNED, widths={W4: 1.0}, prefix="ts", **seeds)

    def change(data):
        if data["config"].get("method.art_tokens") == "massive":
            data["fallbacks"] = ["layers.0.attn_in: no massive tokens, ART of all", "another"]
        if data["config"].get("method.global_reflection") == "optimized":
            for record in data["learning"]:
                record.update(optimizer="", steps=0)
    edit(folder, change)


def make_schedules(folder) -> None:
    design = [SMALL[0]]
    for own in SCHEDULES.values():
        design += [("ruquant", {**FINETUNED, "quant.rounding": "rtn", **own}, 0.4),
                   ("spinquant", {"method.weights_in_learning": "false", **own}, 0.6)]
    fixture.make_run(folder, design, widths={W4: 1.0}, seeds=(1, 2, 3), samples=False)

    def change(data):
        if data["config"].get("method.schedule") == "short":
            data["metrics"].update({"learning.tokens": 60.0, "learning.held_out_ratio": 0.95})
    edit(folder, change)
    for path in folder.glob("t*/timing.json"):
        config = json.loads((path.parent / "results.json").read_text())["config"]
        short = config.get("method.schedule") == "short"
        path.write_text(json.dumps({**json.loads(path.read_text()),
                                    "plan_cpu_seconds": 300.0 if short else 5400.0}))


def make_construction(folder) -> None:
    fixture.write_construction(folder)
    fixture.write_roundings(folder)
    path = folder / "construction.json"
    data = json.loads(path.read_text())
    data["rows"].append({**data["rows"][0], "method": "singlequant", "width": 32,
                         "seconds": [0.0001, 0.0003]})
    path.write_text(json.dumps(data))


def make_study(folder) -> Path:
    """Fabricated runs with the names, variants and claims of the study."""
    seeds = {"seeds": (1, 2, 3), "samples": False}
    fixture.make_run(folder / "baselines", BASELINES, widths={**fixture.WIDTHS, Q16: 0.9}, **seeds)
    apart = [design for design in BASELINES if design[1]["quant.rounding"] == "rtn"]
    fixture.make_run(folder / "baselines", apart, widths={A4: 0.5}, prefix="ta", **seeds)
    alone = [(method, {**paper_numbers.UNSMOOTHED, "quant.rounding": "rtn"}, 0.5)
             for method in ("hadamard", "quarot")]
    fixture.make_run(folder / "baselines", alone, widths={"W4A16-Q16K16V16": 0.5}, prefix="tn",
                     **seeds)
    lost = ("quarot", {"method.smoothing": "none", "quant.rounding": "gptq"}, 7.0)
    alone = [*(design for design in apart if design[0] == "infoquant"), lost]
    fixture.make_run(folder / "baselines", alone, widths=ALONE, prefix="tw", **seeds)
    edit(folder / "baselines", lambda data: data.update(diverged="by hand") if (
        data["method"], data["widths"], data["seed"]) == ("quarot", "W2A16-Q16K16V16", 2) else None)

    make_mechanisms(folder / "mechanisms")
    usual = {"method.rotation": "composite", "method.calibration": "mean", "method.epochs": "3"}
    changed = [("ruquant", {**usual, **change}, 0.3 if FINETUNED.items() <= change.items() else 0.45)
               for change in ABLATIONS]
    fixture.make_run(folder / "ablations", changed, **seeds)
    for name in ("mechanisms", "ablations"):
        trends = [{"claim": claim, "metric": "nll_over_float", "verdict": "confirmed",
                   "difference": -0.07, "half_width": 0.02, "pairs": 5, "margin": 0.0}
                  for claim in claims(name)]
        trends[-1].update(difference=0.01, margin=0.05)
        (folder / name / "trends.json").write_text(json.dumps(trends))
    weights = [("rtn", {"quant.rounding": rounding, "calibration.windows": "4"}, 0.2)
               for rounding in ("rtn", "gptq", "septq")]
    more = ("rtn", {"quant.rounding": "gptq", "calibration.windows": "16"}, 0.15)
    fixture.make_run(folder / "weight_only", weights, widths=WEIGHTS, **seeds)
    fixture.make_run(folder / "weight_only", [more], widths={"W4A16-Q16K16V16": 0.2}, prefix="tm",
                     **seeds)
    sizes = [(method, {"method.block_size": size}, loss) for method, loss in
             (("duquant", 0.5), ("ruquant", 0.45)) for size in ("64", "128", "256")]
    fixture.make_run(folder / "second_model", [*SMALL[:2], ("smoothquant", {}, 2.0), *sizes],
                     widths={W6: 0.1, "W4A4-Q16K16V16": 0.8}, **seeds)
    most = [design for design in sizes if design[1]["method.block_size"] == "64"]
    fixture.make_run(folder / "second_model", most, widths={W4: 4.0}, prefix="tu", **seeds)
    fixture.make_run(folder / "wikitext2", [*SMALL, ("duquant", {}, 0.55)],
                     widths={W4: 1.0, W6: 0.1}, **seeds)
    fixture.make_run(folder / "articles", apart, widths={W4: 1.0}, **seeds)
    make_schedules(folder / "paper_schedules")
    make_arithmetic(folder / "arithmetic", folder / "baselines")
    fixture.make_run(folder / "tasks", [*SMALL, ("duquant", {}, 0.55), ("ruquant", FINETUNED, 0.4)],
                     tasks=("piqa", "arc_easy"), **seeds)
    fixture.make_run(folder / "sites", [*SMALL, ("smoothquant", {}, 1.0), ("duquant", {}, 0.5)],
                     sites=("10.attn_in", "10.mlp_out"), bins=True, **{**seeds, "samples": True})
    make_construction(folder / "construction")
    return folder


def make_arithmetic(folder, baselines) -> None:
    """Trials of the baselines with last digits of their own: two that are 2 and 4 thousandths of a
    nat off, and one that learns and is 20."""
    paths = sorted(baselines.glob("*/results.json"))[:3]
    for apart, learned, path in zip((0.002, -0.004, 0.02), ([], [], [{"where": "model"}]), paths,
                                    strict=True):
        data = json.loads(path.read_text())
        data |= {"math_backend": "onednn 3 avx512", "learning": learned}
        data["metrics"]["nll_over_float"] += apart
        fixture.write_trial(folder / f"a{path.parent.name}", {**data, "trial": f"a{data['trial']}"})


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = make_study(Path(holder.name))
        cls.runs = {name: load.load_run(cls.folder / name) for name in paper_numbers.RUNS}
        cls.numbers = paper_numbers.numbers(
            cls.runs, construction=fig_construction.load(cls.folder / "construction"),
            roundings=rounding_costs.load(cls.folder))

    def group(self, method, widths, **settings):
        return next(g for g in self.runs["baselines"].groups
                    if g.method == method and g.widths == widths
                    and all(g.settings.get(k) == v for k, v in settings.items()))

    def of(self, name, method, widths, **options):
        """The one group of a run with these options, whose names have __ for a point."""
        return next(g for g in self.runs[name].groups if (g.method, g.widths) == (method, widths)
                    and all(g.trials[0].config.get(key.replace("__", ".")) == value
                            for key, value in options.items()))

    def test_processor_hours_count_each_trial_once(self):
        trials = {t.trial: t for run in self.runs.values() for t in run.trials}
        self.assertLess(len(trials), sum(len(run.trials) for run in self.runs.values()))
        hours = sum(t.timing["total_seconds"] * t.timing["threads"] for t in trials.values()) / 3600
        self.assertEqual(self.numbers["processor-hours"], f"{hours:.1f}")
        self.assertEqual(self.numbers["trials"], f"{len(trials):,}")

    def test_published_schedules_are_beside_the_short_ones_of_the_same_run(self):
        key = "paper_schedules.held-out.ruquant-finetuned"
        self.assertEqual(self.numbers[key], "0.90")
        self.assertEqual(self.numbers[f"{key}.short"], "0.95")
        # Half of the blocks took an hour and a half.
        self.assertEqual(self.numbers["paper_schedules.hours.ruquant-finetuned"], "3.0")
        self.assertEqual(self.numbers["paper_schedules.learners"], "2")
        # 24 losses fall by 0.01 a step, in three points: 5.25 of 19.5 hundredths after 6.25 steps.
        self.assertEqual(self.numbers["paper_schedules.quarter"], "27")
        self.assertNotIn("paper_schedules.held-out.rtn", self.numbers)
        alone = [trial for trial in self.runs["paper_schedules"].trials
                 if trial.config.get("method.schedule") != "short"]
        found = paper_numbers.numbers({"paper_schedules": runs.Run(Path("x"), alone)})
        self.assertEqual([k for k in found if "held-out" in k or "learners" in k], [])

    def test_clipped_midpoints_are_of_the_same_method_and_options(self):
        base = self.of("baselines", "quarot", A4, method__smoothing="0.6")
        self.assertEqual(self.numbers["mechanisms.levels.quarot.clipped"],
                         phrases.plain(compare.loss_interval(base)))

    def test_levels_of_weights_are_those_of_min_max_grids(self):
        base, moved = (self.of("mechanisms", "quarot", "W4A16-Q16K16V16", quant__rounding=name,
                               quant__weight__rule="omniquant") for name in ("rtn", "centroid"))
        self.assertEqual(self.numbers["mechanisms.levels.weights.quarot.centroid.minus"],
                         phrases.compared(moved, base)["difference"])
        self.assertEqual(self.numbers["mechanisms.levels.weights.quarot.midpoint"],
                         phrases.plain(compare.loss_interval(base)))

    def test_learning_of_sites_has_medians_and_quartiles(self):
        group = self.of("mechanisms", "learned_rotation", W4, method__steps="30",
                        method__objective="straight_through")
        values = [record["details"]["kept_promise_start"] for trial in group.trials
                  for record in trial.learning]
        self.assertEqual(len(values), 3 * 6)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        key = "mechanisms.learned.straight_through"
        self.assertEqual(self.numbers[f"{key}.promise-start"],
                         f"{middle:.2f} ({low:.2f} to {high:.2f})")
        ratios = [ratio for trial in group.trials for ratio in trial.held_out_ratios().values()]
        self.assertEqual(self.numbers[f"{key}.held-out"], f"{np.exp(np.mean(np.log(ratios))):.3f}")
        start = self.of("mechanisms", "learned_rotation", W4, method__steps="0")
        self.assertEqual(self.numbers[f"{key}.start.difference"],
                         phrases.compared(group, start)["difference"])
        least = min(M.OBJECTIVES, key=lambda name: float(
            self.numbers[f"mechanisms.learned.{name}.held-out"]))
        self.assertEqual(self.numbers["mechanisms.learned.least"], M.OBJECTIVE_WORDS[least])

    def test_learned_rotations_that_are_smoothed_are_no_peers_of_singlequant(self):
        found = self.mechanisms_without(lambda trial: trial.method != "learned_rotation"
                                        or trial.config.update({"method.smoothing": "0.6"}))
        self.assertEqual([key for key in found if "learned.psot" in key], [])

    def mechanisms_without(self, keep):
        """The numbers of a copy of the run, of the trials that `keep` does not call False; it may
        change their config."""
        copies = [dataclasses.replace(trial, config=dict(trial.config))
                  for trial in self.runs["mechanisms"].trials]
        return mechanism_numbers.numbers(
            runs.Run(Path("x"), [trial for trial in copies if keep(trial) is not False]))

    def test_parts_of_singlequant(self):
        key = "mechanisms.singlequant"
        self.assertEqual(self.numbers[f"{key}.no-massive"], "1")
        whole, part = (self.of("mechanisms", "singlequant", W4, method__fit="token",
                               method__art="true", method__urt=urt, method__art_tokens="all",
                               method__representative="peak", method__layout="kronecker",
                               method__urt_form="chain", method__mean_to_ones="false")
                       for urt in ("true", "false"))
        self.assertEqual(self.numbers[f"{key}.art"], phrases.plain(compare.loss_interval(part)))
        self.assertEqual(self.numbers[f"{key}.art.minus"],
                         phrases.compared(part, whole)["difference"])
        self.assertNotIn(f"{key}.both.minus", self.numbers)

    def test_optimizers_have_a_budget_and_blocks_that_were_judged(self):
        group = self.of("mechanisms", "ruquant", W4, method__finetune_evaluations="6")
        improved = [ratio < 1 for t in group.trials for ratio in t.held_out_ratios().values()]
        self.assertEqual(self.numbers["mechanisms.tuning.lbfgs.improved"],
                         f"{100 * np.mean(improved):.0f}")
        self.assertEqual(self.numbers["mechanisms.tuning.lbfgs.tokens"], "6,144")
        moved = [trial.held_out_ratios() for trial in group.trials]
        group.trials[0].learning.append({**group.trials[0].learning[0], "where": "layers.99",
                                         "steps": 0, "held_out_initial": 1, "held_out_final": 1})
        judged = mechanism_numbers._judged("name", group)
        group.trials[0].learning.pop()
        self.assertEqual([trial.held_out_ratios() for trial in group.trials], moved)
        self.assertEqual(judged["tuning.name.improved"],
                         f"{100 * np.mean([*improved, False]):.0f}")
        first = min({where for ratios in moved for where in ratios}, key=lambda where: np.mean(
            [np.log(ratios[where]) for ratios in moved if where in ratios]))
        self.assertEqual(judged["tuning.name.foremost"], first.split(".")[-1])
        self.assertIn("mechanisms.tuning.optimized.held-out", self.numbers)
        free = self.mechanisms_without(lambda trial: trial.config.update(
            {"method.finetune_evaluations": "0"}) if trial.config.get(
                "method.finetune_evaluations") == "6" else None)
        self.assertIn("tuning.adamw.tokens", free)
        self.assertNotIn("tuning.lbfgs.tokens", free)

    def test_roundings_on_rotated_weights(self):
        septq, gptq = (self.of("mechanisms", "quarot", W3, quant__rounding=name,
                               quant__weight__search="true", quant__septq__kept_percent="1",
                               quant__septq__mask_scope="global", quant__gptq__act_order="false",
                               quant__gptq__damping="0.01", quant__weight__group_size="0")
                       for name in ("septq", "gptq"))
        pair = phrases.compared(septq, gptq)
        self.assertEqual(self.numbers[f"mechanisms.rounding.difference.septq.gptq.{W3}"],
                         pair["difference"])
        self.assertEqual(self.numbers[f"mechanisms.rounding.word.septq.gptq.{W3}"], pair["word"])
        self.assertEqual(self.numbers[f"mechanisms.rounding.bits.septq.{W3}"], "3.55")
        self.assertEqual(self.numbers["mechanisms.rounding.unification"], "3e-16")
        self.assertIn(f"mechanisms.rounding.held-out.flexround.{W3}", self.numbers)
        once = self.mechanisms_without(lambda trial: trial.seed in (0, 1))
        self.assertIn(f"rounding.loss.flexround.{W3}", once)
        self.assertNotIn(f"rounding.held-out.flexround.{W3}", once)

    def test_weights_alone_with_more_windows_have_their_number(self):
        group, base = (self.of("weight_only", "rtn", "W4A16-Q16K16V16", quant__rounding=name,
                               calibration__windows=windows)
                       for name, windows in (("gptq", "16"), ("rtn", "4")))
        self.assertEqual(self.numbers["weight_only.minus-rtn.gptq-16.W4A16-Q16K16V16"],
                         phrases.compared(group, base)["difference"])
        self.assertEqual(self.numbers[f"weight_only.bits.septq.{W3}"], "3.55")

    def test_gptq_is_held_against_nearest_and_pairs_against_each_other(self):
        gptq, rtn = (self.of("baselines", "omniquant", W4, quant__rounding=name)
                     for name in ("gptq", "rtn"))
        self.assertEqual(self.numbers[f"baselines.gptq.difference.omniquant.{W4}"],
                         phrases.compared(gptq, rtn)["difference"])
        pair = [self.of("baselines", name, Q16, quant__rounding="gptq", **options) for name, options
                in (("quarot", {"method__smoothing": "none"}), ("duquant", {"method__lwc": "false"}))]
        self.assertEqual(self.numbers[f"baselines.word.quarot-unsmoothed.duquant.gptq.{Q16}"],
                         phrases.compared(*pair)["word"])

    def test_lost_seeds_are_counted(self):
        lost = [key for key in self.numbers if key.startswith("baselines.lost.")]
        self.assertEqual(lost, ["baselines.lost.quarot-unsmoothed.gptq.W2A16-Q16K16V16"])
        self.assertEqual(self.numbers[lost[0]], "1 of 3")

    def test_held_out_errors_of_a_variant(self):
        group = self.of("baselines", "infoquant", A4)
        self.assertEqual(self.numbers[f"baselines.held-out.infoquant.{A4}"],
                         f"{tables.mean_of(group, 'learning.held_out_ratio'):.3f}")
        self.assertNotIn(f"baselines.held-out.rtn.{A4}", self.numbers)

    def test_spinquant_learns_on_float_weights_before_gptq(self):
        self.assertIn(f"baselines.loss.spinquant.gptq.{W4}", self.numbers)
        kept = [t for t in self.runs["baselines"].trials
                if t.config.get("method.weights_in_learning") != "false"]
        other = [dataclasses.replace(t, config={**t.config, "quant.rounding": "gptq"})
                 for t in kept if t.method == "spinquant"]
        rest = [t for t in kept if t.method != "spinquant"]
        found = paper_numbers.numbers({"baselines": runs.Run(Path("x"), rest + other)})
        self.assertNotIn(f"baselines.loss.spinquant.gptq.{W4}", found)

    def test_orders_say_how_many_are_told_apart(self):
        for widths, model in ((W4, "LLaMA-2-7B"), (Q16, "LLaMA-2-7B")):
            pairs = published.pairs(published.load(), self.runs["baselines"], widths, model)
            end = f"{widths}.{model}"
            same = sum(pair.same for pair in pairs)
            self.assertEqual(self.numbers[f"baselines.order.{end}"], f"{same} of {len(pairs)}")
            told = [pair for pair in pairs if pair.told]
            self.assertEqual(int(self.numbers[f"baselines.told.{end}"])
                             + int(self.numbers[f"baselines.reversed.{end}"]), len(told))
        self.assertIn(" behind ", self.numbers[f"baselines.reversed-pairs.{Q16}.LLaMA-2-7B"])

    def test_block_sizes_are_held_against_quarot(self):
        widths = "W4A4-Q16K16V16"
        group = self.of("second_model", "ruquant", widths, method__block_size="128")
        pair = phrases.compared(group, self.of("second_model", "quarot", widths))
        self.assertEqual(self.numbers[f"second_model.blocks.word.ruquant.128.{widths}"], pair["word"])

    def test_confirmed_by_a_margin_alone(self):
        for name in ("mechanisms", "ablations"):
            self.assertEqual(self.numbers[f"{name}.by-margin"], "1")

    def test_construction_is_summed_over_the_sites_of_the_model(self):
        # Six layers of four sites, all 32 wide, at the mean of 0.1 and 0.3 ms.
        self.assertEqual(self.numbers["construction.singlequant"], "0.005")
        single, spin = (np.mean([t.timing["plan_cpu_seconds"] for t in self.of(
            "baselines", name, W4, quant__rounding="rtn").trials])
            for name in ("singlequant", "spinquant"))
        self.assertEqual(self.numbers["construction.times.short"], f"{spin / single:,.0f}")
        self.assertEqual(self.numbers["construction.times.short.alone"], f"{spin / 0.0048:,.0f}")
        # By the ratio of both schedules in one run, of each of which half was run.
        self.assertEqual(self.numbers["construction.times.paper"],
                         f"{5400 / 300 * spin / single:,.0f}")

    def test_construction_is_compared_on_one_machine_alone_and_on_as_many_tokens(self):
        record = fig_construction.load(self.folder / "construction")
        fewer = [{**row, "tokens": 64} for row in record.rows]
        for other in (dataclasses.replace(record, machine={**record.machine, "processor": "other"}),
                      dataclasses.replace(record, machine={**record.machine, "math": "avx512"}),
                      dataclasses.replace(record, rows=fewer)):
            found = paper_numbers.numbers({name: self.runs[name] for name in (
                "baselines", "sites", "paper_schedules")}, construction=other)
            self.assertEqual([key for key in found if key.startswith("construction.")],
                             ["construction.times.short", "construction.times.paper"])

    def test_trials_of_other_arithmetic_are_told_and_not_compared_in_time(self):
        run = self.runs["baselines"]
        single = next(trial for trial in run.trials if trial.method == "singlequant")
        other = dataclasses.replace(single, math_backend="onednn 3 avx512",
                                    timing={**single.timing, "plan_cpu_seconds": 1e6})
        mixed = dataclasses.replace(run, trials=[other if trial is single else trial
                                                 for trial in run.trials])
        record = fig_construction.load(self.folder / "construction")
        usual, found = (paper_numbers.numbers({"sites": self.runs["sites"], "baselines": one},
                                              construction=record) for one in (run, mixed))
        self.assertEqual(found["baselines.backend"], f"onednn 3 avx2 for {len(run.trials) - 1} "
                                                     "trials and onednn 3 avx512 for 1 trial")
        self.assertEqual(self.numbers["baselines.backend"], "onednn 3 avx2")
        # One of five seeds is gone from the mean; a million seconds would have made it nothing.
        times = [float(one["construction.times.short"]) for one in (found, usual)]
        self.assertAlmostEqual(times[0] / times[1], 1, delta=0.2)

    def test_spinquant_before_gptq_is_held_against_its_start(self):
        start, learned = (self.of("mechanisms", "spinquant", W4, method__learn=learn,
                                  method__learning_rate=rate)
                          for learn, rate in (("none", "1.5"), ("both", "0.15")))
        for key, text in phrases.compared(learned, start).items():
            self.assertEqual(self.numbers[f"mechanisms.reading.spinquant.tenth.{key}"], text)
        self.assertIn("lower", self.numbers["mechanisms.reading.spinquant.tenth.word"])

    def test_how_far_arithmetic_moves_the_same_trials(self):
        self.assertEqual([self.numbers[f"arithmetic.{key}"] for key in ("pairs", "mean", "largest")],
                         ["2", "0.003", "0.004"])
        self.assertEqual([self.numbers[f"arithmetic.learned.{key}"] for key in ("pairs", "largest")],
                         ["1", "0.020"])
        alike = dict.fromkeys(("arithmetic", "baselines"), self.runs["baselines"])
        self.assertNotIn("arithmetic.pairs", paper_numbers.numbers(alike))

    def test_costs_of_roundings_are_of_the_largest_matrix(self):
        self.assertEqual(self.numbers["roundings.shape"], "64 by 32")
        kib = (64 * 32 * 3 / 8 + 512) / 1024
        self.assertEqual(self.numbers["roundings.kib.uniquanf.3"], f"{kib:.1f}")
        self.assertEqual(self.numbers["roundings.ms.rtn.4"], "0.67")

    def test_a_change_of_the_default_has_its_difference(self):
        base, moved = (self.of("ablations", "ruquant", W4, method__calibration=name,
                               method__rotation="composite", method__global_reflection="init")
                       for name in ("mean", "samples"))
        self.assertEqual(self.numbers["ablations.minus.calibration.samples"],
                         phrases.compared(moved, base)["difference"])
        tuned = [self.of("ablations", "ruquant", W4, method__preset=name, **{
            "method__global_reflection": "finetuned"}) for name in ("paper", "official")]
        self.assertEqual(self.numbers["ablations.tuned-paper.difference"],
                         phrases.compared(*tuned)["difference"])

    def test_published_claims(self):
        self.assertEqual(self.numbers["published.speed.singlequant"], "1,400")
        self.assertEqual(self.numbers["published.kept.ruquant.W6A6"], "99.8")

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
                  if (g.method, g.widths) == ("ruquant", A4)}
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
        self.assertRegex(self.numbers[f"baselines.difference.{end}"], r"^\+\d\.\d+ ± 0\.\d+$")

    def test_provenance_and_preview(self):
        self.assertEqual(self.numbers["baselines.tokens"], "10,240")
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
