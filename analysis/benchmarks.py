"""Reads the records that benchmarks leave: one JSON file with a machine and rows of timings."""

import json
from pathlib import Path

from analysis.runs import RunError


def read_record(path, form: str, row_keys) -> dict:
    """RunError naming what is wrong with it: no file, another format, a row without its keys."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if (data["format"], data["format_version"]) != (form, 1):
            raise RunError(f"{path}: expected format {form!r}, version 1")
        if not isinstance(data["machine"], dict):
            raise RunError(f"{path}: machine is no object")
        for row in data["rows"]:
            missing = [key for key in row_keys if key not in row]
            if missing or not row["seconds"]:
                raise RunError(f"{path}: a row lacks {', '.join(missing) or 'seconds'}")
        return data
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: {error!r}") from None
