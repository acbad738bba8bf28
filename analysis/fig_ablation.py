"""What every single change of a method's settings costs: paired differences to the default, a row
a change, grouped by setting."""

import math

import numpy as np

from analysis import compare, departures, stats, style
from analysis.runs import Run

NAME = "ablation"
TITLE = "What one change of a setting costs ({widths})"
# verdict → colour, marker; where seeds are too few to tell, hollow.
LOOKS = {"lower": ("#009e73", "v", "lower loss"), "higher": ("#d55e00", "^", "higher loss"),
         "not separated": ("#7f7f7f", "s", "not told apart")}
LOOK_OF_ONE_SEED = ("#222222", "o", "one seed only")


def draw(run: Run, folder):
    widths = departures.best_covered_widths(run)
    found = [d for d in departures.departures(run, widths)
             if math.isfinite(d.pair.windows.mean)]
    if not found:
        raise style.Unsupported("no method was measured at two settings")
    groups = list({g.label: g for d in found for g in (d.base, d.group)}.values())
    places = _places(found)
    sheet = style.open_sheet(TITLE.format(widths=widths), _caption(run, found, groups),
                             0.62 + 0.142 * (places[-1] + 1), style.preview_mark(groups))
    panel = sheet.figure.subplots()
    limits = style.scale_differences(panel.xaxis, style.reach(
        [[d.pair.windows.mean] for d in found], [_widest(d) for d in found]))
    panel.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    for place, departure in zip(places, found):
        _draw_row(panel, place, departure, limits)
    panel.set_yticks(places, [_row_words(run, d) for d in found])
    panel.set_ylim(places[-1] + 0.7, -0.7)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("loss minus that of the default (nats per token), left is better"
                     + style.bent(panel, "x"))
    _separate(panel, places, found)
    sheet.legend(below=True, entries=_entries(panel, found))
    return style.save(sheet, folder, NAME, [_row(d) for d in found])


def _places(found) -> list:
    """Rows from the top, with a little room between settings."""
    places, at = [], 0.0
    for before, here in zip([None, *found], found):
        if before and (before.axis, before.group.method) != (here.axis, here.group.method):
            at += 0.45
        places.append(at)
        at += 1
    return places


def _separate(panel, places, found) -> None:
    for (a, before), (b, here) in zip(zip(places, found), zip(places[1:], found[1:])):
        if b - a > 1:
            panel.axhline((a + b) / 2, color=style.FAINT, linewidth=0.6, zorder=0)


def _row_words(run: Run, departure) -> str:
    several = len(run.methods) > 1
    return f"{departure.group.method}: {departure.words}" if several else departure.words


def _widest(departure) -> stats.Interval:
    """The wider of the intervals over seeds and over windows."""
    pair = departure.pair
    return stats.wider(pair.windows, pair.seeds)._replace(mean=pair.windows.mean)


def _look(verdict) -> tuple:
    return LOOKS.get(verdict, LOOK_OF_ONE_SEED)


def _draw_row(panel, place, departure, limits) -> None:
    pair = departure.pair
    colour, marker, _ = _look(pair.verdict)
    for interval, options in ((pair.windows, {"alpha": 0.28, "linewidth": 4.5}),
                              (pair.seeds, {"linewidth": 1})):
        if math.isfinite(interval.half):
            panel.plot(style.clipped(interval, limits), [place, place], color=colour,
                       solid_capstyle="butt", zorder=2, **options)
    panel.plot([pair.windows.mean], [place], color=colour, marker=marker, markersize=4.5,
               markeredgecolor="white", markeredgewidth=0.4, linestyle="none", zorder=4)
    panel.text(1.01, place, compare.signed(pair.windows.mean, "+.3f"), size=6.5, va="center",
               color=style.MUTED, transform=panel.get_yaxis_transform())


def _entries(panel, found) -> dict:
    looks = dict.fromkeys(_look(d.pair.verdict) for d in found)
    return {words: panel.plot([], [], color=colour, marker=marker, linestyle="none")[0]
            for colour, marker, words in looks}


def _row(departure) -> dict:
    pair = departure.pair
    return {"label": departure.group.label, "default": departure.base.label,
            "widths": departure.group.widths, "changed": departure.words,
            "seeds": len(departure.group.trials),
            "loss": float(np.mean(departure.group.losses)), "minus_default": pair.windows.mean,
            "half95_over_seeds": pair.seeds.half, "half95_over_windows": pair.windows.half,
            "verdict": pair.verdict}


def _caption(run: Run, found, groups) -> str:
    trials = [trial for group in groups for trial in group.trials]
    return ("Difference of the loss to that of the default, by one change. Marker: mean; thin bar: "
            "95 % t-interval over seeds, paired where both have the same; pale bar: over windows, "
            "paired; cut at the panel's edge. Lower or higher: both intervals lie on that side of "
            "zero (the one over windows alone where nothing is random). Figures on the right are the "
            "differences. "
            f"Default: {departures.defaults_words(found)}. {style.provenance(trials)}")
