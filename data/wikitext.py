"""Prose from the markup of a Wikipedia article.

The tree of mwparserfromhell is walked once. References, tables, galleries, file and category
links, comments and templates go, but for a few templates that only dress text (`{{lang|fr|mot}}`).
What cannot be read once it has lost its markup, such as a list item or a formula, gets a mark. A
paragraph is a run of lines up to an empty or marked one; those that look like prose are kept.
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import (Argument, Comment, ExternalLink, Heading, HTMLEntity, Tag,
                                    Template, Text, Wikilink)

SPOILED = "\ue000"  # the mark; private use, does not occur in articles

# Tags whose content goes without a trace, and tags that spoil the line they stand in.
SILENT_TAGS = {"ref", "references", "table", "gallery", "imagemap", "timeline", "score", "hiero"}
SPOILING_TAGS = {"li", "dd", "dt", "math", "pre", "source", "syntaxhighlight", "chem"}

# Templates that only dress their text: name -> which positional parameter holds it.
DRESSING = {"lang": 2, "nowrap": 1, "nobreak": 1, "nobr": 1, "abbr": 1, "transl": 2, "small": 1,
            "smallcaps": 1, "nihongo": 1, "sic": 1, "linktext": 1, "not a typo": 1,
            "angle bracket": 1}
DASHES = {"spaced ndash": " – ", "snd": " – ", "ndash": "–", "mdash": "—",
          "spaced mdash": " — "}
RANGE_WORDS = {"and", "to", "or", "by", "x", "-", "–"}
# Templates that stand for a number or a formula: without them the sentence says nothing.
SPOILING_TEMPLATES = {"math", "mvar", "val", "chem", "sfrac", "frac", "su", "e", "age", "nuclide"}

MIN_PARAGRAPH = 40      # characters; shorter lines are captions, labels and leftovers
MIN_ARTICLE = 500       # characters; less is a disambiguation page or a stub
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*$")
BREAK = re.compile(rf"[|!{{}}*#:;={SPOILED}]|$")  # a line that begins so belongs to no paragraph
RESIDUE = re.compile(rf"{SPOILED}|\{{\{{|\}}\}}|\[\[|\]\]|\{{\||https?://|</?[a-z]+[^>]*>")
NAMESPACE = re.compile(r"^:?\s*(file|image|media|category|wikipedia|template|portal|help|user|"
                       r"wikt|wiktionary|[a-z]{2,3}(-[a-z]+)*)\s*:", re.IGNORECASE)


def _parameter(template, index):
    name = str(index)
    return render(template.get(name).value).strip() if template.has(name) else ""


def _render_template(template):
    name = str(template.name).strip().lower().replace("_", " ")
    if name in DASHES:
        return DASHES[name]
    if name in SPOILING_TEMPLATES:
        return SPOILED
    if name in ("convert", "cvt"):
        # {{convert|60|and|80|kg}} names a range, {{convert|30|m}} one value.
        count = 4 if _parameter(template, 2) in RANGE_WORDS else 2
        return " ".join(_parameter(template, i) for i in range(1, count + 1))
    if name in DRESSING:
        return _parameter(template, DRESSING[name])
    if name in ("circa", "c."):
        return f"c. {_parameter(template, 1)}".strip()
    return ""


def _render_tag(tag):
    name = str(tag.tag).strip().lower()
    if name in SILENT_TAGS:
        return ""
    if name in SPOILING_TAGS:
        return SPOILED
    if name in ("br", "hr"):
        return "\n"
    return render(tag.contents) if tag.contents is not None else ""


def _render_link(link):
    title = str(link.title).strip()
    if NAMESPACE.match(title):
        return ""
    return render(link.text) if link.text is not None else title.lstrip(":")


def _render_node(node):
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _render_link(node)
    if isinstance(node, Template):
        return _render_template(node)
    if isinstance(node, Tag):
        return _render_tag(node)
    if isinstance(node, ExternalLink):
        return render(node.title) if node.brackets and node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return node.normalize()
    if isinstance(node, Heading):
        return "\n"
    assert isinstance(node, (Argument, Comment)), type(node)
    return ""


def render(code):
    """The text of a parsed piece of markup, with SPOILED where something unreadable was."""
    return "".join(_render_node(node) for node in code.nodes)


def _paragraphs(text):
    """The paragraphs of rendered text, tidied, each on one line."""
    block = []
    for line in [*map(str.strip, text.split("\n")), ""]:
        if not BREAK.match(line):
            block.append(line)
        elif block:
            yield _tidy(" ".join(block))
            block = []


def _tidy(line):
    """Removes what vanished templates leave: empty brackets, doubled blanks, stray quotes."""
    line = line.replace("\u00a0", " ").replace("\u200b", "")
    line = re.sub(r"'{2,}", "", line)
    line = re.sub(r"\(\s*(?:[;,:]\s*)+", "(", line)
    line = re.sub(r"(?:\s*[;,:])+\s*\)", ")", line)
    line = re.sub(r"\s*\(\s*\)", "", line)
    line = re.sub(r",\s*;", ";", line)
    line = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", line))
    line = re.sub(r"\s+([,.;:!?])(?=\s|$)", r"\1", line)
    return re.sub(r"\s+", " ", line).strip()


def _is_prose(line):
    # A small first letter means that the start was lost.
    return (len(line) >= MIN_PARAGRAPH and not line[0].islower()
            and SENTENCE_END.search(line) is not None and RESIDUE.search(line) is None)


def article_text(markup):
    """The prose paragraphs of an article, joined with one empty line; "" if there is too little."""
    text = render(mwparserfromhell.parse(markup))
    prose = "\n\n".join(line for line in _paragraphs(text) if _is_prose(line))
    return prose if len(prose) >= MIN_ARTICLE else ""
