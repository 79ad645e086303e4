"""Small random models, tokenizers and PEFT adapters on disk, for tests that need real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# Tiny tensors gain nothing from threads, and tests that run side by side lose much.
torch.set_num_threads(1)

VOCABULARY = 262
BOS, EOS, PAD = 256, 257, 258
# `rope_parameters`: a text of more than 30 tokens is read with other frequencies.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 30,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 4.0, 8.0],
}


def tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and a few merges, so that words split differently in context."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    vocabulary |= {"<s>": BOS, "</s>": EOS, "<pad>": PAD, "th": 259, "in": 260, "Ġth": 261}
    merges = [("t", "h"), ("i", "n"), ("Ġ", "th")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_base(kind: str, directory: Path, *, seed: int = 0, **options: Any) -> Path:
    """A random model of hidden size 32 with its tokenizer, saved in `directory`."""
    torch.manual_seed(seed)
    common = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS}
    llama = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": PAD,
    }
    config: Any
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=128, **common, **options
        )
    else:
        config = transformers.AutoConfig.for_model(kind, **{**llama, **common, **options})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        # Random models repeat one token; larger weights make them babble instead.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6.0)
    model.save_pretrained(directory)
    tokenizer(bos=kind != "gpt2").save_pretrained(directory)
    return directory


def save_adapter(
    base: Path, directory: Path, *, seed: int = 1, scale: float = 0.2, **options: Any
) -> Path:
    """A PEFT LoRA adapter on `base` with every trained parameter random."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **options)
    return save_peft(peft.get_peft_model(model, config), directory, scale=scale)


def save_peft(model: Any, directory: Path, *, scale: float = 0.2) -> Path:
    """Saves a PEFT model after making everything it trains random."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(directory)
    return directory
