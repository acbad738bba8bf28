"""Paired comparisons of all groups with the reference methods, and what their intervals allow to
say. Differences are losses of the group minus losses of the reference, in nats per token: negative
is better."""

import math
from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.runs import Group, Run
from analysis.style import SEEDS_WANTED

REFERENCES = ("rtn", "quarot")
FEWEST = 10  # windows or seeds below which no order is claimed


@dataclass(frozen=True)
class Comparison:
    group: Group
    reference: Group
    windows: stats.Interval
    seeds: stats.Interval

    @property
    def involves_seeds(self) -> bool:
        return self.group.is_random or self.reference.is_random

    @property
    def fewest_seeds(self) -> int:
        """Over the sides that depend on the seed; enough where neither does."""
        return min((len(side.trials) for side in (self.group, self.reference) if side.is_random),
                   default=SEEDS_WANTED)

    @property
    def verdict(self) -> str:
        """One of: diverged, lower, higher, not separated, lower/higher on this seed only, too few."""
        if self.group.diverged or self.reference.diverged \
                or not math.isfinite(self.windows.mean):
            return "diverged"
        side = self.windows.side
        if not side:
            return "not separated"
        if max(self.windows.n, self.seeds.n) < FEWEST:
            return "too few"
        word = "lower" if side < 0 else "higher"
        if not self.involves_seeds or self.seeds.side == side:
            return word
        return "not separated" if self.seeds.side is not None else f"{word} on this seed only"


def reference_group(run: Run, method: str, group: Group) -> Group | None:
    """The variant of a reference method with the lowest mean loss at the same widths and
    conditions: a claim is held against the strongest one."""
    own = [other for other in run.groups
           if other.method == method and other.widths == group.widths
           and other.conditions == group.conditions and other.trials[0].has_language
           and not other.diverged]
    return min(own, key=lambda other: float(np.mean(other.losses)), default=None)


def loss_interval(group: Group) -> stats.Interval:
    """Mean loss over float with the wider of its intervals over seeds and over windows."""
    over_windows = stats.paired_over_windows(group.windows("nll"), group.windows("nll_float"))
    over_seeds = stats.mean_interval(group.losses)
    return over_seeds._replace(half=stats.wider(over_seeds, over_windows).half)


def compare(group: Group, reference: Group) -> Comparison:
    """Pairs by evaluation window and by seed (stats.paired_over_windows, paired_over_seeds)."""
    windows = stats.paired_over_windows(group.windows("nll"), reference.windows("nll"))
    seeds = stats.paired_over_seeds(
        {trial.seed: trial.windows["nll"] for trial in group.trials},
        {trial.seed: trial.windows["nll"] for trial in reference.trials},
        (group.is_random, reference.is_random))
    return Comparison(group, reference, windows, seeds)


def comparisons(run: Run, groups) -> dict:
    """(label, widths, reference method) → Comparison, where there is something to compare."""
    found = {}
    for group in groups:
        for method in REFERENCES:
            reference = reference_group(run, method, group)
            if reference is not None and reference.label != group.label and group.method != method:
                found[group.label, group.widths, method] = compare(group, reference)
    return found


def sentences(run: Run, pairs: list) -> list:
    """What the intervals allow to say of comparisons with one reference, and no more: one sentence
    a verdict. Each names its methods with the mean difference in nats per token."""
    openings = {
        "lower": "Lower loss than {}, every interval excluding zero:",
        "higher": "Higher loss than {}, every interval excluding zero:",
        "not separated": "Not told apart from {}, since an interval includes zero:",
        "lower on this seed only": "Lower loss than {} on the one seed measured, which says "
                                   "nothing of other seeds:",
        "higher on this seed only": "Higher loss than {} on the one seed measured, which says "
                                    "nothing of other seeds:",
        "too few": f"Apart from {{}} by the interval over windows, but on fewer than {FEWEST} of them, "
                   "so nothing is claimed:",
        "diverged": "Diverged, so not compared with {}:",
    }
    found = []
    for verdict, opening in openings.items():
        own = sorted((pair for pair in pairs if pair.verdict == verdict),
                     key=lambda pair: (pair.windows.mean, pair.group.label))
        names = [run.short(pair.group) + ("" if verdict == "diverged" else
                                          f" ({signed(pair.windows.mean, '+#.2g')})")
                 for pair in own]
        if names:
            text = f"{opening.format(run.short(own[0].reference))} {', '.join(names)}."
            fewest = min(pair.fewest_seeds for pair in own)
            if verdict in ("lower", "higher") and fewest < SEEDS_WANTED:
                text += f" This rests on as few as {fewest} seeds and is a preview."
            found.append(text)
    return found


def signed(number: float, form: str) -> str:
    """With a true minus sign."""
    return format(number, form).replace("-", "−")
