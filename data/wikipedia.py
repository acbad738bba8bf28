"""English Wikipedia articles from the test data of a wheel, and their split.

The wheel gensim 4.4.0 carries the head of a 2016 article dump. The content is pinned by the digest
of that one member; the wheel itself differs between platforms.
"""

import bz2
import hashlib
import io
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from errors import progress
from files import check_digest
from wheels import Wheel, obtain, open_member
from wikitext import article_text

# One build for every machine: only a data file is read from it.
WHEEL = Wheel("gensim", "4.4.0", platform=(
    "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11",
    "--implementation", "cp", "--abi", "cp311"))
MEMBER = ("gensim/test/test_data/"
          "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
MEMBER_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"


@dataclass(frozen=True)
class Article:
    """A title and its prose paragraphs, joined with empty lines."""

    title: str
    text: str


def assign_splits(articles):
    """The split of every article: title -> name.

    Articles are lined up by the hash of their title, then cut where 70 and 80 in a hundred of the
    characters have gone by, since a few long articles make up much of the text. An article goes
    whole to the side its middle falls on.
    """
    total, gone, splits = sum(len(article.text) for article in articles), 0, {}
    for article in sorted(articles, key=lambda a: hashlib.sha256(a.title.encode("utf-8")).digest()):
        middle = (gone + len(article.text) / 2) / total
        gone += len(article.text)
        splits[article.title] = ("calibration" if middle < 0.7
                                 else "validation" if middle < 0.8 else "test")
    return splits


def iterate_pages(stream):
    """(title, markup) of the pages of the article namespace that are no redirects."""
    for _, element in ElementTree.iterparse(stream, events=("end",)):
        if element.tag.rpartition("}")[2] != "page":
            continue
        fields = {child.tag.rpartition("}")[2]: child for child in element.iter()}
        if fields["ns"].text == "0" and "redirect" not in fields:
            yield fields["title"].text, fields["text"].text or ""
        element.clear()


def read_articles():
    """(articles in dump order, sha256 of the compressed dump)."""
    with obtain(WHEEL) as (path, _), open_member(path, MEMBER) as member:
        packed = member.read()
    digest = hashlib.sha256(packed).hexdigest()
    check_digest(f"{path.name}: {MEMBER}", digest, MEMBER_SHA256)
    progress("cleaning articles")
    articles = []
    with bz2.open(io.BytesIO(packed)) as stream:
        for title, markup in iterate_pages(stream):
            text = article_text(markup)
            if text:
                articles.append(Article(title, text))
    return articles, digest
