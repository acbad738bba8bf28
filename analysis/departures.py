"""What a method loses or gains where one of its settings is changed: every variant of a method
beside the method's base, paired by evaluation window and by seed."""

from dataclasses import dataclass

import numpy as np

from analysis import compare
from analysis.labels import CLIPPED, clip_words, number, split_clips
from analysis.runs import Group, Run
from analysis.style import method_order

# Axes in the order in which a reader meets them, and their names. A letter is the paper's.
AXES = {
    "method.block_size": "block size B", "method.steps": "steps K",
    "method.permutations": "permutations T", "method.givens_per_step": "Givens rounds a step λ",
    "method.rotation": "block map", "method.partition": "partition",
    "method.target": "target", "method.pick": "sample picked", "method.givens": "Givens direction",
    "method.share_blocks": "one map for all blocks",
    "method.global_reflection": "global reflection",
    "method.epochs": "epochs of tuning", "method.preset": "preset",
    "method.smoothing": "smoothing α",
    "calibration.mean_windows": "sequences in the mean", "calibration.source": "calibration text",
    **{key: f"clip of {name}" for key, name in CLIPPED.items()},
    "quant.rounding": "weight rounding", "quant.activation_levels": "levels of activations",
}
WINDOW_ATOL = 1e-4  # nats: float losses of equal windows agree to rounding


@dataclass(frozen=True)
class Departure:
    """`changed`: key → value where the group differs from the base, in the order of AXES."""

    group: Group
    base: Group
    changed: dict
    pair: compare.Comparison

    @property
    def axis(self) -> str:
        """The axis under which it is listed: the first that changed."""
        return next(iter(self.changed))

    @property
    def words(self) -> str:
        return ", ".join(_in_words(self.changed, ": "))


def departures(run: Run, widths: str) -> list:
    """All variants at these widths whose base was measured on the same windows; by axis and value.
    A variant of several methods' sweep is held against the base of its own method."""
    bases = {group.method: group for group in run.representatives(widths)
             if group.trials[0].has_language}
    found = []
    for group in run.groups:
        base = bases.get(group.method)
        if base is None or group.widths != widths or group.label == base.label:
            continue
        if group.trials[0].has_language and _same_windows(group, base):
            found.append(Departure(group, base, _changed(group, base),
                                   compare.compare(group, base)))
    return sorted(found, key=_order)


def best_covered_widths(run: Run) -> str:
    """The widths with the most groups that measured language; the fewest bits among equals."""
    counts = {name: sum(group.widths == name and group.trials[0].has_language
                        for group in run.groups) for name in run.widths}
    return max(run.widths, key=lambda name: counts[name])


def variants(run: Run, widths: list, crowd: int) -> list:
    """Groups at these widths that quantize as the base of their method does; bases alone where
    there are more than `crowd` variants. In the order of methods, the base of each first."""
    bases = {(group.widths, group.method): group for w in widths
             for group in run.representatives(w)}
    found = [group for group in run.groups if (group.widths, group.method) in bases
             and _quantizers(group) == _quantizers(bases[group.widths, group.method])]
    if len({group.label for group in found}) > crowd:
        found = list(bases.values())
    own = {id(group) for group in bases.values()}
    return sorted((group for group in found if group.trials[0].has_language),
                  key=lambda g: (method_order(g.method), id(g) not in own, g.label))


def _quantizers(group: Group) -> dict:
    return {key: value for key, value in group.settings.items() if key.startswith("quant.")}


def base_words(base: Group) -> str:
    """The settings of a base that others in the run depart from."""
    settings = {key: base.settings[key] for key in _ordered(base.settings)}
    return ", ".join(_in_words(settings, " ")) or "its only settings"


def defaults_words(found: list) -> str:
    """The base of every method among the departures, in words."""
    bases = {departure.base.method: departure.base for departure in found}
    return "; ".join(f"{method}, {base_words(base)}" for method, base in bases.items())


def _changed(group: Group, base: Group) -> dict:
    keys = [key for key in {**base.settings, **group.settings}
            if group.settings.get(key) != base.settings.get(key)]
    return {key: group.settings.get(key, "unset") for key in _ordered(keys)}


def _ordered(keys) -> list:
    known = list(AXES)
    return sorted(keys, key=lambda key: (known.index(key) if key in known else len(known), key))


def _same_windows(group: Group, base: Group) -> bool:
    mine, theirs = (g.trials[0].windows["nll_float"] for g in (group, base))
    return mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=0, atol=WINDOW_ATOL)


def _order(departure: Departure) -> tuple:
    known, axis = list(AXES), departure.axis
    place = known.index(axis) if axis in known else len(known)
    values = [(0, number(value), "") if number(value) is not None else (1, 0, value)
              for value in departure.changed.values()]
    return (departure.group.method, place, axis, len(departure.changed), values)


def _in_words(settings: dict, between: str) -> list:
    """A phrase a setting; clip ratios that agree are one."""
    rest, clips = split_clips(settings)
    names = {key: AXES.get(key, key.removeprefix("method.").replace("_", " ")) for key in rest}
    return [f"{names[key]}{between}{value}" for key, value in rest.items()] \
        + clip_words(clips, between)
