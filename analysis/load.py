"""Reads the trial folders of a run.

Reading is strict: a missing key, an unknown format_version or two trials that cannot both belong to
the run are one RunError with the path in it. Unfinished and failed trials are kept aside with the
reason.
"""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.labels import label
from analysis.runs import Run, RunError, Skipped, Trial

FORMAT, FORMAT_VERSION = "ruquant-results", 1
KEYS = {"trial": str, "about": str, "method": str, "widths": str, "seed": int,
        "random": bool, "config": dict, "axes": dict, "inputs": dict, "token_ranges": dict,
        "math_backend": str, "build_preset": str, "metrics": dict, "windows": dict,
        "sites": dict, "fallbacks": list}
INPUT_KEYS = ("model", "model_note", "stream")
TIMING_KEYS = ("plan_seconds", "evaluate_seconds", "total_seconds", "peak_memory_mib", "threads")
WINDOW_KEYS = ("nll", "nll_float")
# Runs that the study can do without: their text cannot be fetched, they take hours by themselves, or
# they repeat on other text or with other arithmetic what it has.
OPTIONAL_RUNS = ("wikitext2", "articles", "paper_schedules", "arithmetic")


# Records of benchmarks of the same kind: name → file in the folder of the runs.
OPTIONAL_FILES = {"roundings": Path("construction") / "roundings.json"}


def lacking_optional(folder, names) -> list:
    """Those of the names whose runs or records the study can do without, and does: there is no file,
    or no trial of theirs has come to an end, well or badly."""
    return [name for name in names
            if name in OPTIONAL_RUNS and not _has_ended(Path(folder) / name)
            or name in OPTIONAL_FILES and not (Path(folder) / OPTIONAL_FILES[name]).exists()]


def _has_ended(folder: Path) -> bool:
    states = [_read_text(path) for path in folder.glob("*/status")]
    return any(state not in ("", "running") for state in states)


def load_run(folder) -> Run:
    """Reads all trial folders. RunError where the folder is no run or nothing in it is finished."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    listed = _read_summary(folder)
    resolved = _read_json(folder / "resolved.json") if (folder / "resolved.json").exists() else {}
    trials, skipped = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not any((path / name).exists() for name in ("status", "config.yaml", "results.json")):
            continue
        status = _read_text(path / "status") if (path / "status").exists() else "no status file"
        if status == "done":
            trials.append(_resolve(load_trial(path), resolved))
        else:
            skipped.append(Skipped(path.name, listed.get(path.name, ""), status or "empty status"))
    trials, stale = _drop_stale(folder, trials, listed)
    if not trials:
        raise RunError(f"{folder}: no finished trial ({len(skipped)} unfinished or failed)")
    return Run(folder, trials, skipped + stale)


def _resolve(trial: Trial, resolved: dict) -> Trial:
    """With the options that are younger than the trial, and the axes of the sweep as it is now."""
    later = resolved.get(trial.trial)
    if not later:
        return trial
    _require(later, ("config", "axes"), f"{trial.folder.parent / 'resolved.json'}: {trial.trial}")
    return replace(trial, config={**later["config"], **trial.config}, axes=later["axes"])


def load_trial(folder: Path) -> Trial:
    path = folder / "results.json"
    data = _read_json(path)
    if data.get("format") != FORMAT:
        raise RunError(f"{path}: format is {data.get('format')!r}, expected {FORMAT!r}")
    if data.get("format_version") != FORMAT_VERSION:
        raise RunError(f"{path}: format_version is {data.get('format_version')!r}, "
                       f"this reader knows {FORMAT_VERSION}")
    for key, kind in KEYS.items():
        if key not in data:
            raise RunError(f"{path}: key {key!r} is missing")
        if not isinstance(data[key], kind):
            raise RunError(f"{path}: {key!r} is {type(data[key]).__name__}, expected "
                           f"{kind.__name__}")
    _require(data["inputs"], INPUT_KEYS, f"{path}: inputs")
    timing = _read_json(folder / "timing.json")
    _require(timing, TIMING_KEYS, f"{folder / 'timing.json'}:")
    values = {key: data[key] for key in KEYS}
    values["metrics"] = {key: _value(v, path) for key, v in data["metrics"].items()}
    values["windows"] = {key: np.array([_value(v, path) for v in row], dtype=float)
                         for key, row in data["windows"].items()}
    values["sites"] = {site: {key: _value(v, path) for key, v in measures.items()}
                       for site, measures in data["sites"].items()}
    if "nll" in values["metrics"]:
        _require(values["metrics"], ("nll_over_float",), f"{path}: metrics")
        _require(values["windows"], WINDOW_KEYS, f"{path}: windows")
    return Trial(folder=folder, timing=timing, learning=data.get("learning", []),
                 diverged=data.get("diverged", ""), **values)


def _value(value, where) -> float:
    # JSON has no NaN; what is not finite is written as null.
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RunError(f"{where}: {value!r} is not a number")
    return float(value)


def _require(mapping: dict, keys, where: str) -> None:
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise RunError(f"{where} lacks {', '.join(missing)}")


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _read_json(path: Path) -> dict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise RunError(f"{path}: expected an object")
    return data


def _read_summary(folder: Path) -> dict:
    """trial → its axis values in words, from summary.csv where the run has one."""
    path = folder / "summary.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0][:2] != ["trial", "status"] or "widths" not in rows[0]:
        raise RunError(f"{path}: the header must open with trial, status and name widths")
    end = rows[0].index("widths") + 1
    return {row[0]: " ".join(cell for cell in row[2:end] if cell) for row in rows[1:] if row}


def _drop_stale(folder: Path, trials: list, listed: dict) -> tuple:
    """Trials that cannot stand beside each other: the same method, settings, widths and seed, or
    other evaluation windows. Those that summary.csv does not list are left over and dropped; if
    that does not settle it, RunError."""
    if not _conflict(trials):
        return trials, []
    kept = [trial for trial in trials if trial.trial in listed]
    conflict = _conflict(kept or trials)
    if conflict:
        first, second, why = conflict
        raise RunError(f"{folder}: trials {first.trial} and {second.trial} {why}; "
                       "remove the one that is out of date")
    return kept, [Skipped(t.trial, t.about, "left from an earlier sweep (not in summary.csv)")
                  for t in trials if t.trial not in listed]


def _conflict(trials: list) -> tuple | None:
    if not trials:
        return None
    run = Run(Path("."), trials)
    seen, floats = {}, {}
    for trial in trials:
        settings = run.settings(trial)
        key = (label(trial.method, settings), trial.widths, trial.seed)
        if key in seen:
            return seen[key], trial, f"are both {key[0]}, {key[1]}, seed {key[2]}"
        seen[key] = trial
        if not trial.has_language:
            continue
        conditions = tuple((k, v) for k, v in trial.config.items()
                           if k in run.axis_keys and not k.startswith(("method", "quant.", "seed")))
        other = floats.setdefault(conditions, trial)
        mine, theirs = trial.windows["nll_float"], other.windows["nll_float"]
        if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=0, atol=1e-4):
            return other, trial, "were measured on different windows (nll_float differs)"
    return None
