"""The numbers that sentences of the paper cite, as LaTeX: one line \\setnumber{key}{text} each.

    python analysis/paper_numbers.py RUNS_DIR --out paper        writes paper/tables/numbers.tex

Keys, with `run` the name of a run folder, `variant` of VARIANTS and `widths` as W4A4-Q4K4V4:

    preview                                    where any run rests on too few seeds; may be empty
    processor-hours                            that the trials of all runs took, by their clocks
    trials                                     of all runs, one that several share counted once
    run.trials .seeds .model .note .text .windows .window_tokens .tokens .build .backend
    run.float.loss .perplexity                 of the float model on the run's windows
    run.loss.variant.rounding.widths           nats per token over float, with its interval
    run.perplexity.variant.rounding.widths
    run.seconds.variant                        of processors to draw up the plan at DEPTHS[0]
    run.word.variant.other.rounding.widths     what may be said of their paired difference, and
    run.difference.variant.other.rounding.widths                 that difference with its interval
    run.trends .confirmed .contradicted .unresolved .no-data    counts of expectations
    run.trend.claim                            verdict on one; `claim` as slug() spells it
    sites.measure.method.kind                  of single sites, as fig_uniformity names measures
    sites.measure.gaussian.narrow .wide        of Gaussian tokens, of the narrowest and widest site
    mechanisms.levels.method.choice            loss at levels of activations, as fig_levels has them,
    mechanisms.levels.method.choice.minus      and its difference to midpoints
    mechanisms.levels.method.clipped           midpoints of a grid that is clipped as in baselines
    mechanisms.levels.method.clipped.choice.minus                the other levels against these
    second_model.blocks.method.size.widths     loss at other block sizes, where these were varied
    baselines.order.widths.model               pairs of methods in the published order of a model
    ablations.default .default.seeds .changes .changes.seeds .changes.below .changes.lower
                                               the default, single changes of it, their fewest
                                               seeds, how many have a lower mean, and how many
                                               are said to be lower
    ablations.rotation.value.minus             another block map against the default's
    paper_schedules.held-out.learner           error after learning over that before, in the part that
    paper_schedules.held-out.learner.short     was run, and what baselines reach in the same places
    paper_schedules.hours.learner              processor hours of the whole model, extrapolated;
                                               `learner` is a variant or a rounding that learns
    tasks.kept.variant.widths                  mean accuracy in percent of the float model's, with
    tasks.kept-above-chance.variant.widths     an interval over items

An interval is the wider of the 95 % t-intervals over seeds and over windows.
"""

import argparse
import math
import re
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import (compare, departures, fig_levels, fig_tasks, fig_uniformity,  # noqa: E402
                      published, stats, style, tables)
from analysis.fig_site_error import KINDS  # noqa: E402
from analysis.load import OPTIONAL_RUNS, lacking_optional, load_run  # noqa: E402
from analysis.runs import Run, RunError  # noqa: E402

RUNS = ("baselines", "mechanisms", "ablations", "sites", "weight_only", "second_model", "tasks",
        *OPTIONAL_RUNS)
# whose groups are named variants
LOSS_RUNS = ("baselines", "weight_only", "second_model", "wikitext2", "articles")
COMPARED = ("ruquant", "ruquant-finetuned")
DEPTHS = ("W4A4-Q4K4V4", "W4A4-Q16K16V16", "W6A6-Q6K6V6")  # at which comparisons are written

# variant → options of its trials; those that a method does not have are no obstacle. A group that
# departs from the most common settings of its method in any other option is no variant.
VARIANTS = {
    "rtn": {}, "smoothquant": {}, "singlequant": {}, "omniquant": {},
    "quarot": {"method.smoothing": "0.6"}, "quarot-unsmoothed": {"method.smoothing": "none"},
    "infoquant": {}, "spinquant": {}, "flatquant": {},
    "duquant": {"method.lwc": "false"}, "duquant-lwc": {"method.lwc": "true"},
    "ruquant": {"method.global_reflection": "init"},
    "ruquant-finetuned": {"method.global_reflection": "finetuned"},
}

NAMED = ("quant.rounding", *{key: None for options in VARIANTS.values() for key in options})

WORDS = {
    "lower": "a lower loss than", "higher": "a higher loss than",
    "not separated": "a loss that is not told apart from that of",
    "lower on this seed only": "a lower loss, on the one seed measured, than",
    "higher on this seed only": "a higher loss, on the one seed measured, than",
    "diverged": "no loss to compare, having diverged, with",
}


def slug(claim: str) -> str:
    """Zigzag beats blocks! → zigzag-beats-blocks: letters and digits joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", claim.lower()))


def numbers(runs: dict) -> dict:
    """name → Run to key → text, before escaping."""
    found = {"preview": _preview(runs.values()), "processor-hours": _processor_hours(runs.values()),
             "trials": f"{len({t.trial for run in runs.values() for t in run.trials}):,}"}
    for name, run in runs.items():
        own = {**_inputs(run), **_trends(run)}
        if name in LOSS_RUNS:
            own |= _losses(run)
        if name == "baselines":
            own |= _published_orders(run)
        if name == "second_model":
            own |= _block_sizes(run)
        if name == "sites":
            own |= _sites(run)
        if name == "mechanisms":
            own |= _levels(run)
        if name == "tasks":
            own |= _accuracies(run)
        if name == "ablations":
            own |= _changes(run)
        found |= {f"{name}.{key}": text for key, text in own.items()}
    if {"mechanisms", "baselines"} <= runs.keys():
        found |= _clipped_levels(runs["mechanisms"], runs["baselines"])
    if {"paper_schedules", "baselines"} <= runs.keys():
        found |= _schedules(runs["paper_schedules"], runs["baselines"])
    return found


def _preview(runs) -> str:
    """The mark with the fewest seeds among those of all runs."""
    marks = {mark for run in runs if (mark := style.preview_mark(run.groups))}
    return min(marks, key=lambda mark: int(re.search(r"\d+", mark)[0]), default="")


def _processor_hours(runs) -> str:
    seconds = sum(trial.timing["total_seconds"] * trial.timing["threads"]
                  for run in runs for trial in run.trials)
    return f"{seconds / 3600:.1f}"


def _inputs(run: Run) -> dict:
    trials = run.trials
    seeds = {trial.seed for trial in trials if trial.random}

    def one(values) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    found = {"trials": str(len(trials)), "seeds": str(len(seeds)),
             "model": one(t.inputs["model"] for t in trials),
             "note": one(t.inputs["model_note"] for t in trials).rstrip("."),
             "text": one(t.inputs["text"] for t in trials if "text" in t.inputs),
             "build": one(t.build_preset for t in trials),
             "backend": one(t.math_backend for t in trials)}
    told = [trial for trial in trials if trial.has_language]
    if told:
        windows = len(told[0].windows["nll"])
        length = told[0].config["evaluation.window_tokens"]
        found |= {"windows": str(windows), "window_tokens": length,
                  "tokens": f"{windows * int(length):,}",
                  "float.loss": f"{told[0].metrics['nll_float']:.3f}",
                  "float.perplexity": f"{told[0].float_ppl:.2f}"}
    return found


def _trends(run: Run) -> dict:
    trends = run.trends
    found = {"trends": str(len(trends))} if trends else {}
    for verdict in ("confirmed", "contradicted", "unresolved", "no data") if trends else ():
        count = sum(trend["verdict"] == verdict for trend in trends)
        found[verdict.replace(" ", "-")] = str(count)
    for trend in trends:
        found[f"trend.{slug(trend['claim'])}"] = _verdict(trend)
    return found


def _verdict(trend) -> str:
    if trend["verdict"] == "no data":
        return "no data"
    interval = stats.Interval(trend["difference"], trend.get("half_width", math.nan), 0)
    count, what = trend["pairs"], "pair" if trend.get("paired", True) else "trial"
    rested = f"{count} {what}{'' if count == 1 else 's'}" \
             + ("" if what == "pair" else " and more a side")
    return f"{trend['verdict']}, {_signed(interval)}, {rested}"


def _losses(run: Run) -> dict:
    placed = {}
    for group in run.groups:
        rounding = group.trials[0].config.get("quant.rounding", "rtn")
        variant = _variant(group)
        if variant is None or run.short(group, without=NAMED) != group.method:
            continue
        place = (variant, rounding, group.widths)
        if place in placed:
            raise RunError(f"{run.folder}: {placed[place].label} and {group.label} are both "
                           f"{variant}, {rounding}, {group.widths}")
        placed[place] = group
    found = {}
    for (variant, rounding, widths), group in placed.items():
        end = f"{variant}.{rounding}.{widths}"
        found[f"loss.{end}"] = _plain(compare.loss_interval(group))
        ppl = stats.mean_interval([trial.ppl for trial in group.trials]).mean
        if (rounding, widths) == ("rtn", DEPTHS[0]):
            seconds = [trial.timing.get("plan_cpu_seconds", math.nan) for trial in group.trials]
            found[f"seconds.{variant}"] = f"{stats.mean_interval(seconds).mean:.0f}"
        found[f"perplexity.{end}"] = f"{ppl:,.2f}" if math.isfinite(ppl) else "diverged"
    return found | _comparisons(placed)


def _sites(run: Run) -> dict:
    widths = fig_uniformity.measured_widths(run)
    found = {}
    for group in run.representatives(widths):
        for measure in fig_uniformity.MEASURES:
            for kind in KINDS:
                values = fig_uniformity.values(group, measure, kind)
                if values:
                    found[f"{measure}.{group.method}.{kind}"] = \
                        _text(stats.mean_interval(values), ".2f")
    bells = fig_uniformity.gaussians(run.representatives(widths), widths)
    for measure in bells[0] if bells else ():
        ends = [f"{bell[measure]:.2f}" for bell in bells]
        found[f"{measure}.gaussian.narrow"], found[f"{measure}.gaussian.wide"] = ends[0], ends[-1]
    return found


def _levels(run: Run) -> dict:
    _, rows = fig_levels.most_compared(run, "quant.activation_levels") or ("", {})
    found = {}
    for own in rows.values():
        for choice, group in own.items():
            key = f"levels.{group.method}.{choice}"
            found[key] = _plain(compare.loss_interval(group))
            if choice != "midpoint":
                pair = compare.compare(group, own["midpoint"])
                found[f"{key}.minus"] = _signed(stats.wider(pair.seeds, pair.windows))
    return found


def _block_sizes(run: Run) -> dict:
    return {f"blocks.{group.method}.{group.settings['method.block_size']}.{group.widths}":
            _plain(compare.loss_interval(group))
            for group in run.groups if "method.block_size" in group.settings}


def _published_orders(run: Run) -> dict:
    found, known = {}, published.load()
    for widths in run.widths:
        for model in published.BESIDE_MODELS:
            same, pairs = published.same_order(known, run, widths, model)
            if pairs:
                found[f"order.{widths}.{model}"] = f"{same} of {pairs}"
    return found


def _clipped_levels(levels: Run, clipped: Run) -> dict:
    """Levels are compared on grids that span each token; the other runs clip theirs. A narrower grid
    is another remedy for the same loss, so both are set against each other."""
    widths, rows = fig_levels.most_compared(levels, "quant.activation_levels") or ("", {})
    bases = {group.method: group for group in clipped.representatives(widths)} if widths else {}
    found = {}
    for own in rows.values():
        base = bases.get(own["midpoint"].method)
        if base is None:
            continue
        key = f"mechanisms.levels.{base.method}.clipped"
        found[key] = _plain(compare.loss_interval(base))
        for choice, group in own.items():
            pair = compare.compare(group, base)
            found[f"{key}.{choice}.minus"] = _signed(stats.wider(pair.seeds, pair.windows))
    return found


def _schedules(run: Run, short: Run) -> dict:
    """What the published schedules reach in the part that was run, and would take in whole."""
    found = {}
    for group in filter(tables.learned, run.groups):
        rounding = group.trials[0].config.get("quant.rounding")
        learner = rounding if rounding in tables.LEARNED_ROUNDINGS else _variant(group)
        ratios = {"": tables.mean_of(group, "learning.held_out_ratio"),
                  ".short": tables.held_out_elsewhere(group, short)}
        found |= {f"paper_schedules.held-out.{learner}{end}": f"{ratio:.2f}"
                  for end, ratio in ratios.items() if math.isfinite(ratio)}
        found[f"paper_schedules.hours.{learner}"] = f"{tables.whole_seconds(group) / 3600:.1f}"
    return found


def _changes(run: Run) -> dict:
    """How the default of the ablations lies among the single changes of it, all held against it."""
    found = departures.departures(run, departures.best_covered_widths(run))
    if not found:
        return {}
    base = found[0].base
    below = sum(d.pair.windows.mean < 0 for d in found)
    own = {"default": _plain(compare.loss_interval(base)), "default.seeds": str(len(base.trials)),
           "changes": str(len(found)), "changes.below": str(below),
           "changes.seeds": str(min(len(d.group.trials) for d in found)),
           "changes.lower": str(sum(d.pair.verdict == "lower" for d in found))}
    for d in found:
        if len(d.changed) == 1 and d.axis == "method.rotation":
            both = stats.wider(d.pair.seeds, d.pair.windows)
            own[f"rotation.{d.changed[d.axis]}.minus"] = _signed(both)
    return own


def _accuracies(run: Run) -> dict:
    names = fig_tasks.task_names(run)
    guess = {task: fig_tasks.chance(run, task) for task in names}
    found = {"items": run.trials[0].config.get("tasks.items", "0")}
    for group in run.groups if names else ():
        variant = _variant(group)
        if variant is None or not fig_tasks.measure(group.trials[0], names[0]):
            continue
        for what in (fig_tasks.KEPT, fig_tasks.ABOVE):
            score = fig_tasks.score(group, what, names, guess)
            interval = stats.Interval(score.seeds.mean, score.items_half, 2)
            found[f"{what.replace(' ', '-')}.{variant}.{group.widths}"] = _text(interval, ".1f")
    return found


def _variant(group) -> str | None:
    config = group.trials[0].config
    for name, options in VARIANTS.items():
        if name.split("-")[0] == group.method and \
                all(config.get(key, value) == value for key, value in options.items()):
            return name
    return None


def _comparisons(placed: dict) -> dict:
    found = {}
    for (variant, rounding, widths), group in placed.items():
        if variant not in COMPARED or widths not in DEPTHS:
            continue
        for (other, *where), reference in placed.items():
            if other == variant or where != [rounding, widths]:
                continue
            pair = compare.compare(group, reference)
            end = f"{variant}.{other}.{rounding}.{widths}"
            found[f"word.{end}"] = WORDS[pair.verdict]
            found[f"difference.{end}"] = _signed(stats.wider(pair.seeds, pair.windows))
    return found


def _plain(interval: stats.Interval) -> str:
    return _text(interval, ".3f")


def _signed(interval: stats.Interval) -> str:
    return _text(interval, "+.3f")


def _text(interval: stats.Interval, form: str) -> str:
    if not math.isfinite(interval.mean):
        return "diverged"
    mean = compare.signed(interval.mean, form)
    return f"{mean} ± {interval.half:{form.lstrip('+')}}" if math.isfinite(interval.half) else mean


def write(runs: dict, out) -> Path:
    """Writes OUT/tables/numbers.tex from name → Run and returns its path."""
    path = Path(out) / "tables" / "numbers.tex"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"\\setnumber{{{key}}}{{{_latex(text)}}}\n" for key, text in numbers(runs).items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _latex(text: str) -> str:
    # A value stays on one line with its interval.
    return tables.escape(text).replace(r" $\pm$ ", r"~$\pm$~")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="numbers for the sentences of the paper")
    parser.add_argument("runs", metavar="RUNS_DIR", type=Path, help="holds the runs of the study")
    parser.add_argument("--out", type=Path, default=Path("paper"), help="folder of main.tex")
    options = parser.parse_args(arguments)
    found, faults = {}, []
    absent = lacking_optional(options.runs, RUNS)
    for name in (name for name in RUNS if name not in absent):
        try:
            found[name] = load_run(options.runs / name)
        except (RunError, OSError) as error:
            faults.append(str(error))
    try:
        if not faults:
            print(write(found, options.out))
    except (RunError, OSError) as error:
        faults.append(str(error))
    for fault in faults:
        print(f"paper_numbers: {fault}", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
