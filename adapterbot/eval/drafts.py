"""Whether another adapter's answers are worth reading as drafts, learnt as the run goes on. Pure.

Reading a draft changes no answer (see `generation`), only what the answer costs. All costs here are
in tokens read among many.
"""

from __future__ import annotations

# What a decoded token costs: its share of a pass that is paid for however few rows it has, and its
# own arithmetic. On a CPU 16, 5 and 2.3 tokens in all with 1, 10 and 50 rows (4 M Llama, one
# thread); on a GPU a pass reads all weights, and this is the careful side.
_PASS = {"cpu": 16.0, "cuda": 200.0}
_OWN = {"cpu": 2.0, "cuda": 1.0}

# The part of what plain decoding would cost that may be lost on drafts that do not hold.
_STAKE = 0.03


class Worth:
    """An account of drafts: each token that a check makes known spares its decoding."""

    def __init__(self, device: str, *, prompts: int, drafts: int, count: int, rows: int) -> None:
        """
        Args:
            prompts: tokens that are read before all answers, without those that are shared.
            drafts: tokens of all drafts: how long the answers may become.
            count: how many drafts there are.
            rows: how many answers are decoded together.
        """
        device = device if device in _PASS else "cpu"
        self._decoded = _OWN[device] + _PASS[device] / rows
        self._stake = self._left = _STAKE * (prompts + self._decoded * drafts)
        self._count = count
        self._pilot = int(self._left * count / max(1, prompts + drafts))

    @property
    def pays(self) -> bool:
        """True until most of the stake is lost."""
        return self._left > self._stake / 3

    @property
    def pilot(self) -> list[int]:
        """Which drafts to check before the rest, evenly spread: if none of them holds, what they
        cost is the stake."""
        size = min(self._count, max(1, self._pilot))
        return sorted({(2 * k + 1) * self._count // (2 * size) for k in range(size)})

    def book(self, *, prompt: int, guess: int, known: int, complete: bool) -> None:
        """Enters a draft that was checked.

        Args:
            prompt: tokens that are read before the answer, without those that are shared.
            guess: tokens of the draft that were read.
            known: the first tokens of the answer, which the check made known.
            complete: whether they are all of it. If not, they and the prompt are read again.
        """
        self._left += self._decoded * known - guess - (0 if complete else prompt + known)
