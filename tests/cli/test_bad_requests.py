"""Faults of a configuration or a command line: one clear message, exit code 2, nothing done."""

import unittest

from support import FIXTURES, Case

RTN = "method: rtn\n"
RUQUANT = "method: ruquant\n"


class Keys(Case):
    def test_unknown_key(self):
        config = self.config("method: rtn\nquant.weight.clip_ration: 0.9\n")
        line = self.line_of(config, "quant.weight.clip_ration")
        self.assert_refused(self.refuse(config), f"{config}:{line}: unknown key",
                            "'quant.weight.clip_ration'", "did you mean 'quant.weight.clip_ratio'?")

    def test_unknown_nested_key(self):
        config = self.config(RTN + "record:\n  plan: true\n")
        line = self.line_of(config, "plan:")
        self.assert_refused(self.refuse(config), f"{config}:{line}: unknown key 'record.plan'",
                            "did you mean 'record.plans'?")

    def test_unknown_key_of_an_override(self):
        config = self.config(RUQUANT)
        self.assert_refused(self.refuse(config, "method.block_sise=8"),
                            "command line: unknown key 'method.block_sise'",
                            "did you mean 'method.block_size'?")

    def test_option_that_no_method_has(self):
        config = self.config(RTN + "method.block_size: 8\n")
        line = self.line_of(config, "method.block_size")
        self.assert_refused(self.refuse(config), f"{config}:{line}: 'method.block_size'",
                            "no method of this file has this option")

    def test_section_given_a_value(self):
        config = self.config("method: rtn\ncalibration: 3\n", base="")
        self.assert_refused(self.refuse(config), f"{config}:2: 'calibration': found a value",
                            "calibration.")

    def test_key_set_twice(self):
        config = self.config(RTN + "seed: 1\nseed: 2\n")
        self.assert_refused(self.refuse(config), f"{config}:{self.line_of(config, 'seed: 2')}:",
                            "'seed' is set twice")

    def test_key_set_twice_in_two_spellings(self):
        config = self.config(RTN + "record.plans: true\nrecord: {plans: false}\n")
        line = self.line_of(config, "record: {")
        self.assert_refused(self.refuse(config), f"{config}:{line}: 'record.plans' is set twice")

    def test_unknown_method_is_the_only_fault_reported(self):
        config = self.config("method: ruquan\nmethod.block_size: 8\n")
        line = self.line_of(config, "method: ruquan")
        self.assert_refused(self.refuse(config), f"{config}:{line}: unknown method 'ruquan'",
                            "did you mean 'ruquant'?")

    def test_no_method(self):
        config = self.config("")
        self.assert_refused(self.refuse(config), f"{config}: method: found nothing",
                            "expected the name of a method")


class Values(Case):
    def fault(self, line, *words):
        config = self.config(RTN + line + "\n")
        number = self.line_of(config, line)
        self.assert_refused(self.refuse(config), f"{config}:{number}:", *words)

    def test_wrong_type(self):
        self.fault("seed: many", "seed: found 'many', expected an integer of at least 0")
        self.fault("seed: 1.5", "seed: found '1.5', expected an integer")
        self.fault("record.plans: 3", "record.plans: found '3', expected true or false")
        self.fault("quant.weight.clip_ratio: wide", "found 'wide', expected a number")

    def test_out_of_range(self):
        self.fault("quant.weight.clip_ratio: 2", "found 2, expected a number from 0.01 to 1")
        self.fault("seed: -1", "found -1, expected an integer of at least 0")
        self.fault("seed: 99999999999999999999", "found '99999999999999999999'")
        self.fault("quant.weight.clip_ratio: nan", "found nan, expected a number from 0.01 to 1")

    def test_no_value(self):
        self.fault("seed:", "seed: found nothing, expected a value")

    def test_list_for_one_value(self):
        self.fault("seed: [1, 2]", "seed: found a list", "under 'sweep'")

    def test_unknown_choice(self):
        self.fault("evaluation.split: tst", "found 'tst', expected one of", "did you mean 'test'?")

    def test_bad_entry_of_a_list(self):
        self.fault("activations.kinds: [attn_in, mlp_on]", "found 'mlp_on'",
                   "did you mean 'mlp_in'?")

    def test_unknown_widths(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "quant.widths=W4A4"), "quant.widths: found 'W4A4'",
                            "such as W4A4-Q16K4V4")

    def test_several_faults_in_one_message(self):
        config = self.config(RTN + "seed: many\nevaluation.splitt: test\nquant.rounding: up\n")
        self.assert_refused(self.refuse(config), "seed: found 'many'",
                            "unknown key 'evaluation.splitt'", "quant.rounding: found 'up'",
                            lines=3)


class Shapes(Case):
    def test_block_wider_than_the_site(self):
        config = self.config(RUQUANT + "method.block_size: 64\n")
        self.assert_refused(self.refuse(config), "method.block_size", "found 64",
                            "at most the width of the site, 48")

    def test_block_that_does_not_divide(self):
        config = self.config(RUQUANT + "method.block_size: 10\nmethod.ragged: false\n")
        self.assert_refused(self.refuse(config), "method.block_size", "10", "48", "ragged")

    def test_group_that_does_not_divide(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "quant.weight.group_size=5"), "quant.weight",
                            "group_size: 5 does not divide the 48 channels of a row")
        self.assert_refused(self.refuse(config, "quant.keys.group_size=5"), "quant.keys",
                            "group_size: 5 does not divide the 8 channels of a row")

    def test_a_fault_of_all_trials_is_said_once(self):
        config = self.config("sweep: {method: [rtn, quarot, smoothquant]}\n")
        self.assert_refused(self.refuse(config, "evaluation.windows=500"),
                            "evaluation.windows: found 500 windows of 32 tokens",
                            "at most the 1500 tokens of the test split")

    def test_faults_of_single_trials_name_them(self):
        config = self.config("sweep:\n- method: rtn\n- method: ruquant\n"
                             "  method.block_size: [8, 64, 80]\n")
        self.assert_refused(self.refuse(config), "ruquant method.block_size=64: ", "found 64",
                            "ruquant method.block_size=80: ", "found 80", lines=2)

    def test_windows_longer_than_a_split(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "calibration.window_tokens=5000"),
                            "calibration.window_tokens: found 5000", "at most the 4000 tokens")
        self.assert_refused(
            self.refuse(config, "evaluation.window_tokens=2000", "evaluation.language=false"),
            "evaluation.window_tokens: found 2000", "at most the 1500 tokens")

    def test_windows_to_learn_from_longer_than_the_split(self):
        for method in ("omniquant", "flatquant", "spinquant"):
            with self.subTest(method=method):
                config = self.config(f"method: {method}\n")
                self.assert_refused(self.refuse(config, "method.learning_tokens=5000"),
                                    "method.learning_tokens: found 5000", "at most the 4000 tokens")

    def test_layer_that_the_model_does_not_have(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "activations.layers=0,3"),
                            "activations.layers: found 3, expected 0 to 2")

    def test_nothing_to_measure(self):
        config = self.config(RTN)
        self.assert_refused(
            self.refuse(config, "activations.measure=false", "evaluation.language=false"),
            "nothing to do")


class Files(Case):
    def test_malformed_yaml(self):
        config = self.config("method: [rtn\nseed: 3\n")
        self.assert_refused(self.refuse(config), f"{config}:", "not valid YAML")
        config = self.config("method: rtn\nrecord:\n\tplans: true\n", base="")
        self.assert_refused(self.refuse(config), f"{config}:3: not valid YAML")

    def test_a_file_that_is_no_map(self):
        for text in ("", "- rtn\n", "rtn\n"):
            config = self.config(text, base="")
            self.assert_refused(self.refuse(config), f"{config}: expected a map of options")

    def test_sections_of_another_shape(self):
        for line, words in (("sweep: 3", "sweep: expected keys with lists"),
                            ("sweep: {seed: []}", "sweep: seed: found an empty list"),
                            ("base: {a: b}", "base: expected a list of files"),
                            ("about: {a: b}", "about: expected one line"),
                            ("check: maybe", "check: expected parse, or a map"),
                            ("check: {tirals: 3}", "unknown key 'check.tirals', did you mean"),
                            ("check: {expect: 3}", "check: expect: expected a list"),
                            ("check: {trials: 2.5}", "check: trials: found 2.5, expected a count"),
                            ("trends: [{claim: a, lower: {seed: 1}, than: {seed: 2}, margin: .inf}]",
                             "trends: margin: expected a finite number"),
                            ("check: {expect: [{metric: nll}]}", "value: found nothing"),
                            ("? [a, b]\n: c", "expected a word as key")):
            config = self.config(f"method: rtn\n{line}\n", base="")
            self.assert_refused(self.refuse(config), f"{config}:2: ", words)

    def test_a_trend_of_a_misspelt_option(self):
        config = self.config(RTN + "trends: [{claim: c, lower: {metod: rtn}, than: {seed: 1}}]\n")
        for overrides in ((), ("seed=2",)):
            self.assert_refused(self.refuse(config, *overrides), "trends: 'c': unknown key 'metod'",
                                "did you mean 'method'?")

    def test_a_list_of_methods_outside_a_sweep(self):
        self.assert_refused(self.refuse(self.config("method: [rtn, quarot]\n")),
                            "unknown method 'rtn,quarot'", "a list to try belongs under sweep:")

    def test_missing_configuration(self):
        self.assert_refused(self.refuse("none.yaml"), "found no file 'none.yaml', expected a YAML file")
        self.assert_refused(self.refuse(self.folder), "found a folder, expected a file")
        self.assert_refused(self.refuse("verfy", self.config(RTN)), "did you mean 'verify'?")

    def test_missing_base(self):
        config = self.config("base: [common.yaml]\nmethod: rtn\n", base="")
        self.assert_refused(self.refuse(config), "common.yaml: cannot be read")

    def test_base_of_itself(self):
        config = self.config("base: tiny.yaml\nmethod: rtn\n", base="")
        self.assert_refused(self.refuse(config), "base: files include each other")


class CalibrationText(Case):
    def test_a_text_without_a_path(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "calibration.source=tokens"),
                            "calibration.path: found nothing",
                            "a token file (HDF5) for calibration.source tokens")
        self.assert_refused(self.refuse(config, "calibration.source=file", "calibration.path=no.txt"),
                            "calibration.path: 'no.txt' does not exist")

    def test_an_unknown_source(self):
        self.assert_refused(self.refuse(self.config(RTN), "calibration.source=randon"),
                            "found 'randon'", "random")


class Words(Case):
    def test_option_of_the_command_line(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "--trail", "1"), "unrecognised option '--trail'")
        self.assert_refused(self.refuse(config, "--jobs", "-1"), "--jobs: found -1")
        for option, count in (("--threads", "4294967297"), ("--jobs", "1025")):
            self.assert_refused(self.refuse(config, option, count),
                                f"{option}: found {count}, expected an integer from 0 to 1024")
        self.assert_refused(self.refuse(config, "--threads", "1.5"), "--threads")
        self.assert_refused(self.refuse(config, "--trial", "1"), "--trial: found 1, expected 0 to 0")
        self.assert_refused(self.refuse(config, "--slurm=now"), "--slurm: found 'now'")

    def test_override_without_a_value(self):
        self.assert_refused(self.refuse(self.config(RTN), "seed"), "found 'seed'",
                            "expected key=value")

    def test_no_configuration(self):
        self.assert_refused(self.ask(), "CONFIG: found nothing, expected a YAML file")

    def test_output_that_cannot_be_written(self):
        config = self.config(RTN)
        below_a_file = config / "runs"
        for verb, out in (("run", below_a_file), ("dump", below_a_file / "dump.h5")):
            answer = self.ask(verb, config, "--out", out)
            self.assert_refused(answer, f"--out: found '{below_a_file}'", "can be written to")

    def test_output_where_nothing_can_be_made(self):
        answer = self.ask(self.config(RTN), "--out", "/proc/ruquant")
        self.assert_refused(answer, "--out: found '/proc/ruquant'", "can be written to")

    def test_cache_that_cannot_be_written(self):
        config = self.config(RTN)
        answer = self.ask(config, "--out", self.runs, RUQ_CACHE=str(config / "cache"))
        self.assert_refused(answer, f"RUQ_CACHE: found '{config / 'cache'}'")

    def test_text_that_is_not_there(self):
        config = self.config(RTN)
        self.assert_refused(self.refuse(config, "text.path=/none.h5"),
                            "text.path: '/none.h5' does not exist, expected a token file")
        self.assert_refused(self.refuse(config, "text.path="), "text.path: found nothing",
                            "expected a token file")
        self.assert_refused(self.refuse(config, "text.source=wikitext2", "text.path=/none"),
                            "text.path: '/none' does not exist", "WikiText-2")

    def test_text_that_needs_a_tokenizer(self):
        tokens = FIXTURES / "tiny-tokens.h5"
        self.assert_refused(self.refuse(self.config(RTN), "text.source=file", f"text.path={tokens}"),
                            "text.source: file needs", "tokenizer.json")



class Workers(Case):
    def test_a_worker_refuses_a_trial_that_is_not_what_the_sweep_planned(self):
        config = self.config(RTN)
        answer = self.refuse(config, "--trial", "0", "--id", "0123456789abcdef")
        self.assert_refused(answer, f"{config}: changed since the sweep began: trial 0 was "
                            "0123456789abcdef and is ")


if __name__ == "__main__":
    unittest.main()
