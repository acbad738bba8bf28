"""tokenizer.json from the vocabulary and merges that a GGUF file holds.

Both supported kinds are byte-level BPE; they differ in how text is cut before the merges:

- `smollm`: GPT-2's regular expression. Digits stand alone without a rule, since no merge joins
  one to anything.
- `qwen2`: Unicode NFC first, then Qwen's own expression (single digits, letters with one leading
  character, runs of line ends), then bytes.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from errors import require_name

# Token types of GGUF (tokenizer.ggml.token_type).
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"      # English contractions
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"         # a word, with at most one character before it
    r"|\p{N}"                            # one digit
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"        # punctuation, with line ends after it
    r"|\s*[\r\n]+"                       # line ends, with blanks before them
    r"|\s+(?!\S)|\s+"                    # other blanks; the last one belongs to the next word
)


def _smollm():
    return None, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _qwen2():
    return normalizers.NFC(), pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


KINDS = {"smollm": _smollm, "qwen2": _qwen2}


def build_tokenizer(kind, tokens, types, merges):
    """A byte-level BPE tokenizer that adds no token of its own at either end.

    `tokens`[i] is the text of id i, `types`[i] its GGUF type, `merges` are "left right" in order
    of rank. Control and user-defined tokens are matched whole before any cutting; unused ids,
    which only pad the embedding, are left out.
    """
    require_name("tokenizer.ggml.pre", kind, KINDS)
    vocabulary = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    normalizer, cutter = KINDS[kind]()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.ByteLevel()
    control = [tokens[i] for i, kind_ in enumerate(types) if kind_ == CONTROL]
    defined = [tokens[i] for i, kind_ in enumerate(types) if kind_ == USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in defined])
    return tokenizer
