"""Numbers of the run of single mechanisms: rotations of single sites, what is tuned of RUQuant, and
weight roundings on rotated weights. Keys are listed in paper_numbers.py."""

import math
from itertools import chain

import numpy as np

from analysis import compare, phrases
from analysis.runs import Run
from analysis.tables import rounding_seconds

WIDTHS = "W4A4-Q4K4V4"
W4, W3, W2 = (f"W{bits}A16-Q16K16V16" for bits in (4, 3, 2))

# What is learned site by site, before any smoothing: name → method, options; and its start.
UNSMOOTHED = {"method.smoothing": "none"}
OBJECTIVES = ("psot", "smooth_range", "straight_through")
LEARNED = {**{name: ("learned_rotation", {**UNSMOOTHED, "method.objective": name,
                                          "method.steps": "30"}) for name in OBJECTIVES},
           "infoquant": ("infoquant", {"method.steps": "40", "method.learn_clips": "false"})}
STARTS = {"learned_rotation": {**UNSMOOTHED, "method.steps": "0"},
          "infoquant": {"method.steps": "0"}}
OBJECTIVE_WORDS = {"psot": "InfoQuant's peak loss", "smooth_range": "smooth ranges",
                   "straight_through": "straight-through gradients"}

# SingleQuant as it is read, and what is changed of it.
SINGLEQUANT = {**UNSMOOTHED, "method.art": "true", "method.urt": "true", "method.art_tokens": "all",
               "method.fit": "token", "method.representative": "peak",
               "method.layout": "kronecker", "method.urt_form": "chain",
               "method.mean_to_ones": "false"}
NO_ART, NO_URT = {"method.art": "false"}, {"method.urt": "false"}
SINGLEQUANT_PARTS = {
    "none": {**NO_ART, **NO_URT}, "urt": NO_ART, "art": NO_URT, "both": {},
    **{f"{part}-{tokens}": {**without, "method.art_tokens": tokens}
       for tokens in ("massive", "ordinary") for part, without in (("art", NO_URT), ("both", {}))},
    "tokens": {"method.fit": "tokens"},
    **{f"tokens-{tokens}": {"method.fit": "tokens", "method.art_tokens": tokens}
       for tokens in ("massive", "ordinary")},
    "mean": {"method.representative": "mean"}, "block": {"method.layout": "block"},
    "reflection": {"method.urt_form": "reflection"}, "ones": {"method.mean_to_ones": "true"}}

# Optimizers of RUQuant's reflections. AdamW takes 24 steps of one window; L-BFGS sees four windows
# at each of its evaluations, so six are as many tokens.
TUNED = {"adamw": {"method.finetune_optimizer": "adamw"},
         **{name: {"method.finetune_optimizer": "lbfgs", "method.finetune_iterations": "30",
                   "method.finetune_evaluations": budget}
            for name, budget in (("lbfgs", "6"), ("lbfgs-long", "24"))}}

# Roundings on rotated weights, on a grid whose range is searched: name → rounding, changes.
ROTATED = {"method.smoothing": "none", "quant.weight.rule": "quarot_weight",
           "quant.weight.search": "true", "quant.weight.group_size": "0",
           "quant.activation_levels": "midpoint", "quant.septq.kept_percent": "1",
           "quant.septq.mask_scope": "global", "quant.gptq.act_order": "false",
           "quant.gptq.damping": "0.01", "quant.uniquanf.mapping": "local"}
ROUNDINGS = {
    **{name: (name, {}) for name in ("rtn", "gptq", "septq", "bcq", "uniquanf_init", "uniquanf",
                                     "flexround", "centroid", "lloyd_max")},
    **{f"septq-{share}": ("septq", {"quant.septq.kept_percent": share})
       for share in ("0.1", "0.5", "2", "5")},
    "septq-row": ("septq", {"quant.septq.mask_scope": "row"}),
    "gptq-act-order": ("gptq", {"quant.gptq.act_order": "true"}),
    **{f"gptq-damped-{word}": ("gptq", {"quant.gptq.damping": share})
       for word, share in (("less", "0.001"), ("more", "0.1"))},
    **{f"{name}-unsearched": (name, {"quant.weight.search": "false"})
       for name in ("rtn", "gptq", "septq")},
    **{f"{name}-groups": (name, {"quant.weight.group_size": "64"}) for name in ("rtn", "gptq")},
    "uniquanf-direct": ("uniquanf", {"quant.uniquanf.mapping": "direct"})}
LEARNED_ROUNDINGS = ("uniquanf", "flexround", "uniquanf-direct")
ROUNDING_PAIRS = (("septq", "gptq"), ("septq", "gptq-groups"), ("septq-0.1", "gptq"),
                  ("septq-row", "septq"),
                  ("gptq-act-order", "gptq"), ("gptq-damped-less", "gptq"),
                  ("gptq-damped-more", "gptq"), ("rtn-unsearched", "rtn"),
                  ("gptq-unsearched", "gptq"), ("septq-unsearched", "septq"),
                  ("rtn-groups", "rtn"), ("gptq-groups", "gptq"), ("uniquanf", "uniquanf_init"),
                  ("flexround", "rtn"), ("uniquanf", "flexround"), ("uniquanf", "gptq"),
                  ("uniquanf-direct", "uniquanf"), ("uniquanf-direct", "flexround"))


def numbers(run: Run) -> dict:
    return {**_learned(run), **_singlequant(run), **_tuning(run), **_roundings(run),
            **_readings(run)}


def quartiles(group, name: str) -> tuple | None:
    """Of a detail over all places and seeds; None where it was not recorded."""
    values = list(chain.from_iterable(trial.learning_details(name) for trial in group.trials))
    return tuple(np.quantile(values, [0.25, 0.5, 0.75])) if values else None


def held_out(group) -> float:
    """Held-out error over that of the start, geometric mean over places and seeds."""
    logs = [math.log(ratio) for trial in group.trials for ratio in trial.held_out_ratios().values()]
    return math.exp(np.mean(logs)) if logs else math.nan


def spread(quarters: tuple, form: str) -> str:
    """The median with the quartiles in brackets."""
    low, middle, high = (compare.signed(value, form) for value in quarters)
    return f"{middle} ({low} to {high})"


def _learned(run: Run) -> dict:
    starts = {method: run.pick(method, WIDTHS, options) for method, options in STARTS.items()}
    closed = {name: _part_of_singlequant(run, name) for name in ("art", "tokens", "tokens-massive")}
    groups = {name: group for name, asked in LEARNED.items()
              if (group := run.pick(asked[0], WIDTHS, asked[1]))}
    found = {}
    for name, group in groups.items():
        own = {"loss": phrases.plain(compare.loss_interval(group)),
               "held-out": f"{held_out(group):.3f}"}
        for short, (key, form) in {
                "noise-start": ("gradient_noise_start", ".2f"),
                "noise-end": ("gradient_noise_end", ".2f"),
                "promise-start": ("kept_promise_start", ".2f"),
                "promise-end": ("kept_promise_end", ".2f"),
                "variation": ("loss_total_variation_over_drop", ".1f")}.items():
            quarters = quartiles(group, key)
            if quarters:
                own[short] = spread(quarters, form)
        for short, other in {"start": starts[group.method], **closed}.items():
            if other:
                own |= {f"{short}.{key}": text
                        for key, text in phrases.compared(group, other).items()}
        found |= {f"learned.{name}.{key}": text for key, text in own.items()}
    sites = {name: held_out(groups[name]) for name in OBJECTIVES if name in groups}
    if len(sites) == len(OBJECTIVES):
        found["learned.least"] = OBJECTIVE_WORDS[min(sites, key=sites.get)]
    return found


def _part_of_singlequant(run: Run, name: str):
    return run.pick("singlequant", WIDTHS, {**SINGLEQUANT, **SINGLEQUANT_PARTS[name]})


def _singlequant(run: Run) -> dict:
    groups = {name: group for name in SINGLEQUANT_PARTS
              if (group := _part_of_singlequant(run, name))}
    found = {f"singlequant.{name}": phrases.plain(compare.loss_interval(group))
             for name, group in groups.items()}
    if "both-massive" in groups:
        lines = groups["both-massive"].trials[0].fallbacks
        found["singlequant.no-massive"] = str(sum("no massive tokens" in line for line in lines))
    if "both" in groups:
        found |= {f"singlequant.{name}.minus": phrases.compared(group, groups["both"])["difference"]
                  for name, group in groups.items() if name != "both"}
    return found


NO_STEP = "Parameter tolerance reached"  # how Ceres ends where its next step is nothing


def _tuning(run: Run) -> dict:
    """What the ways of moving RUQuant's reflections took, and what it gave to held-out blocks."""
    found = {}
    for name, options in TUNED.items():
        group = run.pick("ruquant", WIDTHS, {"method.global_reflection": "finetuned", **options})
        if group is None:
            continue
        blocks = [record for trial in group.trials for record in trial.learning]
        stuck = sum(record["termination"].startswith(NO_STEP) for record in blocks)
        found |= {f"tuning.{name}.evaluations": f"{_mean(blocks, 'evaluations'):.0f}",
                  f"tuning.{name}.stuck": f"{100 * stuck / len(blocks):.0f}",
                  f"tuning.{name}.tokens": f"{_mean(blocks, 'tokens'):,.0f}",
                  **_judged(name, group)}
    group = run.pick("ruquant", WIDTHS, {"method.global_reflection": "optimized"})
    if group and not any(record["optimizer"] == "" for record in group.trials[0].learning):
        group = None  # its blocks were not judged
    return found | (_judged("optimized", group) if group else {})


def _mean(records: list, key: str) -> float:
    return float(np.mean([record[key] for record in records]))


def _judged(name: str, group) -> dict:
    """Over all blocks and seeds; a block that was not moved is one that was not improved."""
    logs = {}  # block → of every seed
    for trial in group.trials:
        for where, ratio in trial.held_out_ratios(unmoved=True).items():
            logs.setdefault(where, []).append(math.log(ratio))
    every = list(chain.from_iterable(logs.values()))
    foremost = min(logs, key=lambda where: np.mean(logs[where]))
    own = {"improved": f"{100 * np.mean(np.array(every) < 0):.0f}",
           "held-out": f"{math.exp(np.mean(every)):.3f}",
           "median": f"{math.exp(np.median(every)):.3f}",
           "foremost": foremost.rpartition(".")[2],
           "foremost.held-out": f"{math.exp(np.mean(logs[foremost])):.2f}"}
    return {f"tuning.{name}.{key}": text for key, text in own.items()}


def _roundings(run: Run) -> dict:
    found = {}
    for widths in (W4, W3, W2):
        groups = {name: group for name, (rounding, changes) in ROUNDINGS.items()
                  if (group := run.pick("quarot", widths,
                                        {"quant.rounding": rounding, **ROTATED, **changes}))}
        for name, group in groups.items():
            found |= {f"rounding.{key}.{name}.{widths}": text
                      for key, text in _rounding(name, group).items()}
        for name, other in ROUNDING_PAIRS:
            if name in groups and other in groups:
                found |= {f"rounding.{key}.{name}.{other}.{widths}": text for key, text in
                          phrases.compared(groups[name], groups[other]).items()}
    errors = [trial.metrics["weight.unification_error"] for trial in run.trials
              if trial.config.get("quant.rounding") == "uniquanf"
              and "weight.unification_error" in trial.metrics]
    return found | ({"rounding.unification": f"{max(errors):.0e}"} if errors else {})


def _rounding(name: str, group) -> dict:
    own = {"loss": phrases.plain(compare.loss_interval(group)),
           "seconds": f"{np.mean([rounding_seconds(t) for t in group.trials]):.0f}"}
    for key, (metric, form) in {"bits": ("weight.effective_bits", ".2f"),
                                "mib": ("weight.mib", ".1f")}.items():
        values = [t.metrics[metric] for t in group.trials if metric in t.metrics]
        if values:
            own[key] = f"{np.mean(values):{form}}"
    # One seed is not enough to say that learning fails.
    if name in LEARNED_ROUNDINGS and len(group.trials) > 1:
        own["held-out"] = f"{held_out(group):.2f}"
    return own


def _readings(run: Run) -> dict:
    """Other readings of single steps of methods against the usual ones."""
    asked = {"duquant.channel": ("duquant", {"method.lwc": "false", "method.index": "row"},
                                 {"method.index": "channel"}),
             "infoquant.clips": (*LEARNED["infoquant"], {"method.learn_clips": "true"}),
             "spinquant.tenth": ("spinquant", {"quant.rounding": "gptq", "method.learn": "none"},
                                 {"method.learn": "both", "method.learning_rate": "0.15"})}
    found = {}
    for name, (method, options, changes) in asked.items():
        base, group = (run.pick(method, WIDTHS, wanted)
                       for wanted in (options, {**options, **changes}))
        if base and group and base is not group:
            found |= {f"reading.{name}.{key}": text
                      for key, text in phrases.compared(group, base).items()}
    return found
