import contextlib
import csv
import io
import math
import re
import tempfile
import unittest
from pathlib import Path

import fixture
import numpy as np
from PIL import Image

from analysis import (compare, draw, fig_learning, fig_loss_by_method, fig_trends, load, report,
                      runs, stats, style)

DESIGN = [("rtn", {}, 3.0), ("quarot", {}, 0.5), ("ruquant", {"method.block_size": "64"}, 0.6),
          ("ruquant", {}, 0.45)]


def group(is_random, seeds):
    return runs.Group("m", "m", "W4A4-Q4K4V4", {}, is_random, tuple(range(seeds)))


class PreviewMark(unittest.TestCase):
    def test_only_random_methods_count(self):
        self.assertEqual(style.preview_mark([group(False, 1)]), "")
        self.assertEqual(style.preview_mark([group(True, 5), group(False, 1)]), "")

    def test_the_fewest_seeds_are_named(self):
        self.assertEqual(style.preview_mark([group(True, 5), group(True, 3)]), "PREVIEW: 3 seeds")
        self.assertEqual(style.preview_mark([group(True, 4), group(True, 1)]), "PREVIEW: 1 seed")


class AxisRange(unittest.TestCase):
    def test_a_wide_interval_does_not_flatten_a_panel(self):
        reached = style.reach([[1.0, 2.0]], [stats.Interval(1.5, 100, 2)])
        self.assertEqual((min(reached), max(reached)), (0.8, 2.5))

    def test_a_single_value_shows_its_interval(self):
        reached = style.reach([[4.5]], [stats.Interval(4.5, 0.4, 8)])
        self.assertAlmostEqual(min(reached), 4.1)
        self.assertAlmostEqual(max(reached), 4.9)


class Differences(unittest.TestCase):
    def scaled(self, values, letter="x"):
        figure, panel = style.plt.subplots()
        self.addCleanup(style.plt.close, figure)
        axis = getattr(panel, f"{letter}axis")
        limits = style.scale_differences(axis, values)
        return getattr(panel, f"get_{letter}scale")(), limits, list(axis.get_majorticklocs())

    def test_alike_differences_are_on_a_linear_axis(self):
        scale, limits, _ = self.scaled([0.1, 0.2, math.nan])
        self.assertEqual(scale, "linear")
        self.assertLess(limits[0], 0)  # zero is in view and not at the edge

    def test_a_far_one_bends_the_axis_beyond_the_usual_size(self):
        scale, limits, ticks = self.scaled([-0.04, 0.05, 0.06, 3.0])
        self.assertEqual(scale, "symlog")
        self.assertLess(limits[0], -0.04)
        self.assertEqual([tick for tick in ticks if tick >= 0], [0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
        self.assertEqual([tick for tick in self.scaled([-0.04, 0.05, 0.06, 3.0], "y")[2]
                          if tick >= 0], [0, 0.1, 0.5, 2, 10])

    def test_no_difference_at_all(self):
        self.assertEqual(self.scaled([0.0, 0.0])[0], "linear")


class Comparisons(unittest.TestCase):
    def made(self, losses, seeds=(1, 2, 3)):
        """Groups whose windows lie exactly `losses[method][seed]` over float."""
        floats = 2.5 + 0.1 * np.arange(fixture.WINDOWS)
        trials = []
        for method, values in losses.items():
            for seed, loss in zip(seeds, values):
                data = fixture.results(f"{method}{seed}", method, {}, "W4A4-Q4K4V4", seed)
                # a known wave over the windows, so that the interval over windows has a width
                fixture.add_loss(data, loss, floats)
                wave = 0.02 * np.cos(np.arange(fixture.WINDOWS) * len(method))
                wave -= wave.mean()
                data["windows"]["nll"] = list(np.array(data["windows"]["nll"]) + wave)
                trials.append(self.load(data))
        run = runs.Run(Path("."), trials)
        return run, {g.method: g for g in run.groups}

    def load(self, data):
        with tempfile.TemporaryDirectory() as folder:
            fixture.write_trial(Path(folder) / "t", data)
            return load.load_trial(Path(folder) / "t")

    def verdict(self, losses, **options):
        run, groups = self.made(losses, **options)
        return compare.compare(groups["ruquant"], groups["quarot"]).verdict

    def test_verdicts(self):
        self.assertEqual(self.verdict({"ruquant": [.40, .41, .42], "quarot": [.60, .61, .62]}),
                         "lower")
        self.assertEqual(self.verdict({"ruquant": [.70, .71, .72], "quarot": [.60, .61, .62]}),
                         "higher")
        # lower on every window, but the seeds disagree
        self.assertEqual(self.verdict({"ruquant": [.10, .55, .70], "quarot": [.60, .61, .62]}),
                         "not separated")
        self.assertEqual(self.verdict({"ruquant": [.40], "quarot": [.60]}),
                         "lower on this seed only")

    def test_fewer_than_ten_windows_and_seeds_make_no_order(self):
        run, groups = self.made({"ruquant": [.40, .41, .42], "quarot": [.60, .61, .62]})
        for trial in run.trials:
            trial.windows.update({name: values[1:] for name, values in trial.windows.items()})
        pair = compare.compare(groups["ruquant"], groups["quarot"])
        self.assertEqual(pair.windows.n, compare.FEWEST - 1)
        self.assertEqual(pair.windows.side, -1)
        self.assertEqual(pair.verdict, "too few")
        self.assertIn("nothing is claimed", compare.sentences(run, [pair])[0])

    def test_sentences_say_no_more_than_the_verdict(self):
        run, groups = self.made({"ruquant": [.40, .41, .42], "quarot": [.60, .61, .62]})
        pair = compare.compare(groups["ruquant"], groups["quarot"])
        text, = compare.sentences(run, [pair])
        self.assertRegex(text, r"^Lower loss than quarot.*ruquant \(−0\.20\)")
        self.assertIn("as few as 3 seeds", text)

    def test_the_reference_is_its_best_variant(self):
        run = runs.Run(Path("."), [
            self.trial("quarot", {"method.smoothing": "none"}, 0.5),
            self.trial("quarot", {"method.smoothing": "0.6"}, 0.4),
            self.trial("ruquant", {"method.smoothing": "0.6"}, 0.3)])
        found = compare.reference_group(run, "quarot", run.groups[-1])
        self.assertEqual(found.label, "quarot (α=0.6)")

    def trial(self, method, settings, loss):
        data = fixture.results(method, method, settings, "W4A4-Q4K4V4", 1, list(settings))
        fixture.add_loss(data, loss, [2.5] * fixture.WINDOWS)
        return self.load(data)

    def test_other_quantizers_are_not_compared(self):
        quarot = self.trial("quarot", {"quant.weight.clip_ratio": "1"}, 0.5)
        ruquant = self.trial("ruquant", {"quant.weight.clip_ratio": "0.9"}, 0.4)
        run = runs.Run(Path("."), [quarot, ruquant])
        self.assertEqual(compare.comparisons(run, run.groups), {})


class Drawing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        levels = [("ruquant", {"quant.activation_levels": name}, loss)
                  for name, loss in fixture.LEVELS.items()]
        cls.folder = fixture.make_run(Path(holder.name) / "demo", DESIGN + levels, bins=True,
                                      tasks=("piqa", "arc_easy"))
        fixture.write_trends(cls.folder)
        (cls.folder / "t003" / "status").write_text("failed: NaN at layers.3.mlp_out\n")
        cls.lines = draw.draw(cls.folder)

    def test_every_figure_is_there_in_three_forms(self):
        names = {figure.NAME for figure in draw.FIGURES}
        for name in names:
            for kind in ("pdf", "png", "csv"):
                self.assertGreater((self.folder / "figures" / f"{name}.{kind}").stat().st_size, 100)
        # One seed of quarot failed; some figures show ruquant alone.
        alone = ("learning", "ablation", "sensitivity", "levels")
        for name in names:
            line = next(line for line in self.lines if f"/{name}.pdf" in line)
            self.assertIn(f"PREVIEW: {3 if name in alone else 2} seeds", line)

    def test_captions_hold_the_provenance(self):
        for figure in draw.FIGURES:
            image = Image.open(self.folder / "figures" / f"{figure.NAME}.png")
            caption = image.text["Description"]
            for words in ("toy-model", "float means 4-bit blocks dequantized", "toytext",
                          "10 windows of 1024 tokens", "test tokens 500,000 to 510,240",
                          "W4A4-Q4K4V4", "Seeds: 1–3", "Presets: official"):
                self.assertIn(words, caption)
            self.assertRegex(caption, "PREVIEW: [23] seeds")

    def test_csv_holds_the_numbers_of_the_run(self):
        run = load.load_run(self.folder)
        with (self.folder / "figures" / "loss_by_method.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), len(run.trials))
        for group_ in run.groups:
            own = [row for row in rows
                   if (row["label"], row["widths"]) == (group_.label, group_.widths)]
            np.testing.assert_allclose([float(row["nll_over_float"]) for row in own],
                                       group_.losses, rtol=1e-5)
            self.assertAlmostEqual(float(own[0]["mean"]), float(np.mean(group_.losses)), 5)

    def test_report_stands_alone(self):
        page = (self.folder / "report.html").read_text()
        self.assertEqual(page.count("data:image/png;base64,"), len(draw.FIGURES))
        self.assertIsNone(re.search(r"""(src|href)=["']?(https?:|//)|url\(|@import""", page))
        for words in ("failed: NaN at layers.3.mlp_out", "fab123", "PREVIEW: 2 seeds",
                      "What the intervals allow to claim", "Against quarot"):
            self.assertIn(words, page)

    def test_drawing_again_gives_the_same_bytes(self):
        again = fig_loss_by_method.draw(load.load_run(self.folder), self.folder / "again")
        for path in (again.pdf, again.png, again.csv):
            self.assertEqual(path.read_bytes(),
                             (self.folder / "figures" / path.name).read_bytes())


class Expectations(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = fixture.make_run(Path(holder.name) / "run",
                                       [("ruquant", {}, 0.5), ("rtn", {}, 2.0)], seeds=(1, 2))
        fixture.write_trends(self.folder)

    def rows(self, figure):
        figure.draw(load.load_run(self.folder), self.folder / "figures")
        with (self.folder / "figures" / f"{figure.NAME}.csv").open() as file:
            return list(csv.DictReader(file))

    def test_every_claim_with_data_has_a_line(self):
        rows = self.rows(fig_trends)
        self.assertEqual([row["verdict"] for row in rows],
                         ["confirmed", "contradicted", "unresolved", "no data"])
        self.assertEqual((rows[0]["difference"], rows[0]["half_width"]), ("-0.07", "0.02"))
        self.assertEqual(rows[3]["half_width"], "")

    def test_a_changed_verdict_changes_picture_and_numbers(self):
        before = self.rows(fig_trends)
        picture = (self.folder / "figures" / "trends.png").read_bytes()
        path = self.folder / "trends.json"
        path.write_text(path.read_text().replace("-0.07", "-0.09"))
        self.assertNotEqual(self.rows(fig_trends), before)
        self.assertNotEqual((self.folder / "figures" / "trends.png").read_bytes(), picture)

    def test_a_broken_file_of_verdicts_is_named(self):
        (self.folder / "trends.json").write_text("[{}]")
        with self.assertRaisesRegex(runs.RunError, "trends.json"):
            self.rows(fig_trends)

    def test_learning_is_shown_for_blocks_alone(self):
        rows = self.rows(fig_learning)
        self.assertEqual(len(rows), 4 * 2 * 2)  # blocks, seeds, widths
        run = load.load_run(self.folder)
        trial = next(t for t in run.trials if t.method == "ruquant" and t.seed == 2
                     and t.widths == rows[0]["widths"])
        own = [row for row in rows if (row["seed"], row["widths"]) == ("2", trial.widths)]
        np.testing.assert_allclose([float(row["held_out_ratio"]) for row in own],
                                   [r["held_out_final"] / 2 for r in trial.learning[:4]], rtol=1e-5)

    def test_nothing_learned_is_no_figure(self):
        folder = fixture.make_run(self.folder / "plain", [("rtn", {}, 2.0)])
        for figure in (fig_learning, fig_trends):
            with self.assertRaises(style.Unsupported):
                figure.draw(load.load_run(folder), folder / "figures")


class Partial(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name) / "run"

    def test_a_figure_without_data_is_named_with_its_reason(self):
        fixture.make_run(self.folder, DESIGN[:2], seeds=(1, 2, 3, 4, 5),
                         widths={"W4A4-Q4K4V4": 1.0})
        lines = draw.draw(self.folder)
        self.assertIn("not drawn: bits: losses at one width setting only", lines)
        self.assertIn("not drawn: block_size: no method has losses at two block sizes", lines)
        self.assertFalse(any("PREVIEW" in line for line in lines))
        self.assertNotIn("PREVIEW", (self.folder / "report.html").read_text())

    def test_a_diverged_method_is_shown_as_such(self):
        fixture.make_run(self.folder, DESIGN[:2])
        trial = load.load_run(self.folder).trials[2]
        text = (trial.folder / "results.json").read_text()
        text = re.sub(r'"(nll|nll_over_float|ppl.w1024)": [0-9.]+', r'"\1": null', text)
        text = re.sub(r'"nll": \[[0-9.]+', '"nll": [null', text)
        (trial.folder / "results.json").write_text(text)
        run = load.load_run(self.folder)
        self.assertEqual(sum(group_.diverged for group_ in run.groups), 1)
        figure = fig_loss_by_method.draw(run, self.folder / "figures")
        page = report.write_report(run, [figure], []).read_text()
        self.assertIn("diverged: 1 of 3", page)
        self.assertIn("Diverged, so not compared with rtn: quarot", page)

    def test_bad_input_is_one_line_and_status_two(self):
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            self.assertEqual(draw.main([str(self.folder)]), 2)
        self.assertEqual(error.getvalue().count("\n"), 1)
        self.assertIn("no such run folder", error.getvalue())


if __name__ == "__main__":
    unittest.main()
