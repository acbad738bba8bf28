"""Writes a safetensors file one tensor at a time, so that a model need not fit in memory.

Format: a little-endian uint64 with the length of the header, a JSON header
{name: {dtype, shape, data_offsets}}, then the tensors in C order, offsets counted from the end of
the header. The header is padded with spaces to a multiple of eight bytes.
"""

import json

import numpy as np

from errors import RequestError

TYPE_NAMES = {"float32": "F32", "float16": "F16"}


def _header(shapes, dtype):
    """The header of tensors laid out in the order of `shapes` (name -> shape)."""
    entries, begin = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entries[name] = {"dtype": TYPE_NAMES[dtype.name], "shape": list(shape),
                         "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def write_safetensors(path, shapes, load, dtype):
    """Writes the tensors of `shapes` (name -> shape); `load(name)` gives each as an array.

    Values are cast to `dtype` (float32 or float16). RequestError when a tensor has another shape
    than announced, or a value that is not finite after the cast.
    """
    dtype = np.dtype(dtype).newbyteorder("<")
    header = _header(shapes, dtype)
    with open(path, "wb") as stream:
        stream.write(len(header).to_bytes(8, "little"))
        stream.write(header)
        for name, shape in shapes.items():
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(load(name), dtype=dtype)
            if values.shape != tuple(shape):
                raise RequestError(f"{name}: found shape {values.shape}, expected {tuple(shape)}")
            if not np.isfinite(values).all():
                raise RequestError(f"{name}: found values beyond {dtype.name}, expected finite")
            stream.write(values.data)
