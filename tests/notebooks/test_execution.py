"""Every notebook runs from start to end on the tiny fixture. RUQ_RUNEXP names the program."""

import contextlib
import io
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import nbformat

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME / "notebooks"))

import execute  # noqa: E402

PICTURES = {"lloyd_max_by_eye": 2, "one_layer": 1, "reading_a_sweep": 1}


class Execution(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="ruq-notebooks-")
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        # Work folders and caches of the notebooks go where the test cleans up.
        changes = {"TMPDIR": holder.name, "RUQ_CACHE": str(self.folder / "cache")}
        patch = mock.patch.dict(os.environ, changes)
        patch.start()
        self.addCleanup(patch.stop)

    def run_main(self, *words):
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            code = execute.main([*words, "--out", str(self.folder / "out")])
        return code, told.getvalue()

    def test_all_run_and_show_something(self):
        self.assertEqual(sorted(PICTURES), execute.names())
        for name, pictures in PICTURES.items():
            with self.subTest(name):
                code, told = self.run_main(name)
                self.assertEqual(code, 0, told)
                book = nbformat.read(self.folder / "out" / f"{name}.ipynb", as_version=4)
                outputs = [output for cell in book.cells if cell.cell_type == "code"
                           for output in cell.outputs]
                shown = sum("image/png" in output.get("data", {}) for output in outputs)
                self.assertEqual(shown, pictures)
                self.assertTrue(any(output.output_type == "stream" for output in outputs))

    def test_a_failing_cell_fails(self):
        broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
        nbformat.write(broken, self.folder / "broken.ipynb")
        with mock.patch.object(execute, "FOLDER", self.folder):
            code, told = self.run_main("broken")
        self.assertEqual(code, 1)
        self.assertIn("AssertionError", told)

    def test_an_unknown_name_is_refused(self):
        code, told = self.run_main("two_layers")
        self.assertEqual(code, 2)
        self.assertIn("no notebook two_layers; there are lloyd_max_by_eye", told)


if __name__ == "__main__":
    unittest.main()
