"""Whether another adapter's answers are worth reading as drafts, learnt as the run goes on. Pure.

Reading a draft changes no answer (see `generation`), only what the answer costs.
"""

from __future__ import annotations

from adapterbot.eval.questions import Ids

# What a token that is decoded costs beside one that is read among many. On a CPU with many rows at
# once both are bound by arithmetic (2 to 3 measured on a 4 M Llama, 2 cores, batch 32 to 128); on a
# GPU decoding is bound by memory and launches, and this is the careful side.
_DECODED = {"cpu": 2.0, "cuda": 4.0}


class Worth:
    """An account of drafts in tokens read: each token that holds spares its decoding."""

    def __init__(self, device: str) -> None:
        self._decoded = _DECODED.get(device, _DECODED["cpu"])
        self._spent = 0.0
        self._saved = 0.0

    @property
    def pays(self) -> bool:
        """True until the account is in the red."""
        return self._saved >= self._spent

    def book(self, guess: Ids, answer: Ids) -> None:
        """Enters a draft that was read, and the beginning of the answer that came out."""
        held = 0
        for foreseen, token in zip(guess, answer, strict=False):
            if foreseen != token:
                break
            held += 1
        self._spent += len(guess)
        self._saved += self._decoded * held


def pilot(count: int) -> list[int]:
    """A few of `count` requests, evenly spread, to be checked before the rest: about one in twenty.

    Where no draft holds, they are all that is lost.
    """
    size = min(count, max(4, count // 20))
    return sorted({(2 * k + 1) * count // (2 * size) for k in range(size)}) if size else []
