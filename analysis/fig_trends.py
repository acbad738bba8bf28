"""What was expected of a run, and what came: one line a claim, from trends.json."""

import textwrap

from analysis import style
from analysis.runs import Run

NAME = "trends"
TITLE = "Expected trends, and what was found"
LOOKS = {"confirmed": ("#009e73", "o"), "contradicted": ("#d55e00", "X"),
         "unresolved": ("#7f7f7f", "s"), "no data": ("#bbbbbb", "|")}
LINE = 58  # characters of a claim on one line


def draw(run: Run, folder, name=NAME):
    trends = [trend for trend in run.trends if trend["pairs"] > 0]
    if not trends:
        raise style.Unsupported("the run's configuration expects no trends, or none has data")
    claims = [textwrap.fill(trend["claim"], LINE) for trend in trends]
    heights = [0.2 + 0.12 * claim.count("\n") for claim in claims]
    sheet = style.open_sheet(TITLE, _caption(run, trends), 0.55 + sum(heights),
                             style.preview_mark(run.groups))
    panel = sheet.figure.subplots()
    places, at = [], 0.0
    for height in heights:
        places.append(-(at + height / 2))
        at += height
    panel.set_yticks(places, claims)
    panel.set_ylim(-at, 0)
    panel.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    panel.grid(axis="y", visible=False)
    for place, trend in zip(places, trends):
        _draw_line(panel, place, trend)
    style.scale_differences(panel.xaxis, [end for trend in trends for end in _ends(trend)])
    panel.set_xlabel(f"difference of {_metrics(trends)}, left of zero as expected"
                     + style.bent(panel, "x"))
    handles = {name: panel.plot([], [], color=colour, marker=marker, linestyle="none")[0]
               for name, (colour, marker) in LOOKS.items()
               if any(trend["verdict"] == name for trend in trends)}
    sheet.legend(below=True, entries=handles)
    return style.save(sheet, folder, name, [
        {key: trend.get(key, "") for key in
         ("claim", "metric", "verdict", "difference", "half_width", "margin", "pairs")} for trend in trends])


def _draw_line(panel, place, trend) -> None:
    colour, marker = LOOKS[trend["verdict"]]
    panel.plot(_ends(trend), [place, place], color=colour, zorder=3)
    if trend.get("margin", 0) > 0:
        panel.plot([trend["margin"]] * 2, [place - 0.06, place + 0.06], color=style.INK,
                   linewidth=1, zorder=2)
    panel.plot([trend["difference"]], [place], color=colour, marker=marker, zorder=4)


def _ends(trend) -> list:
    half = trend.get("half_width", 0.0)
    return [trend["difference"] - half, trend["difference"] + half]


def _metrics(trends) -> str:
    names = {"nll_over_float": "the loss (nats per token)"}
    return ", ".join(dict.fromkeys(names.get(t["metric"], t["metric"]) for t in trends))


def _caption(run: Run, trends) -> str:
    pairs = sorted({trend["pairs"] for trend in trends})
    span = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    return ("What the configuration of the run states. Marker: mean difference of "
            f"trials, paired where both sides have the same seeds ({span} pairs, or trials of the "
            "smaller side); bar: the wider of its 95 % t-intervals over trials and "
            "over windows. Confirmed: the whole bar lies below zero, or below the tick of a claim "
            "that something is no worse by more than that; contradicted: above. "
            f"{style.provenance(run.trials)}")
