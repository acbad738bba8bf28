"""The paper takes in what analysis/paper.py makes, all of it, and cites what it has."""

import re
import unittest
from pathlib import Path

import fixture  # noqa: F401  (puts the tree on the path)
from analysis import paper

PAPER = Path(__file__).resolve().parents[2] / "paper"
TEXT = (PAPER / "main.tex").read_text(encoding="utf-8")
BODY = TEXT[TEXT.index(r"\begin{document}"):]


def taken_in(macro):
    return re.findall(rf"\\{macro}\{{(\w+)\}}", BODY)


class MainTex(unittest.TestCase):
    def test_every_figure_and_table_is_taken_in_once(self):
        for macro, entries in (("figurein", paper.FIGURES), ("tablein", paper.TABLES)):
            self.assertEqual(sorted(taken_in(macro)), sorted(entry.name for entry in entries))

    def test_every_figure_and_table_is_spoken_of(self):
        names = {f"fig:{name}" for name in taken_in("figurein")} | \
            {f"tab:{name}" for name in taken_in("tablein")}
        spoken = set(re.findall(r"\\ref\{((?:fig|tab):\w+)\}", BODY))
        # A range of tables names its ends.
        self.assertEqual(names - spoken, {"tab:perplexity_apart", "tab:published_tasks"})
        self.assertEqual(spoken - names, {"tab:quirks", "tab:settings"})

    def test_every_citation_has_its_entry_and_every_entry_is_cited(self):
        entries = re.findall(r"@\w+\{(\w+),", (PAPER / "references.bib").read_text())
        cited = {key.strip() for keys in re.findall(r"\\cite\{([^}]*)\}", BODY)
                 for key in keys.split(",")}
        self.assertEqual(cited, set(entries))
        self.assertEqual(len(entries), len(set(entries)))

    def test_no_measured_number_is_typed(self):
        # A loss, a perplexity or an interval would have digits behind the point, or a ±. The table
        # of settings is of what was asked for.
        begin, end = BODY.index(r"\begin{table*}"), BODY.index(r"\label{tab:settings}")
        measured = BODY[:begin] + BODY[end:]
        self.assertEqual(re.findall(r"(?<![\w.])\d+\.\d{2,}", measured), [])
        self.assertNotRegex(BODY, r"\\pm|±|\bPPL\b")


if __name__ == "__main__":
    unittest.main()
