"""A run as rows: a Trial is one finished trial, a Group the same method, settings and widths over
its seeds, a Run all of them (load.py reads it). Losses are in nats per token.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from analysis.labels import label, setting_list, tie_order, width_order

BIN_KEYS = ("code", "share", "shift", "within")
# Axes that name a trial by themselves, or say what is measured of it.
NO_SETTINGS = ("method", "seed", "quant.widths", "widths", "activations.measure")


class RunError(Exception):
    """The run folder cannot be read as it stands; the message is for the user."""


@dataclass(frozen=True)
class Trial:
    """One finished trial. windows: measure → [windows]; sites: site → measure → value."""

    folder: Path
    trial: str
    about: str
    method: str
    widths: str
    seed: int
    random: bool
    config: dict
    axes: dict
    inputs: dict
    token_ranges: dict
    math_backend: str
    build_preset: str
    metrics: dict
    windows: dict
    sites: dict
    fallbacks: list
    timing: dict
    learning: list = field(default_factory=list)  # records of what was learned; may be absent
    diverged: str = ""  # why the loss says nothing any more

    @property
    def loss(self) -> float:
        """nll over float; NaN where language was not measured. It is kept where the trial diverged."""
        return self.metrics.get("nll_over_float", math.nan)

    @property
    def ppl(self) -> float:
        return next((v for k, v in self.metrics.items() if k.startswith("ppl.w")), math.nan)

    @property
    def float_ppl(self) -> float:
        return next((v for k, v in self.metrics.items() if k.startswith("ppl_float.w")), math.nan)

    @property
    def has_language(self) -> bool:
        return "nll" in self.metrics

    def held_out_ratios(self, unmoved: bool = False) -> dict:
        """place → error after learning over that before, on sequences that nothing was learned from;
        of a block, a site or the model, where steps were taken or nothing but judged, and if asked
        where an optimizer took no step."""
        return {record["where"]: record["held_out_final"] / record["held_out_initial"]
                for record in self.learning
                if (unmoved or record["steps"] > 0 or not record["optimizer"])
                and "held_out_final" in record and record.get("held_out_initial", 0) > 0}

    def learning_details(self, name: str) -> list:
        """A detail of every record of what was learned that has it."""
        return [record["details"][name] for record in self.learning if name in record["details"]]

    def samples(self) -> dict:
        """site → (before, after), float32 [tokens, channels], read from results.h5 when asked."""
        with self._arrays() as file:
            found = {}
            for site, pair in file.get("samples", {}).items():
                if "before" not in pair or "after" not in pair:
                    raise RunError(f"{file.filename}: /samples/{site} needs both before and after")
                found[site] = (pair["before"][()], pair["after"][()])
            return found

    def bins(self) -> dict:
        """site → "before" and "after" (the transform) → what lies in the bins of the activation
        quantizer: "code" [L], "share" [L] of entries, "shift" [L] = mean of (x − midpoint)/Δ,
        and "within" [cells], the density of the place inside inner bins, mean 1."""
        with self._arrays() as file:
            found = {}
            for site, sides in file.get("bins", {}).items():
                for side in ("before", "after"):
                    missing = [name for name in BIN_KEYS
                               if side not in sides or name not in sides[side]]
                    if missing:
                        raise RunError(f"{file.filename}: /bins/{site}/{side} lacks "
                                       f"{', '.join(missing)}")
                found[site] = {side: {name: sides[side][name][()].astype(float)
                                      for name in BIN_KEYS} for side in ("before", "after")}
            return found

    def items(self) -> dict:
        """<task>.<measure> → value of every item, e.g. piqa.acc → [items] of zeros and ones."""
        with self._arrays() as file:
            return {name: values[()] for name, values in file.get("items", {}).items()}

    def revision(self) -> str:
        """Source revision, an attribute of results.h5; empty where it was not recorded."""
        with self._arrays() as file:
            value = file.attrs.get("revision", "")
            return value.decode() if isinstance(value, bytes) else str(value)

    def _arrays(self):
        """results.h5 opened for reading; where there is none, an empty file in memory."""
        path = self.folder / "results.h5"
        if path.exists():
            try:
                return h5py.File(path, "r")
            except OSError as error:
                raise RunError(f"{path}: cannot be read ({error}); remove the folder to run the "
                               "trial again") from error
        return h5py.File("none", "w", driver="core", backing_store=False)


@dataclass(frozen=True)
class Skipped:
    trial: str
    about: str
    why: str


@dataclass(frozen=True)
class Group:
    """Trials that differ by seed only, in order of seed. `settings` are the keys in the label."""

    label: str
    method: str
    widths: str
    settings: dict
    is_random: bool
    trials: tuple

    @property
    def seeds(self) -> list:
        return [trial.seed for trial in self.trials]

    @property
    def losses(self) -> np.ndarray:
        return np.array([trial.loss for trial in self.trials])

    @property
    def diverged(self) -> int:
        """Trials whose loss says nothing any more: not finite, or worse than guessing."""
        return sum(bool(trial.diverged) or not math.isfinite(trial.loss) for trial in self.trials
                   if trial.has_language)

    def windows(self, measure: str) -> np.ndarray:
        """[seeds, windows]"""
        return np.array([trial.windows[measure] for trial in self.trials])

    @property
    def conditions(self) -> dict:
        """What must agree before two groups are paired: quantizers, windows and inputs."""
        trial = self.trials[0]
        options = {k: v for k, v in trial.config.items() if k.startswith(("quant.", "evaluation."))}
        return {**options, **trial.inputs, "token_ranges": trial.token_ranges}

    @property
    def block_size(self) -> int | None:
        text = self.trials[0].config.get("method.block_size")
        return int(text) if text is not None else None


@dataclass
class Run:
    folder: Path
    trials: list
    skipped: list = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def trends(self) -> list:
        """The verdicts of trends.json; none where nothing was expected of the run."""
        path = self.folder / "trends.json"
        if not path.exists():
            return []
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return [{**trend, "difference": float(trend["difference"]),
                     "pairs": int(trend["pairs"]), "verdict": str(trend["verdict"])}
                    for trend in found]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: {error!r}, expected the verdicts of runexp") from None

    @cached_property
    def axis_keys(self) -> list:
        return sorted({key for trial in self.trials for key in trial.axes})

    @cached_property
    def widths(self) -> list:
        """Bit-width settings, fewest bits first."""
        return sorted({trial.widths for trial in self.trials}, key=width_order)

    @cached_property
    def methods(self) -> list:
        return sorted({trial.method for trial in self.trials})

    @cached_property
    def _varying(self) -> dict:
        """method → axis keys that take several values among its trials, seed and widths apart."""
        varying = {}
        for method in self.methods:
            own = [trial for trial in self.trials if trial.method == method]
            varying[method] = [key for key in self.axis_keys
                               if key not in NO_SETTINGS
                               and len({trial.config.get(key) for trial in own}) > 1]
        return varying

    def settings(self, trial: Trial) -> dict:
        return {key: trial.config[key] for key in self._varying[trial.method]
                if key in trial.config}

    def is_random(self, method: str) -> bool:
        """Whether results of a method depend on the seed: unless its trials say that they do not,
        and those that differ in nothing else agree."""
        if any(trial.random for trial in self.trials if trial.method == method):
            return True
        seen = {}
        for trial in self.trials:
            if trial.method == method:
                key = (trial.widths, *sorted(self.settings(trial).items()))
                seen.setdefault(key, set()).add(trial.metrics.get("nll"))
        return any(len(values) > 1 for values in seen.values())

    @cached_property
    def groups(self) -> list:
        """All groups, ordered by widths, method and label."""
        buckets = {}
        for trial in self.trials:
            key = (width_order(trial.widths), trial.method, label(trial.method,
                                                                  self.settings(trial)))
            buckets.setdefault(key, []).append(trial)
        groups = []
        for (_, method, text), trials in sorted(buckets.items(), key=lambda item: item[0]):
            trials = tuple(sorted(trials, key=lambda trial: trial.seed))
            groups.append(Group(text, method, trials[0].widths, self.settings(trials[0]),
                                self.is_random(method), trials))
        return groups

    @cached_property
    def _bases(self) -> dict:
        """method → settings of its base: the most common ones among the method's trials, which in
        an ablation is the variant that the others depart from."""
        return {method: self._base(method).settings for method in self.methods}

    def _base(self, method: str) -> Group:
        own = [group for group in self.groups if group.method == method]
        counts = {key: Counter(g.settings.get(key) for g in own) for key in self._varying[method]}
        coverage = Counter(group.label for group in own)

        def rank(group):
            common = sum(counts[key][group.settings.get(key)] for key in counts)
            ties = [tie_order(group.settings.get(key, "")) for key in sorted(counts)]
            return (-coverage[group.label], -common, ties)

        return min(own, key=rank)

    def representatives(self, widths: str) -> list:
        """The base of every method that has one at these widths."""
        return [group for group in self.groups
                if group.widths == widths and group.settings == self._bases[group.method]]

    def pick(self, method: str, widths: str, options: dict) -> Group | None:
        """The group of a method with these options; those that it does not have are no obstacle. Of
        two that differ by options younger than one of them, the other. RunError where several are
        left."""
        found = [group for group in self.groups if (group.method, group.widths) == (method, widths)
                 and all(group.trials[0].config.get(key, value) == value
                         for key, value in options.items())]
        found = [group for group in found if not any(_older(group, other) for other in found)]
        if len(found) > 1:
            raise RunError(f"{self.folder}: {' and '.join(group.label for group in found)}, "
                           f"{widths}, are one where {', '.join(setting_list(options))} is asked for")
        return found[0] if found else None

    def short(self, group: Group, without: tuple = ()) -> str:
        """A label for figures: the method and where the group departs from the method's base."""
        base = self._bases[group.method]
        departs = {key: value for key, value in group.settings.items()
                   if value != base.get(key) and key not in without}
        return " · ".join([group.method, *setting_list(departs)])

    def among(self, groups, without: tuple = ()) -> dict:
        """label → name for figures of these groups alone: the method and the settings in which its
        groups here differ."""
        names = {}
        for group in groups:
            own = [other.settings for other in groups if other.method == group.method]
            differ = {key: value for key, value in group.settings.items() if key not in without
                      and any(settings.get(key) != value for settings in own)}
            names[group.label] = " · ".join([group.method, *setting_list(differ)])
        return names

    def base_note(self, groups, without: tuple = ()) -> str:
        """The sentence that says what a bare method name in a figure stands for."""
        meanings = {}
        for method in sorted({group.method for group in groups}):
            shown = {k: v for k, v in self._bases[method].items() if k not in without}
            if shown:
                meanings.setdefault(", ".join(setting_list(shown)), []).append(method)
        if not meanings:
            return ""
        notes = [f"{', '.join(methods)} mean{'s' if len(methods) == 1 else ''} {words}"
                 for words, methods in meanings.items()]
        return f"By itself, {'; '.join(notes)}. Variants are named by what differs."


def _older(group: Group, other: Group) -> bool:
    """Whether the other has all options of the group, seeds apart, and more."""
    mine, its = ({key: value for key, value in g.trials[0].config.items() if key != "seed"}.items()
                 for g in (group, other))
    return mine < its
