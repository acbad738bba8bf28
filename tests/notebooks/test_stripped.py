"""Notebooks are kept without what running them leaves behind."""

import json
import unittest
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
COLUMNS = 100


def faults(notebook: dict) -> list:
    """What a stripped notebook must not have."""
    found = [] if notebook["metadata"] == METADATA else ["metadata of an editor"]
    for number, cell in enumerate(notebook["cells"]):
        if cell.get("outputs"):
            found.append(f"cell {number}: outputs")
        if cell.get("execution_count") is not None:
            found.append(f"cell {number}: execution_count")
        if cell["metadata"]:
            found.append(f"cell {number}: metadata")
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            found += [f"cell {number}: a line of {len(line)} columns" for line in lines
                      if len(line) > COLUMNS]
    return found


class Stripped(unittest.TestCase):
    def test_what_is_kept(self):
        paths = sorted(NOTEBOOKS.glob("*.ipynb"))
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(path.name):
                self.assertEqual(faults(json.loads(path.read_text(encoding="utf-8"))), [])

    def test_leftovers_are_found(self):
        cell = {"cell_type": "code", "execution_count": 3, "metadata": {"collapsed": True},
                "outputs": [{"output_type": "stream"}], "source": ["x" * (COLUMNS + 1)]}
        found = faults({"metadata": {}, "cells": [cell]})
        self.assertEqual(len(found), 5, found)


if __name__ == "__main__":
    unittest.main()
