import hashlib
import json
import unittest

import h5py
from tokenizers import Tokenizer, models, pre_tokenizers

import support
from support import FolderTest

import text
from token_file import SPLITS, TextNote, write_tokens


def write_byte_tokenizer(path):
    """A tokenizer of single bytes: as many ids as bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.save(str(path))


class JoinTest(unittest.TestCase):
    def test_rows(self):
        raw = " \n = Title = \n \n First . \n Second . \n"
        self.assertEqual(text.join_rows(raw),
                         "\n\n = Title = \n\n\n\n\n First . \n\n\n Second . \n")

    def test_a_last_line_without_an_end_counts(self):
        self.assertEqual(text.join_rows("a\nb"), "a\n\n\nb\n")

    def test_only_line_feeds_end_a_line(self):
        self.assertEqual(text.join_rows("a\u2028b\x0cc\n"), "a\u2028b\x0cc\n")


class CutTest(unittest.TestCase):
    def test_shares_and_line_ends(self):
        whole = "".join(f"line {i:03d}\n" for i in range(100))
        splits = text.cut_at_lines(whole)
        self.assertEqual("".join(splits[name] for name in SPLITS), whole)
        self.assertEqual([splits[name].count("\n") for name in SPLITS], [81, 10, 9])
        self.assertTrue(all(part.endswith("\n") for part in splits.values()))


class TokenFileTest(FolderTest):
    ABOUT = TextNote("file", "0" * 64, "1" * 64, "A note.", 10)

    def test_splits_are_disjoint_and_in_order(self):
        path = self.folder / "out.h5"
        ids = {"calibration": [1, 2, 3], "validation": [4], "test": [5, 6]}
        write_tokens(path, ids, self.ABOUT)
        with h5py.File(path) as file:
            stored, used = file["tokens/ids"][()], set()
            for name in SPLITS:
                begin, end = file[f"splits/{name}"][()]
                self.assertEqual(list(stored[begin:end]), ids[name])
                self.assertTrue(used.isdisjoint(range(begin, end)))
                used.update(range(begin, end))
            self.assertEqual(len(used), len(stored))
            self.assertEqual(stored.dtype, "int32")
            self.assertEqual(file["splits/test"].dtype, "int64")
            self.assertEqual(file.attrs["format"], "ruquant-tokens")
            self.assertEqual(file.attrs["vocabulary"], 10)

    def test_an_id_outside_the_vocabulary_leaves_no_file(self):
        ids = {"calibration": [1], "validation": [4], "test": [10]}
        self.assert_error(["found 1 ... 10", "expected 0 ... 9"], write_tokens,
                          self.folder / "out.h5", ids, self.ABOUT)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_empty_split(self):
        ids = {"calibration": [1], "validation": [], "test": [1]}
        self.assert_error(["validation"], write_tokens, self.folder / "out.h5", ids, self.ABOUT)


class PrepareTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.tokenizer = self.folder / "tokenizer.json"
        write_byte_tokenizer(self.tokenizer)

    def prepare(self, source, path=None):
        out = self.folder / "out.h5"
        text.prepare_text(source, self.tokenizer, out, path)
        return out

    def test_wikitext2(self):
        rows = {"wiki.test.raw": " \n t \n", "wiki.valid.raw": " v\n",
                "wikitext2_train_head.txt": "head\n"}
        for name, content in rows.items():
            (self.folder / name).write_text(content)
        with h5py.File(self.prepare("wikitext2", self.folder)) as file:
            spans = {name: list(file[f"splits/{name}"][()]) for name in SPLITS}
            digest = file.attrs["source_digest"]
        self.assertEqual(spans, {"calibration": [0, 5], "validation": [5, 8], "test": [8, 14]})
        joined = b"head\n" + b" v\n" + b" \n t \n"
        self.assertEqual(digest, hashlib.sha256(joined).hexdigest())

    def test_the_whole_training_file_is_preferred(self):
        for name in ("wiki.test.raw", "wiki.valid.raw", "wikitext2_train_head.txt"):
            (self.folder / name).write_text("short\n")
        (self.folder / "wiki.train.raw").write_text("much longer\n")
        self.assertEqual(text.read_wikitext2(self.folder).splits["calibration"], "much longer\n")

    def test_a_missing_file_is_named(self):
        self.assert_error(["calibration", "wiki.train.raw or wikitext2_train_head.txt"],
                          self.prepare, "wikitext2", self.folder)

    def test_file(self):
        path = self.folder / "book.txt"
        path.write_text("Zeile für Zeile\n" * 50, encoding="utf-8")
        with h5py.File(self.prepare("file", path)) as file:
            self.assertEqual(len(file["tokens/ids"]), len(path.read_bytes()))
            self.assertEqual(file.attrs["source"], "file")
            self.assertEqual(file.attrs["tokenizer_digest"],
                             hashlib.sha256(self.tokenizer.read_bytes()).hexdigest())

    def test_wrong_requests(self):
        latin = self.folder / "latin.txt"
        latin.write_bytes(b"caf\xe9\n" * 20)
        self.assert_error(["'wikitext'", "did you mean 'wikitext2'"], self.prepare, "wikitext")
        self.assert_error(["--path", "UTF-8 file"], self.prepare, "file")
        self.assert_error(["latin.txt", "at 3"], self.prepare, "file", latin)
        self.assert_error(["wikipedia", "expected none"], self.prepare, "wikipedia", latin)
        self.tokenizer.write_text(json.dumps({"no": "tokenizer"}))
        self.assert_error(["tokenizer.json"], self.prepare, "file", latin)


if __name__ == "__main__":
    unittest.main()
