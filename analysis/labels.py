"""Names of settings in words, and the orders in which settings and widths are listed."""

import re


def width_order(widths: str) -> tuple:
    """Fewest bits first: by the sum of all widths, then as written."""
    return (sum(int(bits) for bits in re.findall(r"\d+", widths)), widths)


ALIKE, ATTENTION_APART = "everything alike", "attention apart"
ACTIVATIONS, WEIGHTS = "activations", "weights alone"


def width_family(widths: str) -> tuple:
    """(place, name) of the settings that differ from these in how many bits, not in what is
    quantized."""
    weights, activations, *others = (int(bits) for bits in re.findall(r"\d+", widths))
    if len({weights, activations, *others}) == 1:
        return (0, ALIKE)
    if {activations, *others} == {16}:
        return (3, WEIGHTS)
    if {weights, *others} == {16}:
        return (2, ACTIVATIONS)
    return (1, ATTENTION_APART)


def two_lines(widths: str) -> str:
    """W4A4 over Q4K4V4."""
    return widths.replace("-", "\n", 1)


# Words that an axis departs from: the published method, and the plainest quantizer.
STANDARD = ("official", "duquant", "composite", "zigzag", "init", "rtn", "midpoint", "adamw")


def tie_order(value: str) -> tuple:
    # Among equally common values: the larger number, what is switched on, what is standard, then
    # by alphabet.
    if number(value) is not None:
        return (0, -number(value), "")
    return (1, 0 if switch(value) else 1, value not in STANDARD, value)


def number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def switch(value: str) -> bool | None:
    """True or False for a word that means on or off, else None."""
    return {"true": True, "on": True, "yes": True,
            "false": False, "off": False, "no": False}.get(value.lower())


def label(method: str, settings: dict) -> str:
    """ruquant (paper, givens, B=64, contiguous): the method and the settings that vary."""
    words = setting_list(settings)
    return f"{method} ({', '.join(words)})" if words else method


def setting_list(settings: dict) -> list:
    """Settings in words, in the order in which a method applies them."""
    order = ("method.preset", "method.rotation", "method.block_size", "method.partition",
             "method.global_reflection", "method.smoothing")
    rest, clips = split_clips(settings)
    keys = [key for key in order if key in rest] + sorted(set(rest) - set(order))
    return [_setting_words(key, rest[key]) for key in keys] + clip_words(clips, " ")


CLIPPED = {f"quant.{name}.clip_ratio": words for name, words in (
    ("activation", "activations"), ("queries", "queries"), ("keys", "keys"), ("values", "values"),
    ("weight", "weights"))}


def split_clips(settings: dict) -> tuple:
    """The settings that are no clip ratios, and ratio → names of what is clipped by it."""
    clips = {}
    for key, name in CLIPPED.items():
        if key in settings:
            clips.setdefault(settings[key], []).append(name)
    return {key: value for key, value in settings.items() if key not in CLIPPED}, clips


def clip_words(clips: dict, between: str) -> list:
    """A phrase a ratio: clip of activations, keys: 0.9."""
    return [f"clip of {', '.join(names)}{between}{ratio}" for ratio, names in clips.items()]


# Settings whose keys say little by themselves: words with the value in place of {}, and switches.
WORDS = {"quant.rounding": "{} rounding", "quant.activation_levels": "{} levels",
         "quant.septq.kept_percent": "keeps {} %", "quant.septq.mask_scope": "mask {}",
         "quant.gptq.damping": "damping {}", "quant.uniquanf.mapping": "{} mapping",
         "quant.uniquanf.mapping_period": "codes anew every {} steps",
         "quant.weight.group_size": "groups of {}", "method.block_size": "B={}",
         "calibration.windows": "{} windows", "method.learning_windows": "learns from {} windows",
         "method.finetune_optimizer": "tuned by {}", "method.finetune_iterations": "{} iterations",
         "method.finetune_evaluations": "{} evaluations", "method.art_tokens": "ART of {} tokens",
         "method.fit": "fitted to {}", "method.urt_form": "URT by {}"}
SWITCHES = {"quant.weight.search": "range search", "quant.gptq.act_order": "act-order",
            "method.art": "ART", "method.urt": "URT", "method.learn_clips": "learned clips"}
PAIRS = {("method.preset", "duquant"): "as duquant smooths",
         ("quant.weight.group_size", "0"): "no groups",
         ("method.queries_keys", "hadamard"): "queries, keys turned",
         ("method.queries_keys", "none"): "queries, keys as they are",
         ("method.weights_in_learning", "true"): "learned on rounded weights",
         ("method.weights_in_learning", "false"): "learned on float weights"}
# Rules of the grid of weights; the second's range holds zero.
GRIDS = {"omniquant": "min-max", "quarot_weight": "min-max with zero"}


# Roundings that look at the weights of a row or group and at no grid.
OWN_LEVELS = ("bcq", "lloyd_max", "uniquanf", "uniquanf_init")


def grid_words(config: dict) -> str:
    """The grid of weights: searched, groups of 64. What is searched is the range around zero."""
    if config.get("quant.rounding") in OWN_LEVELS:
        words = ["levels of its own"]
    else:
        rule = config.get("quant.weight.rule", "omniquant")
        searched = config.get("quant.weight.search") == "true"
        words = ["searched" if searched else GRIDS.get(rule, rule)]
        if config.get("quant.weight.clip_ratio", "1") != "1":
            words.append(f"clipped at {config['quant.weight.clip_ratio']}")
    if config.get("quant.weight.group_size", "0") != "0":
        words.append(f"groups of {config['quant.weight.group_size']}")
    return ", ".join(words)


def _setting_words(key: str, value: str) -> str:
    name = key.removeprefix("method.").replace("_", " ").replace("global reflection", "reflection")
    name = SWITCHES.get(key, name)
    if (key, value) in PAIRS:
        return PAIRS[key, value]
    if key in ("method.preset", "method.rotation", "method.partition"):
        return value
    if key == "quant.weight.rule":
        return f"{GRIDS.get(value, value)} grid"
    if key in WORDS:
        return WORDS[key].format(value)
    if key == "method.smoothing" and number(value) is not None:
        return f"α={value}"
    if switch(value) is not None:
        return name if switch(value) else f"no {name}"
    if value == "none":
        return f"no {name}"
    return f"{name} {value}" if key.startswith("method.") else f"{key}={value}"
