"""Executes notebooks of this folder and keeps the copies with their outputs elsewhere.

    python notebooks/execute.py [--out FOLDER] [NAME ...]        (default: all, to runs/notebooks)

Exit status: 0 executed; 1 a cell failed (its traceback is on standard error); 2 no such notebook.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
SECONDS = 60  # that one cell may take


def names() -> list:
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name: str) -> nbformat.NotebookNode:
    """The notebook with its outputs. CellExecutionError where a cell fails."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3",
                            extra_arguments=["--IPKernelApp.log_level=ERROR"],
                            resources={"metadata": {"path": str(FOLDER)}})
    return client.execute()


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="executes the notebooks")
    parser.add_argument("names", metavar="NAME", nargs="*", help="without .ipynb; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER.parent / "runs" / "notebooks")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        print(f"execute: no notebook {', '.join(unknown)}; there are {', '.join(names())}",
              file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or names():
        try:
            notebook = execute(name)
        except CellExecutionError as error:
            print(f"execute: {name}: {error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, options.out / f"{name}.ipynb")
        print(options.out / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
