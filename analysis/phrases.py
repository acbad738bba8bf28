"""How numbers and verdicts are put in sentences and cells."""

import math

from analysis import compare, stats

DIVERGED = "diverged"  # a loss that is not finite, or worse than guessing
WORDS = {
    "lower": "a lower loss than", "higher": "a higher loss than",
    "not separated": "a loss that is not told apart from that of",
    "lower on this seed only": "a lower loss, on the one seed measured, than",
    "higher on this seed only": "a higher loss, on the one seed measured, than",
    "too few": "a loss that too few windows set apart from that of",
    "diverged": "no loss to compare, having diverged, with",
}


def number(interval: stats.Interval, form: str) -> str:
    """mean ± half; the mean alone where there is no interval."""
    if not math.isfinite(interval.mean):
        return DIVERGED
    mean = compare.signed(interval.mean, form)
    return f"{mean} ± {interval.half:{form.lstrip('+')}}" if math.isfinite(interval.half) else mean


def plain(interval: stats.Interval) -> str:
    return number(interval, ".3f")


def signed(interval: stats.Interval) -> str:
    return number(interval, "+.3f")


def compared(group, other) -> dict:
    """"word" and "difference": what may be said of a group against another, and by how much."""
    pair = compare.compare(group, other)
    return {"word": WORDS[pair.verdict],
            "difference": signed(stats.wider(pair.seeds, pair.windows))}
