"""What runexp prints without running, bases and overrides, dumps, verify, and the job array."""

import json
import re
import subprocess
import unittest

import yaml

from support import BLOCK_LEARNERS, METHODS, SITE_METHODS, Case

GRID = """sweep:
- method: [rtn, hadamard]
  quant.widths: [W4A4-Q4K4V4, W6A6-Q6K6V6]
- method: ruquant
  method.block_size: [8, 16]
  seed: [1, 2]
"""


class Theory(Case):
    def test_prints_quantizers_of_a_density(self):
        answer = self.ask("theory", "--density", "laplace", "--bits", "2")
        self.assertEqual(answer.code, 0, answer)
        found = json.loads(answer.out)
        self.assertEqual(found["density"], "laplace")
        # Max's table: four levels of a Laplace source reach 7.54 dB.
        self.assertAlmostEqual(found["lloyd_max"]["sqnr_db"], 7.54, places=2)

    def test_unknown_densities_are_refused(self):
        answer = self.ask("theory", "--density", "laplac")
        self.assertEqual(answer.code, 2, answer)
        self.assertIn("did you mean 'laplace'", answer.err)


class Printing(Case):
    def labels(self, config, *words):
        answer = self.ask(config, *words, "--list")
        self.assertEqual(answer.code, 0, answer)
        numbered = [line.split(maxsplit=1) for line in answer.out.splitlines()]
        self.assertEqual([int(number) for number, _ in numbered], list(range(len(numbered))))
        return [label for _, label in numbered]

    def test_list(self):
        self.assertEqual(self.labels(self.config(GRID)),
                         ["rtn quant.widths=W4A4-Q4K4V4", "rtn quant.widths=W6A6-Q6K6V6",
                          "hadamard quant.widths=W4A4-Q4K4V4", "hadamard quant.widths=W6A6-Q6K6V6",
                          "ruquant method.block_size=8 seed=1", "ruquant method.block_size=8 seed=2",
                          "ruquant method.block_size=16 seed=1",
                          "ruquant method.block_size=16 seed=2"])
        self.assertFalse(self.runs.exists())

    def test_status_tells_what_is_done_and_what_it_took(self):
        config = self.config("sweep: {method: [rtn, hadamard]}\n")
        before = self.ask(config, "--status", "--out", self.runs)
        self.assertEqual(before.code, 0, before)
        self.assertEqual(before.out.splitlines()[-1], "0 of 2 trials done, in 0.00 processor hours")
        self.assertFalse(self.runs.exists())
        folder = self.run_sweep(config, "--trial", "1")
        told = self.ask(config, "--status", "--out", folder).out.splitlines()
        self.assertRegex(told[0], r"^ +0  [0-9a-f]{16} +rtn: not run$")
        self.assertRegex(told[1], r"^ +1  [0-9a-f]{16} +\d+\.\d min  hadamard$")
        self.assertRegex(told[2], r"^1 of 2 trials done, in \d+\.\d\d processor hours$")
        alone = self.ask(config, "--status", "--trial", "1", "--out", folder).out.splitlines()
        self.assertEqual(alone[:-1], told[1:2])
        self.assertIn("1 of 1 trials done", alone[-1])

    def test_what_another_processor_did_counts_where_that_is_asked_for(self):
        # Both at most what any processor of this kind has.
        lesser, greater = ({"ONEDNN_MAX_CPU_ISA": isa} for isa in ("SSE41", "AVX"))
        config = self.config("sweep: {method: [rtn, hadamard]}\n")
        words = (config, "--jobs", "1", "--out", self.runs, "--no-figures")
        first = self.ask(*words, "--trial", "0", **lesser)
        self.assertEqual(first.code, 0, first)
        made = self.moments(self.runs)
        if "onednn" not in next(iter(self.results(self.runs).values()))["math_backend"]:
            self.skipTest("built without oneDNN")

        def done(*more):
            return self.ask(config, "--status", "--out", self.runs, *more,
                            **greater).out.splitlines()[-1].partition(" trials")[0]

        self.assertEqual(done(), "0 of 2")
        self.assertEqual(done("--any-arithmetic"), "1 of 2")
        rest = self.ask(*words, "--any-arithmetic", **greater)
        self.assertEqual(rest.code, 0, rest)
        self.assertEqual(len(self.statuses(self.runs)), 2)
        self.assertEqual({path: moment for path, moment in self.moments(self.runs).items()
                          if path in made}, made)
        computed = {label: result["math_backend"]
                    for label, result in self.results(self.runs).items()}
        self.assertNotEqual(computed["rtn"], computed["hadamard"])
        summary = (self.runs / "summary.md").read_text(encoding="utf-8")
        for arithmetic in computed.values():
            self.assertIn(f"{arithmetic} (1 trial)", summary)
        rows = (self.runs / "summary.csv").read_text(encoding="utf-8").splitlines()
        self.assertEqual({row.split(",")[0] for row in rows[1:]}, set(self.statuses(self.runs)))
        script = self.ask(config, "--slurm=print", "--any-arithmetic", "--out", self.runs, **greater)
        self.assertIn(" --any-arithmetic ", script.out)
        # Done again it is this machine's.
        again = self.ask(*words, "--any-arithmetic", "--force", **greater)
        self.assertEqual(again.code, 0, again)
        self.assertEqual(done(), "2 of 2")

    def test_overrides_replace_axes_and_add_them(self):
        config = self.config("sweep:\n- method: [rtn, hadamard]\n  quant.widths: "
                             "[W4A4-Q4K4V4, W6A6-Q6K6V6]\n- method: ruquant\n  seed: [1, 2]\n")
        self.assertEqual(self.labels(config, "quant.widths=W4A4-Q4K4V4", "method=hadamard",
                                     "seed=3,4"),
                         ["hadamard quant.widths=W4A4-Q4K4V4 seed=3",
                          "hadamard quant.widths=W4A4-Q4K4V4 seed=4"])
        # A single value holds for the grids that do not name the key, too.
        answer = self.ask(config, "seed=5", "method=hadamard", "--print-config")
        self.assertEqual({document["seed"] for document in yaml.safe_load_all(answer.out)}, {5})
        self.assertEqual(self.labels(self.config("method: rtn\n"), "method=hadamard",
                                     "seed=1,2,2"), ["hadamard seed=1", "hadamard seed=2"])

    def test_methods_chosen_on_the_command_line_leave_options_of_others_alone(self):
        config = self.config(GRID)
        self.assertEqual(self.labels(config, "method=rtn", "quant.widths=W4A4-Q4K4V4"),
                         ["rtn quant.widths=W4A4-Q4K4V4"])
        answer = self.ask(config, "method=rtn", "method.block_size=8", "--list")
        self.assertEqual(answer.code, 2, answer)

    def test_a_list_option_is_no_axis(self):
        config = self.config("method: rtn\n")
        self.assertEqual(self.labels(config, "activations.layers=0,1"), ["rtn"])

    def test_seeds_of_a_method_that_draws_nothing_are_one_trial(self):
        config = self.config("sweep: {method: [rtn, smoothquant, quarot], seed: [1, 2]}\n")
        self.assertEqual(self.labels(config),
                         ["rtn", "smoothquant", "quarot seed=1", "quarot seed=2"])

    def test_printed_config_is_the_same_trial(self):
        config = self.config(GRID)
        folder = self.run_sweep(config, "activations.measure=false", "record.plans=false")
        for number, label in enumerate(self.labels(config)):
            answer = self.ask(config, "activations.measure=false", "record.plans=false",
                              "--print-config", "--trial", number)
            self.assertEqual(answer.code, 0, answer)
            printed = self.config(answer.out, name="printed", base="")
            again = self.run_sweep(printed, out=self.folder / f"again-{number}")
            (trial,) = self.statuses(again)
            self.assertEqual((again / trial / "results.json").read_text().split('"metrics"')[1],
                             (folder / trial / "results.json").read_text().split('"metrics"')[1],
                             label)

    def test_recorded_config_is_the_same_trial(self):
        folder = self.run_sweep(self.config("method: ruquant\nmethod.block_size: 8\n"))
        (trial,) = self.statuses(folder)
        again = self.run_sweep(folder / trial / "config.yaml", out=self.folder / "again")
        self.assertEqual(list(self.statuses(again)), [trial])

    def test_print_config_of_all_is_yaml(self):
        answer = self.ask(self.config(GRID), "--print-config")
        documents = list(yaml.safe_load_all(answer.out))
        self.assertEqual([str(document["method"]) for document in documents],
                         ["rtn"] * 2 + ["hadamard"] * 2 + ["ruquant"] * 4)

    def test_help_names_every_option(self):
        answer = self.ask("--help")
        self.assertEqual(answer.code, 0, answer)
        for word in ("--jobs", "quant.weight.clip_ratio", "method.block_size", "Exit code",
                     *(f"method = {name}" for name in METHODS)):
            self.assertIn(word, answer.out)


class Bases(Case):
    def printed(self, config):
        answer = self.ask(config, "--print-config", "--trial", "0")
        self.assertEqual(answer.code, 0, answer)
        return yaml.safe_load(answer.out)

    def test_later_files_win(self):
        self.config("method: rtn\nseed: 7\nquant.weight.clip_ratio: 0.5\n", name="low")
        self.config("quant.weight.clip_ratio: 0.6\nevaluation.windows: 3\n", name="middle", base="")
        top = self.config("base: [low.yaml, middle.yaml]\nevaluation: {windows: 4}\n"
                          "method: hadamard\n", name="top", base="")
        printed = self.printed(top)
        self.assertEqual((printed["method"], printed["seed"]), ("hadamard", 7))
        self.assertEqual((printed["quant.weight.clip_ratio"], printed["evaluation.windows"]),
                         (0.6, 4))
        self.assertEqual(printed["calibration.windows"], 2)

    def test_a_sweep_replaces_that_of_the_base(self):
        self.config("sweep: {method: [rtn, smoothquant]}\n", name="low")
        inherits = self.config("base: low.yaml\nseed: 1\n", name="inherits", base="")
        replaces = self.config("base: low.yaml\nsweep: {method: [quarot]}\n", name="replaces",
                               base="")
        self.assertEqual(len(self.ask(inherits, "--list").out.splitlines()), 2)
        self.assertEqual(self.ask(replaces, "--list").out.split(), ["0", "quarot"])

    def test_a_fault_of_a_base_names_its_file(self):
        low = self.config("method: rtn\nsede: 3\n", name="low", base="")
        top = self.config("base: low.yaml\n", name="top", base="")
        self.assert_refused(self.refuse(top), f"{low}:2: unknown key 'sede'")


class Dump(Case):
    def test_read_back_gives_the_same_numbers(self):
        config = self.config("method.block_size: 8\nevaluation.language: false\n"
                             "sweep: {method: [" + ", ".join(SITE_METHODS) + "]}\n")
        fresh = self.results(self.run_sweep(config))
        dump = self.folder / "dump.h5"
        answer = self.ask("dump", config, "--out", dump)
        self.assertEqual((answer.code, answer.out), (0, f"{dump}\n"), answer)
        # No model and no text: the dump alone.
        read = self.results(self.run_sweep(config, f"activations.path={dump}", "model.path=/none",
                                           "text.path=/none", out=self.folder / "read"))
        self.assertEqual(set(read), set(SITE_METHODS))
        for method in SITE_METHODS:
            for part in ("metrics", "sites", "fallbacks"):
                self.assertEqual(read[method][part], fresh[method][part], method)
            self.assertEqual(read[method]["inputs"]["model"], "tiny-llama")
            self.assertEqual(read[method]["windows"], {})

    def test_sites_of_a_dump_are_chosen_as_those_of_a_model(self):
        config = self.config("method: rtn\nevaluation.language: false\n")
        dump = self.folder / "dump.h5"
        self.assertEqual(self.ask("dump", config, "--out", dump).code, 0)
        (whole,) = self.results(self.run_sweep(config, f"activations.path={dump}")).values()
        (part,) = self.results(self.run_sweep(config, f"activations.path={dump}",
                                              "activations.kinds=mlp_in",
                                              out=self.folder / "part")).values()
        self.assertEqual(set(part["sites"]), {s for s in whole["sites"] if s.endswith("mlp_in")})
        self.assertLess(len(part["sites"]), len(whole["sites"]))

    def test_what_learns_from_blocks_is_refused_on_a_dump(self):
        dump = self.folder / "dump.h5"
        self.ask("dump", self.config("method: rtn\n"), "--out", dump)
        for method in BLOCK_LEARNERS:
            config = self.config(f"method: {method}\n")
            self.assert_refused(self.refuse(config, f"activations.path={dump}"),
                                f"method: {method} learns from whole blocks",
                                "evaluation.language=true")

    def test_another_run_gives_the_same_bytes_of_tensors(self):
        config = self.config("method: rtn\n")
        first, second = self.folder / "first.h5", self.folder / "second.h5"
        self.ask("dump", config, "--out", first)
        self.ask("dump", config, "--out", second, RUQ_CACHE=str(self.folder / "other"))
        results = [self.results(self.run_sweep(config, f"activations.path={path}",
                                               out=self.folder / path.stem))["rtn"]
                   for path in (first, second)]
        self.assertEqual(results[0]["metrics"], results[1]["metrics"])

    def test_a_dump_is_not_captured_from_a_dump(self):
        config = self.config("method: rtn\n")
        answer = self.ask("dump", config, "activations.path=/some.h5", "--out", self.runs / "x.h5")
        self.assert_refused(answer, "activations.path: is set")


    def test_a_file_that_is_no_dump_is_not_overwritten(self):
        config = self.config("method: rtn\n")
        notes = self.folder / "notes.txt"
        notes.write_text("mine", encoding="utf-8")
        answer = self.ask("dump", config, "--out", notes)
        self.assert_refused(answer, f"--out: '{notes}' exists and is no dump of activations")
        self.assertEqual(notes.read_text(encoding="utf-8"), "mine")
        self.assertEqual(self.ask("dump", config, "--out", notes, "--force").code, 0)
        self.assertEqual(self.ask("dump", config, "--out", notes).code, 0)  # a dump by now


class Verify(Case):
    def verify(self, check, code):
        config = self.config("method: rtn\n" + check, base=self.without_check())
        answer = self.ask("verify", config, "--out", self.runs)
        self.assertEqual(answer.code, code, answer)
        return answer

    def without_check(self):
        from support import TINY
        return TINY.replace("check: parse\n", "")

    def test_a_file_says_what_it_is_and_how_it_is_checked(self):
        answer = self.verify("", 2)
        self.assertIn("check: found nothing, expected parse or a map", answer.err)
        config = self.config("method: rtn\ncheck: parse\n", base="")
        answer = self.ask("verify", config, "--out", self.runs)
        self.assert_refused(answer, f"{config}: about: found nothing")

    def test_number_of_trials(self):
        self.verify("check: {trials: 1}\n", 0)
        answer = self.verify("check: {trials: 2}\n", 2)
        self.assertIn("check.trials: found 1 trials, expected 2", answer.err)
        self.assertFalse(self.runs.exists())

    def test_expected_values(self):
        at_float = ("check:\n  with: {quant.widths: W16A16-Q16K16V16}\n  expect:\n"
                    "  - {where: {method: rtn}, metric: nll_over_float, value: %s, tolerance: 0}\n")
        self.verify(at_float % "0", 0)
        answer = self.verify(at_float % "1", 1)
        self.assertIn("rtn: nll_over_float: found 0, expected 1", answer.out)

    def test_expectation_that_means_no_trial(self):
        answer = self.verify("check:\n  expect:\n  - {where: {method: quarot}, metric: nll, "
                             "value: 0, tolerance: 1}\n", 2)
        self.assertIn("no trial is meant", answer.err)

    def test_unknown_metric(self):
        answer = self.verify("check:\n  expect:\n  - {metric: nll_over_flot, value: 0, "
                             "tolerance: 1}\n", 2)
        self.assertIn("unknown metric 'nll_over_flot', did you mean 'nll_over_float'?", answer.err)


class Only(Case):
    SWEEP = "sweep: {method: [rtn, smoothquant, hadamard]}\n"

    def test_workers_do_what_is_selected(self):
        self.run_sweep(self.config(self.SWEEP), "--only", "method=smoothquant,hadamard",
                       "--jobs", "2")
        self.assertEqual(set(self.results(self.runs)), {"smoothquant", "hadamard"})

    def test_ids_are_those_of_the_whole_sweep(self):
        config = self.config(self.SWEEP)
        self.run_sweep(config, "--only", "method=hadamard")
        own = {path.name for path in self.runs.iterdir() if path.is_dir()}
        self.run_sweep(config)
        self.assertEqual(len(own), 1)
        self.assertEqual(len([path for path in self.runs.iterdir() if path.is_dir()]), 3)

    def test_the_summary_keeps_what_was_done_before(self):
        config = self.config(self.SWEEP)
        self.run_sweep(config, "--only", "method=rtn")
        self.run_sweep(config, "--only", "method=hadamard")
        rows = (self.runs / "summary.csv").read_text(encoding="utf-8").splitlines()[1:]
        self.assertEqual([row.split(",")[2] for row in rows], ["rtn", "hadamard"])

    def test_nothing_is_made_for_what_is_not_selected(self):
        model, text = self.copy_model(), self.folder / "text.txt"
        for file in (model / "tokenizer.json", text):
            file.write_text("{}", encoding="utf-8")
        config = self.config("sweep:\n- method: rtn\n- method: hadamard\n  text.source: file\n"
                             f"  text.path: {text}\n  model.path: {model}\n")
        calls, python = self.folder / "calls", self.folder / "python"
        python.write_text(f"#!/bin/sh\necho \"$@\" >> {calls}\nexit 1\n", encoding="utf-8")
        python.chmod(0o755)
        for words in (("--only", "method=rtn"), ("--trial", "0"), ("--trial", "0", "--status")):
            answer = self.ask(config, *words, "--out", self.runs, "--no-figures",
                              RUQ_PYTHON=str(python))
            self.assertEqual(answer.code, 0, answer)
            self.assertFalse(calls.exists(), answer)
        self.assertEqual(list(self.results(self.runs)), ["rtn"])
        self.assertEqual(self.ask(config, "--status", RUQ_PYTHON=str(python)).code, 2)
        self.assertIn(f"text file --tokenizer {model}", calls.read_text(encoding="utf-8"))

    def test_a_printed_script_selects_too(self):
        answer = self.ask(self.config(self.SWEEP), "--only", "method=rtn,hadamard", "--out",
                          self.runs, "--slurm=print")
        self.assertIn("--array=0-1", answer.out)
        subprocess.run(["bash", "-c", answer.out], check=True, capture_output=True,
                       env=self.environment(SLURM_ARRAY_TASK_ID="1"), cwd="/")
        self.assertEqual(list(self.results(self.runs)), ["hadamard"])

    def test_a_value_of_no_trial(self):
        self.assert_refused(self.ask(self.config(self.SWEEP), "--only", "method=quarot"),
                            "--only: method: found 'quarot'", "hadamard, rtn, smoothquant")


class Slurm(Case):
    def test_no_sbatch(self):
        answer = self.ask(self.config("method: rtn\n"), "--slurm", "--out", self.runs, PATH="/none")
        self.assertEqual(answer.code, 2, answer)
        self.assertIn("--slurm: sbatch is not there or refused the job", answer.err)

    def test_the_printed_script_runs_a_trial(self):
        config = self.config("sweep: {method: [rtn, smoothquant, hadamard]}\n")
        answer = self.ask(config, "evaluation.split=test", "--out", self.runs, "--slurm=print")
        self.assertEqual(answer.code, 0, answer)
        self.assertRegex(answer.out, re.compile(r"\A#!/bin/bash\n.*^#SBATCH --array=0-2$",
                                                re.MULTILINE | re.DOTALL))
        self.assertFalse(self.runs.exists())
        subprocess.run(["bash", "-c", answer.out], check=True, capture_output=True,
                       env=self.environment(SLURM_ARRAY_TASK_ID="2"), cwd="/")
        self.assertEqual(list(self.results(self.runs)), ["hadamard"])

    def test_quotes_survive_the_shell(self):
        name = self.folder / "it's here"
        name.mkdir()
        config = self.config("method: rtn\n")
        answer = self.ask(config, "--out", name / "runs", "--slurm=print")
        subprocess.run(["bash", "-c", answer.out], check=True, capture_output=True,
                       env=self.environment(SLURM_ARRAY_TASK_ID="0"))
        self.assertEqual(list(self.results(name / "runs")), ["rtn"])


if __name__ == "__main__":
    unittest.main()
