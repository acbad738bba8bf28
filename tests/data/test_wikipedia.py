import bz2
import io
import unittest
from unittest import mock

import support
from support import FolderTest, write_wheel

import wikipedia
from token_file import SPLITS
from wikitext import article_text

LONG = "It stood for so many years that nobody in the town remembered who had built it. " * 7

MARKUP = """{{Infobox building|name=Tower|height={{convert|30|m}}}}
[[File:Tower.jpg|thumb|A caption with a [[link]] inside.]]
The '''Tower''' ({{IPA|taʊ}}; {{lang|de|Turm}}) is a [[building|tall building]] in
<!-- hidden -->a town&nbsp;of the south, {{convert|30|m|ft}} high.<ref name="a">A {{cite}}.</ref>
""" + LONG + """
== History ==
* A list item that is long enough to look like a whole sentence of the article's own prose.
: An indented line that is long enough to look like a whole sentence of the article too.
{| class="wikitable"
|-
| A table cell that is long enough to look like a whole sentence of the article's prose.
|}
The height follows from <math>h = 2r</math>, a sentence that is useless without its formula.

[http://example.org A page] says that it was painted white in the spring of that year.

A short line.
[[Category:Buildings]]
[[de:Turm]]
"""


class CleaningTest(unittest.TestCase):
    def setUp(self):
        self.text = article_text(MARKUP)

    def test_prose_stays_without_its_markup(self):
        self.assertIn("town of the south, 30 m high.", self.text)
        self.assertIn("A page says that it was painted white", self.text)
        self.assertIn(LONG.strip(), self.text)

    def test_the_rest_goes(self):
        for gone in ("Infobox", "caption", "hidden", "cite", "History", "list item", "indented",
                     "cell", "formula", "short line", "Buildings", "Turm:", "[[", "{{", "<", "''"):
            self.assertNotIn(gone, self.text)

    def test_links_and_dressed_words(self):
        text = article_text("The '''Tower''' ({{IPA|taʊ}}; {{lang|de|Turm}}) is a "
                            "[[building|tall building]] at home in [[Berlin]]. " + LONG)
        self.assertTrue(text.startswith("The Tower (Turm) is a tall building at home in Berlin."))

    def test_a_page_with_little_prose_is_no_article(self):
        page = "A tower is a tall building that stands on its own feet without any help."
        self.assertEqual(article_text(page), "")

    def test_ranges_of_units_and_lost_beginnings(self):
        text = article_text("It is {{convert|60|to|80|kg|lb}} of stone.\n\n{{unknown|The tower}} "
                            "is a paragraph that has lost its beginning.\n\n" + LONG)
        self.assertEqual(text, LONG.strip())
        text = article_text("It is built of {{convert|60|to|80|kg|lb}} of stone and glass.\n\n"
                            + LONG)
        self.assertTrue(text.startswith("It is built of 60 to 80 kg of stone"))


def page(title, markup, namespace=0, redirect=False):
    target = '<redirect title="Elsewhere" />' if redirect else ""
    return (f"<page><title>{title}</title><ns>{namespace}</ns>{target}"
            f"<revision><text>{markup}</text></revision></page>")


class DumpTest(FolderTest):
    PAGES = "".join([page("Tower", LONG), page("Old tower", LONG, redirect=True),
                     page("Talk:Tower", LONG, namespace=1), page("Stub", "A stub.")])

    def setUp(self):
        super().setUp()
        self.packed = bz2.compress(
            f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{self.PAGES}'
            "</mediawiki>".encode())
        write_wheel(self.folder / "gensim-4.4.0-py3-none-any.whl",
                    {wikipedia.MEMBER: self.packed})

    def test_redirects_and_other_namespaces_are_skipped(self):
        pages = wikipedia.iterate_pages(io.BytesIO(bz2.decompress(self.packed)))
        self.assertEqual([title for title, _ in pages], ["Tower", "Stub"])

    def test_another_dump_is_refused(self):
        self.assert_error(["sha256", wikipedia.MEMBER_SHA256], wikipedia.read_articles)

    def test_articles(self):
        from hashlib import sha256
        digest = sha256(self.packed).hexdigest()
        with mock.patch("wikipedia.MEMBER_SHA256", digest):
            articles, found = wikipedia.read_articles()
        self.assertEqual([a.title for a in articles], ["Tower"])
        self.assertEqual(found, digest)


class SplitTest(unittest.TestCase):
    def test_every_article_is_in_one_split_near_the_shares(self):
        articles = [wikipedia.Article(f"Title {i}", "x" * (50 + 37 * i % 400)) for i in range(300)]
        splits = wikipedia.assign_splits(articles)
        self.assertEqual(len(splits), len(articles))
        total = sum(len(a.text) for a in articles)
        for name, share in zip(SPLITS, (0.7, 0.1, 0.2)):
            found = sum(len(a.text) for a in articles if splits[a.title] == name)
            self.assertAlmostEqual(found / total, share, delta=0.01)

    def test_the_order_of_the_dump_does_not_matter(self):
        articles = [wikipedia.Article(f"Title {i}", "x" * (100 + i)) for i in range(50)]
        self.assertEqual(wikipedia.assign_splits(articles),
                         wikipedia.assign_splits(articles[::-1]))


if __name__ == "__main__":
    unittest.main()
