"""The method's two stages as a schematic. It shows no measurement."""

from matplotlib.patches import FancyBboxPatch

from analysis import style

NAME = "overview"
TITLE = "RUQuant: how a site is transformed, and what is tuned afterwards"
# title, symbol, what it does, colour
STEPS = (
    ("smoothing", "diag(s)⁻¹", "channel scales from\nlargest entries,\npower α", "#f2f2f2"),
    ("block map", "M₁", "one B×B map for the\nblocks: K reflections,\neach with λ rounds "
     "of\nGivens rotations", "#dcebf7"),
    ("permutation", "P", "zigzag: channels are\ndealt to blocks by\ntheir largest size", "#f2f2f2"),
    ("block map", "M₂", "as M₁, built from the\npermuted tensor", "#dcebf7"),
    ("global reflection", "H", "I − 2ωωᵀ/‖ω‖² over\nthe whole width", "#fbe3d3"),
    ("quantizer", "Q", "uniform grid\nof every token", "#e4f2ec"),
)
STAGES = (
    ("Stage 1, closed form, site after site", "x → x·diag(s)⁻¹·M₁·P·M₂·H → Q", (
        ("reflection", "the sample x with the largest\nentry goes to a target t with\n"
         "uniformly drawn entries and\n‖t‖ = ‖x‖:   ω = x − t"),
        ("Givens round", "channels are paired at random;\neach pair of the sample is\nturned "
         "towards a drawn pair\nof the same length"))),
    ("Stage 2, tuned, block after block", "min over ω of ‖F(x) − F̂(x; ω)‖²", (
        ("what is tuned", "ω of the four sites of a decoder\nblock, nothing else"),
        ("against what", "output of the quantized block, F̂,\nagainst that of the float block, "
         "F;\n"
         "gradients pass straight through\nthe rounding"))),
)


def draw(run, folder):
    """run is not looked at: the schematic is the same for all."""
    sheet = style.open_sheet(TITLE, _caption(), 3.55, "")
    panel = sheet.figure.subplots()
    panel.set_xlim(-0.6, 100.6)
    panel.set_ylim(-0.6, 51.6)
    panel.set_axis_off()
    _draw_chain(panel)
    for place, (title, formula, parts) in enumerate(STAGES):
        _draw_stage(panel, 51 * place, title, formula, parts, "#0b3c5d" if place == 0 else
                    style.MARK)
    return style.save(sheet, folder, NAME, _rows())


def _box(panel, left, low, width, height, colour, edge="#888888") -> None:
    panel.add_patch(FancyBboxPatch((left, low), width, height, facecolor=colour, edgecolor=edge,
                                   linewidth=0.8, boxstyle="round,pad=0,rounding_size=0.8"))


def _draw_chain(panel) -> None:
    width, gap = 14.2, 2.96
    for place, (title, symbol, words, colour) in enumerate(STEPS):
        left = place * (width + gap)
        _box(panel, left, 30.5, width, 20.5, colour)
        panel.text(left + width / 2, 49.3, title, ha="center", va="top", size=6.8, weight="bold")
        panel.text(left + width / 2, 43.8, symbol, ha="center", va="center", size=10)
        panel.text(left + width / 2, 40.8, words, ha="center", va="top", size=6.2, linespacing=1.35)
        if place:
            panel.annotate("", (left - 0.2, 40), (left - gap + 0.2, 40),
                           arrowprops={"arrowstyle": "-|>", "linewidth": 0.9, "color": style.INK})
    first, last = 2 * (width + gap), 3 * (width + gap) + width
    panel.plot([first, first, last, last], [29.5, 28.7, 28.7, 29.5], color=style.MUTED,
               linewidth=0.8)
    panel.text((first + last) / 2, 28.1, "T times", ha="center", va="top", size=6.5,
               color=style.MUTED)


def _draw_stage(panel, left, title, formula, parts, colour) -> None:
    _box(panel, left, 0, 49, 23.5, "white", colour)
    panel.text(left + 1.5, 22, title, va="top", size=7.5, weight="bold", color=colour)
    panel.text(left + 1.5, 18.3, formula, va="top", size=7.5)
    for place, (head, words) in enumerate(parts):
        panel.text(left + 1.5 + 24.5 * place, 13.4, head, va="top", size=6.8, style="italic")
        panel.text(left + 1.5 + 24.5 * place, 10.7, words, va="top", size=6.4, linespacing=1.35)


def _rows() -> list:
    def flat(text):
        return " ".join(text.split())
    rows = [{"part": "step", "name": title, "symbol": symbol, "words": flat(words)}
            for title, symbol, words, _ in STEPS]
    return rows + [{"part": flat(stage), "name": head, "symbol": flat(formula),
                    "words": flat(words)}
                   for stage, formula, parts in STAGES for head, words in parts]


def _caption() -> str:
    return ("Schematic, no measurement. Inputs x of a linear layer's site become x·R, and its "
            "weights W become W·R⁻ᵀ, so the float function stays as it is until both are "
            "rounded. Everything left of the quantizer is one matrix R. The settings B, K, T, λ "
            "and α are those whose sensitivity is measured. Arrangement after arXiv 2604.04013 "
            "and its published code, as implemented here.")
