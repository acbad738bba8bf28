"""The lists of paper/build: every run has its config, which takes the words of its line."""

import subprocess
import unittest

from support import HOME, Case

PARSER = 'source <(sed -n "/^run_words()/,/^}/p" paper/build); run_words "$1"'


def lines(name):
    """(run, its words) a line, as paper/build reads them."""
    told = subprocess.run(["bash", "-c", PARSER, "bash", f"paper/{name}"], cwd=HOME, text=True,
                          capture_output=True, check=True).stdout
    words = [line.split() for line in told.splitlines()]
    return [(run, [word for word in rest if not word.startswith("needs=")])
            for run, *rest in words]


class Lists(Case):
    def test_both_have_the_same_runs(self):
        study, quick = ({run for run, _ in lines(name)} for name in ("study.txt", "quick.txt"))
        self.assertEqual(study, quick)
        self.assertIn("construction", study)

    def test_every_line_is_a_sweep(self):
        for name in ("study.txt", "full.txt", "quick.txt"):
            for run, words in lines(name):
                if run == "construction":
                    continue
                with self.subTest(f"{name}: {run}"):
                    answer = self.ask(HOME / "configs" / f"{run}.yaml", *words, "--list")
                    self.assertEqual(answer.code, 0, answer)
                    self.assertTrue(answer.out.strip())

    def test_words_are_shared_joined_and_forgotten(self):
        path = self.folder / "list.txt"
        path.write_text("* a=1  # for all\n* b=2\none c=3 \\\n  d=4\nconstruction 64\n*\ntwo\n")
        told = subprocess.run(["bash", "-c", PARSER, "bash", str(path)], cwd=HOME, text=True,
                              capture_output=True, check=True).stdout
        self.assertEqual([line.split() for line in told.splitlines()],
                         [["one", "c=3", "d=4", "a=1", "b=2"], ["construction", "64"], ["two"]])

    def test_an_unknown_word_is_refused_with_the_usage(self):
        done = subprocess.run(["paper/build", "--fast"], cwd=HOME, capture_output=True, text=True,
                              env=self.environment(), check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("./paper/build --quick", done.stderr)


if __name__ == "__main__":
    unittest.main()
