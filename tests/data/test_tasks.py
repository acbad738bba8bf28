"""Zero-shot tasks: prompts, tokenization of pairs, and the task file."""

import dataclasses
import hashlib
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import h5py
import numpy as np

import support  # noqa: F401  (puts data/ on the path)
import tasks
from errors import RequestError
from tokenizers import Tokenizer, models, pre_tokenizers


def byte_tokenizer():
    """Bytes, and one merge that only a blank in front makes: "Ġa"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    vocabulary["Ġa"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


class Prompts(unittest.TestCase):
    """To the letter. Who changes one raises the version of its task, or old trials stay done."""

    def test_questions(self):
        item = tasks.piqa({"goal": "Open it", "sol1": "pull", "sol2": "push it", "label": 1})
        self.assertEqual(item.contexts, ("Question: Open it\nAnswer:",))
        self.assertEqual(item.choices, ((0, " pull", 4), (0, " push it", 7)))
        self.assertEqual(item.gold, 1)

    def test_arc_in_both_spellings(self):
        choices = {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}
        arrow = tasks.arc({"question": "Which?", "choices": choices, "answerKey": "3"})
        lines = tasks.arc({"question": "Which?", "choices": ["x", "y", "z"], "gold": 2})
        self.assertEqual(arrow, lines)

    def test_hellaswag_is_cleaned(self):
        item = tasks.hellaswag({"activity_label": "Baking", "ctx_a": "A man [title] bakes. [step]",
                                "ctx_b": "he", "endings": ["eats [a] it.", "runs."], "label": "0"})
        self.assertEqual(item.contexts, ("Baking: A man. bakes.  He".replace("  ", " "),))
        self.assertEqual(item.choices[0][1], " eats it.")

    def test_winogrande_has_two_contexts_and_one_end(self):
        item = tasks.winogrande({"sentence": "Ann paid Eve because _ was kind.", "option1": "Ann",
                                 "option2": "Eve", "answer": "2"})
        self.assertEqual(item.contexts, ("Ann paid Eve because Ann", "Ann paid Eve because Eve"))
        self.assertEqual(item.choices, ((0, " was kind.", 9), (1, " was kind.", 9)))
        self.assertEqual(item.gold, 1)

    def test_boolq_says_no_first(self):
        item = tasks.boolq({"passage": "P.", "question": "is it", "answer": True})
        self.assertEqual(item.contexts, ("P.\nQuestion: is it?\nAnswer:",))
        self.assertEqual([text for _, text, _ in item.choices], [" no", " yes"])
        self.assertEqual(item.gold, 1)

    def test_mmlu_lists_its_choices(self):
        item = tasks.mmlu({"question": " Which? ", "subject": "high_school_biology",
                           "choices": ["p", "q", "r", "s"], "answer": 3})
        self.assertEqual(item.contexts[0].splitlines()[0], "The following are multiple choice "
                         "questions (with answers) about high school biology.")
        self.assertTrue(item.contexts[0].endswith("Which?\nA. p\nB. q\nC. r\nD. s\nAnswer:"))
        self.assertEqual([text for _, text, _ in item.choices], [" A", " B", " C", " D"])

    def test_openbookqa_is_a_stem_and_its_ends(self):
        item = tasks.openbookqa({"question_stem": "The sun is", "answerKey": "B",
                                 "choices": {"text": ["cold", "hot"], "label": ["A", "B"]}})
        self.assertEqual(item, tasks.Item(("The sun is",), ((0, " cold", 4), (0, " hot", 3)), 1))

    def test_gsm8k_has_its_answer_alone(self):
        item = tasks.gsm8k({"question": "1 + 1?", "answer": "2 #### 2"})
        self.assertEqual(item, tasks.Item(("Question: 1 + 1?\nAnswer:",), ((0, " 2 #### 2", 8),)))

    def test_lambada_takes_the_last_word(self):
        item = tasks.lambada({"text": "to be or not"})
        self.assertEqual((item.contexts, item.choices), (("to be or",), ((0, " not", 3),)))
        doc = {"query": "to be or", "choices": ["not"]}
        self.assertEqual(tasks.lambada(doc), item)


class Pairs(unittest.TestCase):
    def test_blanks_at_the_end_go_to_the_continuation(self):
        tokenizer = byte_tokenizer()
        space_a = tokenizer.token_to_id("Ġa")
        for context, continuation in (("x", " a"), ("x ", "a")):
            own, choice = tasks.encode_pair(tokenizer, context, continuation)
            self.assertEqual(own, [tokenizer.token_to_id("x")])
            self.assertEqual(choice, [space_a])


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        byte_tokenizer().save(str(self.folder / "tokenizer.json"))

    def prepare(self, rows, name="piqa", file="piqa_some.jsonl"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / file).write_text(lines, encoding="utf-8")
        out = self.folder / "task.h5"
        tasks.prepare_tasks(name, self.folder / "tokenizer.json", out, self.folder)
        return h5py.File(out, "r")

    def test_layout(self):
        rows = [{"goal": "g", "sol1": "a", "sol2": "bc", "label": 0},
                {"goal": "h", "sol1": "d", "sol2": "e", "label": 1}]
        with self.prepare(rows) as file:
            self.assertEqual((file.attrs["format"], file.attrs["task"], file.attrs["kind"]),
                             ("ruquant-choices", "piqa", "choices"))
            np.testing.assert_array_equal(file["gold"], [0, 1])
            np.testing.assert_array_equal(file["item_choices"], [0, 2, 4])
            np.testing.assert_array_equal(file["item_contexts"], [0, 1, 2])
            np.testing.assert_array_equal(file["choice_characters"], [1, 2, 1, 1])
            np.testing.assert_array_equal(file["choice_offsets"], [0, 1, 4, 6, 8])
            self.assertEqual(len(file["context_ids"]), file["context_offsets"][-1])

    def test_another_prompt_is_another_task(self):
        row = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}
        digests = []
        for version in (1, 2, 3):
            task = dataclasses.replace(tasks.TASKS["piqa"], version=version)
            with mock.patch.dict(tasks.TASKS, piqa=task), self.prepare([row]) as file:
                digests.append(file.attrs["digest"])
        self.assertEqual(digests[0], hashlib.sha256(
            (self.folder / "piqa_some.jsonl").read_bytes()).hexdigest())
        self.assertEqual(len(set(digests)), 3)

    def test_winogrande_keeps_both_contexts(self):
        row = {"sentence": "x _ y", "option1": "p", "option2": "q", "answer": "1"}
        with self.prepare([row], "winogrande", "winogrande.jsonl") as file:
            np.testing.assert_array_equal(file["choice_context"], [0, 1])
            np.testing.assert_array_equal(file["item_contexts"], [0, 2])

    def test_faults_are_named(self):
        with self.assertRaisesRegex(RequestError, "item 1 of piqa.*sol2"):
            self.prepare([{"goal": "g", "sol1": "a", "sol2": "b", "label": 0},
                          {"goal": "g", "sol1": "a", "label": 0}])
        with self.assertRaisesRegex(RequestError, "unknown task 'pika'.*piqa|pika.*piqa"):
            tasks.prepare_tasks("pika", self.folder / "tokenizer.json", self.folder / "o", None)
        with self.assertRaisesRegex(RequestError, "found 0 files boolq"):
            tasks.prepare_tasks("boolq", self.folder / "tokenizer.json", self.folder / "o",
                                self.folder)
        (self.folder / "arc_easy.jsonl").write_text("{", encoding="utf-8")
        with self.assertRaisesRegex(RequestError, "arc_easy.jsonl:1"):
            tasks.prepare_tasks("arc_easy", self.folder / "tokenizer.json", self.folder / "o",
                                self.folder)


if __name__ == "__main__":
    unittest.main()
