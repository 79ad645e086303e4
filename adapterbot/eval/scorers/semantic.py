"""How close answer and expected text are to a local embedding model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import JsonValue, PrivateAttr

from adapterbot.errors import InputError, first_line
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Files, Scorer, needs_expected
from adapterbot.importing import extras
from adapterbot.records import ScoreKind
from adapterbot.weights.peft_dir import files_digest

if TYPE_CHECKING:
    import torch

_WEIGHTS = "*.safetensors"
_CACHED_TEXTS = 10_000


class Semantic(Scorer):
    """Cosine of the embeddings of answer and `expected`; 0 where they point apart.

    `model` is a directory with a transformers encoder and its tokenizer: one in the repository,
    relative to the suite, or an absolute path on the runner. Weights are safetensors; no code of
    the model's own is run, and nothing is downloaded. An embedding is the mean over tokens (or
    the first token's state, `pooling: cls`). `model_digest` is filled in when the suite is read.
    """

    name: ClassVar[str] = "semantic"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS

    derived: ClassVar[frozenset[str]] = frozenset({"model_digest"})

    model: str
    pooling: Literal["mean", "cls"] = "mean"
    device: str = "cpu"
    model_digest: str = ""
    _loaded: tuple[Any, Any] | None = PrivateAttr(default=None)
    _expected: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        model = options.get("model")
        if not isinstance(model, str):
            return options  # validation says what is wrong with it
        directory = Path(model) if model.startswith("/") else files.tree.on_disk(files.path(model))
        if not (directory / "config.json").is_file() or not any(directory.glob(_WEIGHTS)):
            raise InputError(
                "is not a model directory with config.json and safetensors",
                file=model,
                field="scorer.model",
                fix="name a directory saved with save_pretrained()",
            )
        kept = [file for file in sorted(directory.iterdir()) if file.is_file()]
        return {**options, "model": str(directory), "model_digest": files_digest(*kept)}

    def identity(self) -> Mapping[str, JsonValue]:
        """What the model is counts, not where it lies or runs."""
        return {**self.model_dump(mode="json", exclude={"model", "device"}), "least": 0.0}

    def check(self, sample: Sample) -> str | None:
        return needs_expected(sample)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if not answer.text.strip():
            return Scored(0.0)
        if sample.expected not in self._expected:
            if len(self._expected) >= _CACHED_TEXTS:
                self._expected.clear()
            self._expected[sample.expected] = self._embed(sample.expected)
        cosine = float(self._embed(answer.text) @ self._expected[sample.expected])
        if cosine != cosine:
            return Scored(None, "the embedding is not finite")
        # A fraction, as the tests of a mean that stop early take it to be.
        return Scored(max(0.0, min(1.0, cosine)))

    def _embed(self, text: str) -> torch.Tensor:
        """The unit vector of a text, cut to what the model reads."""
        import torch

        if self._loaded is None:
            self._loaded = _load(self.model, self.device)
        tokenizer, encoder = self._loaded
        reads = getattr(encoder.config, "max_position_embeddings", tokenizer.model_max_length)
        longest = min(tokenizer.model_max_length, reads)
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
        with torch.inference_mode():
            states = encoder(**tokens.to(self.device)).last_hidden_state[0].float()
        pooled = states[0] if self.pooling == "cls" else states.mean(dim=0)
        return torch.nn.functional.normalize(pooled, dim=0).cpu()


def _load(model: str, device: str) -> tuple[Any, Any]:
    with extras("eval", "scoring"):
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **safe)
        encoder = AutoModel.from_pretrained(model, use_safetensors=True, **safe)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"is not a model we can load: {first_line(error)[:200]}",
            file=model,
            field="scorer.model",
            fix="save it with save_pretrained(), tokenizer included",
        ) from error
    return tokenizer, encoder.to(device).eval()
