"""What every notebook starts with: where the tree is, a folder to work in, and runexp.

RUQ_RUNEXP names the program; without it ./runexp builds it first.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
FIXTURES = HOME / "tests" / "fixtures"
if str(HOME) not in sys.path:
    sys.path.insert(0, str(HOME))

# A model of three layers of 48 channels with seeded weights, and counts to match: it shows how
# things work, and no result on it means anything.
TINY = f"""model.path: {FIXTURES / "tiny-llama"}
text: {{source: tokens, path: {FIXTURES / "tiny-tokens.h5"}}}
calibration: {{windows: 4, mean_windows: 4, window_tokens: 64}}
evaluation: {{windows: 8, window_tokens: 64}}
activations: {{calibration_tokens: 128, test_tokens: 256, sample_tokens: 64}}
quant.widths: W4A4-Q4K4V4
quant.preset: ruquant
"""


def work_folder() -> Path:
    """A new folder outside the tree, gone when the notebook's kernel ends."""
    folder = Path(tempfile.mkdtemp(prefix="ruquant-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def runexp(*words) -> str:
    """What `runexp words` prints. RuntimeError with its message where it fails."""
    program = os.environ.get("RUQ_RUNEXP") or str(HOME / "runexp")
    environment = {"RUQ_HOME": str(HOME), "RUQ_PYTHON": sys.executable, **os.environ}
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True,
                          env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"runexp ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def sweep(config: str, *words) -> Path:
    """Runs a configuration given as text, on one thread, and returns its run folder."""
    folder = work_folder()
    path = folder / "tour.yaml"
    path.write_text(config, encoding="utf-8")
    runexp(path, *words, "--out", folder / "run", "--no-figures", "--jobs", 1, "--threads", 1)
    return folder / "run"


def theory(density: str, bits: int) -> dict:
    """Scalar quantizers of a density with 2^bits levels, by the core library. `uniform` (a grid
    over nearly the whole density) and `lloyd_max` hold levels, thresholds, centroids,
    probabilities, sqnr_db; `uniform` also step and shift, (centroid - level) / step."""
    return json.loads(runexp("theory", "--density", density, "--bits", bits))
