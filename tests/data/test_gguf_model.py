import json
import unittest

import gguf
import numpy as np
from safetensors.numpy import load_file

import support
from support import FolderTest

import gguf_model

WIDTH, HEADS, KV_HEADS, HEAD, MLP, VOCABULARY = 64, 4, 2, 16, 96, 12
TOKENS = ["<end>", "a", "b", "c", "d", "Ġ", "ab", "cd", "abcd", "1", "2", "Ċ"]
MERGES = ["a b", "c d", "ab cd"]


def rotate_adjacent(rows, angles):
    """Rotary embedding of one head's vector whose pairs are (0, 1), (2, 3), ..."""
    out = rows.copy()
    out[0::2] = rows[0::2] * np.cos(angles) - rows[1::2] * np.sin(angles)
    out[1::2] = rows[0::2] * np.sin(angles) + rows[1::2] * np.cos(angles)
    return out


def rotate_half(rows, angles):
    """Rotary embedding of one head's vector whose pairs are (i, i + e/2)."""
    half = len(rows) // 2
    first, second = rows[:half], rows[half:]
    return np.concatenate([first * np.cos(angles) - second * np.sin(angles),
                           first * np.sin(angles) + second * np.cos(angles)])


def write_gguf(path, architecture, extra=None):
    """A one-block model; returns its float tensors by GGUF name."""
    rng = np.random.default_rng(3)
    shapes = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    rows = {"attn_q": HEADS * HEAD, "attn_k": KV_HEADS * HEAD, "attn_v": KV_HEADS * HEAD,
            "attn_output": WIDTH, "ffn_gate": MLP, "ffn_up": MLP, "ffn_down": WIDTH}
    for name, count in rows.items():
        shapes[f"blk.0.{name}.weight"] = (count, MLP if name == "ffn_down" else WIDTH)
    for name in ("attn_norm", "ffn_norm"):
        shapes[f"blk.0.{name}.weight"] = (WIDTH,)
    if architecture == "qwen2":
        shapes |= {f"blk.0.{name}.bias": (rows[name],) for name in ("attn_q", "attn_k", "attn_v")}
    tensors = {name: rng.standard_normal(shape).astype(np.float32)
               for name, shape in shapes.items()} | (extra or {})
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(5e5)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if architecture == "llama" else "qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (VOCABULARY - 1))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


class RowOrderTest(unittest.TestCase):
    def test_scores_are_those_of_the_adjacent_pairs(self):
        rng = np.random.default_rng(1)
        heads, width, x = 3, 8, rng.standard_normal(10)
        weight = rng.standard_normal((heads * width, 10))
        angles = rng.standard_normal(width // 2)
        stored = (weight @ x).reshape(heads, width)
        turned = (gguf_model.to_rotate_half(weight, heads) @ x).reshape(heads, width)
        for head in range(heads):
            expected = rotate_adjacent(stored[head], angles)
            found = rotate_half(turned[head], angles)
            np.testing.assert_allclose(found, np.concatenate([expected[0::2], expected[1::2]]))

    def test_one_head_by_hand(self):
        rows = np.arange(6)
        self.assertEqual(list(gguf_model.to_rotate_half(rows, 1)), [0, 2, 4, 1, 3, 5])


class ConversionTest(FolderTest):
    def convert(self, architecture, dtype, extra=None):
        path = self.folder / "model.gguf"
        tensors = write_gguf(path, architecture, extra)
        gguf_model.write_hf_directory(path, self.folder, dtype)
        config = json.loads((self.folder / "config.json").read_text())
        return tensors, load_file(self.folder / "model.safetensors"), config

    def test_llama(self):
        tensors, found, config = self.convert("llama", "float32")
        self.assertEqual(len(found), len(tensors))
        np.testing.assert_array_equal(found["model.layers.0.mlp.down_proj.weight"],
                                      tensors["blk.0.ffn_down.weight"])
        np.testing.assert_array_equal(
            found["model.layers.0.self_attn.k_proj.weight"],
            gguf_model.to_rotate_half(tensors["blk.0.attn_k.weight"], KV_HEADS))
        self.assertEqual(config["rms_norm_eps"], 1e-6)
        self.assertEqual(config["rope_theta"], 5e5)
        self.assertEqual(config["head_dim"], HEAD)
        self.assertTrue(config["tie_word_embeddings"])

    def test_qwen2_keeps_rows_and_biases_and_rounds_to_half(self):
        tensors, found, config = self.convert("qwen2", "float16")
        self.assertEqual(config["model_type"], "qwen2")
        for part in ("weight", "bias"):
            values = found[f"model.layers.0.self_attn.q_proj.{part}"]
            self.assertEqual(values.dtype, np.float16)
            np.testing.assert_array_equal(values, tensors[f"blk.0.attn_q.{part}"].astype("f2"))

    def test_a_head_of_its_own_is_not_tied(self):
        head = np.ones((VOCABULARY, WIDTH), dtype=np.float32)
        _, found, config = self.convert("llama", "float32", {"output.weight": head})
        self.assertFalse(config["tie_word_embeddings"])
        np.testing.assert_array_equal(found["lm_head.weight"], head)

    def test_an_unknown_tensor_is_refused_by_name(self):
        extra = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
        self.assert_error(["rope_freqs.weight"], self.convert, "llama", "float32", extra)

    def test_a_value_beyond_half_precision_is_refused_by_name(self):
        extra = {"output_norm.weight": np.full(WIDTH, 1e6, dtype=np.float32)}
        self.assert_error(["model.norm.weight", "float16"], self.convert, "llama", "float16", extra)


if __name__ == "__main__":
    unittest.main()
