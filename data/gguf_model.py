"""A GGUF file as a Hugging Face directory: config.json, model.safetensors, tokenizer.json.

Every dimension, epsilon, base and special token comes from the file's own metadata. Two
architectures are known, `llama` and `qwen2`. What the conversion could not carry over (rotary
scaling, sliding windows, tensors it does not know) is refused by name.

Row order of q and k: rotary embedding turns pairs of rows. Hugging Face pairs row i of a head with
row i + e/2 (rotate-half); GGUF's `llama` stores the pair in adjacent rows 2i, 2i+1, so its rows are
put back. GGUF's `qwen2` keeps the rotate-half order.
"""

import json

import gguf
import numpy as np

from errors import RequestError, progress, require_name
from safetensors_file import write_safetensors
from tokenizer import build_tokenizer

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}

BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def to_rotate_half(rows, heads):
    """Rows of q or k, [heads * e, ...], from adjacent rotary pairs to rotate-half order."""
    paired = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


def hf_name(name):
    """The Hugging Face name of a GGUF tensor; RequestError when there is none."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{BLOCK_NAMES[parts[2]]}.{parts[3]}"
    raise RequestError(f"GGUF tensor '{name}': found no counterpart in a Llama or Qwen2 model")


def short_float(value):
    """The shortest decimal that means this float32: GGUF's 9.99999975e-06 was written as 1e-05."""
    return float(str(np.float32(value)))


class GgufModel:
    """One opened GGUF file (memory-mapped)."""

    def __init__(self, path):
        try:
            self._reader = gguf.GGUFReader(path)
        except ValueError as error:
            raise RequestError(f"{path}: found '{error}', expected a GGUF file") from error
        self.architecture = self.field("general.architecture")
        require_name("GGUF general.architecture", self.architecture, ARCHITECTURES)
        self._tensors = {hf_name(t.name): t for t in self._reader.tensors}

    def field(self, key, default=None):
        """A metadata value; RequestError when it is missing and no default is given."""
        found = self._reader.get_field(key)
        if found is not None:
            return found.contents()
        if default is None:
            raise RequestError(f"GGUF metadata: found no '{key}'")
        return default

    def shape_field(self, key, default=None):
        """A metadata value under the architecture's own prefix."""
        return self.field(f"{self.architecture}.{key}", default)

    def types(self):
        """How many tensors are stored in which type, e.g. {"F32": 61, "Q4_1": 210}."""
        names = [t.tensor_type.name for t in self._reader.tensors]
        return {name: names.count(name) for name in sorted(set(names))}

    def config(self, dtype_name):
        """The content of config.json."""
        scaling = self.shape_field("rope.scaling.type", "none")
        if scaling != "none":
            raise RequestError(f"GGUF rope.scaling.type: found '{scaling}', expected none")
        width = int(self.shape_field("embedding_length"))
        heads = int(self.shape_field("attention.head_count"))
        config = {
            "architectures": [ARCHITECTURES[self.architecture]],
            "bos_token_id": int(self.field("tokenizer.ggml.bos_token_id")),
            "eos_token_id": int(self.field("tokenizer.ggml.eos_token_id")),
            "head_dim": int(self.shape_field("attention.key_length", width // heads)),
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": int(self.shape_field("feed_forward_length")),
            "max_position_embeddings": int(self.shape_field("context_length")),
            "model_type": self.architecture,
            "num_attention_heads": heads,
            "num_hidden_layers": int(self.shape_field("block_count")),
            "num_key_value_heads": int(self.shape_field("attention.head_count_kv", heads)),
            "rms_norm_eps": short_float(self.shape_field("attention.layer_norm_rms_epsilon")),
            "rope_scaling": None,
            "rope_theta": short_float(self.shape_field("rope.freq_base")),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "torch_dtype": dtype_name,
            "vocab_size": self._hf_shape(self._tensors["model.embed_tokens.weight"])[0],
        }
        if self.architecture == "llama":
            config["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in self._tensors
            config["mlp_bias"] = "model.layers.0.mlp.gate_proj.bias" in self._tensors
        else:
            config["use_sliding_window"] = False
        return config

    @staticmethod
    def _hf_shape(tensor):
        """GGUF lists the fastest axis first."""
        return tuple(int(n) for n in reversed(tensor.shape))

    def shapes(self):
        """Hugging Face names and shapes, in the file's order."""
        return {name: self._hf_shape(tensor) for name, tensor in self._tensors.items()}

    def load(self, name):
        """One tensor by its Hugging Face name, dequantized to float32, rows in its order."""
        tensor = self._tensors[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(self._hf_shape(tensor))
        if self.architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            key = "attention.head_count" if ".q_proj." in name else "attention.head_count_kv"
            return to_rotate_half(values, int(self.shape_field(key)))
        return values

    def tokenizer(self):
        """The tokenizer of the file's vocabulary."""
        model = self.field("tokenizer.ggml.model")
        require_name("GGUF tokenizer.ggml.model", model, ["gpt2"])
        return build_tokenizer(
            self.field("tokenizer.ggml.pre"), self.field("tokenizer.ggml.tokens"),
            self.field("tokenizer.ggml.token_type"), self.field("tokenizer.ggml.merges"))


def write_hf_directory(path, folder, dtype_name):
    """Writes the three files into `folder`; returns the count of stored GGUF types."""
    model = GgufModel(path)
    config = model.config(dtype_name)
    progress(f"writing {config['num_hidden_layers']} blocks as {dtype_name}")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", model.shapes(), model.load, dtype_name)
    model.tokenizer().save(str(folder / "tokenizer.json"))
    return model.types()
