"""Numbers that others published, each with its source, and tables that set them beside ours. They
are of other models, texts and protocols: they never share a column with a measurement of ours.

published.csv has a row a number: method; variant (rtn, gptq: the weight rounding; lwc, finetuned:
what is learned; empty: as it comes); setting (our notation of widths); model; measure; value;
source. Numbers are kept as they were printed; times are in seconds, whatever their source prints.
"""

import csv
import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from analysis import compare, style, tables
from analysis.runs import Run, RunError

FILE = Path(__file__).with_name("published.csv")
PERPLEXITY = "wikitext2 perplexity"
TIME, KEPT, ACCURACY = "quantization time, s", "zero-shot accuracy kept, %", "zero-shot accuracy, %"
SPEED = "spinquant's quantization time over its own"
FLOAT = "float"
BESIDE_MODELS = ("LLaMA-2-7B", "LLaMA-2-13B", "LLaMA-3-8B")
# variant → the setting of ours that it is
VARIANTS = {"rtn": ("quant.rounding", "rtn"), "gptq": ("quant.rounding", "gptq"),
            "lwc": ("method.lwc", "true"), "finetuned": ("method.global_reflection", "finetuned")}


# method, or method and variant → what makes ours the published method where the most common
# settings of a run do not
AS_PUBLISHED = {"quarot": {"method.smoothing": "none"},
                ("spinquant", "gptq"): {"method.weights_in_learning": "false"}}


@dataclass(frozen=True)
class Number:
    method: str
    variant: str
    setting: str
    model: str
    measure: str
    text: str
    source: str

    @property
    def value(self) -> float:
        return float(self.text)


def load(path=FILE) -> list:
    """All rows. RunError naming the first line that is no number or has no source."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [Number(row["method"], row["variant"], row["setting"], row["model"],
                       row["measure"], row["value"], row["source"])
                for row in csv.DictReader(file)]
    for line, row in enumerate(rows, start=2):
        try:
            known = row.value > 0 and row.source and row.variant in ("", *VARIANTS)
        except (TypeError, ValueError):
            known = False
        if not known:
            raise RunError(f"{path}, line {line}: expected a positive value, a source, and a "
                           f"variant among {', '.join(VARIANTS)}")
    return rows


def perplexities(numbers) -> tables.Table:
    """Published perplexities, a row a method and setting, a column a model."""
    return _by_model(numbers, PERPLEXITY, "published_perplexity",
                     "Published: perplexity on WikiText2")


def accuracies(numbers) -> tables.Table:
    return _by_model(numbers, ACCURACY, "published_tasks",
                     "Published: zero-shot accuracy, mean of tasks (percent)")


def _by_model(numbers, measure, name, title) -> tables.Table:
    own = [number for number in numbers if number.measure == measure]
    models = list(dict.fromkeys(number.model for number in own))
    letters = _letters(own)
    rows = {}
    for number in own:
        key = (number.setting, _words(number), number.source)
        rows.setdefault(key, {})[number.model] = number.text
    body = [[words, setting, *(values.get(model, "–") for model in models), letters[source]]
            for (setting, words, source), values in rows.items()]
    return tables.Table(name, title, ("method", "widths", *models, "source"), tuple(body),
                        "Published, not measured here; as printed in the sources. "
                        + _sources(letters))


def _letters(numbers) -> dict:
    """source → a, b, ... in order of appearance."""
    return dict(zip(dict.fromkeys(number.source for number in numbers), ascii_lowercase))


def _sources(letters: dict) -> str:
    return f"Sources: {', '.join(f'({letter}) {source}' for source, letter in letters.items())}."


def beside_ours(numbers, *runs) -> tables.Table:
    """What each method loses over the float model of its paper, ln(perplexity/float perplexity),
    and what ours loses at the same widths on our model, a column a run."""
    floats = {n.model: n.value for n in numbers
              if (n.method, n.measure) == (FLOAT, PERPLEXITY)}
    shown = [number for number in numbers if number.measure == PERPLEXITY
             and number.method != FLOAT and number.model in BESIDE_MODELS]
    letters = _letters(shown)
    kept = {}
    for number in shown:
        key = (number.setting, _words(number), number.source)
        kept.setdefault(key, {})[number.model] = number
    rows, used = [], []
    for (setting, words, source), values in kept.items():
        losses = [f"{math.log(values[m].value / floats[m]):.3f}" if m in values else "–"
                  for m in BESIDE_MODELS]
        groups = [nearest(run, next(iter(values.values()))) for run in runs]
        used += [group for group in groups if group]
        ours = [tables.loss_cell(group) if group else "–" for group in groups]
        rows.append([words, setting, *losses, letters[source], *ours])
    mark = style.preview_mark(used)
    return tables.Table(
        "published_beside_ours", "Loss over float (nats per token): published and ours",
        ("method", "widths", *(("published", model) for model in (*BESIDE_MODELS, "source")),
         *(("ours", _where(run)) for run in runs)), tuple(rows),
        f"{mark + '. ' if mark else ''}Published: ln of the perplexity over the float perplexity, "
        f"WikiText2, other models and protocols. {_sources(letters)} Ours: the same method at the "
        "same widths, on the quantizers of the rest, quarot without smoothing as published and "
        "spinquant (gptq) learned on float weights; means over seeds ± the wider of the 95 % "
        "t-intervals over seeds and over windows; – where it was not run. Compare "
        "signs and orders within a column, not values across. "
        + " ".join(style.provenance(run.trials) for run in runs))


def _where(run: Run) -> str:
    """smollm2-135m, wikipedia"""
    names = [" / ".join(sorted({trial.inputs.get(key, "a dump") for trial in run.trials}))
             for key in ("model", "text")]
    return ", ".join(names)


def nearest(run: Run, number: Number):
    """The group of ours at the same widths: the method's base, with what the published method is
    and the variant switched; None where there is none."""
    bases = [group for group in run.representatives(number.setting)
             if group.method == number.method]
    if not bases:
        return None
    wanted, config = dict(bases[0].settings), bases[0].trials[0].config
    asked = {**AS_PUBLISHED.get(number.method, {}),
             **AS_PUBLISHED.get((number.method, number.variant), {})}
    if number.variant:
        key, value = VARIANTS[number.variant]
        asked[key] = value
    for key, value in asked.items():
        if key not in wanted and config.get(key) != value:
            return None
        if key in wanted:
            wanted[key] = value
    return next((group for group in run.groups if group.method == number.method
                 and group.widths == number.setting and group.settings == wanted), None)


@dataclass(frozen=True)
class Pair:
    """Two methods that both measured, the first with the lower loss in the publication."""

    first: Number
    second: Number
    same: bool  # by our means
    verdict: str  # on ours, the first against the second

    @property
    def told(self) -> bool:
        """Whether our intervals tell the two apart."""
        return self.verdict in ("lower", "higher")


def pairs(numbers, run: Run, setting: str, model: str) -> list:
    """Of the methods that both measured at this setting."""
    both = sorted(((number, group) for number in numbers
                   if (number.measure, number.setting, number.model) == (PERPLEXITY, setting, model)
                   and number.method != FLOAT and (group := nearest(run, number))),
                  key=lambda entry: entry[0].value)
    return [Pair(number, other, bool(np.mean(group.losses) < np.mean(its.losses)),
                 compare.compare(group, its).verdict)
            for (number, group), (other, its) in combinations(both, 2)]


def reversed_words(found: list) -> str:
    """Pairs that ours tells apart the other way round: what comes out behind what."""
    behind = {}
    for pair in found:
        if pair.told and not pair.same:
            behind.setdefault(_words(pair.first), []).append(_words(pair.second))
    return "; ".join(f"{words} behind {', '.join(others)}" for words, others in behind.items())


def times(numbers) -> tables.Table:
    """Published times of construction and shares of accuracy kept."""
    own = [number for number in numbers if number.measure in (TIME, SPEED, KEPT)]
    letters = _letters(own)
    rows = [[_words(n), n.setting, n.model, n.measure, n.text, letters[n.source]] for n in own]
    return tables.Table("published_claims", "Published: time of construction, accuracy kept",
                        ("method", "widths", "model", "measure", "value", "source"), tuple(rows),
                        "Published, not measured here; other models and machines. Times in seconds. "
                        + _sources(letters))


def _words(number: Number) -> str:
    return f"{number.method} ({number.variant})" if number.variant else number.method
