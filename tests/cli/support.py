"""Starts the built runexp on the fixtures, in folders of its own. RUQ_RUNEXP names the program."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

HOME = Path(__file__).resolve().parents[2]
FIXTURES = HOME / "tests" / "fixtures"
BLOCK_LEARNERS = ("omniquant", "spinquant", "flatquant")  # no plan from single sites
RANDOM_METHODS = ("hadamard", "householder", "givens", "quarot", "duquant", "ruquant")

# The fixtures with every count small; tests add their own lines below.
TINY = f"""about: tiny
check: parse
model.path: {FIXTURES / "tiny-llama"}
text: {{source: tokens, path: {FIXTURES / "tiny-tokens.h5"}}}
calibration: {{windows: 2, mean_windows: 4, window_tokens: 32}}
evaluation: {{windows: 2, window_tokens: 32}}
activations: {{layers: [0, 2], calibration_tokens: 32, test_tokens: 32, sample_tokens: 4}}
quant.widths: W4A4-Q4K4V4
"""


def _registered_methods():
    """Every method that --help tells of, in its order."""
    told = subprocess.run([os.environ["RUQ_RUNEXP"], "--help"], capture_output=True, text=True,
                          check=True).stdout
    return tuple(re.findall(r"(?m)^method = (\w+): ", told))


METHODS = _registered_methods()
SITE_METHODS = tuple(name for name in METHODS if name not in BLOCK_LEARNERS)


class Answer:
    """What one call of runexp said, and its exit code."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def __str__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"


class Case(unittest.TestCase):
    """A test with a temporary folder, a cache in it, and runexp."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="ruq-cli-")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.runs = self.folder / "runs"

    def config(self, text, name="tiny", base=TINY):
        """Writes base + text as a configuration file and returns its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(base + text, encoding="utf-8")
        return path

    def line_of(self, path, text):
        """Number of the first line that begins so."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return 1 + next(i for i, line in enumerate(lines) if line.strip().startswith(text))

    def environment(self, **more):
        """Nothing of the caller's own installation reaches the program under test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RUQ_")}
        return kept | {"RUQ_HOME": str(HOME), "RUQ_CACHE": str(self.folder / "cache"),
                       "RUQ_PYTHON": sys.executable} | more

    def command(self, *words):
        return [os.environ["RUQ_RUNEXP"], *map(str, words)]

    def ask(self, *words, **more):
        """Runs `runexp words` and returns its Answer."""
        return Answer(subprocess.run(self.command(*words), capture_output=True, text=True,
                                     timeout=60, env=self.environment(**more), check=False))

    def run_sweep(self, config, *words, out=None, code=0):
        """Runs a sweep in one process into `out` and returns the folder; checks the exit code."""
        out = out or self.runs
        jobs = () if "--jobs" in words else ("--jobs", "1")
        answer = self.ask(config, *words, *jobs, "--out", out, "--no-figures")
        self.assertEqual(answer.code, code, answer)
        return out

    def assert_refused(self, answer, *words, lines=1):
        """Exit code 2, a message of so many lines that holds the words, and nothing was written."""
        self.assertEqual(answer.code, 2, answer)
        self.assertEqual(answer.out, "", answer)
        message = [line for line in answer.err.splitlines() if not line.startswith("info ")]
        self.assertEqual(len(message), lines, answer)
        self.assertTrue(any(line.startswith("runexp: ") for line in message), answer)
        for word in words:
            self.assertIn(word, "\n".join(message), answer)
        self.assertFalse(self.runs.exists(), f"a run folder was made\n{answer}")

    def refuse(self, config, *overrides):
        """The answer to a run that must not begin."""
        return self.ask(config, *overrides, "--out", self.runs, "--no-figures")

    def copy_model(self):
        """A copy of the tiny model to spoil."""
        return Path(shutil.copytree(FIXTURES / "tiny-llama", self.folder / "model"))

    def statuses(self, folder):
        """Trial id -> status line."""
        return {path.parent.name: path.read_text(encoding="utf-8").strip()
                for path in folder.glob("*/status")}

    def results(self, folder):
        """The results.json of every finished trial, by label."""
        read = [json.loads(path.read_text(encoding="utf-8"))
                for path in sorted(folder.glob("*/results.json"))]
        return {result["about"]: result for result in read}

    def result_bytes(self, folder):
        """Trial id -> the bytes of results.json."""
        return {path.parent.name: path.read_bytes() for path in folder.glob("*/results.json")}

    def moments(self, folder):
        """When each file of the trials was last written."""
        return {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}


def read_safetensors(path):
    """(header as written, name -> a view of the F32 tensor, all bytes); views write to the bytes."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(memoryview(content)[begin:end], dtype="<f4")
        tensors[name] = flat.reshape(entry["shape"])
    return header, tensors, content
