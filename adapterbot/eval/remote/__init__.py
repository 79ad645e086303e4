"""Evaluating on a server that speaks the OpenAI API and serves adapters by name (vLLM and others).

`model` says what is asked and what a reply means, `http` how patiently. No torch here, and none is
needed: a runner without a GPU is enough.
"""

from adapterbot.eval.remote.model import ServerModel

__all__ = ["ServerModel"]
