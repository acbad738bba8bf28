"""report.html of a run: one file with its tables, figures and provenance, and no outside links."""

import base64
import math
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np

from analysis import compare, stats, style
from analysis.labels import width_order
from analysis.runs import Run

STYLE = Path(__file__).with_name("report.css")


def write_report(run: Run, drawn: list, missing: list) -> Path:
    """drawn: figures on disk; missing: (name, why) of those that the run does not support."""
    groups = [group for group in run.groups if group.trials[0].has_language]
    pairs = compare.comparisons(run, groups)
    sections = [_head(run), _claims(run, pairs), _summary(run, groups),
                _paired(run, groups, pairs), _figures(drawn, missing), _costs(run),
                _fallbacks(run), _skipped(run), _provenance(run)]
    text = ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
            f"<title>{escape(run.name)} – ruquant</title>\n<style>\n{STYLE.read_text()}</style>"
            f"</head>\n<body><main>\n{''.join(sections)}</main></body></html>\n")
    path = run.folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def table(head: list, rows: list, numeric_from: int = 1) -> str:
    """A table that scrolls within itself; columns from numeric_from on are set as numbers. A row
    of one cell is a heading across."""
    def cell(tag, place, value):
        kind = ' class="n"' if place >= numeric_from else ""
        return f"<{tag}{kind}>{value}</{tag}>"

    lines = ["".join(cell("th", place, text) for place, text in enumerate(head))]
    for row in rows:
        lines.append(f'<th colspan="{len(head)}" class="group">{row[0]}</th>' if len(row) == 1
                     else "".join(cell("td", place, value) for place, value in enumerate(row)))
    body = "".join(f"<tr>{line}</tr>\n" for line in lines[1:])
    return (f'<div class="scroll"><table><thead><tr>{lines[0]}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>\n")


def value(number: float, digits: int = 3) -> str:
    return compare.signed(number, f",.{digits}f") if math.isfinite(number) else "–"


def with_half(interval: stats.Interval, digits: int = 3) -> str:
    if not math.isfinite(interval.half):
        return value(interval.mean, digits)
    return f"{value(interval.mean, digits)} ± {value(interval.half, digits)}"


def ends(interval: stats.Interval, digits: int) -> str:
    if not math.isfinite(interval.half):
        return "–"
    form = f"+.{digits}f"
    return f"{compare.signed(interval.low, form)} to {compare.signed(interval.high, form)}"


def _digits(groups) -> int:
    """Decimals of losses in one block of a table: small losses get one more."""
    means = [abs(float(np.mean(group.losses))) for group in groups if not group.diverged]
    return 3 if min(means, default=1) >= 0.1 else 4


def _name(run: Run, group) -> str:
    return f'<span title="{escape(group.label, quote=True)}">{escape(run.short(group))}</span>'


def _head(run: Run) -> str:
    mark = style.preview_mark(run.groups)
    badge = f' <span class="mark">{mark}</span>' if mark else ""
    done, left = len(run.trials), len(run.skipped)
    text = f"{done} finished trials" + (f", {left} unfinished, failed or left over" if left else "")
    return (f"<header><h1>{escape(run.name)}{badge}</h1>\n<p>{text}. "
            f"{escape(style.provenance(run.trials))}</p></header>\n")


def _claims(run: Run, pairs: dict) -> str:
    """The sentences about each method's base; variants are in the table of differences."""
    items = []
    for widths in run.widths:
        lines = []
        for method in compare.REFERENCES:
            own = [pairs[group.label, widths, method] for group in run.representatives(widths)
                   if (group.label, widths, method) in pairs]
            lines += compare.sentences(run, own)
        if lines:
            lines = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
            items.append(f"<h3>{escape(widths)}</h3>\n<ul>{lines}</ul>\n")
    if not items:
        return ""
    return ("<section><h2>What the intervals allow to claim</h2>\n<p>Each method at its most "
            "common settings in this run against the best variant of each reference; in brackets "
            "the mean difference in nats per token, with its intervals in the table of paired "
            "differences. The windows are pieces of one text and one model is measured, so nothing "
            "here speaks of other texts or models. Each interval holds 95 % for itself: among the "
            f"{len(pairs)} comparisons here a few may exclude zero by chance alone.</p>\n"
            f"{''.join(items)}</section>\n")


def _summary(run: Run, groups) -> str:
    if not groups:
        return ""
    head = ["method and settings", "seeds", "loss over float<br><small>nats/token, ± seeds</small>",
            "± windows<br><small>nats/token</small>", "perplexity<br><small>± seeds</small>",
            "divergence from float<br><small>KL, nats/token</small>",
            "agreement with float<br><small>share of tokens</small>"]
    rows = []
    for widths in sorted({group.widths for group in groups}, key=width_order):
        own = [group for group in groups if group.widths == widths]
        rows.append([escape(widths)])
        rows += [_summary_row(run, group, _digits(own)) for group in sorted(own, key=_by_loss)]
    floats = sorted({value(float(np.mean(group.trials[0].windows["nll_float"])))
                     for group in groups})
    return ("<section><h2>Loss by method</h2>\n<p>Mean over seeds; ± is half a 95 % t-interval, "
            "over seeds for the mean and over evaluation windows beside it. The float model itself "
            f"loses {' / '.join(floats)} nats per token. {escape(run.base_note(groups))}"
            f"</p>\n{table(head, rows)}</section>\n")


def _by_loss(group) -> tuple:
    mean = float(np.mean(group.losses))
    return (not math.isfinite(mean), mean if math.isfinite(mean) else 0, group.label)


def _summary_row(run: Run, group, digits) -> list:
    if group.diverged:
        note = f'<span class="bad">diverged: {group.diverged} of {len(group.trials)}</span>'
        return [_name(run, group), len(group.trials), note, "–", "–", "–", "–"]

    def over_seeds(name):
        return stats.mean_interval([t.metrics.get(name, math.nan) for t in group.trials])

    windows = stats.paired_over_windows(group.windows("nll"), group.windows("nll_float"))
    return [_name(run, group), len(group.trials),
            with_half(stats.mean_interval(group.losses), digits),
            f"± {value(windows.half, digits)}",
            with_half(stats.mean_interval([trial.ppl for trial in group.trials]), 2),
            with_half(over_seeds("kl"), digits), with_half(over_seeds("agreement"))]


def _paired(run: Run, groups, pairs: dict) -> str:
    parts = []
    for method in compare.REFERENCES:
        rows = []
        for widths in sorted({group.widths for group in groups}, key=width_order):
            own = [pairs[g.label, widths, method] for g in groups
                   if g.widths == widths and (g.label, widths, method) in pairs]
            if own:
                rows.append([f"{escape(widths)}, minus {escape(own[0].reference.label)} "
                             f"(seeds: {len(own[0].reference.trials)})"])
            rows += [_paired_row(run, pair, _digits([pair.group for pair in own]))
                     for pair in sorted(own, key=lambda pair: _by_loss(pair.group))]
        if rows:
            head = ["method and settings", "seeds", "difference<br><small>nats/token</small>",
                    "95 % over windows", "95 % over seeds", "so the loss is"]
            parts.append(f"<h3>Against {escape(method)}</h3>\n{table(head, rows)}")
    if not parts:
        return ""
    return ("<section><h2>Paired differences</h2>\n<p>Loss minus that of the reference on the same "
            "windows, each averaged over its seeds; negative is better. The reference is the "
            "method's best variant at the same widths.</p>\n" + "".join(parts) + "</section>\n")


def _paired_row(run: Run, pair, digits) -> list:
    words = {"lower": '<span class="good">lower</span>',
             "higher": '<span class="bad">higher</span>'}
    mean = compare.signed(pair.windows.mean, f"+.{digits}f") if pair.verdict != "diverged" else "–"
    return [_name(run, pair.group), len(pair.group.trials), mean, ends(pair.windows, digits),
            ends(pair.seeds, digits), words.get(pair.verdict, escape(pair.verdict))]


def _figures(drawn: list, missing: list) -> str:
    parts = []
    for figure in drawn:
        data = base64.b64encode(figure.png.read_bytes()).decode()
        alt = escape(f"{figure.title}. {figure.caption}", quote=True)
        parts.append(f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">\n<figcaption>'
                     f"figures/{figure.name}.pdf, .png; numbers in .csv</figcaption></figure>\n")
    notes = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in missing)
    notes = f"<p>Not drawn:</p><ul>{notes}</ul>\n" if notes else ""
    return f"<section><h2>Figures</h2>\n{''.join(parts)}{notes}</section>\n"


def _costs(run: Run) -> str:
    head = ["method", "trials", "plan<br><small>s</small>", "evaluate<br><small>s</small>",
            "total<br><small>s</small>", "peak memory<br><small>MiB</small>", "threads"]
    rows = []
    for method in sorted(run.methods, key=style.method_order):
        timings = [trial.timing for trial in run.trials if trial.method == method]
        means = [float(np.mean([timing[key] for timing in timings])) for key in
                 ("plan_seconds", "evaluate_seconds", "total_seconds")]
        threads = "/".join(str(n) for n in sorted({timing["threads"] for timing in timings}))
        peak = max(timing["peak_memory_mib"] for timing in timings)
        rows.append([escape(method), len(timings), *(value(mean, 1) for mean in means),
                     value(peak, 0), threads])
    return ("<section><h2>Cost</h2>\n<p>Mean seconds of a trial; largest peak memory.</p>\n"
            f"{table(head, rows)}</section>\n")


def _fallbacks(run: Run) -> str:
    counts = Counter((trial.method, text) for trial in run.trials for text in trial.fallbacks)
    if not counts:
        return ("<section><h2>Fallbacks</h2>\n<p>None: no trial departed from its method's "
                "description.</p></section>\n")
    rows = [[escape(method), escape(text), count]
            for (method, text), count in sorted(counts.items())]
    return ("<section><h2>Fallbacks</h2>\n<p>What could not be done as described, and what was "
            f"done instead.</p>\n{table(['method', 'fallback', 'trials'], rows, 2)}</section>\n")


def _skipped(run: Run) -> str:
    if not run.skipped:
        return ""
    rows = [[escape(item.trial), escape(item.about), escape(item.why)] for item in run.skipped]
    return ("<section><h2>Trials not used</h2>\n"
            f"{table(['trial', 'settings', 'status'], rows, 3)}</section>\n")


def _provenance(run: Run) -> str:
    trials = run.trials
    facts = {}
    for key in sorted({key for trial in trials for key in trial.inputs}):
        facts[f"inputs.{key}"] = {str(trial.inputs.get(key, "")) for trial in trials}
    for key in sorted({key for trial in trials for key in trial.token_ranges}):
        facts[f"tokens.{key}"] = {_range_text(trial.token_ranges.get(key)) for trial in trials}
    facts["math_backend"] = {trial.math_backend for trial in trials}
    facts["build_preset"] = {trial.build_preset for trial in trials}
    facts["revision"] = {trial.revision() or "not recorded" for trial in trials}
    rows = [[escape(key), escape(" / ".join(sorted(found)))] for key, found in facts.items()]
    # Paths differ between machines; the digests above say what they led to.
    keys = sorted({key for trial in trials for key in trial.config if not key.endswith(".path")})
    config = {key: sorted({t.config[key] for t in trials if key in t.config}) for key in keys}
    fixed = [[escape(key), escape(found[0])] for key, found in config.items() if len(found) == 1]
    swept = [[escape(key), escape(", ".join(found))] for key, found in config.items()
             if len(found) > 1]
    sweep = run.folder / "sweep.yaml"
    source = f"<pre>{escape(sweep.read_text(encoding='utf-8'))}</pre>" if sweep.exists() else ""
    return ("<section><h2>Configuration and provenance</h2>\n"
            f"{table(['input', 'value'], rows, 2)}"
            f"<h3>Options that vary</h3>\n{table(['option', 'values'], swept, 2)}"
            "<details><summary>Options with one value throughout</summary>\n"
            f"{table(['option', 'value'], fixed, 2)}</details>\n"
            + (f"<details><summary>sweep.yaml</summary>{source}</details>\n" if source else "")
            + _trial_list(run) + "</section>\n")


def _range_text(found) -> str:
    return f"[{found[0]:,}, {found[1]:,})" if found else "–"


def _trial_list(run: Run) -> str:
    rows = [[escape(trial.trial), escape(group.label), escape(group.widths), trial.seed]
            for group in run.groups for trial in group.trials]
    return ("<details><summary>All trials used</summary>\n"
            f"{table(['trial', 'method and settings', 'widths', 'seed'], rows, 3)}</details>\n")
