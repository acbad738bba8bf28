"""`prepare.py text`: a source of text, cut into three splits and tokenized.

Every source gives one text per split; each is tokenized by itself as one string, so no token
crosses from one split into another.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from errors import RequestError, progress, require_name
from files import read_bytes, whole_file
from token_file import SPLITS, TextNote, write_tokens
from wikipedia import assign_splits, read_articles


@dataclass(frozen=True)
class SourceText:
    """The text of each split, the sha256 of the bytes it was made from, and one sentence on it."""

    splits: dict[str, str]
    digest: str
    note: str
    articles: tuple = ()  # rows kept beside the token file, where the source has articles


WIKITEXT2_FILES = {
    "calibration": ("wiki.train.raw", "wikitext2_train_head.txt"),
    "validation": ("wiki.valid.raw",),
    "test": ("wiki.test.raw",),
}


def join_rows(text):
    """WikiText-2 as GPTQ scores it: rows joined with two newlines, an empty row for a blank line.

    Only "\\n" ends a line, and what follows the last one is a line only if there is something.
    """
    lines = text.removesuffix("\n").split("\n")
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


def _decode(path, content):
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: found a byte that is not UTF-8 at {error.start}") from error


def read_wikitext2(folder):
    """The three raw files of a folder; the digest covers them in the order of SPLITS."""
    digest, splits, used = hashlib.sha256(), {}, []
    for name in SPLITS:
        choices = [Path(folder) / file for file in WIKITEXT2_FILES[name]]
        path = next((p for p in choices if p.is_file()), None)
        if path is None:
            wanted = " or ".join(WIKITEXT2_FILES[name])
            raise RequestError(f"{folder}: found no file for {name}, expected {wanted}")
        content = read_bytes(path)
        digest.update(content)
        splits[name] = join_rows(_decode(path, content))
        used.append(path.name)
    note = (f"WikiText-2 raw ({', '.join(used)}), CC BY-SA 3.0 and GFDL; rows joined with two "
            "newlines, blank lines as empty rows, each file tokenized as one text.")
    return SourceText(splits, digest.hexdigest(), note)


def cut_at_lines(text, shares=(0.8, 0.1)):
    """Cuts a text at line ends near the given shares of its length; the rest is the last split."""
    ends, share = [], 0.0
    for part in shares:
        share += part
        line_end = text.find("\n", int(share * len(text)))
        ends.append(len(text) if line_end < 0 else line_end + 1)
    bounds = [0, *ends, len(text)]
    return {name: text[bounds[i]:bounds[i + 1]] for i, name in enumerate(SPLITS)}


def read_file(path):
    """One UTF-8 file, 80/10/10 in file order."""
    content = read_bytes(path)
    splits = cut_at_lines(_decode(path, content))
    for name in SPLITS:
        if not splits[name]:
            raise RequestError(f"{path}: found too few lines for a {name} split, expected more")
    note = (f"The text file {Path(path).name}, cut 80/10/10 at line ends in file order, each "
            "split tokenized as one text; its licence is not known here.")
    return SourceText(splits, hashlib.sha256(content).hexdigest(), note)


def read_wikipedia():
    """106 pages of English Wikipedia, cleaned, split by article."""
    articles, digest = read_articles()
    split_of = assign_splits(articles)
    rows = tuple({"title": a.title, "split": split_of[a.title], "text": a.text} for a in articles)
    splits = {name: "\n\n".join(f"{row['title']}\n\n{row['text']}" for row in rows
                                if row["split"] == name) for name in SPLITS}
    note = (f"{len(articles)} English Wikipedia articles (prose paragraphs; CC BY-SA 3.0 and "
            "GFDL), split by article in order of a hash of the title; articles of a split in the "
            "order of the dump, joined with two newlines and tokenized as one text.")
    return SourceText(splits, digest, note, rows)


SOURCES = ("wikipedia", "wikitext2", "file")


def read_source(source, path):
    """The text of a source; RequestError when the name or the need for a path is wrong."""
    require_name("text source", source, SOURCES)
    if source == "wikipedia":
        if path:
            raise RequestError(f"text source wikipedia: found --path {path}, expected none")
        return read_wikipedia()
    if not path:
        wanted = "a folder with wiki.test.raw" if source == "wikitext2" else "a UTF-8 file"
        raise RequestError(f"text source {source}: found no --path, expected {wanted}")
    return read_wikitext2(path) if source == "wikitext2" else read_file(path)


def load_tokenizer(path):
    """(tokenizer, sha256 of its file)."""
    content = read_bytes(path)
    try:
        tokenizer = Tokenizer.from_str(_decode(path, content))
    except RequestError:
        raise
    except Exception as error:  # the library raises the bare class
        raise RequestError(f"{path}: found '{error}', expected a tokenizer.json") from error
    return tokenizer, hashlib.sha256(content).hexdigest()


def _keep_articles(path, rows):
    """One JSON object a line: title, split, text."""
    with whole_file(path) as part, open(part, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def prepare_text(source, tokenizer_path, out, path=None):
    """Writes the token file `out`; for Wikipedia also `<out without suffix>.articles.jsonl`."""
    out = Path(out)
    require_name("text source", source, SOURCES)
    tokenizer, tokenizer_digest = load_tokenizer(tokenizer_path)
    text = read_source(source, path)
    ids = {}
    for name in SPLITS:
        ids[name] = tokenizer.encode(text.splits[name], add_special_tokens=False).ids
        progress(f"{name}: {len(text.splits[name])} characters, {len(ids[name])} tokens")
    about = TextNote(source, text.digest, tokenizer_digest, text.note, tokenizer.get_vocab_size())
    if text.articles:
        _keep_articles(out.with_suffix(".articles.jsonl"), text.articles)
    write_tokens(out, ids, about)
    progress(f"{out} is ready")
