"""The numbers that sentences of the paper cite, as LaTeX: one line \\setnumber{key}{text} each.

    python analysis/paper_numbers.py RUNS_DIR --out paper        writes paper/tables/numbers.tex

Keys, with `run` the name of a run folder, `variant` of VARIANTS and `widths` as W4A4-Q4K4V4:

    preview                                    where any run rests on too few seeds; may be empty
    processor-hours                            that the trials took, by their clocks and threads
    trials                                     of all runs; one that several share counts once in both
    run.trials .seeds .model .note .text .windows .window_tokens .tokens .build .backend
    arithmetic.pairs .mean .largest            trials of the baselines that were computed again with
                                               other arithmetic, and nats that they lie apart; of
                                               those that learn arithmetic.learned.pairs and so on
    run.float.loss .perplexity                 of the float model on the run's windows
    run.loss.variant.rounding.widths           nats per token over float, with its interval
    run.perplexity.variant.rounding.widths
    run.lost.variant.rounding.widths           how many seeds diverged, where some did
    run.seconds.variant                        of processors to draw up the plan at DEPTHS[0]
    run.held-out.variant.widths                held-out error after learning over that before
    run.gptq.held-out.variant.widths           the same where GPTQ comes after
    run.word.variant.other.rounding.widths     what may be said of their paired difference, and
    run.difference.variant.other.rounding.widths                 that difference with its interval
    run.gptq.word.variant.widths .difference   GPTQ against rounding to nearest
    run.trends .confirmed .contradicted .unresolved .no-data    counts of expectations
    run.by-margin                              of those confirmed, how many are by a margin alone
    run.trend.claim                            verdict on one; `claim` as slug() spells it
    sites.measure.method.kind                  of single sites, as fig_uniformity names measures
    sites.measure.gaussian.narrow .wide        of Gaussian tokens, of the narrowest and widest site
    sites.shift_share.method.kind              percent of Δ²/12 that the centroids of inner bins cost
    mechanisms.levels.method.choice            loss at levels of activations, as fig_levels has them,
    mechanisms.levels.method.choice.minus      and its difference to midpoints
    mechanisms.levels.method.clipped           midpoints of a grid that is clipped as in baselines
    mechanisms.levels.method.clipped.choice.minus                the other levels against these
    mechanisms.levels.weights.method.choice .minus               the same of weights, min-max grids
    mechanisms.learned.name.loss .held-out .noise-start .noise-end .promise-start .promise-end
        .variation .start.word .start.difference .art.word .art.difference
        .tokens.word .tokens.difference, tokens-massive likewise
                                               of LEARNED (mechanism_numbers): against its start,
                                               against SingleQuant's first rotation, and against
                                               both of them fitted to many tokens
    mechanisms.learned.least                   the objective with the least held-out site error
    mechanisms.singlequant.part .part.minus    loss, and difference to all of it; SINGLEQUANT_PARTS
    mechanisms.singlequant.no-massive          sites without massive tokens
    mechanisms.tuning.name.evaluations .tokens (of a block) .improved (percent of blocks) .held-out
        .median (of the same) .foremost (the block that gains most) .foremost.held-out
        .stuck (percent of blocks that end without a further step)
                                               TUNED, and optimized
    mechanisms.rounding.name.widths            with loss, bits, mib, seconds or held-out in front of
                                               the name; ROUNDINGS
    mechanisms.rounding.word.name.other.widths .difference       ROUNDING_PAIRS
    mechanisms.rounding.unification            the most that UniQuanF's deployed weights are off
    mechanisms.reading.name.word .difference   other readings of single steps
    weight_only.minus-rtn.rounding.widths      against rounding to nearest, weight_only.bits likewise;
                                               rounding-N: with N calibration windows
    second_model.blocks.method.size.widths     loss at other block sizes, where these were varied
    second_model.blocks.word.method.size.widths .difference      against QuaRot
    second_model.blocks.minus-base.method.size.widths            against the usual blocks
    baselines.order.widths.model               pairs of methods in the published order of a model,
    baselines.told.widths.model                how many of these are told apart,
    baselines.reversed.widths.model            how many are told apart the other way round, and
    baselines.reversed-pairs.widths.model      which
    ablations.default .default.seeds .changes .changes.seeds .changes.below .changes.lower
        .changes.lower-names                   the default, single changes of it, their fewest
                                               seeds, how many have a lower mean, and how many and
                                               which are said to be lower
    ablations.minus.option.value               a change of one option against the default
    ablations.tuned-paper.word .difference     tuned reflections of preset paper against official
    paper_schedules.learners                   that were run on both schedules
    paper_schedules.held-out.learner           error after learning over that before, in the part that
    paper_schedules.held-out.learner.short     was run, and on the short schedule; both are there or none
    paper_schedules.hours.learner              processor hours of the whole model, extrapolated;
                                               `learner` is a variant or a rounding that learns
    paper_schedules.quarter                    percent of a curve's fall after a quarter of the steps
    tasks.kept.variant.widths                  mean accuracy in percent of the float model's, with
    tasks.kept-above-chance.variant.widths     an interval over items
    tasks.points.ruquant.other.widths          mean accuracy against another's, in points
    roundings.kib.rounding.bits .ms .shape     of one matrix, as ruq_rounding_bench times it
    construction.singlequant                   seconds to construct its maps of all sites of a model
    construction.times.schedule .alone         what SpinQuant takes on a schedule (short, paper) over
                                               SingleQuant, in whole and for these maps alone
    published.speed.method                     how many times as fast as SpinQuant
    published.kept.method.widths               percent of the float model's accuracy

An interval is the wider of the 95 % t-intervals over seeds and over windows.
"""

import argparse
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import (compare, departures, fig_centroids, fig_construction,  # noqa: E402
                      fig_curves, fig_levels, fig_tasks, fig_uniformity, mechanism_numbers,
                      phrases, published, rounding_costs, stats, style, tables)
from analysis.fig_site_error import KINDS  # noqa: E402
from analysis.labels import GRIDS, WEIGHTS, grid_words, width_family  # noqa: E402
from analysis.load import OPTIONAL_FILES, OPTIONAL_RUNS, lacking_optional, load_run  # noqa: E402
from analysis.runs import Run, RunError  # noqa: E402

RUNS = ("baselines", "mechanisms", "ablations", "sites", "weight_only", "second_model", "tasks",
        *OPTIONAL_RUNS)
# whose groups are named variants
LOSS_RUNS = ("baselines", "weight_only", "second_model", "wikitext2", "articles")
COMPARED = ("ruquant", "ruquant-finetuned", "ruquant-unsmoothed")
DEPTHS = ("W4A4-Q4K4V4", "W4A4-Q16K16V16", "W6A6-Q6K6V6")  # at which comparisons are written
# Others that are compared, at all widths.
PAIRS = (("quarot", "duquant"), ("quarot-unsmoothed", "duquant"), ("duquant-lwc", "duquant"),
         ("spinquant", "quarot-unsmoothed"), ("infoquant", "quarot-unsmoothed"),
         ("smoothquant", "omniquant"), ("smoothquant", "rtn"),
         *(("singlequant-tokens", name) for name in ("singlequant", "quarot", "duquant")))

SMOOTHED, UNSMOOTHED = {"method.smoothing": "0.6"}, {"method.smoothing": "none"}
# Queries and keys.
AS_THEY_ARE, TURNED = {"method.queries_keys": "none"}, {"method.queries_keys": "hadamard"}
# variant → options of its trials; those that a method does not have are no obstacle. A group that
# departs from the most common settings of its method in any other option is no variant.
VARIANTS = {
    "rtn": AS_THEY_ARE, "rtn-turned": TURNED, "omniquant": {},
    **{f"{name}{end}": {**fit, **smoothing}
       for name, fit in {"singlequant": {"method.fit": "token", "method.art_tokens": "all"},
                         "singlequant-tokens": {"method.fit": "tokens",
                                                "method.art_tokens": "massive"}}.items()
       for end, smoothing in (("", SMOOTHED), ("-unsmoothed", UNSMOOTHED))},
    "smoothquant": {"method.preset": "duquant", **AS_THEY_ARE},
    "smoothquant-turned": {"method.preset": "duquant", **TURNED},
    "smoothquant-official": {"method.preset": "official"},
    "quarot": SMOOTHED, "quarot-unsmoothed": UNSMOOTHED,
    "infoquant": {}, "spinquant": {}, "flatquant": {},
    "hadamard": SMOOTHED, "hadamard-unsmoothed": UNSMOOTHED,
    "duquant": {"method.lwc": "false", **SMOOTHED}, "duquant-lwc": {"method.lwc": "true"},
    "duquant-unsmoothed": {"method.lwc": "false", **UNSMOOTHED},
    "ruquant": {"method.global_reflection": "init", **SMOOTHED},
    "ruquant-unsmoothed": {"method.global_reflection": "init", **UNSMOOTHED},
    "ruquant-finetuned": {"method.global_reflection": "finetuned"},
}

ROUNDED_IN_LEARNING = "method.weights_in_learning"
NAMED = ("quant.rounding", ROUNDED_IN_LEARNING,
         *{key: None for options in VARIANTS.values() for key in options})

def slug(claim: str) -> str:
    """Zigzag beats blocks! → zigzag-beats-blocks: letters and digits joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", claim.lower()))


def numbers(runs: dict, construction=None, roundings=None) -> dict:
    """name → Run, and the records of benchmarks, to key → text, before escaping."""
    trials = {trial.trial: trial for run in runs.values() for trial in run.trials}
    found = {"preview": _preview(runs.values()), "trials": f"{len(trials):,}",
             "processor-hours": _processor_hours(trials.values()), **_published()}
    for name, run in runs.items():
        own = {**_inputs(run), **_trends(run)}
        if name in LOSS_RUNS:
            own |= _losses(run)
        for make in OF_RUN.get(name, ()):
            own |= make(run)
        found |= {f"{name}.{key}": text for key, text in own.items()}
    if {"mechanisms", "baselines"} <= runs.keys():
        found |= _clipped_levels(runs["mechanisms"], runs["baselines"])
    if {"arithmetic", "baselines"} <= runs.keys():
        found |= _apart_by_arithmetic(runs["arithmetic"], runs["baselines"])
    if construction and {"sites", "baselines"} <= runs.keys():
        found |= _construction_times(construction, runs)
    if roundings:
        found |= {f"roundings.{key}": text for key, text in
                  rounding_costs.numbers(roundings).items()}
    return found


def _published() -> dict:
    known = published.load()
    return {**{f"published.speed.{n.method}": f"{n.value:,.0f}" for n in known
               if n.measure == published.SPEED},
            **{f"published.kept.{n.method}.{n.setting}": n.text for n in known
               if n.measure == published.KEPT}}


def _preview(runs) -> str:
    """The mark with the fewest seeds among those of all runs."""
    marks = {mark for run in runs if (mark := style.preview_mark(run.groups))}
    return min(marks, key=lambda mark: int(re.search(r"\d+", mark)[0]), default="")


def _processor_hours(trials) -> str:
    seconds = sum(trial.timing["total_seconds"] * trial.timing["threads"] for trial in trials)
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
             "backend": _arithmetic(trials)}
    told = [trial for trial in trials if trial.has_language]
    if told:
        windows = len(told[0].windows["nll"])
        length = told[0].config["evaluation.window_tokens"]
        found |= {"windows": str(windows), "window_tokens": length,
                  "tokens": f"{windows * int(length):,}",
                  "float.loss": f"{told[0].metrics['nll_float']:.3f}",
                  "float.perplexity": f"{told[0].float_ppl:.2f}"}
    return found


def _arithmetic(trials) -> str:
    """What they were computed with; how many with which where that differs."""
    counts = Counter(trial.math_backend for trial in trials).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return " and ".join(f"{name} for {count} trial{'s' if count > 1 else ''}"
                        for name, count in counts)


def _apart_by_arithmetic(again: Run, run: Run) -> dict:
    """How far the losses of the same trials lie apart that were computed with other arithmetic."""
    def options(trial):
        return frozenset((key, value) for key, value in trial.config.items()
                         if not key.endswith(".path"))

    known = {options(trial): trial for trial in run.trials if trial.has_language}
    pairs = [(trial, other) for trial in again.trials if (other := known.get(options(trial)))
             and trial.math_backend != other.math_backend]
    found = {}
    for key, learned in (("arithmetic", False), ("arithmetic.learned", True)):
        apart = [abs(trial.metrics["nll_over_float"] - other.metrics["nll_over_float"])
                 for trial, other in pairs if bool(trial.learning) == learned]
        if apart:
            found |= {f"{key}.pairs": str(len(apart)), f"{key}.mean": f"{np.mean(apart):.3f}",
                      f"{key}.largest": f"{max(apart):.3f}"}
    return found


def _trends(run: Run) -> dict:
    trends = run.trends
    found = {"trends": str(len(trends))} if trends else {}
    for verdict in ("confirmed", "contradicted", "unresolved", "no data") if trends else ():
        count = sum(trend["verdict"] == verdict for trend in trends)
        found[verdict.replace(" ", "-")] = str(count)
    if trends:
        found["by-margin"] = str(sum(_by_margin(trend) for trend in trends))
    for trend in trends:
        found[f"trend.{slug(trend['claim'])}"] = _verdict(trend)
    return found


def _by_margin(trend) -> bool:
    """Whether a claim is confirmed that would not be if it had no margin."""
    return trend["verdict"] == "confirmed" and trend.get("margin", 0) > 0 \
        and trend["difference"] + trend.get("half_width", math.nan) >= 0


def _verdict(trend) -> str:
    if trend["verdict"] == "no data":
        return "no data"
    interval = stats.Interval(trend["difference"], trend.get("half_width", math.nan), 0)
    within = f" within a margin of {trend['margin']:g}" if _by_margin(trend) else ""
    count = trend["pairs"]
    rested = f"{count} pair{'' if count == 1 else 's'}" if trend.get("paired", True) \
        else f"unpaired, {count} or more a side"
    return f"{trend['verdict']}{within}, {phrases.signed(interval)}, {rested}"


def _losses(run: Run) -> dict:
    placed = {}
    for group in run.groups:
        rounding = _rounding(group)
        variant = _variant(group)
        if variant is None or run.short(group, without=NAMED) != group.method \
                or not _learned_as_published(group):
            continue
        place = (variant, rounding, group.widths)
        if place in placed:
            raise RunError(f"{run.folder}: {placed[place].label} and {group.label} are both "
                           f"{variant}, {rounding}, {group.widths}")
        placed[place] = group
    found = {}
    for (variant, rounding, widths), group in placed.items():
        end = f"{variant}.{rounding}.{widths}"
        found[f"loss.{end}"] = phrases.plain(compare.loss_interval(group))
        ppl = stats.mean_interval([trial.ppl for trial in group.trials]).mean
        if (rounding, widths) == ("rtn", DEPTHS[0]):
            seconds = [trial.timing.get("plan_cpu_seconds", math.nan) for trial in group.trials]
            found[f"seconds.{variant}"] = f"{stats.mean_interval(seconds).mean:.0f}"
        found[f"perplexity.{end}"] = f"{ppl:,.2f}" if math.isfinite(ppl) else phrases.DIVERGED
        if group.diverged:
            found[f"lost.{end}"] = f"{group.diverged} of {len(group.trials)}"
        ratio = tables.mean_of(group, "learning.held_out_ratio")
        if math.isfinite(ratio):
            by = "gptq." if rounding == "gptq" else ""
            found[f"{by}held-out.{variant}.{widths}"] = f"{ratio:.3f}"
    return found | _comparisons(placed)


def _learned_as_published(group) -> bool:
    """SpinQuant learns on float weights where GPTQ follows, unless weights are all that is rounded:
    then it would have nothing to learn."""
    config = group.trials[0].config
    float_weights = _rounding(group) == "gptq" and width_family(group.widths)[1] != WEIGHTS
    return config.get(ROUNDED_IN_LEARNING, "true") == ("false" if float_weights else "true") \
        or group.method != "spinquant"


def _rounding(group) -> str:
    return group.trials[0].config.get("quant.rounding", "rtn")


FORMS = {"uniformity_ks": ".3f", "centroid_shift": ".3f"}  # of measures of single sites


def _sites(run: Run) -> dict:
    widths = fig_uniformity.measured_widths(run)
    found = {}
    for group in run.representatives(widths):
        for measure in fig_uniformity.MEASURES:
            for kind in KINDS:
                values = fig_uniformity.values(group, measure, kind)
                if values:
                    found[f"{measure}.{group.method}.{kind}"] = phrases.number(
                        stats.mean_interval(values), FORMS.get(measure, ".2f"))
        for kind in KINDS:
            shares = [100 * share for share in fig_centroids.shift_shares(group, kind)]
            if shares:
                found[f"shift_share.{group.method}.{kind}"] = phrases.number(
                    stats.mean_interval(shares), ".2f")
    bells = fig_uniformity.gaussians(run.representatives(widths), widths)
    for measure in bells[0] if bells else ():
        ends = [f"{bell[measure]:{FORMS.get(measure, '.2f')}}" for bell in bells]
        found[f"{measure}.gaussian.narrow"], found[f"{measure}.gaussian.wide"] = ends[0], ends[-1]
    return found


def _levels(run: Run) -> dict:
    found = {}
    for axis, prefix in (("quant.activation_levels", "levels"),
                         ("quant.rounding", "levels.weights")):
        _, rows = fig_levels.most_compared(run, axis) or ("", {})
        for own in rows.values():
            if prefix == "levels" or _on_min_max(own["midpoint"]):
                found |= _levels_of(own, f"{prefix}.{own['midpoint'].method}")
    return found


def _on_min_max(group) -> bool:
    return grid_words(group.trials[0].config) == GRIDS["omniquant"]


def _levels_of(own: dict, prefix: str) -> dict:
    found = {}
    for choice, group in own.items():
        key = f"{prefix}.{choice}"
        found[key] = phrases.plain(compare.loss_interval(group))
        if choice != "midpoint":
            pair = compare.compare(group, own["midpoint"])
            found[f"{key}.minus"] = phrases.signed(stats.wider(pair.seeds, pair.windows))
    return found


def _block_sizes(run: Run) -> dict:
    found = {}
    quarot = {group.widths: group for group in run.groups
              if (group.method, _rounding(group)) == ("quarot", "rtn")}
    bases = {(group.method, group.widths): group for widths in run.widths
             for group in run.representatives(widths)}
    for group in (group for group in run.groups if "method.block_size" in group.settings):
        end = f"{group.method}.{group.settings['method.block_size']}.{group.widths}"
        found[f"blocks.{end}"] = phrases.plain(compare.loss_interval(group))
        base = bases[group.method, group.widths]
        if base is not group:
            found[f"blocks.minus-base.{end}"] = phrases.compared(group, base)["difference"]
        if group.widths in quarot:
            found |= {f"blocks.{key}.{end}": text for key, text in
                      phrases.compared(group, quarot[group.widths]).items()}
    return found


def _published_orders(run: Run) -> dict:
    found, known = {}, published.load()
    for widths in run.widths:
        for model in published.BESIDE_MODELS:
            pairs = published.pairs(known, run, widths, model)
            if not pairs:
                continue
            told = [pair for pair in pairs if pair.told]
            end = f"{widths}.{model}"
            found |= {f"order.{end}": f"{sum(pair.same for pair in pairs)} of {len(pairs)}",
                      f"told.{end}": str(sum(pair.same for pair in told)),
                      f"reversed.{end}": str(sum(not pair.same for pair in told))}
            if any(not pair.same for pair in told):
                found[f"reversed-pairs.{end}"] = published.reversed_words(pairs)
    return found


def _weights_alone(run: Run) -> dict:
    """GPTQ and SEPTQ against rounding to nearest, with the bits that a weight takes. A group with
    more calibration windows than most has their number behind its name."""
    usual = Counter(trial.config.get("calibration.windows") for trial in run.trials)
    usual = usual.most_common(1)[0][0]
    named = {}
    for group in run.groups:
        windows = group.trials[0].config.get("calibration.windows")
        name = _rounding(group) + ("" if windows == usual else f"-{windows}")
        named[name, group.widths] = group
    found = {}
    for (name, widths), group in named.items():
        bits = tables.mean_of(group, "weight.effective_bits")
        if math.isfinite(bits):
            found[f"bits.{name}.{widths}"] = f"{bits:.2f}"
        if name != "rtn" and ("rtn", widths) in named:
            pair = phrases.compared(group, named["rtn", widths])
            found[f"minus-rtn.{name}.{widths}"] = pair["difference"]
    return found


def _clipped_levels(levels: Run, clipped: Run) -> dict:
    """Levels are compared on grids that span each token; the other runs clip theirs. A narrower grid
    is another remedy for the same loss, so both are set against each other."""
    widths, rows = fig_levels.most_compared(levels, "quant.activation_levels") or ("", {})
    found = {}
    for own in rows.values():
        config = own["midpoint"].trials[0].config
        base = clipped.pick(own["midpoint"].method, widths, {
            "quant.rounding": "rtn",
            **{key: value for key, value in config.items() if key.startswith("method.")}})
        if base is None:
            continue
        key = f"mechanisms.levels.{base.method}.clipped"
        found[key] = phrases.plain(compare.loss_interval(base))
        for choice, group in own.items():
            pair = compare.compare(group, base)
            found[f"{key}.{choice}.minus"] = phrases.signed(stats.wider(pair.seeds, pair.windows))
    return found


def _schedules(run: Run) -> dict:
    """What the published schedules reach in the part that was run, beside the short ones, and would
    take in whole."""
    found, quarters = {}, []
    for group, short in tables.on_both_schedules(run.groups, run):
        if short is None:
            continue
        learner = tables.learned_rounding(group) or _variant(group)
        found |= {f"held-out.{learner}{end}":
                  f"{tables.mean_of(own, 'learning.held_out_ratio'):.2f}"
                  for end, own in (("", group), (".short", short))}
        found[f"hours.{learner}"] = f"{tables.whole_seconds(group) / 3600:.1f}"
        quarters += fig_curves.gained(group, 0.25)
    learners = sum(key.startswith("hours.") for key in found)
    if quarters:
        found["quarter"] = f"{100 * np.median(quarters):.0f}"
    return found | ({"learners": str(learners)} if learners else {})


def _construction_times(record, runs: dict) -> dict:
    """What SpinQuant takes over SingleQuant, from calibration to plan and over the maps alone. The
    published schedule comes in by its ratio to the short one of its own run. Nothing where both were
    not timed on one machine."""
    machine, timed = _timed_together(runs["baselines"], {"spinquant", "singlequant"})
    whole = _plan_seconds(timed) if timed else {}
    if not {"spinquant", "singlequant"} <= whole.keys():
        return {}
    taken = {"short": whole["spinquant"]}
    schedules = runs.get("paper_schedules")
    for group, short in tables.on_both_schedules(schedules.groups, schedules) if schedules else ():
        if short and group.method == "spinquant":
            taken["paper"] = taken["short"] * tables.whole_seconds(group) \
                / tables.whole_seconds(short)
    alone = _maps_alone(record, runs) if machine == (
        record.machine.get("processor"), record.machine.get("math")) else None
    found = {"construction.singlequant": f"{alone:.3f}"} if alone else {}
    for schedule, cost in taken.items():
        found[f"construction.times.{schedule}"] = f"{cost / whole['singlequant']:,.0f}"
        if alone:
            found[f"construction.times.{schedule}.alone"] = f"{cost / alone:,.0f}"
    return found


def _timed_together(run: Run, methods: set) -> tuple:
    """The processor and arithmetic with the most trials that has some of all these methods, and the
    run of its trials alone; (None, None) where there is none."""
    by_machine = {}
    for trial in run.trials:
        machine = trial.timing.get("processor"), trial.math_backend
        by_machine.setdefault(machine, []).append(trial)
    both = [(machine, trials) for machine, trials in by_machine.items()
            if methods <= {trial.method for trial in trials}]
    if not both:
        return None, None
    machine, trials = max(both, key=lambda one: len(one[1]))
    return machine, replace(run, trials=trials)


def _maps_alone(record, runs: dict) -> float | None:
    """Seconds of SingleQuant's maps for all sites of the model: three of a layer have its width. None
    where the benchmark lacks a width or took not as many tokens as the run."""
    single = [trial for trial in runs["baselines"].trials if trial.method == "singlequant"]
    tokens = {int(trial.config["calibration.windows"])
              * int(trial.config["calibration.window_tokens"]) for trial in single}
    widths = {site.rpartition(".")[2]: before.shape[1] for trial in runs["sites"].trials
              for site, (before, _) in trial.samples().items()}
    places = [record_["where"].split(".") for trial in runs["baselines"].trials
              for record_ in trial.learning]
    layers = {int(parts[1]) for parts in places if parts[0] == "layers"}
    seconds = {row["width"]: stats.mean_interval(row["seconds"]).mean for row in record.rows
               if row["method"] == "singlequant" and tokens == {row["tokens"]}}
    if not {widths.get("attn_in"), widths.get("mlp_out")} <= seconds.keys() or not layers:
        return None
    return (max(layers) + 1) * (3 * seconds[widths["attn_in"]] + seconds[widths["mlp_out"]])


def _plan_seconds(run: Run) -> dict:
    """Method → processor seconds of its base at DEPTHS[0]."""
    return {group.method: float(np.mean([trial.timing.get("plan_cpu_seconds", math.nan)
                                         for trial in group.trials]))
            for group in run.representatives(DEPTHS[0])}


def _changes(run: Run) -> dict:
    """How the default of the ablations lies among the single changes of it, all held against it."""
    widths = departures.best_covered_widths(run)
    found = departures.departures(run, widths)
    if not found:
        return {}
    base = found[0].base
    # Two ways to write one change come to the same losses.
    found = list({tuple(d.group.losses): d for d in reversed(found)}.values())[::-1]
    below = sum(d.pair.windows.mean < 0 for d in found)
    lower = [d for d in found if d.pair.verdict == "lower"]
    own = {"default": phrases.plain(compare.loss_interval(base)),
           "default.seeds": str(len(base.trials)),
           "changes": str(len(found)), "changes.below": str(below),
           "changes.seeds": str(min(len(d.group.trials) for d in found)),
           "changes.lower": str(len(lower))}
    if lower:
        own["changes.lower-names"] = "; ".join(d.words for d in lower)
    for d in found:
        if len(d.changed) == 1:
            both = stats.wider(d.pair.seeds, d.pair.windows)
            own[f"minus.{d.axis.removeprefix('method.')}.{d.changed[d.axis]}"] = \
                phrases.signed(both)
    blocks = base.trials[0].config.get("method.block_size")
    tuned = [run.pick("ruquant", widths, {**TUNED, "method.preset": preset,
                                          "method.block_size": blocks})
             for preset in ("paper", "official")]
    if all(tuned) and tuned[0] is not tuned[1]:
        own |= {f"tuned-paper.{key}": text for key, text in phrases.compared(*tuned).items()}
    return own


TUNED = {"method.global_reflection": "finetuned", "method.epochs": "3"}


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
            key = f"{what.replace(' ', '-')}.{variant}.{group.widths}"
            found[key] = phrases.number(interval, ".1f")
    for widths in run.widths if names else ():
        bases = {group.method: group for group in run.representatives(widths)}
        for other in ("duquant", "quarot"):
            if {"ruquant", other} <= bases.keys():
                found[f"points.ruquant.{other}.{widths}"] = \
                    tables.points_cell(bases["ruquant"], bases[other], names)
    return found


def _variant(group) -> str | None:
    config = group.trials[0].config
    for name, options in VARIANTS.items():
        if name.split("-")[0] == group.method and \
                all(config.get(key, value) == value for key, value in options.items()):
            return name
    return None


def _comparisons(placed: dict) -> dict:
    """Of the variants in COMPARED with all others, of PAIRS, and of GPTQ with rounding to nearest."""
    found = {}
    for (variant, rounding, widths), group in placed.items():
        for (other, *where), reference in placed.items():
            asked = variant in COMPARED and widths in DEPTHS or (variant, other) in PAIRS
            if other != variant and where == [rounding, widths] and asked:
                found |= {f"{key}.{variant}.{other}.{rounding}.{widths}": text
                          for key, text in phrases.compared(group, reference).items()}
        nearest = placed.get((variant, "rtn", widths))
        if rounding == "gptq" and nearest:
            found |= {f"gptq.{key}.{variant}.{widths}": text
                      for key, text in phrases.compared(group, nearest).items()}
    return found


# run → what it has besides
OF_RUN = {"baselines": (_published_orders,), "second_model": (_block_sizes,), "sites": (_sites,),
          "mechanisms": (_levels, mechanism_numbers.numbers), "tasks": (_accuracies,),
          "ablations": (_changes,), "weight_only": (_weights_alone,),
          "paper_schedules": (_schedules,)}


def write(runs: dict, out, **records) -> Path:
    """Writes OUT/tables/numbers.tex from name → Run and returns its path."""
    path = Path(out) / "tables" / "numbers.tex"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"\\setnumber{{{key}}}{{{_latex(text)}}}\n"
             for key, text in numbers(runs, **records).items()]
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
    found, faults, records = {}, [], {}
    absent = lacking_optional(options.runs, RUNS)
    for name in (name for name in RUNS if name not in absent):
        try:
            found[name] = load_run(options.runs / name)
        except (RunError, OSError) as error:
            faults.append(str(error))
    try:
        if (options.runs / "construction").is_dir():
            records["construction"] = fig_construction.load(options.runs / "construction")
        if not lacking_optional(options.runs, OPTIONAL_FILES):
            records["roundings"] = rounding_costs.load(options.runs)
        if not faults:
            print(write(found, options.out, **records))
    except (RunError, OSError) as error:
        faults.append(str(error))
    for fault in faults:
        print(f"paper_numbers: {fault}", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
