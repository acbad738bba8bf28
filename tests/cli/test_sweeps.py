"""Sweeps that work: the run folder, what is done again and what is not, resuming, failing trials."""

import csv
import json
import signal
import subprocess
import time
import unittest

import h5py
import yaml

from support import FIXTURES, METHODS, RANDOM_METHODS, Case, read_safetensors

TWO = "sweep: {method: [rtn, hadamard]}\n"
ALL = "method.block_size: 8\nsweep: {method: [" + ", ".join(METHODS) + "]}\n"


class RunFolder(Case):
    def test_every_method_finishes(self):
        folder = self.run_sweep(self.config(ALL))
        statuses = self.statuses(folder)
        self.assertLessEqual({"rtn", *RANDOM_METHODS}, set(METHODS))
        self.assertEqual(len(statuses), len(METHODS))
        self.assertEqual(set(statuses.values()), {"done"})
        self.assertEqual({result["method"] for result in self.results(folder).values()},
                         set(METHODS))

    def test_files(self):
        config = self.config(TWO)
        folder = self.run_sweep(config)
        self.assertEqual((folder / "sweep.yaml").read_bytes(), config.read_bytes())
        self.assertIn("# tiny\n\ntiny\n", (folder / "summary.md").read_text(encoding="utf-8"))
        for trial in self.statuses(folder):
            self.assertEqual({path.name for path in (folder / trial).iterdir()},
                             {"config.yaml", "status", "log.txt", "plan.h5", "results.h5",
                              "results.json", "timing.json"})
        self.assertEqual(list(folder.rglob("*.tmp*")), [])

    def test_summary_has_a_row_a_trial(self):
        folder = self.run_sweep(self.config("sweep: {method: [rtn, quarot], seed: [1, 2]}\n"))
        with open(folder / "summary.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([(row["method"], row["seed"], row["status"]) for row in rows],
                         [("rtn", "", "done"), ("quarot", "1", "done"), ("quarot", "2", "done")])
        results = {result["trial"]: result for result in self.results(folder).values()}
        for row in rows:
            for name, value in results[row["trial"]]["metrics"].items():
                self.assertEqual(float(row[name]), value)
            self.assertGreater(float(row["total_seconds"]), 0)
        self.assertEqual(float(rows[0]["nll_minus_rtn"]), 0)
        quarot = [results[row["trial"]]["windows"]["nll"] for row in rows[1:]]
        expected = sum(a - b for a, b in zip(*quarot)) / 4  # mean over windows, against the mean
        self.assertAlmostEqual(float(rows[1]["nll_minus_quarot"]), expected, places=12)

    def test_results_follow_the_layout(self):
        folder = self.run_sweep(self.config(TWO))
        result = self.results(folder)["hadamard"]
        self.assertEqual((result["format"], result["format_version"]), ("ruquant-results", 1))
        self.assertEqual(result["axes"], {"method": "hadamard"})
        self.assertEqual((result["widths"], result["seed"]), ("W4A4-Q4K4V4", 1))
        self.assertTrue(all(isinstance(value, str) for value in result["config"].values()))
        self.assertEqual(result["config"]["evaluation.window_tokens"], "32")
        self.assertEqual(result["token_ranges"], {"calibration": [0, 4000], "test": [4500, 4564]})
        self.assertEqual(result["inputs"]["model"], "tiny-llama")
        self.assertEqual(result["inputs"]["stream"], "float_samples")
        self.assertEqual(set(result["windows"]), {"nll", "nll_float", "kl", "agreement"})
        self.assertTrue(all(len(values) == 2 for values in result["windows"].values()))
        self.assertEqual(len(result["sites"]), 8)
        self.assertIn("ppl.w32", result["metrics"])
        self.assertEqual(result["build_preset"], "release")
        timing = json.loads((folder / result["trial"] / "timing.json").read_text())
        self.assertLessEqual({"plan_seconds", "evaluate_seconds", "total_seconds",
                              "peak_memory_mib", "threads"}, set(timing))

    def test_hdf5_holds_the_same_numbers(self):
        folder = self.run_sweep(self.config(TWO))
        result = self.results(folder)["hadamard"]
        with h5py.File(folder / result["trial"] / "results.h5") as file:
            for name, value in result["metrics"].items():
                self.assertEqual(file[f"metrics/{name}"][()], value)
            for name, values in result["windows"].items():
                self.assertEqual(list(file[f"windows/{name}"]), values)
            for site, measures in result["sites"].items():
                layer, kind = site.removeprefix("layers.").split(".")
                for name, value in measures.items():
                    self.assertEqual(file[f"sites/{layer}/{kind}/{name}"][()], value)
            self.assertEqual(json.loads(file.attrs["config"]), result["config"])
            self.assertEqual({name.split(".")[1] for name in file["samples"]} & {"mlp_out"},
                             {"mlp_out"})
            self.assertEqual(len(file["samples"]), 2)
            for name, sample in file["samples"].items():
                self.assertEqual(sample["before"].shape, sample["after"].shape)
                self.assertEqual(sample["before"].shape[0], 4)
                for bins in file[f"bins/{name}"].values():
                    self.assertEqual(bins["code"].shape, (16,))
                    self.assertAlmostEqual(sum(bins["share"]), 1, places=12)
                    self.assertAlmostEqual(sum(bins["within"]) / 16, 1, places=12)


class Again(Case):
    def test_a_second_run_does_nothing(self):
        config = self.config(TWO)
        folder = self.run_sweep(config)
        before = self.moments(folder)
        self.run_sweep(config)
        self.assertEqual(self.moments(folder), before)

    def test_paths_are_no_part_of_a_trial(self):
        folder = self.run_sweep(self.config(TWO))
        before = self.moments(folder)
        moved = self.copy_model().rename(self.folder / "tiny-llama")
        self.run_sweep(self.config(TWO), f"model.path={moved}")
        self.assertEqual(self.moments(folder), before)

    def test_force_does_all_again(self):
        config = self.config(TWO)
        folder = self.run_sweep(config)
        before, results = self.moments(folder), self.result_bytes(folder)
        self.run_sweep(config, "--force")
        after = self.moments(folder)
        self.assertEqual(set(after), set(before))
        self.assertTrue(all(after[path] > moment for path, moment in before.items()))
        self.assertEqual(self.result_bytes(folder), results)

    def test_one_trial_alone(self):
        config = self.config("sweep: {method: [rtn, smoothquant, hadamard]}\n")
        for _ in range(2):  # the second time it is done already
            answer = self.ask(config, "--trial", "1", "--out", self.runs)
            self.assertEqual(answer.code, 0, answer)
            self.assertEqual(list(self.results(self.runs)), ["smoothquant"])

    def test_a_new_value_adds_trials_and_keeps_the_others(self):
        config = self.config("method: hadamard\n")
        folder = self.run_sweep(config, "seed=1,2")
        before = self.moments(folder)
        self.run_sweep(config, "seed=2,3")
        self.assertEqual(len(self.statuses(folder)), 3)
        after = self.moments(folder)
        self.assertEqual({path: after[path] for path in before}, before)


class Interrupted(Case):
    MANY = "method: hadamard\nsweep: {seed: [" + ", ".join(map(str, range(1, 31))) + "]}\n"

    def start_and_kill(self, config, *words):
        """Kills runexp once some trials are done; returns their ids."""
        process = subprocess.Popen(
            self.command(config, *words, "--out", self.runs, "--no-figures"),
            env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        while True:
            done = [trial for trial, status in self.statuses(self.runs).items()
                    if status == "done"]
            if len(done) >= 3:
                break
            self.assertIsNone(process.poll(), "ended before it could be killed")
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return {trial for trial, status in self.statuses(self.runs).items() if status == "done"}

    def resumes(self, *words):
        config = self.config(self.MANY)
        done = self.start_and_kill(config, *words)
        self.assertLess(len(done), 30)
        time.sleep(0.1)  # workers of the killed run are gone
        before = {path: moment for path, moment in self.moments(self.runs).items()
                  if path.parent.name in done}
        (self.runs / "0123456789abcdef").mkdir()  # a trial of another configuration
        self.run_sweep(config, *words)
        statuses = self.statuses(self.runs)
        self.assertEqual(len(statuses), 30)
        self.assertEqual(set(statuses.values()), {"done"})
        after = self.moments(self.runs)
        self.assertEqual({path: after[path] for path in before}, before)
        self.assertEqual([path for path in self.runs.glob("*/*") if ".tmp" in path.name], [])

    def test_resumes(self):
        self.resumes("--jobs", "1")

    def test_resumes_after_workers(self):
        self.resumes("--jobs", "2")

    def test_what_an_interrupted_trial_left_is_gone(self):
        config = self.config("method: rtn\n")
        folder = self.run_sweep(config)
        (trial,) = self.statuses(folder)
        (folder / trial / "status").write_text("running\n", encoding="utf-8")
        (folder / trial / "results.json.tmp-1").write_text("{", encoding="utf-8")
        told = self.ask(config, "--status", "--out", folder).out
        self.assertIn("rtn: begun, not finished", told)
        self.run_sweep(config)
        self.assertEqual(self.statuses(folder), {trial: "done"})
        self.assertFalse((folder / trial / "results.json.tmp-1").exists())


class Failing(Case):
    def setUp(self):
        """A channel of a norm is 10^12 times the others and its weights as much smaller: float
        cannot rotate such an input, so hadamard's check fails, and nobody else's does."""
        super().setUp()
        model = self.copy_model()
        _, tensors, content = read_safetensors(model / "model.safetensors")
        tensors["model.layers.0.input_layernorm.weight"][5] = 1e12
        for name in ("q_proj", "k_proj", "v_proj"):
            tensors[f"model.layers.0.self_attn.{name}.weight"][:, 5] = 1e-12
        (model / "model.safetensors").write_bytes(bytes(content))
        self.sweep = self.config("method.smoothing: none\n"
                                 "sweep: {method: [rtn, hadamard, quarot]}\n")
        self.words = (f"model.path={model}", "activations.measure=false")

    def check(self, jobs):
        folder = self.run_sweep(self.sweep, *self.words, "--jobs", jobs, code=1)
        by_method = {}
        for trial, status in self.statuses(folder).items():
            told = yaml.safe_load((folder / trial / "config.yaml").read_text(encoding="utf-8"))
            by_method[told["method"]] = status
        self.assertEqual((by_method["rtn"], by_method["quarot"]), ("done", "done"))
        self.assertRegex(by_method["hadamard"], "^failed: the plan's transforms change the float")
        self.assertIn("hadamard", (folder / "summary.md").read_text().split("## Not finished")[1])
        self.assertIn('"failed: ', (folder / "summary.csv").read_text(encoding="utf-8"))

    def test_others_are_done_and_recorded(self):
        self.check("1")

    def test_others_are_done_and_recorded_by_workers(self):
        self.check("2")

    def test_the_trial_alone(self):
        answer = self.ask(self.sweep, *self.words, "--trial", "1", "--out", self.runs)
        self.assertEqual(answer.code, 1, answer)

    def test_the_failures_are_printed(self):
        answer = self.ask(self.sweep, *self.words, "--out", self.runs, "--no-figures", "--quiet")
        self.assertEqual(answer.code, 1, answer)
        self.assertRegex(answer.out, r"(?m)^[0-9a-f]{16}  hadamard  failed: ")


class Preparing(Case):
    def test_what_one_trial_cannot_have_is_made_for_the_others(self):
        model = self.copy_model()
        _, tensors, content = read_safetensors(model / "model.safetensors")
        tensors["model.layers.0.input_layernorm.weight"][:] = 3e38  # infinity behind the norm
        (model / "model.safetensors").write_bytes(bytes(content))
        config = self.config("method: rtn\nactivations.measure: false\n"
                             f"sweep: {{model.path: [{model}, {FIXTURES / 'tiny-llama'}]}}\n")
        answer = self.ask(config, "--jobs", "2", "--out", self.runs, "--no-figures")
        self.assertEqual(answer.code, 1, answer)
        self.assertEqual(sorted(status.split(":")[0] for status in
                                self.statuses(self.runs).values()), ["done", "failed"])
        # Said by the process that prepares; workers are quiet.
        self.assertIn("float reference on 64 tokens", answer.err)


class Numbers(Case):
    def test_same_bytes_for_any_threads_and_jobs(self):
        config = self.config(ALL)
        expected = self.result_bytes(
            self.run_sweep(config, "--threads", "1", out=self.folder / "one"))
        self.assertEqual(len(expected), len(METHODS))
        for name, words in (("threads", ("--threads", "2")),
                            ("jobs", ("--jobs", "2", "--threads", "1"))):
            # A cache of its own: nothing that the first run computed is read back.
            answer = self.ask(config, *words, "--out", self.folder / name, "--no-figures",
                              RUQ_CACHE=str(self.folder / f"cache-{name}"))
            self.assertEqual(answer.code, 0, answer)
            self.assertEqual(self.result_bytes(self.folder / name), expected)

    def test_sixteen_bits_are_float(self):
        folder = self.run_sweep(self.config(ALL), "quant.widths=W16A16-Q16K16V16")
        for label, result in self.results(folder).items():
            over = result["metrics"]["nll_over_float"]
            if label == "rtn":
                self.assertEqual((over, result["metrics"]["kl"]), (0, 0))
                self.assertEqual(result["windows"]["nll"], result["windows"]["nll_float"])
            self.assertLess(abs(over), 2e-5, label)
            self.assertEqual(result["metrics"]["agreement"], 1, label)

    def test_seeds_draw_different_plans(self):
        config = self.config("method.block_size: 8\nsweep: {method: ["
                             + ", ".join(RANDOM_METHODS) + "], seed: [1, 2]}\n")
        results = self.results(self.run_sweep(config))
        for method in RANDOM_METHODS:
            nll = {results[f"{method} seed={seed}"]["metrics"]["nll"] for seed in (1, 2)}
            self.assertEqual(len(nll), 2, method)


class CalibrationText(Case):
    def test_what_calibrates_is_chosen_apart_from_what_is_scored(self):
        tokens = FIXTURES / "tiny-tokens.h5"
        folder = self.run_sweep(self.config(
            f"method: smoothquant\ncalibration.path: {tokens}\n"
            "sweep: {calibration.source: [same, random, tokens]}\n"))
        found = {}
        for path in folder.glob("*/results.json"):
            result = json.loads(path.read_text(encoding="utf-8"))
            found[result["config"]["calibration.source"]] = result
        losses = {source: result["windows"]["nll"] for source, result in found.items()}
        self.assertEqual(losses["tokens"], losses["same"])  # the same tokens by another way
        self.assertNotEqual(losses["random"], losses["same"])
        self.assertEqual(len({str(r["windows"]["nll_float"]) for r in found.values()}), 1)
        self.assertEqual(found["random"]["inputs"]["calibration_text"], "random tokens")
        self.assertNotIn("calibration_text", found["same"]["inputs"])
        again = self.run_sweep(self.config(
            "method: smoothquant\ncalibration.source: random\n"), out=self.folder / "again")
        (other,) = self.results(again).values()
        self.assertEqual(other["windows"]["nll"], losses["random"])


class YoungOption(Case):
    def test_a_trial_older_than_an_option_counts_with_its_default(self):
        config = self.config(
            "method: smoothquant\n"
            "trends: [{claim: text is better, lower: {calibration.source: same}, "
            "than: {calibration.source: random}}]\n"
            "sweep: {calibration.source: [same, random]}\n")
        folder = self.run_sweep(config)
        for path in folder.glob("*/results.json"):
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["config"]["calibration.source"] == "same":
                del result["config"]["calibration.source"]
                path.write_text(json.dumps(result), encoding="utf-8")
        self.run_sweep(config)
        (trend,) = json.loads((folder / "trends.json").read_text(encoding="utf-8"))
        self.assertEqual(trend["pairs"], 1)


    def test_seeds_of_one_setting_stay_together(self):
        config = self.config("method: ruquant\nmethod.block_size: 8\nactivations.measure: false\n"
                             "sweep: {calibration.source: same, seed: [1, 2]}\n")
        folder = self.run_sweep(config)
        path = next(folder.glob("*/results.json"))
        result = json.loads(path.read_text(encoding="utf-8"))
        del result["config"]["calibration.source"], result["axes"]["calibration.source"]
        path.write_text(json.dumps(result), encoding="utf-8")
        self.run_sweep(config)
        summary = (folder / "summary.md").read_text(encoding="utf-8")
        self.assertIn("| ruquant calibration.source=same | 2 |", summary)
        resolved = json.loads((folder / "resolved.json").read_text(encoding="utf-8"))
        self.assertEqual(resolved[result["trial"]]["config"], {"calibration.source": "same"})
        self.assertEqual(resolved[result["trial"]]["axes"]["calibration.source"], "same")

    def test_trends_of_an_earlier_run_do_not_stay(self):
        config = self.config("sweep: {method: [rtn, smoothquant]}\n"
                             "trends: [{claim: scales help, lower: {method: smoothquant}, "
                             "than: {method: rtn}}]\n")
        folder = self.run_sweep(config)
        self.assertTrue((folder / "trends.json").exists())
        self.run_sweep(config, "method=rtn")
        self.assertFalse((folder / "trends.json").exists())


class Learned(Case):
    """Plans that were learned, and roundings that need data."""

    ROUNDINGS = ("method: flatquant\nactivations.measure: false\n"
                 "method.learning_windows: 2\nmethod.held_out_windows: 1\n"
                 "method.learning_tokens: 32\nmethod.epochs: 2\n"
                 "sweep: {quant.rounding: [rtn, gptq, uniquanf]}\n")

    def plan_seconds(self, folder):
        """What drawing up each trial's plan took: the same to the last bit for the same drawing."""
        return [json.loads((folder / trial / "timing.json").read_text(encoding="utf-8"))
                ["plan_seconds"] for trial in self.statuses(folder)]

    def test_a_plan_is_learned_once_for_all_roundings(self):
        folder = self.run_sweep(self.config(self.ROUNDINGS), "calibration.windows=4")
        results = list(self.results(folder).values())
        self.assertEqual(len(results), 3)
        learned = [[record for record in result["learning"] if record["optimizer"] == "adamw"]
                   for result in results]
        self.assertEqual(len(learned[0]), 3)
        self.assertEqual(learned[0], learned[1])
        self.assertEqual(learned[0], learned[2])
        self.assertEqual(len(set(self.plan_seconds(folder))), 1)
        for result in results:
            self.assertGreater(result["metrics"]["weight.effective_bits"], 4)
            self.assertIn("learning.held_out_ratio", result["metrics"])
        with h5py.File(folder / results[0]["trial"] / "results.h5") as file:
            self.assertEqual(file["learning/000.layers.0"].shape, (4,))

    def test_workers_learn_a_plan_once(self):
        folder = self.run_sweep(self.config(self.ROUNDINGS), "calibration.windows=4", "--jobs", "3")
        seconds = self.plan_seconds(folder)
        self.assertEqual((len(seconds), len(set(seconds))), (3, 1))
        self.assertEqual(list((self.folder / "cache").rglob("*.lock")), [])

    def test_roundings_with_data_are_the_same_in_one_process_and_in_two(self):
        config = self.config("method: quarot\n"
                             "sweep: {quant.rounding: [gptq, septq, flexround]}\n")
        one, two = (self.results(self.run_sweep(config, "--jobs", jobs, "calibration.windows=4",
                                                "quant.widths=W3A16-Q16K16V16",
                                                out=self.folder / jobs)) for jobs in ("1", "2"))
        self.assertEqual({label: result["metrics"] for label, result in one.items()},
                         {label: result["metrics"] for label, result in two.items()})


if __name__ == "__main__":
    unittest.main()
