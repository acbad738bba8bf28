import json
import tempfile
import unittest
from pathlib import Path

import fixture
import numpy as np
from analysis import compare, labels, load, runs

DESIGN = [("rtn", {}, 3.0), ("quarot", {}, 0.5), ("ruquant", {"method.block_size": "64"}, 0.6),
          ("ruquant", {}, 0.45), ("ruquant", {"method.partition": "contiguous"}, 0.55)]


class RunFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = fixture.make_run(Path(holder.name) / "run", DESIGN, samples=False)

    def trial_folder(self, method, nth=0):
        found = [path for path in sorted(self.folder.glob("t*"))
                 if json.loads((path / "results.json").read_text())["method"] == method]
        return found[nth]

    def edit(self, folder, change):
        path = folder / "results.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    def error(self):
        with self.assertRaises(runs.RunError) as caught:
            load.load_run(self.folder)
        self.assertNotIn("\n", str(caught.exception))
        return str(caught.exception)


class Gathering(RunFolder):
    def test_all_rows(self):
        run = load.load_run(self.folder)
        self.assertEqual(len(run.trials), 2 + 4 * 2 * 3)  # rtn once a width, the rest at 3 seeds
        self.assertEqual(run.widths, ["W4A4-Q4K4V4", "W6A6-Q6K6V6"])
        self.assertEqual(run.skipped, [])
        group = next(group for group in run.groups if group.method == "quarot")
        self.assertEqual(group.seeds, [1, 2, 3])
        self.assertEqual(group.windows("nll").shape, (3, fixture.WINDOWS))
        over = (group.windows("nll") - group.windows("nll_float")).mean(axis=1)
        np.testing.assert_allclose(over, group.losses, atol=1e-12)

    def test_labels_name_what_varies_within_a_method(self):
        run = load.load_run(self.folder)
        found = {group.label for group in run.groups}
        self.assertEqual(found, {"rtn", "quarot", "ruquant (B=64, zigzag)",
                                 "ruquant (B=128, zigzag)", "ruquant (B=128, contiguous)"})
        short = {run.short(group) for group in run.groups if group.method == "ruquant"}
        self.assertEqual(short, {"ruquant", "ruquant · B=64", "ruquant · contiguous"})
        chosen = {group.label for group in run.representatives("W4A4-Q4K4V4")}
        self.assertEqual(chosen, {"rtn", "quarot", "ruquant (B=128, zigzag)"})

    def test_what_is_measured_besides_is_no_setting(self):
        before = [group.label for group in load.load_run(self.folder).groups]
        for nth in range(6):
            self.edit(self.trial_folder("quarot", nth), lambda data, own=str(nth % 2): [
                data[part].update({"activations.measure": own}) for part in ("config", "axes")])
        self.assertEqual([group.label for group in load.load_run(self.folder).groups], before)

    def test_a_group_is_picked_by_its_options(self):
        run = load.load_run(self.folder)
        widths = run.widths[0]
        found = run.pick("ruquant", widths, {"method.block_size": "64", "of.another": "method"})
        self.assertEqual(found.settings["method.block_size"], "64")
        self.assertIsNone(run.pick("ruquant", widths, {"method.block_size": "7"}))
        with self.assertRaisesRegex(runs.RunError, "are one where B=128 is asked for"):
            run.pick("ruquant", widths, {"method.block_size": "128"})

    def test_of_two_versions_the_one_with_more_options_is_picked(self):
        for path in [p for p in self.folder.glob("t*")]:
            data = json.loads((path / "results.json").read_text())
            if data["method"] == "quarot":
                data["trial"] = f"{path.name}n"
                for each in (data["config"], data["axes"]):
                    each["method.younger"] = "0"
                fixture.write_trial(self.folder / data["trial"], data)
        run = load.load_run(self.folder)
        self.assertEqual(sum(g.method == "quarot" for g in run.groups), 4)
        found = run.pick("quarot", run.widths[0], {})
        self.assertEqual(found.settings, {"method.younger": "0"})

    def test_places_that_were_judged_without_learning_have_a_ratio(self):
        record = {"where": "layers.0", "optimizer": "adamw", "steps": 0, "held_out_initial": 2.0,
                  "held_out_final": 1.0, "details": {"noise": 3.0}}
        self.edit(self.trial_folder("quarot"), lambda data: data.update(learning=[
            record, {**record, "where": "layers.1", "optimizer": "", "details": {}},
            {**record, "where": "layers.2", "steps": 4}]))
        name = self.trial_folder("quarot").name
        trial = next(t for t in load.load_run(self.folder).trials if t.folder.name == name)
        self.assertEqual(trial.held_out_ratios(), {"layers.1": 0.5, "layers.2": 0.5})
        self.assertEqual(trial.learning_details("noise"), [3.0, 3.0])

    def test_random_methods(self):
        run = load.load_run(self.folder)
        self.assertFalse(run.is_random("rtn"))
        self.assertTrue(run.is_random("quarot"))

    def test_a_method_said_to_be_seedless_is_not_trusted_when_its_seeds_differ(self):
        def change(data):
            data["seed"] = 5
            data["metrics"]["nll"] += 0.1
        folder = self.folder / "t999"
        data = json.loads((self.trial_folder("rtn") / "results.json").read_text())
        fixture.write_trial(folder, data)
        self.edit(folder, change)
        self.assertTrue(load.load_run(self.folder).is_random("rtn"))

    def test_samples_are_read_when_asked(self):
        trial = load.load_run(self.folder).trials[0]
        self.assertEqual((trial.samples(), trial.revision()), ({}, ""))
        rng = np.random.default_rng(1)
        fixture.write_samples(trial.folder, trial.method, rng, channels=32, tokens=16)
        before, after = trial.samples()["10.mlp_in"]
        self.assertEqual(before.shape, (16, 32))
        self.assertEqual(after.dtype, np.float32)
        self.assertEqual(trial.revision(), "fab123")

    def test_null_is_a_diverged_loss(self):
        self.edit(self.trial_folder("quarot"),
                  lambda data: data["metrics"].update(nll_over_float=None))
        run = load.load_run(self.folder)
        self.assertEqual([g.diverged for g in run.groups if g.method == "quarot"], [1, 0])

    def test_a_trial_worse_than_guessing_is_no_reference(self):
        self.edit(self.trial_folder("rtn"), lambda data: data.update(diverged="by hand"))
        run = load.load_run(self.folder)
        lost = next(g for g in run.groups if g.method == "rtn" and g.diverged)
        other = next(g for g in run.groups if g.method == "ruquant" and g.widths == lost.widths)
        self.assertTrue(np.isfinite(lost.losses).all())
        self.assertEqual(compare.compare(other, lost).verdict, "diverged")
        self.assertIsNone(compare.reference_group(run, "rtn", other))

    def test_options_younger_than_a_trial_have_their_values(self):
        path = self.trial_folder("quarot")
        self.edit(path, lambda data: (data["config"].pop("quant.rounding", None),
                                      data.update(trial="old")))
        (self.folder / "resolved.json").write_text(json.dumps({"old": {
            "axes": {"method": "quarot", "quant.rounding": "rtn"},
            "config": {"quant.rounding": "rtn"}}}))
        trial = next(t for t in load.load_run(self.folder).trials if t.trial == "old")
        self.assertEqual(trial.config["quant.rounding"], "rtn")
        self.assertEqual(trial.axes["quant.rounding"], "rtn")
        (self.folder / "resolved.json").write_text(json.dumps({"old": {"axes": {}}}))
        self.assertIn("resolved.json: old lacks config", self.error())

    def test_clip_ratios_that_agree_are_named_together(self):
        settings = {f"quant.{name}.clip_ratio": "1" for name in ("activation", "keys")}
        self.assertEqual(labels.setting_list({**settings, "quant.weight.clip_ratio": "0.8"}),
                         ["clip of activations, keys 1", "clip of weights 0.8"])

    def test_labels_of_single_settings(self):
        settings = {"method.smoothing": "none", "method.global_reflection": "init",
                    "method.rotation": "givens", "quant.weight.clip_ratio": "0.9"}
        self.assertEqual(labels.label("ruquant", settings), "ruquant (givens, reflection init, "
                         "no smoothing, clip of weights 0.9)")
        self.assertEqual(labels.setting_list({
            "method.preset": "duquant", "method.urt": "false", "method.art_tokens": "massive",
            "quant.weight.rule": "omniquant", "quant.weight.group_size": "0",
            "method.weights_in_learning": "false"}),
            ["as duquant smooths", "ART of massive tokens", "no URT",
             "learned on float weights", "no groups", "min-max grid"])


class Unfinished(RunFolder):
    def test_failed_and_running_trials_are_kept_aside(self):
        (self.trial_folder("quarot", 0) / "status").write_text("failed: NaN at layers.3.mlp_out\n")
        (self.trial_folder("quarot", 1) / "status").write_text("running\n")
        run = load.load_run(self.folder)
        self.assertEqual([item.why for item in run.skipped],
                         ["failed: NaN at layers.3.mlp_out", "running"])
        self.assertEqual(len(run.trials), 24)

    def test_results_of_an_unfinished_trial_are_not_read(self):
        folder = self.trial_folder("quarot")
        (folder / "status").write_text("running\n")
        (folder / "results.json").write_text("{ half a fi")
        self.assertEqual(len(load.load_run(self.folder).skipped), 1)

    def test_summary_says_what_a_failed_trial_was(self):
        folder = self.trial_folder("quarot")
        (folder / "status").write_text("failed: why\n")
        (self.folder / "summary.csv").write_text(
            f"trial,status,method,seed,widths,nll\n{folder.name},failed: why,quarot,1,W4A4,\n")
        self.assertEqual(load.load_run(self.folder).skipped[0].about, "quarot 1 W4A4")

    def test_nothing_finished(self):
        for path in self.folder.glob("t*"):
            (path / "status").write_text("running\n")
        self.assertIn("no finished trial", self.error())


class Strictness(RunFolder):
    def test_format_version(self):
        self.edit(self.trial_folder("rtn"), lambda data: data.update(format_version=2))
        self.assertIn("format_version is 2", self.error())

    def test_missing_keys(self):
        for key in load.KEYS:
            folder = self.trial_folder("rtn")
            kept = (folder / "results.json").read_text()
            self.edit(folder, lambda data: data.pop(key))
            self.assertIn(f"'{key}' is missing", self.error())
            (folder / "results.json").write_text(kept)

    def test_missing_inner_keys(self):
        self.edit(self.trial_folder("rtn"), lambda data: data["windows"].pop("nll_float"))
        self.assertIn("windows lacks nll_float", self.error())

    def test_wrong_kinds(self):
        self.edit(self.trial_folder("rtn"), lambda data: data["metrics"].update(kl="small"))
        self.assertIn("'small' is not a number", self.error())

    def test_broken_json_and_missing_timing(self):
        folder = self.trial_folder("rtn")
        (folder / "timing.json").unlink()
        self.assertIn("timing.json is missing", self.error())
        (folder / "results.json").write_text("{")
        self.assertIn("is not JSON", self.error())

    def test_no_folder(self):
        with self.assertRaisesRegex(runs.RunError, "no such run folder"):
            load.load_run(self.folder / "nowhere")

    def test_two_trials_that_are_the_same(self):
        data = json.loads((self.trial_folder("quarot") / "results.json").read_text())
        data["trial"] = "t999"
        fixture.write_trial(self.folder / "t999", data)
        self.assertIn("are both quarot, W4A4-Q4K4V4, seed 1", self.error())

    def test_summary_settles_which_trial_is_left_over(self):
        names = [path.name for path in sorted(self.folder.glob("t*"))]
        data = json.loads((self.trial_folder("quarot") / "results.json").read_text())
        data["trial"] = "t999"
        fixture.write_trial(self.folder / "t999", data)
        (self.folder / "summary.csv").write_text(
            "trial,status,widths\n" + "".join(f"{name},done,W\n" for name in names))
        run = load.load_run(self.folder)
        self.assertEqual(len(run.trials), len(names))
        self.assertEqual([item.trial for item in run.skipped], ["t999"])

    def test_other_windows_are_not_mixed(self):
        def change(data):
            data["windows"]["nll_float"][0] += 0.5
        self.edit(self.trial_folder("quarot"), change)
        self.assertIn("different windows", self.error())


if __name__ == "__main__":
    unittest.main()
