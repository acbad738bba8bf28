"""Draws every figure that a run supports into RUN_DIR/figures, writes its tables into
RUN_DIR/tables and RUN_DIR/report.html.

    python analysis/draw.py RUN_DIR

Exit status: 0 drawn; 2 the run folder cannot be read (one line on standard error says why).
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import (fig_ablation, fig_activations, fig_bits, fig_block_size,  # noqa: E402
                      fig_centroids, fig_cost, fig_learning, fig_levels, fig_loss_by_method,
                      fig_sensitivity, fig_site_error, fig_spread, fig_tasks, fig_trends,
                      fig_uniformity, report, style, tables)
from analysis.load import load_run  # noqa: E402
from analysis.runs import RunError  # noqa: E402

FIGURES = (fig_loss_by_method, fig_trends, fig_ablation, fig_sensitivity, fig_block_size, fig_bits,
           fig_spread, fig_learning, fig_levels, fig_tasks, fig_activations, fig_centroids,
           fig_uniformity, fig_site_error, fig_cost)


def draw(folder) -> list:
    """Draws a run folder; returns lines that say what was drawn, and what was not and why."""
    run = load_run(folder)
    drawn, missing = [], []
    for figure in FIGURES:
        try:
            drawn.append(figure.draw(run, run.folder / "figures"))
        except style.Unsupported as reason:
            missing.append((figure.NAME, str(reason)))
    written = tables.write(run)
    page = report.write_report(run, drawn, missing)
    lines = [f"{figure.pdf} (.png, .csv)" + (f"  [{figure.mark}]" if figure.mark else "")
             for figure in drawn]
    lines += [f"{path}.md (.tex)" for path in written]
    lines += [f"not drawn: {name}: {why}" for name, why in missing]
    lines += [f"not used: {item.trial}: {item.why}" for item in run.skipped]
    return [*lines, str(page)]


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="figures and report of a run folder")
    parser.add_argument("run", metavar="RUN_DIR", help="a folder that runexp wrote")
    try:
        print("\n".join(draw(parser.parse_args(arguments).run)))
    except (RunError, OSError) as error:
        print(f"draw: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
