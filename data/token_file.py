"""Token files: the ids of a text and its three splits, in HDF5.

Layout (format "ruquant-tokens", version 1): /tokens/ids int32 [N]; /splits/<name> int64 [2], a
half-open range of ids; root attributes source, source_digest, tokenizer_digest, note, vocabulary.
"""

from dataclasses import dataclass

import h5py
import numpy as np

from errors import RequestError
from files import whole_file

SPLITS = ("calibration", "validation", "test")


@dataclass(frozen=True)
class TextNote:
    """What a token file says about its text."""

    source: str            # wikipedia, wikitext2, file or synthetic
    source_digest: str     # sha256 of the input bytes
    tokenizer_digest: str  # sha256 of tokenizer.json
    note: str              # one sentence: what the text is, its licence, how it was joined
    vocabulary: int


def split_ranges(lengths):
    """Half-open ranges of consecutive splits with these lengths: name -> (begin, end)."""
    ranges, begin = {}, 0
    for name in SPLITS:
        ranges[name] = (begin, begin + lengths[name])
        begin += lengths[name]
    return ranges


def write_tokens(path, ids, about):
    """Writes `ids` (split name -> token ids), one split after the other; returns the ranges.

    RequestError when an id is outside the vocabulary or a split is empty.
    """
    for name in SPLITS:
        if len(ids[name]) == 0:
            raise RequestError(f"split {name}: found no tokens, expected some")
    joined = np.concatenate([np.asarray(ids[name], dtype=np.int32) for name in SPLITS])
    if joined.min() < 0 or joined.max() >= about.vocabulary:
        raise RequestError(f"token ids: found {joined.min()} ... {joined.max()}, "
                           f"expected 0 ... {about.vocabulary - 1}")
    ranges = split_ranges({name: len(ids[name]) for name in SPLITS})
    with whole_file(path) as part, h5py.File(part, "w") as out:
        out.create_dataset("tokens/ids", data=joined)
        for name, span in ranges.items():
            out.create_dataset(f"splits/{name}", data=np.asarray(span, dtype=np.int64))
        out.attrs["format"] = "ruquant-tokens"
        out.attrs["format_version"] = np.int64(1)
        out.attrs["source"] = about.source
        out.attrs["source_digest"] = about.source_digest
        out.attrs["tokenizer_digest"] = about.tokenizer_digest
        out.attrs["note"] = about.note
        out.attrs["vocabulary"] = np.int64(about.vocabulary)
    return ranges
