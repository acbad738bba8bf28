import unittest

import h5py
import numpy as np
from safetensors.numpy import load_file

import support
from support import FolderTest

import make_fixture
from token_file import SPLITS

KEPT = support.ROOT / "tests" / "fixtures"


class FixtureTest(FolderTest):
    def setUp(self):
        super().setUp()
        make_fixture.main(["--out", str(self.folder)])

    def test_the_kept_model_is_the_one_the_script_makes(self):
        for name in ("config.json", "model.safetensors"):
            self.assertEqual((self.folder / "tiny-llama" / name).read_bytes(),
                             (KEPT / "tiny-llama" / name).read_bytes(), name)

    def test_the_kept_tokens_are_the_ones_the_script_makes(self):
        with h5py.File(self.folder / "tiny-tokens.h5") as made, \
                h5py.File(KEPT / "tiny-tokens.h5") as kept:
            self.assertEqual(dict(made.attrs), dict(kept.attrs))
            for name in ("tokens/ids", *(f"splits/{split}" for split in SPLITS)):
                np.testing.assert_array_equal(made[name][()], kept[name][()])

    def test_ids_are_neither_constant_nor_uniform(self):
        ids = np.concatenate(list(make_fixture.token_ids().values()))
        shares = np.bincount(ids, minlength=256) / len(ids)
        entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
        self.assertGreater(entropy, 4.0)
        self.assertLess(entropy, np.log(256) - 0.3)

    def test_norm_gains_have_outliers(self):
        weights = load_file(KEPT / "tiny-llama" / "model.safetensors")
        gain = np.abs(weights["model.layers.1.input_layernorm.weight"])
        self.assertEqual(set(np.argsort(gain)[-3:]), set(make_fixture.OUTLIER_CHANNELS))
        self.assertGreater(np.sort(gain)[-3], 4 * np.median(gain))


if __name__ == "__main__":
    unittest.main()
