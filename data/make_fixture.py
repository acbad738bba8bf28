"""Writes the small model and token file that tests everywhere share; they are kept in git.

    make_fixture.py [--out DIR]        (default: tests/fixtures beside this folder)

tiny-llama/: a Hugging Face directory with seeded weights. A few channels of the norm gains are
outliers, as in trained models, so that 4-bit activations lose something. tiny-tokens.h5: seeded ids
with a skewed frequency and repeated pairs. Running again gives the same bytes.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from files import whole_file
from safetensors_file import write_safetensors
from token_file import SPLITS, TextNote, write_tokens

MODEL_SEED = 20240607
TOKEN_SEED = 20240608

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 256,
}

OUTLIER_CHANNELS = (5, 17, 40)  # of the block norms
OUTLIER_GAIN = 8.0
EMBEDDING_DEVIATION = 0.3       # keeps the entropy of the next token well away from uniform

TOKEN_COUNTS = {"calibration": 4000, "validation": 500, "test": 1500}
FOLLOW_PROBABILITY = 0.5        # how often a token is the fixed successor of the one before


def _gain(rng, width, outliers):
    gain = 1.0 + 0.1 * rng.standard_normal(width)
    gain[list(outliers)] *= OUTLIER_GAIN
    return gain


def model_weights():
    """Name -> float64 array, drawn in this order from one stream."""
    rng = np.random.Generator(np.random.PCG64(MODEL_SEED))
    width, mlp = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    queries = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    linears = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
               "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
               "mlp.gate_proj": (mlp, width), "mlp.up_proj": (mlp, width),
               "mlp.down_proj": (width, mlp)}
    weights = {"model.embed_tokens.weight":
               EMBEDDING_DEVIATION * rng.standard_normal((CONFIG["vocab_size"], width))}
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{norm}.weight"] = _gain(rng, width, OUTLIER_CHANNELS)
        for name, shape in linears.items():
            weights[f"{prefix}{name}.weight"] = rng.standard_normal(shape) / np.sqrt(shape[1])
    weights["model.norm.weight"] = _gain(rng, width, ())
    return weights


def token_ids():
    """Split name -> ids. Each id follows its predecessor's fixed successor, or is drawn by rank
    with probability proportional to 1 / (rank + 1)."""
    rng = np.random.Generator(np.random.PCG64(TOKEN_SEED))
    vocabulary = CONFIG["vocab_size"]
    successor = rng.permutation(vocabulary)
    by_rank = rng.permutation(vocabulary)
    shares = np.cumsum(1.0 / np.arange(1, vocabulary + 1))
    total = sum(TOKEN_COUNTS.values())
    follows = rng.random(total) < FOLLOW_PROBABILITY
    drawn = by_rank[np.searchsorted(shares, rng.random(total) * shares[-1], side="right")]
    ids = drawn.copy()
    for i in range(1, total):
        if follows[i]:
            ids[i] = successor[ids[i - 1]]
    ends = np.cumsum([TOKEN_COUNTS[name] for name in SPLITS])
    return dict(zip(SPLITS, np.split(ids, ends[:-1])))


def write_model(folder):
    """config.json and model.safetensors."""
    weights = model_weights()
    shapes = {name: values.shape for name, values in weights.items()}
    with whole_file(folder / "config.json") as part:
        part.write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    with whole_file(folder / "model.safetensors") as part:
        write_safetensors(part, shapes, weights.get, "float32")


def write_token_file(path):
    """A token file of the ids above."""
    ids = token_ids()
    content = np.concatenate([ids[name] for name in SPLITS]).astype("<i4").tobytes()
    about = TextNote(
        source="file", source_digest=hashlib.sha256(content).hexdigest(), tokenizer_digest="none",
        note=f"Synthetic ids for tests, seed {TOKEN_SEED}: skewed frequencies and repeated pairs.",
        vocabulary=CONFIG["vocab_size"])
    write_tokens(path, ids, about)


def main(arguments=None):
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make_fixture.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR")
    out = parser.parse_args(arguments).out
    write_model(out / "tiny-llama")
    write_token_file(out / "tiny-tokens.h5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
