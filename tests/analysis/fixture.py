"""Fabricates run folders in the layout that runexp writes. Test material only: every number below
is drawn from a seeded generator or made up, and stands for no measurement."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from analysis.load import OPTIONAL_RUNS  # noqa: E402

WINDOWS = 10
SEEDLESS = ("rtn", "smoothquant")
BLOCK_LEARNERS, SITE_LEARNERS = ("ruquant", "spinquant"), ("infoquant", "learned_rotation")
ROUNDING_LEARNERS = ("uniquanf", "flexround")
LAYERS = (0, 10, 20, 29)
KINDS = ("attn_in", "attn_out", "mlp_in", "mlp_out")
WIDTHS = {"W4A4-Q4K4V4": 1.0, "W6A6-Q6K6V6": 0.05}
# method and settings → made-up loss at the first widths
DESIGN = [
    ("rtn", {}, 3.9), ("smoothquant", {}, 2.6), ("hadamard", {}, 0.62), ("quarot", {}, 0.55),
    ("householder", {"method.block_size": "128"}, 0.9),
    ("givens", {"method.block_size": "128"}, 1.15),
    ("duquant", {"method.block_size": "32"}, 0.71), ("duquant", {"method.block_size": "64"}, 0.6),
    ("duquant", {"method.block_size": "128"}, 0.52),
    ("ruquant", {"method.block_size": "32"}, 0.73), ("ruquant", {"method.block_size": "64"}, 0.59),
    ("ruquant", {}, 0.5), ("ruquant", {"method.preset": "paper"}, 0.47),
    ("ruquant", {"method.preset": "paper", "method.block_size": "64"}, 0.56),
    ("ruquant", {"method.preset": "paper", "method.block_size": "32"}, 0.69),
    ("ruquant", {"method.rotation": "householder"}, 0.53),
    ("ruquant", {"method.rotation": "givens"}, 0.66),
    ("ruquant", {"method.rotation": "hadamard"}, 0.6),
    ("ruquant", {"method.partition": "contiguous"}, 0.57),
    ("ruquant", {"method.global_reflection": "none"}, 0.51),
    ("ruquant", {"method.global_reflection": "optimized"}, 0.49),
    ("ruquant", {"method.smoothing": "none"}, 0.64),
]
RUQUANT_DEFAULTS = {"method.preset": "official", "method.rotation": "composite",
                    "method.block_size": "128", "method.partition": "zigzag",
                    "method.global_reflection": "init", "method.smoothing": "0.6"}


def make_run(folder, design=DESIGN, seeds=(1, 2, 3), widths=WIDTHS, channels=32, tokens=16,
             samples=True, sites=("10.mlp_in",), bins=False, tasks=(), prefix="t") -> Path:
    """A run with every combination of design, widths and seeds; seedless methods run once. With
    another prefix of trials it adds to a run."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text("about: fabricated for tests\nsweep: {}\n")
    float_windows = 2.7 + 0.2 * np.random.default_rng(0).standard_normal(WINDOWS)
    ids, keys = [], sorted({key for _, settings, _ in design for key in settings})
    for method, settings, loss in design:
        for name, factor in widths.items():
            for seed in seeds if method not in SEEDLESS else (0,):
                rng = np.random.default_rng([len(ids), seed])
                ids.append(f"{prefix}{len(ids):03d}")
                data = results(ids[-1], method, settings, name, seed, keys)
                add_loss(data, loss * factor, float_windows, rng)
                add_sites(data, loss, rng)
                if method in BLOCK_LEARNERS or settings.get("quant.rounding") in ROUNDING_LEARNERS:
                    add_learning(data, rng)
                if method in SITE_LEARNERS:
                    add_site_learning(data, rng)
                add_weights(data)
                for number, task in enumerate(tasks):
                    add_task(data, task, 0.25 / (1 + loss * factor) + 0.04 * number, rng)
                write_trial(folder / ids[-1], data)
                if samples:
                    write_samples(folder / ids[-1], method, rng, channels, tokens, sites)
                if bins:
                    write_bins(folder / ids[-1], method, loss)
                if tasks:
                    write_items(folder / ids[-1], data, rng)
    return folder


def write_trends(folder) -> None:
    """One made-up verdict of each kind."""
    rows = [("zigzag beats blocks as they come", "confirmed", -0.07, 0.02, 3),
            ("larger blocks are better", "contradicted", 0.05, 0.01, 3),
            ("a second permutation gains little; it is not better, whatever the size of the blocks",
             "unresolved", -0.01, 0.03, 9),
            ("one pair says nothing", "no data", 0.2, None, 1),
            ("nothing to pair", "no data", 0.0, None, 0)]
    trends = [{"claim": claim, "metric": "nll_over_float", "verdict": verdict,
               "difference": difference, "pairs": pairs,
               **({} if half is None else {"half_width": half})}
              for claim, verdict, difference, half, pairs in rows]
    (folder / "trends.json").write_text(json.dumps(trends))


def add_learning(data, rng, blocks=4) -> None:
    """A record a block whose held-out error falls to about nine tenths, and one of a site."""
    def record(where):
        return {"where": where, "optimizer": "adamw", "objective": "block output",
                "initial_loss": 1.0, "final_loss": 0.8, "held_out_initial": 2.0,
                "held_out_final": 2.0 * float(0.9 + 0.05 * rng.standard_normal()), "steps": 24,
                "evaluations": 24, "tokens": 6144, "termination": "Took all 24 steps.",
                "losses": [1 - 0.01 * step for step in range(24)], "details": {}}
    data["learning"] = [record(f"layers.{block}") for block in range(blocks)]
    data["learning"].append(record("layers.0.attn_in"))
    data["metrics"] |= {"learning.share": 0.5, "learning.steps": 24.0 * blocks,
                        "learning.tokens": 6144.0 * blocks, "learning.held_out_ratio": 0.9}


def add_site_learning(data, rng, sites=6) -> None:
    """A record a site whose held-out error falls to about eight tenths, unless no step was asked
    for, with made-up measures of its gradient."""
    steps = int(data["config"].get("method.steps", "30"))
    data["learning"] = [{
        "where": f"layers.{site}.attn_in", "optimizer": "cayley sgd", "objective": "made up",
        "initial_loss": 1.0, "final_loss": 0.7, "held_out_initial": 2.0,
        "held_out_final": 2.0 * float(0.8 + 0.05 * rng.standard_normal()) if steps else 2.0,
        "steps": steps, "evaluations": steps, "tokens": 128 * steps, "termination": "",
        "details": {"gradient_noise_start": float(rng.uniform(0.5, 2)),
                    "gradient_noise_end": float(rng.uniform(2, 6)),
                    "kept_promise_start": float(rng.normal(1, 0.1)),
                    "kept_promise_end": float(rng.normal(0.9, 0.1)),
                    **({"loss_total_variation_over_drop": float(rng.uniform(3, 9))} if steps
                       else {})}} for site in range(sites)]
    data["metrics"] |= {"learning.steps": float(steps * sites),
                        "learning.tokens": 128.0 * steps * sites}
    if steps:
        data["metrics"] |= {"learning.share": 1.0, "learning.held_out_ratio": 0.8}


def add_weights(data) -> None:
    """Made-up bits of a weight, a size, and how far UniQuanF's deployed weights are off."""
    rounding = data["config"].get("quant.rounding", "")
    bits = int(data["widths"][1:data["widths"].index("A")]) + 0.05 + 0.5 * (rounding == "septq")
    data["metrics"] |= {"weight.effective_bits": bits, "weight.mib": 12.5 * bits}
    if rounding == "uniquanf":
        data["metrics"]["weight.unification_error"] = 3e-16


def results(trial, method, settings, widths, seed, axis_keys=()) -> dict:
    """results.json of a trial before it has numbers."""
    config = {"calibration.windows": "8", "calibration.window_tokens": "64",
              **(RUQUANT_DEFAULTS if method == "ruquant" else {}), **settings}
    config |= {"method": method, "quant.widths": widths, "seed": str(seed),
               "evaluation.windows": str(WINDOWS), "evaluation.window_tokens": "1024"}
    axes = {key: config[key] for key in ("method", "quant.widths", "seed", *axis_keys)
            if key in config}
    return {
        "format": "ruquant-results", "format_version": 1, "trial": trial,
        "about": " ".join(axes.values()), "method": method, "widths": widths, "seed": seed,
        "random": method not in SEEDLESS,
        "config": config, "axes": axes,
        "inputs": {"model": "toy-model", "model_digest": "aa", "text": "toytext",
                   "model_note": "float means 4-bit blocks dequantized, not the trained weights",
                   "text_digest": "bb", "stream": "float_samples"},
        "token_ranges": {"calibration": [0, 400000], "test": [500000, 510240]},
        "math_backend": "onednn 3 avx2", "build_preset": "release",
        "metrics": {}, "windows": {}, "sites": {}, "fallbacks": []}


def add_loss(data, loss, float_windows, rng=None) -> None:
    """Windows around `loss` over float (exactly there without a generator), and their metrics."""
    noise = rng.standard_normal(WINDOWS + 1) if rng else np.zeros(WINDOWS + 1)
    shift = 0.04 * noise[0] if data["method"] not in SEEDLESS else 0.0
    nll = np.asarray(float_windows) + loss * (1 + shift + 0.1 * noise[1:])
    mean = float(nll.mean())
    data["windows"] = {"nll": nll.tolist(), "nll_float": list(float_windows),
                       "kl": (0.9 * loss + 0 * nll).tolist(), "agreement": [0.7] * WINDOWS}
    data["metrics"] |= {"nll": mean, "ppl.w1024": float(np.exp(mean)), "agreement": 0.7,
                        "nll_over_float": mean - float(np.mean(float_windows)), "kl": 0.9 * loss,
                        "nll_float": float(np.mean(float_windows)),
                        "ppl_float.w1024": float(np.exp(np.mean(float_windows)))}


def add_sites(data, loss, rng) -> None:
    for layer in LAYERS:
        for place, kind in enumerate(KINDS):
            error = -19 + 4 * np.log(loss) + 1.5 * place + 0.05 * layer + 0.4 * rng.normal()
            data["sites"][f"layers.{layer}.{kind}"] = {
                "output_error_db": error, "activation_error_db": error - 2, "range_ratio": 0.4,
                "kurtosis": 5.0, **shapes(loss + 0.1 * place, rng)}
    measures = {name for site in data["sites"].values() for name in site}
    for name in sorted(measures):
        for kind in KINDS:
            data["metrics"][f"tensor.{name}.{kind}"] = float(np.mean(
                [data["sites"][f"layers.{layer}.{kind}"][name] for layer in LAYERS]))


def shapes(loss, rng) -> dict:
    """Made-up measures of how uniform a tensor is; closer to uniform at a smaller loss."""
    noise = 0.02 * rng.standard_normal(5)
    return {"uniformity_ks": 0.1 + 0.06 * loss + 0.1 * noise[0],
            "uniform_gap_db": 2 + 3 * loss + noise[1], "lloyd_max_gap_db": 1 + 3 * loss + noise[2],
            "centroid_shift": 0.02 + 0.01 * loss + 0.1 * noise[3],
            "range_over_rms": 4 + 2 * loss + noise[4]}


def add_task(data, task, kept, rng, items=40, chance=0.25) -> None:
    """A made-up accuracy `kept` above chance, where the float model is 0.25 above it."""
    accuracy = float(np.round((chance + kept + 0.01 * rng.normal()) * items) / items)
    reference = chance + 0.25
    data["metrics"][f"task.{task}.chance"] = chance
    for kind in ("acc", "acc_norm"):
        name = f"task.{task}.{kind}"
        data["metrics"] |= {name: accuracy, f"{name}_float": reference,
                            f"{name}_stderr": (accuracy * (1 - accuracy) / (items - 1)) ** 0.5,
                            f"{name}_kept": accuracy / reference,
                            f"{name}_kept_above_chance": (accuracy - chance) / 0.25}


def write_trial(folder, data, status="done") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "status").write_text(status + "\n")
    (folder / "results.json").write_text(json.dumps(data))
    pace = 1 + 3 * len(data["method"]) + 0.2 * data["seed"]
    timing = {"plan_seconds": pace, "plan_cpu_seconds": 1.5 * pace, "apply_seconds": 2.0,
              "rounding_seconds": 0.5, "evaluate_seconds": 30.0, "total_seconds": 41.0,
              "peak_memory_mib": 1800 + 9 * pace, "threads": 2,
              "processor": "made-up CPU"}
    (folder / "timing.json").write_text(json.dumps(timing))


def write_samples(folder, method, rng, channels, tokens, sites=("10.mlp_in",)) -> None:
    """Activations with a few outlier channels and one massive token, and their rotation."""
    with h5py.File(folder / "results.h5", "w") as file:
        file.attrs["revision"] = "fab123"
        for site in sites:
            before, after = _sample(method, rng, channels, tokens)
            file[f"samples/{site}/before"], file[f"samples/{site}/after"] = before, after


def _sample(method, rng, channels, tokens) -> tuple:
    base = np.random.default_rng(7)
    before = base.standard_normal((tokens, channels)) * base.gamma(2, 0.5, channels)
    before[:, base.choice(channels, max(1, channels // 90), replace=False)] *= 18
    before[0, base.choice(channels, 2, replace=False)] = 260
    turn = np.linalg.qr(rng.standard_normal((channels, channels)))[0]
    mix = {"rtn": np.eye(channels), "smoothquant": np.diag(1 / np.abs(before).max(0) ** 0.6)}
    return before.astype(np.float32), (before @ mix.get(method, turn)).astype(np.float32)


def write_bins(folder, method, loss, levels=16, cells=16) -> None:
    """Bins of a bell that is the narrower the larger the loss, at two layers of every kind."""
    codes = np.arange(levels)
    with h5py.File(folder / "results.h5", "a") as file:
        for layer in LAYERS[:2]:
            for kind in KINDS:
                after = 0.08 if method == "rtn" else 0.3 / (1 + loss)
                for side, width in (("before", 0.08), ("after", after)):
                    place = (codes + 0.5) / levels - 0.5
                    share = np.exp(-(place / width) ** 2 / 2) + 1e-4
                    group = file.create_group(f"bins/{layer}.{kind}/{side}")
                    group["code"], group["share"] = codes, share / share.sum()
                    group["shift"] = -0.004 * np.sign(place) * np.minimum(1 / width, 40)
                    group["within"] = 1 + (0.02 / width) * np.cos(np.linspace(-3, 3, cells))


def write_items(folder, data, rng, items=40) -> None:
    kinds = ("acc", "acc_norm", "acc_float", "acc_norm_float")
    with h5py.File(folder / "results.h5", "a") as file:
        for key, value in data["metrics"].items():
            if key.startswith("task.") and key.split(".")[2] in kinds:
                right = np.zeros(items)
                right[rng.permutation(items)[:round(value * items)]] = 1
                file[f"items/{key.removeprefix('task.')}"] = right


ABLATION_DEFAULTS = {"method.block_size": "64", "method.steps": "16", "method.permutations": "1",
                     "method.givens_per_step": "3", "method.rotation": "composite",
                     "method.partition": "zigzag", "method.global_reflection": "init",
                     "method.epochs": "3", "calibration.mean_windows": "128",
                     "quant.activation.clip_ratio": "0.9", "quant.queries.clip_ratio": "0.9",
                     "quant.keys.clip_ratio": "0.9", "quant.weight.clip_ratio": "0.8"}
ABLATIONS = [({}, 0.5), ({"method.block_size": "8"}, 1.6), ({"method.block_size": "16"}, 0.9),
             ({"method.block_size": "32"}, 0.6), ({"method.block_size": "128"}, 0.49),
             ({"method.steps": "1"}, 0.8), ({"method.steps": "4"}, 0.56),
             ({"method.steps": "64"}, 0.5), ({"method.permutations": "0"}, 0.62),
             ({"method.permutations": "2"}, 0.5), ({"method.givens_per_step": "0"}, 0.53),
             ({"method.givens_per_step": "6"}, 0.5), ({"method.rotation": "householder"}, 0.53),
             ({"method.rotation": "givens"}, 0.66), ({"method.partition": "contiguous"}, 0.57),
             ({"method.global_reflection": "none"}, 0.51),
             ({"method.global_reflection": "finetuned"}, 0.47),
             ({"method.global_reflection": "finetuned", "method.epochs": "1"}, 0.48),
             ({"calibration.mean_windows": "16"}, 0.505),
             ({f"quant.{name}.clip_ratio": "1" for name in ("activation", "queries", "keys")},
              0.58), ({"quant.weight.clip_ratio": "1"}, 0.56)]
BASELINES = ["rtn", "smoothquant", "quarot", "duquant", "ruquant"]
ROUNDINGS = {"rtn": 1.0, "gptq": 0.8}
APART = {"W4A4-Q16K4V4": 0.9}
LEVELS = {"midpoint": 0.5, "centroid": 0.48, "lloyd_max": 0.4}
WEIGHT_WIDTHS = {"W4A16-Q16K16V16": 0.2, "W2A16-Q16K16V16": 2.0}


def make_study(folder, seeds=(1, 2, 3, 4, 5)) -> Path:
    """A folder of every run that the paper is drawn from, small and made up."""
    folder = Path(folder)
    losses = {method: loss for method, settings, loss in DESIGN[::-1] if not settings}
    losses["duquant"] = 0.52

    def design(methods, **axes):
        return [(method, {"quant.rounding": rounding}, losses[method] * factor)
                for method in methods for rounding, factor in axes.get("roundings",
                                                                       ROUNDINGS).items()]
    small = {"seeds": seeds[:2], "samples": False}
    make_run(folder / "baselines", design(BASELINES), seeds, WIDTHS | APART | WEIGHT_WIDTHS,
             samples=False)
    make_run(folder / "ablations", [("ruquant", {**ABLATION_DEFAULTS, **changed}, loss)
                                    for changed, loss in ABLATIONS], seeds,
             {"W4A4-Q4K4V4": 1.0}, samples=False)
    write_trends(folder / "ablations")
    levels = [("ruquant", {"quant.rounding": "rtn", "quant.activation_levels": name}, loss)
              for name, loss in LEVELS.items()]
    rotated = [("singlequant", {"method.urt": urt}, 2.0) for urt in ("true", "false")] + \
        [("infoquant", {"method.steps": steps}, 1.5) for steps in ("0", "40")]
    make_run(folder / "mechanisms", design(["rtn", "quarot", "ruquant"]) + levels + rotated,
             seeds[:3], {"W4A4-Q4K4V4": 1.0} | WEIGHT_WIDTHS, samples=False)
    write_trends(folder / "mechanisms")
    make_run(folder / "sites", [(method, {}, losses[method]) for method in BASELINES], seeds,
             {"W4A4-Q4K4V4": 1.0}, sites=("10.attn_in", "10.mlp_out"), bins=True)
    make_run(folder / "weight_only", design(["rtn"]), widths=WEIGHT_WIDTHS, **small)
    make_run(folder / "second_model", design(BASELINES), **small)
    make_run(folder / "tasks", [(method, {}, losses[method]) for method in BASELINES],
             tasks=("piqa", "arc_easy"), **small)
    write_construction(folder / "construction")
    write_roundings(folder / "construction")
    for name in OPTIONAL_RUNS:
        make_run(folder / name, [(method, {}, losses[method]) for method in BASELINES], **small)
    return folder


def write_construction(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"method": method, "width": width, "tokens": 512, "flops": work * width**2,
             "seconds": [work * width**2 * 1e-9 * (1 + 0.02 * i) for i in range(5)],
             "floor_seconds": work * width**2 * 0.5e-9}
            for method, work in (("ruquant", 40), ("duquant", 90)) for width in (576, 1536, 4096)]
    (folder / "construction.json").write_text(json.dumps({
        "format": "ruquant-construction", "format_version": 1,
        "machine": {"processor": "made-up CPU", "math": "onednn 3 avx2", "threads": 1}, "rows": rows}))


def write_roundings(folder) -> None:
    rows = [{"rounding": name, "what": what, "bits": bits, "rows": size, "columns": 32,
             "bytes": size * 32 * bits / 8.0 + extra, "floor_seconds": 1e-6,
             "seconds": [size * 1e-5 * (1 + 0.02 * i) for i in range(5)]}
            for bits in (4, 3) for size in (32, 64) for name, what, extra in
            (("rtn", "round", 256), ("uniquanf_init", "round", 512), ("uniquanf", "step", 512),
             ("flexround", "step", 256))]
    (folder / "roundings.json").write_text(json.dumps({
        "format": "ruquant-rounding", "format_version": 1,
        "machine": {"processor": "made-up CPU", "math": "onednn 3 avx2", "threads": 1}, "rows": rows}))
