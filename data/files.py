"""Files that are whole or absent, and their digests."""

import contextlib
import hashlib
import os
import shutil
import socket
from pathlib import Path

from errors import RequestError

CHUNK_BYTES = 1 << 22


def copy_and_digest(source, targets):
    """Copies a binary stream into every writable of `targets`; returns (sha256 hex, bytes).

    The chunks go by one at a time, so a file of any size needs little memory.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        for target in targets:
            target.write(chunk)
    return digest.hexdigest(), size


def file_digest(path):
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return copy_and_digest(stream, [])[0]


def check_digest(where, found, expected):
    """Raises RequestError when two digests differ."""
    if found != expected:
        raise RequestError(f"{where}: found sha256 {found}, expected {expected}")


def read_bytes(path):
    """The content of a file; RequestError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: found {error.strerror}, expected a readable file") from error


def _beside(path):
    return path.with_name(f".{path.name}.part-{socket.gethostname()}-{os.getpid()}")


@contextlib.contextmanager
def whole_file(path):
    """Gives a path beside `path` to write to; it takes its name only when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path):
    """Like whole_file for a new folder; RequestError when something stands in its place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    part.mkdir()
    try:
        yield part
        try:
            os.rename(part, path)
        except OSError as error:
            raise RequestError(f"{path}: found something there, expected a new folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
