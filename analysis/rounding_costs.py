"""What it costs to round one weight matrix and to hold it, from the record of ruq_rounding_bench:
bytes of the stored form, and the time to round, or of one step where a rounding learns."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import tables
from analysis.benchmarks import read_record
from analysis.load import OPTIONAL_FILES

NAME = "rounding_costs"
FORMAT = "ruquant-rounding"
ROW_KEYS = ("rounding", "what", "bits", "rows", "columns", "bytes", "seconds", "floor_seconds")


@dataclass(frozen=True)
class Record:
    """The rows of one matrix, the largest that was timed."""

    machine: dict
    shape: str
    rows: list

    @property
    def bits(self) -> list:
        return sorted({row["bits"] for row in self.rows}, reverse=True)


def load(runs_folder) -> Record:
    """Reads the record. RunError naming what is wrong with it."""
    data = read_record(Path(runs_folder) / OPTIONAL_FILES["roundings"], FORMAT, ROW_KEYS)
    largest = max(map(_shape, data["rows"]), key=np.prod)
    return Record(data["machine"], "{} by {}".format(*largest),
                  [row for row in data["rows"] if _shape(row) == largest])


def _shape(row) -> tuple:
    return row["rows"], row["columns"]


def table(record: Record) -> tables.Table:
    """A row a rounding; under each number of bits, what the matrix takes and how long."""
    cells = {(row["rounding"], row["bits"]): row for row in record.rows}
    names = list(dict.fromkeys((row["rounding"], row["what"]) for row in record.rows))
    body = [[f"{name}, one step" if what == "step" else name,
             *(text for bits in record.bits for text in _cells(cells.get((name, bits))))]
            for name, what in names]
    machine = "; ".join(f"{key} {value}" for key, value in record.machine.items())
    return tables.Table(
        NAME, f"Bytes and time of one weight matrix ({record.shape})",
        ("rounding", *((f"{bits} bits", what) for bits in record.bits for what in ("KiB", "ms"))),
        tuple(body),
        f"A matrix of {record.shape} seeded weights. KiB: codes with steps, factors and levels of 16 "
        "bits. Milliseconds: mean over repetitions, to round it, or for a step of what learns, beside "
        f"the passes through the block; a Hessian is there already. Machine: {machine}.")


def _cells(row) -> tuple:
    return (f"{row['bytes'] / 1024:.1f}", f"{_milliseconds(row):.2f}") if row else ("–", "–")


def _milliseconds(row) -> float:
    return 1000 * float(np.mean(row["seconds"]))


def numbers(record: Record) -> dict:
    found = {"shape": record.shape}
    for row in record.rows:
        kib, milliseconds = _cells(row)
        end = f"{row['rounding']}.{row['bits']}"
        found |= {f"kib.{end}": kib, f"ms.{end}": milliseconds}
    return found
