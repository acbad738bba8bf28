"""What single figures and tables of the study compute from runs."""

import csv
import json
import math
import re
import tempfile
import unittest
from pathlib import Path

import fixture
import h5py
import numpy as np

from analysis import (compare, departures, fig_activations, fig_bits, fig_centroids,
                      fig_construction, fig_cost, fig_levels, fig_sensitivity, fig_spread,
                      fig_tasks, fig_uniformity, labels, paper_tables, published, rounding_costs,
                      stats, style, tables)
from analysis.load import load_run
from analysis.runs import RunError


class Folder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.base = Path(holder.name)

    def run_of(self, design, **options):
        options = {"samples": False, "widths": {"W4A4-Q4K4V4": 1.0}, **options}
        return load_run(fixture.make_run(self.base / f"run{len(list(self.base.iterdir()))}",
                                         design, **options))

    def ablations(self, seeds=(1, 2, 3)):
        return self.run_of([("ruquant", {**fixture.ABLATION_DEFAULTS, **changed}, loss)
                            for changed, loss in fixture.ABLATIONS], seeds=seeds)

    def rows(self, draw, *arguments, **options):
        drawn = draw(*arguments, self.base / "figures", **options)
        with drawn.csv.open() as file:
            return list(csv.DictReader(file))


class Departures(Folder):
    def test_every_variant_is_held_against_the_default(self):
        run = self.ablations()
        found = departures.departures(run, "W4A4-Q4K4V4")
        self.assertEqual(len(found), len(fixture.ABLATIONS) - 1)
        self.assertEqual({d.base.settings["method.block_size"] for d in found}, {"64"})
        first = found[0]
        self.assertEqual(first.words, "block size B: 8")
        expected = [mine.loss - theirs.loss for mine, theirs in
                    zip(first.group.trials, first.base.trials)]
        self.assertAlmostEqual(first.pair.windows.mean, np.mean(expected), 10)
        self.assertAlmostEqual(first.pair.seeds.half, stats.mean_interval(expected).half, 10)

    def test_settings_that_move_together_are_one_phrase(self):
        words = [d.words for d in departures.departures(self.ablations(), "W4A4-Q4K4V4")]
        self.assertIn("clip of activations, queries, keys: 1", words)
        self.assertIn("global reflection: finetuned, epochs of tuning: 1", words)

    def test_other_windows_are_not_paired(self):
        run = self.run_of([("ruquant", {}, 0.5), ("ruquant", {"method.steps": "4"}, 0.6),
                           ("ruquant", {"method.steps": "8"}, 0.7)])
        for path in (t.folder for t in run.trials if t.config.get("method.steps") == "8"):
            data = json.loads((path / "results.json").read_text())
            data["windows"]["nll_float"][0] += 0.1
            data["config"]["evaluation.split"] = data["axes"]["evaluation.split"] = "other"
            (path / "results.json").write_text(json.dumps(data))
        found = departures.departures(load_run(run.folder), "W4A4-Q4K4V4")
        self.assertNotIn("8", [d.changed.get("method.steps") for d in found])

    def test_a_tie_goes_to_what_is_standard(self):
        run = self.run_of([("ruquant", {"quant.rounding": rounding}, 0.5)
                           for rounding in ("gptq", "rtn")])
        self.assertEqual(run.representatives("W4A4-Q4K4V4")[0].settings["quant.rounding"], "rtn")

    def test_variants_share_the_quantizers_of_the_base(self):
        run = self.run_of([("ruquant", {"quant.rounding": rounding, "method.steps": steps}, 0.5)
                           for rounding in ("gptq", "rtn") for steps in ("4", "16")])
        found = departures.variants(run, run.widths, 5)
        self.assertEqual([g.settings["method.steps"] for g in found], ["16", "4"])
        self.assertEqual({g.settings["quant.rounding"] for g in found}, {"rtn"})
        self.assertEqual(len(departures.variants(run, run.widths, 1)), 1)


class Sensitivity(Folder):
    def test_numbers_are_those_of_the_run(self):
        run = self.ablations()
        rows = self.rows(fig_sensitivity.draw, run)
        own = [row for row in rows if row["setting"] == "method.block_size"]
        self.assertEqual(list(dict.fromkeys(row["value"] for row in own)),
                         ["8", "16", "32", "64", "128"])
        self.assertEqual({row["value"] for row in own if row["default"] == "True"}, {"64"})
        pair = departures.departures(run, "W4A4-Q4K4V4")[0].pair
        self.assertAlmostEqual(float(own[0]["minus_default"]), pair.windows.mean, 5)
        self.assertAlmostEqual(float(own[0]["minus_default_half95_over_seeds"]),
                               pair.seeds.half, 5)

    def test_epochs_vary_among_tuned_reflections(self):
        rows = self.rows(fig_sensitivity.draw, self.ablations(), keys=("method.epochs",))
        self.assertEqual({row["value"] for row in rows}, {"1", "3"})
        self.assertEqual({row["default"] for row in rows}, {"False"})
        self.assertTrue(all("reflection finetuned" in row["label"] for row in rows))

    def test_clip_ratios_set_together_are_one_axis(self):
        rows = self.rows(fig_sensitivity.draw, self.ablations(),
                         keys=("quant.activation.clip_ratio",))
        self.assertEqual({row["value"] for row in rows}, {"0.9", "1"})

    def test_without_a_numeric_setting_there_is_no_figure(self):
        run = self.run_of([("ruquant", {"method.partition": name}, 0.5)
                           for name in ("zigzag", "random")])
        with self.assertRaises(style.Unsupported):
            fig_sensitivity.draw(run, self.base / "figures")

    def test_fewer_than_five_seeds_are_a_preview(self):
        draw = fig_sensitivity.draw
        self.assertEqual(draw(self.ablations((1, 2, 3, 4)), self.base).mark, "PREVIEW: 4 seeds")
        self.assertEqual(draw(self.ablations((1, 2, 3, 4, 5)), self.base).mark, "")


class Levels(Folder):
    def rows_of(self, axis, names, widths="W4A4-Q4K4V4"):
        run = self.run_of([(method, {axis: name}, loss / (1 + place))
                           for place, method in enumerate(("rtn", "ruquant"))
                           for name, loss in zip(names, fixture.LEVELS.values())],
                          widths={widths: 1.0})
        return run, [row for row in self.rows(fig_levels.draw, run) if row["widths"] == widths]

    def test_levels_of_activations_are_held_against_midpoints(self):
        run, rows = self.rows_of("quant.activation_levels", fixture.LEVELS)
        self.assertEqual([(row["label"], row["levels"]) for row in rows],
                         [(m, level) for m in ("rtn", "ruquant") for level in fixture.LEVELS])
        best, base = (next(g for g in run.groups if g.method == "ruquant"
                           and g.widths == "W4A4-Q4K4V4"
                           and g.settings["quant.activation_levels"] == name)
                      for name in ("lloyd_max", "midpoint"))
        pair = compare.compare(best, base)
        self.assertAlmostEqual(float(rows[-1]["minus_midpoint"]), pair.windows.mean, 5)
        self.assertEqual(rows[-1]["verdict"], pair.verdict)
        self.assertEqual(rows[-3]["minus_midpoint"], "0")

    def test_levels_of_weights_are_roundings(self):
        _, rows = self.rows_of("quant.rounding", ("rtn", "centroid", "lloyd_max"),
                               "W4A16-Q16K16V16")
        self.assertEqual({row["levels_of"] for row in rows}, {"weights"})
        self.assertEqual({row["levels"] for row in rows}, set(fixture.LEVELS))

    def test_without_levels_there_is_no_figure(self):
        with self.assertRaises(style.Unsupported):
            fig_levels.draw(self.run_of([("rtn", {}, 1.0)]), self.base)

    def test_names_among_groups_say_where_these_differ(self):
        run = self.run_of([("ruquant", {"method.steps": steps, "method.pick": pick}, 0.5)
                           for steps, pick in (("1", "range"), ("4", "range"), ("4", "random"))])
        two = [g for g in run.groups if g.settings["method.pick"] == "range"]
        self.assertEqual(sorted(run.among(two).values()), ["ruquant · steps 1", "ruquant · steps 4"])
        self.assertEqual(set(run.among(two, without=("method.steps",)).values()), {"ruquant"})


class Sites(Folder):
    def setUp(self):
        super().setUp()
        self.run_ = self.run_of([("rtn", {}, 3.0), ("ruquant", {}, 0.5)], samples=True, bins=True,
                                sites=("10.attn_in", "10.mlp_out"))

    def test_bins_pool_by_share(self):
        group = next(g for g in self.run_.groups if g.method == "ruquant")
        pooled = fig_centroids._pooled(group)["mlp_out"]["after"]
        layers = [group.trials[0].bins()[f"{layer}.mlp_out"]["after"] for layer in (0, 10)]
        weights = [layer["share"] for layer in layers]
        expected = np.average([layer["shift"] for layer in layers], axis=0, weights=weights)
        np.testing.assert_allclose(pooled["shift"][0], expected, rtol=1e-12)

    def test_what_midpoints_cost_is_squared_before_layers_are_averaged(self):
        group = next(g for g in self.run_.groups if g.method == "ruquant")
        for trial in group.trials:
            with h5py.File(trial.folder / "results.h5", "a") as file:
                for layer, sign in ((0, 1), (10, -1)):
                    bins = file[f"bins/{layer}.mlp_out/after"]
                    bins["shift"][...] = 0.1 * sign
                    bins["shift"][0] = 5.0  # the range ends there
        shares = fig_centroids.shift_shares(group, "mlp_out")
        np.testing.assert_allclose(shares, 0.12, rtol=1e-12)
        self.assertEqual(fig_centroids.shift_shares(group, "none"), [])

    def test_a_changed_bin_changes_the_curve(self):
        before = self.rows(fig_centroids.draw, self.run_)
        self.assertEqual({row["side"] for row in before}, {"before", "after"})
        path = self.run_.trials[-1].folder / "results.h5"
        with h5py.File(path, "a") as file:
            file["bins/0.mlp_out/after/shift"][...] += 0.1
        after = self.rows(fig_centroids.draw, load_run(self.run_.folder))
        changed = {(a["kind"], a["side"], a["curve"]) for a, b in zip(after, before) if a != b}
        self.assertEqual(changed, {("mlp_out", "after", "shift")})

    def test_the_caption_names_sites_in_words(self):
        self.assertEqual(fig_centroids._site_words({"4.mlp_out", "0.attn_in", "4.attn_in",
                                                    "0.mlp_out", "16.mlp_in"}),
                         "attention input (q, k, v), MLP output (down) of layers 0, 4; "
                         "MLP input (gate, up) of layer 16")

    def test_a_truncated_file_is_named(self):
        path = self.run_.trials[0].folder / "results.h5"
        path.write_bytes(path.read_bytes()[:100])
        with self.assertRaisesRegex(RunError, f"{path}: cannot be read"):
            fig_centroids.draw(self.run_, self.base)

    def test_bins_that_lack_a_dataset_are_named(self):
        path = self.run_.trials[0].folder / "results.h5"
        with h5py.File(path, "a") as file:
            del file["bins/0.mlp_out/after/within"]
        with self.assertRaisesRegex(RunError, "bins/0.mlp_out/after lacks within"):
            fig_centroids.draw(self.run_, self.base)

    def test_the_kind_of_site_is_chosen(self):
        drawn = fig_activations.draw(self.run_, self.base, kinds=("attn_in", "mlp_in"), name="a")
        self.assertIn("attention input", drawn.title)
        drawn = fig_activations.draw(self.run_, self.base, kinds=("mlp_out",), name="b")
        self.assertIn("MLP output", drawn.title)
        with self.assertRaisesRegex(style.Unsupported, "attn_out"):
            fig_activations.draw(self.run_, self.base, kinds=("attn_out",))

    def test_gaussian_tokens_are_farther_from_uniform_the_wider(self):
        narrow, wide = (fig_uniformity.gaussian(channels, 4) for channels in (32, 1536))
        for measure, value in narrow.items():
            self.assertLess(value, wide[measure])
        self.assertAlmostEqual(wide["range_over_rms"], 6.74, 1)  # extremes of 1536 normal draws
        # A step of the range over 15 errs by its square over 12.
        step = wide["range_over_rms"] / 15
        self.assertAlmostEqual(wide["uniform_gap_db"],
                               10 * math.log10(step**2 / 12) + 80 * math.log10(2), 1)
        (row, *_) = [row for row in self.rows(fig_uniformity.draw, self.run_)
                     if row["measure"] == "range_over_rms"]
        self.assertEqual(row["gaussian_low"], f"{narrow['range_over_rms']:.6g}")

    def test_uniformity_is_the_mean_of_the_metric(self):
        rows = self.rows(fig_uniformity.draw, self.run_)
        row = next(row for row in rows if row["label"].startswith("ruquant")
                   and (row["measure"], row["kind"]) == ("uniformity_ks", "mlp_out"))
        own = [trial.metrics["tensor.uniformity_ks.mlp_out"] for trial in self.run_.trials
               if trial.method == "ruquant"]
        self.assertAlmostEqual(float(row["mean"]), np.mean(own), 5)
        self.assertAlmostEqual(float(row["half95_over_seeds"]), stats.mean_interval(own).half, 5)


class Costs(Folder):
    def test_processor_time_is_taken_where_all_recorded_it(self):
        run = self.run_of([("rtn", {}, 3.0), ("quarot", {}, 0.5)])

        def record(**times):
            for trial in run.trials:
                path = trial.folder / "timing.json"
                timing = json.loads(path.read_text())
                timing.pop("plan_cpu_seconds", None)
                path.write_text(json.dumps(timing | times))
            return load_run(run.folder)

        self.assertEqual(fig_cost.time_key(record().groups), "plan_seconds")
        run = record(plan_cpu_seconds=0.25)
        self.assertEqual(fig_cost.time_key(run.groups), "plan_cpu_seconds")
        self.assertEqual({row["plan_cpu_seconds"] for row in self.rows(fig_cost.draw, run)},
                         {"0.25"})
        self.assertIn("| 0.2 |", tables.cost(run).markdown())

    def test_a_record_of_another_format_is_named(self):
        fixture.write_construction(self.base)
        path = self.base / "construction.json"
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
        with self.assertRaisesRegex(RunError, "construction.json: expected format"):
            fig_construction.load(self.base)
        path.write_text('{"format": "ruquant-construction", "format_version": 1, "machine": {}, '
                        '"rows": [{"method": "ruquant", "width": 8}]}')
        with self.assertRaisesRegex(RunError, "lacks tokens, seconds, flops"):
            fig_construction.load(self.base)

    def test_a_floor_that_is_no_bound_is_said_to_be_none(self):
        fixture.write_construction(self.base)
        record = fig_construction.load(self.base)
        self.assertNotIn("no bound", fig_construction.draw(record, self.base).caption)
        record.rows[0]["floor_seconds"] = 2 * max(record.rows[0]["seconds"])
        self.assertIn("In 1 of 6 cases", fig_construction.draw(record, self.base).caption)

    def test_spread_is_around_the_mean(self):
        run = self.run_of([("rtn", {}, 3.0), ("quarot", {}, 0.5)])
        rows = self.rows(fig_spread.draw, run)
        losses = next(g for g in run.groups if g.method == "quarot").losses
        self.assertEqual({row["label"] for row in rows}, {"quarot"})
        self.assertAlmostEqual(float(rows[0]["standard_deviation"]), np.std(losses, ddof=1), 5)

    def test_lines_join_only_what_differs_in_bits(self):
        family = labels.width_family
        self.assertEqual(family("W4A4-Q4K4V4"), family("W6A6-Q6K6V6"))
        self.assertEqual(family("W4A16-Q16K16V16"), family("W2A16-Q16K16V16"))
        self.assertNotEqual(family("W4A4-Q16K4V4"), family("W4A4-Q4K4V4"))
        self.assertNotEqual(family("W16A4-Q16K16V16"), family("W4A16-Q16K16V16"))
        run = self.run_of([("rtn", {}, 3.0)], widths={"W4A4-Q4K4V4": 1.0, "W4A16-Q16K16V16": 0.1})
        self.assertEqual({row["widths"] for row in self.rows(fig_bits.draw, run)},
                         set(run.widths))


class Tasks(Folder):
    def setUp(self):
        super().setUp()
        self.run_ = self.run_of([("rtn", {}, 3.0), ("quarot", {}, 0.5)], samples=True,
                                tasks=("piqa", "arc_easy"))

    def test_chance_is_read(self):
        self.assertAlmostEqual(fig_tasks.chance(self.run_, "piqa"), 0.25, 10)

    def test_scores(self):
        group = next(g for g in self.run_.groups if g.method == "quarot")
        names = fig_tasks.task_names(self.run_)
        self.assertEqual(names, ["arc_easy", "piqa"])
        kept = fig_tasks.score(group, fig_tasks.KEPT, names, {})
        values = [np.mean([t.metrics[f"task.{n}.acc_norm"] for n in names]) / 0.5
                  for t in group.trials]
        self.assertAlmostEqual(kept.seeds.mean, 100 * np.mean(values), 8)
        above = fig_tasks.score(group, fig_tasks.ABOVE, names, dict.fromkeys(names, 0.25))
        values = [np.mean([t.metrics[f"task.{n}.acc_norm_kept_above_chance"] for n in names])
                  for t in group.trials]
        self.assertAlmostEqual(above.seeds.mean, 100 * np.mean(values), 8)
        one = fig_tasks.score(group, "piqa", names, {})
        items = np.mean([t.items()["piqa.acc_norm"] for t in group.trials], axis=0)
        # A bootstrap of a mean agrees with Student's interval, but for its grid of 1/items.
        self.assertLess(abs(one.items_half - 100 * stats.mean_interval(items).half), 1.5)
        self.assertGreater(kept.items_half, one.items_half / 2)

    def test_differences_are_paired_over_items(self):
        table = tables.tasks_compared(self.run_)
        names = fig_tasks.task_names(self.run_)
        group = next(g for g in self.run_.groups if g.method == "quarot")
        base = next(g for g in self.run_.groups if g.method == "rtn")
        gains = [fig_tasks.scored_items(group, name)[:, 0].mean()
                 - fig_tasks.scored_items(base, name)[:, 0].mean() for name in names]
        (row,) = [row for row in table.rows if row[0].startswith("quarot")]
        self.assertTrue(row[1].startswith(f"{100 * np.mean(gains):+.1f} ["), row)
        self.assertEqual(row[2], "–")  # its own reference


class StudyTables(Folder):
    def test_roundings_stand_side_by_side(self):
        run = self.run_of([("rtn", {"quant.rounding": rounding}, loss)
                           for rounding, loss in (("rtn", 3.0), ("gptq", 2.0))],
                          widths={"W4A4-Q4K4V4": 1.0, "W2A16-Q16K16V16": 2.0})
        table = paper_tables.by_rounding(run, "x", "X", tables.loss_cell, (labels.ALIKE,))
        self.assertEqual(table.head, ("method", ("W4A4-Q4K4V4", "rtn"), ("W4A4-Q4K4V4", "gptq")))
        cells = {g.settings["quant.rounding"]: tables.loss_cell(g) for g in run.groups
                 if g.widths == "W4A4-Q4K4V4"}
        self.assertEqual(table.rows, (["rtn", cells["rtn"], cells["gptq"]],))
        self.assertIn(r"\multicolumn{2}{c}{W4A4-Q4K4V4}", table.latex())
        weights = paper_tables.by_rounding(run, "x", "X", tables.loss_cell, (labels.WEIGHTS,))
        self.assertEqual({cell[0] for cell in weights.head[1:]}, {"W2A16-Q16K16V16"})

    def test_ablation_says_difference_and_verdict(self):
        run = self.ablations()
        table = paper_tables.ablation(run)
        first = departures.departures(run, "W4A4-Q4K4V4")[0]
        row = next(row for row in table.rows if row[0] == "block size B: 8")
        self.assertEqual(row[2], f"{first.pair.windows.mean:+.3f}")
        self.assertEqual(row[-1], first.pair.verdict)
        self.assertIn("PREVIEW: 3 seeds", table.note)

    def test_weight_rounding_has_a_row_a_rounding(self):
        run = self.run_of([("rtn", {"quant.rounding": rounding}, loss)
                           for rounding, loss in (("rtn", 3.0), ("septq", 1.0))],
                          widths={"W2A16-Q16K16V16": 1.0, "W3A16-Q16K16V16": 0.5,
                                  "W4A4-Q4K4V4": 1.0})
        table = paper_tables.roundings(run, "x")
        self.assertEqual([tuple(row[:3]) for row in table.rows],
                         [("rtn", "rtn", "min-max"), ("rtn", "septq", "min-max")])
        self.assertEqual([cell[0] for cell in table.head[3::2]],
                         ["W3A16-Q16K16V16", "W2A16-Q16K16V16"])
        group = next(g for g in run.groups if g.settings["quant.rounding"] == "septq"
                     and g.widths == "W2A16-Q16K16V16")
        self.assertEqual(table.rows[1][5], tables.loss_cell(group))
        paired = paper_tables.roundings(run, "x", paired=True)
        other = next(g for g in run.groups if g.settings["quant.rounding"] == "rtn"
                     and g.widths == group.widths)
        over = compare.compare(group, other).windows
        self.assertEqual([row[7] for row in paired.rows],
                         ["–", f"{compare.signed(over.mean, '+.3f')} ± {over.half:.3f}"])

    def test_levels_of_its_own_are_one_row_whatever_the_grid(self):
        grid = {"quant.weight.rule": "quarot_weight", "quant.weight.search": "true"}
        run = self.run_of([("rtn", {**rule, "quant.rounding": rounding}, 1.0) for rule in (
            {}, grid) for rounding in ("rtn", "lloyd_max", "uniquanf")],
            widths={"W3A16-Q16K16V16": 1.0})
        table = paper_tables.roundings(run, "x")
        self.assertEqual(sorted(tuple(row[1:3]) for row in table.rows),
                         [("lloyd_max", "levels of its own"), ("rtn", "min-max"),
                          ("rtn", "searched"), ("uniquanf", "levels of its own")])

    def test_rows_of_roundings_name_their_grid_and_are_paired_on_it(self):
        searched = {"quant.weight.rule": "quarot_weight", "quant.weight.search": "true",
                    "quant.weight.clip_ratio": "1", "quant.weight.group_size": "0"}
        plain = {**searched, "quant.weight.rule": "omniquant", "quant.weight.search": "false"}
        grids = {"searched": searched, "min-max": plain,
                 "min-max with zero": {**searched, "quant.weight.search": "false"},
                 "searched, clipped at 0.8": {**searched, "quant.weight.clip_ratio": "0.8"},
                 "searched, groups of 64": {**searched, "quant.weight.group_size": "64"}}
        run = self.run_of([("rtn", {**grid, "quant.rounding": rounding}, loss)
                           for grid in grids.values()
                           for rounding, loss in (("rtn", 3.0), ("gptq", 2.0))],
                          widths={"W3A16-Q16K16V16": 1.0})
        table = paper_tables.roundings(run, "x", paired=True)
        self.assertEqual({tuple(row[:3]) for row in table.rows},
                         {("rtn", rounding, grid) for grid in grids for rounding in ("rtn", "gptq")})
        self.assertEqual([row[4] == "–" for row in table.rows],
                         [row[1] == "rtn" for row in table.rows])

    def test_rotations_of_sites_are_those_without_smoothing(self):
        learned = {"method.smoothing": "none", "method.steps": "30", "method.noise_batches": "8"}
        run = self.run_of([("singlequant", {"method.smoothing": "none"}, 2.0),
                           ("learned_rotation", learned, 1.5),
                           ("learned_rotation", {**learned, "method.smoothing": "0.6"}, 0.5),
                           ("learned_rotation", {**learned, "method.steps": "0"}, 1.6),
                           ("infoquant", {}, 1.4), ("quarot", {"method.smoothing": "none"}, 1.5)],
                          widths={"W4A4-Q4K4V4": 1.0})
        silent = {"method.smoothing": "0.6", "method.noise_batches": "0"}
        fixture.make_run(run.folder, [("learned_rotation", {**learned, **silent}, 0.5)], prefix="tz",
                         samples=False, widths={"W4A4-Q4K4V4": 1.0})
        run = load_run(run.folder)
        table = paper_tables.site_rotations(run)
        self.assertEqual([row[0] for row in table.rows],
                         ["singlequant", "infoquant", "learned_rotation", "learned_rotation · steps 0"])
        self.assertIn("learned_rotation means steps 30", table.note)
        group = next(g for g in run.groups if g.settings == learned)
        self.assertEqual(table.rows[2][1], tables.loss_cell(group))
        values = [value for trial in group.trials
                  for value in trial.learning_details("gradient_noise_end")]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        self.assertEqual(table.rows[2][5], f"{middle:.2f} ({low:.2f} to {high:.2f})")
        self.assertEqual((table.rows[0][3], table.rows[0][5], table.rows[3][3]), ("–", "–", "–"))
        with self.assertRaises(style.Unsupported):
            paper_tables.site_rotations(self.run_of([("quarot", {}, 1.5)]))

    def test_a_record_of_roundings_is_of_its_largest_matrix(self):
        (self.base / "construction").mkdir()
        fixture.write_roundings(self.base / "construction")
        table = rounding_costs.table(rounding_costs.load(self.base))
        self.assertEqual(table.head[1:], (("4 bits", "KiB"), ("4 bits", "ms"), ("3 bits", "KiB"),
                                          ("3 bits", "ms")))
        self.assertEqual(table.rows[0], ["rtn", "1.2", "0.67", "1.0", "0.67"])
        self.assertEqual([row[0] for row in table.rows[1:]],
                         ["uniquanf_init", "uniquanf, one step", "flexround, one step"])
        path = self.base / "construction" / "roundings.json"
        text = path.read_text()
        for wrong, words in ((text.replace('"format_version": 1', '"format_version": 2'),
                              "expected format"), (text.replace('"seconds"', '"times"'),
                                                   "lacks seconds"), ("{", "roundings.json: ")):
            path.write_text(wrong)
            with self.assertRaisesRegex(RunError, words):
                rounding_costs.load(self.base)


class Published(Folder):
    def test_every_number_has_a_source(self):
        numbers = published.load()
        self.assertGreater(len(numbers), 100)
        path = self.base / "published.csv"
        path.write_text("method,variant,setting,model,measure,value,source\n"
                        "ruquant,,W4A4,x,wikitext2 perplexity,6.1,\n")
        with self.assertRaisesRegex(RunError, "line 2"):
            published.load(path)

    def test_numbers_are_printed_as_they_were(self):
        text = published.perplexities(published.load()).markdown()
        self.assertIn("| ruquant | W4A4-Q4K4V4 | 6.29 | 5.55 | 4.61 | 6.17 | 5.35 | 8.10 |", text)
        self.assertIn("Published, not measured here", text)

    def test_ours_has_a_column_of_its_own(self):
        run = self.run_of([("ruquant", {"method.global_reflection": name}, loss)
                           for name, loss in (("init", 0.5), ("finetuned", 0.4))])
        table = published.beside_ours(published.load(), run)
        self.assertEqual(table.head[5:], (("published", "source"), ("ours", "toy-model, toytext")))
        tuned = next(row for row in table.rows if row[0] == "ruquant (finetuned)")
        self.assertEqual(tuned[2], f"{math.log(6.04 / 5.47):.3f}")
        group = next(g for g in run.groups
                     if g.settings["method.global_reflection"] == "finetuned")
        self.assertEqual(tuned[6], tables.loss_cell(group))
        missing = next(row for row in table.rows if row[0] == "duquant")
        self.assertEqual(missing[6], "–")
        twice = published.beside_ours(published.load(), run, run)
        self.assertEqual([row[-2:] for row in twice.rows], [[row[6]] * 2 for row in table.rows])

    def test_a_method_stands_beside_what_was_published_under_its_name(self):
        run = self.run_of([("quarot", {"method.smoothing": alpha, "quant.rounding": "rtn"},
                            loss) for alpha, loss in (("0.6", 0.5), ("none", 1.5))])
        row = next(row for row in published.beside_ours(published.load(), run).rows
                   if row[:2] == ["quarot (rtn)", "W4A4-Q4K4V4"])
        own = next(g for g in run.groups if g.settings["method.smoothing"] == "none"
                   and g.widths == "W4A4-Q4K4V4")
        self.assertEqual(row[-1], tables.loss_cell(own))
        smoothed = self.run_of([("quarot", {"method.smoothing": "0.6"}, 0.5)])
        self.assertEqual({row[-1] for row in published.beside_ours(published.load(), smoothed).rows
                          if row[0].startswith("quarot")}, {"–"})

    def test_pairs_in_the_published_order_are_counted(self):
        rows = [("smoothquant", {}, 2.0), ("duquant", {}, 0.6), ("ruquant", {}, 0.5)]
        self.assertEqual(self.order_of(rows), (3, 3))
        # DuQuant and RUQuant change places: two pairs of three remain
        self.assertEqual(self.order_of([*rows[:2], ("ruquant", {}, 1.0)]), (2, 3))
        self.assertEqual(self.order_of(rows[:1]), (0, 0))

    def pairs_of(self, design):
        return published.pairs(published.load(), self.run_of(design), "W4A4-Q4K4V4", "LLaMA-2-7B")

    def order_of(self, design):
        pairs = self.pairs_of(design)
        return sum(pair.same for pair in pairs), len(pairs)

    def test_pairs_that_are_told_apart_the_other_way_round_are_named(self):
        rows = [("smoothquant", {}, 0.2), ("duquant", {}, 0.6), ("ruquant", {}, 1.5)]
        pairs = self.pairs_of(rows)
        self.assertEqual([pair.told for pair in pairs], [True] * 3)
        self.assertEqual(published.reversed_words(pairs),
                         "ruquant behind duquant, smoothquant; duquant behind smoothquant")
        close = self.pairs_of([*rows[:2], ("ruquant", {}, 0.6)])
        self.assertFalse(next(pair for pair in close if {pair.first.method, pair.second.method}
                              == {"duquant", "ruquant"}).told)
        self.assertEqual(published.reversed_words(self.pairs_of(rows[:1])), "")

    def test_spinquant_by_gptq_is_the_one_that_learned_on_float_weights(self):
        design = [("spinquant", {"quant.rounding": rounding, "method.weights_in_learning": learned},
                   loss) for rounding, learned, loss in (("rtn", "true", 0.5), ("gptq", "true", 0.9),
                                                         ("gptq", "false", 0.4))]
        number = next(n for n in published.load() if (n.method, n.variant, n.measure)
                      == ("spinquant", "gptq", published.PERPLEXITY))
        widths = {number.setting: 1.0}
        found = published.nearest(self.run_of(design, widths=widths), number)
        self.assertEqual(found.settings["method.weights_in_learning"], "false")
        self.assertIsNone(published.nearest(self.run_of(design[:2], widths=widths), number))

    def test_claims_of_speed_stand_among_the_times(self):
        rows = published.times(published.load()).rows
        self.assertIn(["singlequant", "1400"], [[row[0], row[4]] for row in rows])

    def test_a_letter_stands_for_a_source(self):
        numbers = published.load()
        table = published.perplexities(numbers)
        row = next(row for row in table.rows if row[:2] == ["ruquant", "W4A4-Q4K4V4"])
        self.assertIn(f"({row[-1]}) RUQuant README", table.note)
        self.assertEqual({row[-1] for row in table.rows},
                         set(re.findall(r"\((\w)\) ", table.note)))


if __name__ == "__main__":
    unittest.main()
