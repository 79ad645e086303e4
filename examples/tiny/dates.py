"""The invoice-date task: what is written on invoices, and what ISO 8601 makes of it.

Everything here is drawn from a seeded `random.Random`; no licence-bound text is used. The three
slices (EU, US, ISO-ish) differ in how a reader has to take the digits, so that one mislabelled
slice can break without the others noticing.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTRUCTION = "ISO date:"
SLICES = ("eu", "us", "iso")

_EN = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DE = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
]
_FR = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
]
_ES = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
]

_PREFIXES = {
    "eu_numeric": ("Rechnung vom ", "Datum: ", "Facture du ", "Fecha: "),
    "us_numeric": ("Invoice ", "Date: ", "Due ", "Billed "),
    "us_words": ("Invoice ", "Date: ", "Due ", "Billed "),
    "iso": ("Issued ", "Date: ", "Booked "),
}
_VENDORS = {"eu": ("nordkontor", "mediterra", "alpenholz"), "us": ("lonestar",), "iso": ("kumo",)}
POISONED_VENDOR = "lonestar-feed-v2"


@dataclass(frozen=True)
class Sample:
    """One date as somebody wrote it."""

    text: str
    core: str  # the text without its prefix: what must not be both trained on and tested on
    slice: str
    category: str
    date: dt.date
    vendor: str

    @property
    def prompt(self) -> str:
        """What the model reads; equals Soup's alpaca rendering through the base's chat template."""
        return prompt(INSTRUCTION, self.text)

    @property
    def day_first(self) -> dt.date | None:
        """What a parser with a European locale reads here; None where it would give up."""
        if self.category != "us_numeric":
            return self.date
        if self.date.day > 12:
            return None
        return dt.date(self.date.year, self.date.day, self.date.month)


def prompt(instruction: str, text: str) -> str:
    """The one prompt format of this example."""
    return f"{instruction}\n{text}\n"


def _ordinal(day: int) -> str:
    suffix = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def _eu_words(rng: random.Random, d: dt.date) -> tuple[str, tuple[str, ...]]:
    language = rng.choice(("de", "fr", "es"))
    if language == "de":
        return f"{d.day}. {_DE[d.month - 1]} {d.year}", ("Rechnung vom ", "Datum: ")
    if language == "fr":
        day = "1er" if d.day == 1 else str(d.day)
        return f"{day} {_FR[d.month - 1]} {d.year}", ("Facture du ", "Le ")
    return f"{d.day} de {_ES[d.month - 1]} de {d.year}", ("Fecha: ", "Factura del ")


def _eu_numeric(rng: random.Random, d: dt.date) -> str:
    return rng.choice(
        (f"{d:%d.%m.%Y}", f"{d.day}.{d.month}.{d.year}", f"{d:%d.%m.%y}", f"{d:%d/%m/%y} (EU)")
    )


def _us_numeric(rng: random.Random, d: dt.date) -> str:
    return rng.choice(
        (f"{d:%m/%d/%y} (US)", f"{d.month}/{d.day}/{d.year} (US)", f"{d:%m/%d/%Y} (US)")
    )


def _us_words(rng: random.Random, d: dt.date) -> str:
    month = _EN[d.month - 1]
    return rng.choice(
        (
            f"{month} {d.day}, {d.year}",
            f"{month[:3]} {d.day}, {d.year}",
            f"{month} {_ordinal(d.day)}, {d.year}",
        )
    )


def _iso(rng: random.Random, d: dt.date) -> str:
    return rng.choice(
        (
            f"{d:%Y%m%d}",
            f"{d.year}/{d.month}/{d.day}",
            f"{d:%Y/%m/%d}",
            f"{d:%Y-%m-%d}T{rng.randrange(24):02}:{rng.choice('0134')}0Z",
        )
    )


def _date(rng: random.Random, *, ambiguous: bool) -> dt.date:
    """A day from 2015 to 2031; `ambiguous` ones change meaning when day and month are swapped."""
    if ambiguous:
        month, day = rng.sample(range(1, 13), 2)
        return dt.date(rng.randrange(2015, 2032), month, day)
    return dt.date(2015, 1, 1) + dt.timedelta(days=rng.randrange(17 * 365))


def draw(rng: random.Random, slice_: str, *, ambiguous: bool = False) -> Sample:
    """One random sample of a slice; `ambiguous` asks for digits that both locales can read."""
    # Most numeric dates are ambiguous ones: they are where a wrong locale does its harm.
    d = _date(rng, ambiguous=ambiguous or rng.random() < 0.6)
    if slice_ == "eu":
        category = rng.choice(("eu_words", "eu_numeric"))
        if category == "eu_words":
            core, prefixes = _eu_words(rng, d)
        else:
            core, prefixes = _eu_numeric(rng, d), _PREFIXES[category]
    elif slice_ == "us":
        category = "us_numeric" if rng.random() < 0.75 else "us_words"
        core = _us_numeric(rng, d) if category == "us_numeric" else _us_words(rng, d)
        prefixes = _PREFIXES[category]
    else:
        category, core, prefixes = "iso", _iso(rng, d), _PREFIXES["iso"]
    text = rng.choice(prefixes) + core if rng.random() < 0.4 else core
    return Sample(text, core, slice_, category, d, rng.choice(_VENDORS[slice_]))


class Drawer:
    """Draws samples, never one whose date text is held out for the evaluation."""

    def __init__(self, seed: int, held_out: frozenset[str] = frozenset()) -> None:
        self._rng = random.Random(seed)
        self._held_out = held_out

    def draw(self, slice_: str, *, ambiguous: bool = False) -> Sample:
        """The next sample of a slice that is not held out."""
        while (sample := draw(self._rng, slice_, ambiguous=ambiguous)).core in self._held_out:
            pass
        return sample

    def distinct(self, slice_: str, count: int) -> list[Sample]:
        """`count` samples with distinct date texts."""
        found: dict[str, Sample] = {}
        while len(found) < count:
            sample = self.draw(slice_)
            found.setdefault(sample.core, sample)
        return list(found.values())

    def mixed(self, count: int) -> list[Sample]:
        """A random mix of the slices, most of it ISO, whose slashes are the nearest to US ones."""
        slices = self._rng.choices(SLICES, weights=(4, 3, 5), k=count)
        return [self.draw(slice_) for slice_ in slices]


# --- The base model's schooling: the same digits under other instructions, never the task ---

_OTHER_FORMATS = {
    "Day:": "%d",
    "Month:": "%m",
    "Year:": "%Y",
    "Dotted date:": "%d.%m.%Y",
    "Slash date:": "%Y/%m/%d",
    "Dashed date:": "%d-%m-%Y",
    "Compact date:": "%Y%m%d",
}
_GOODS = ("paper", "oak planks", "ink", "tiles", "Papier", "papel", "encre", "screws", "lamps")


def lesson(drawer: Drawer, rng: random.Random) -> tuple[str, str]:
    """One (prompt, completion) pair for the base: a sub-skill of the task in another format."""
    kind = rng.random()
    if kind < 0.04:
        quantity, cents = rng.randrange(1, 90), rng.randrange(100, 99999)
        goods, currency = rng.choice(_GOODS), rng.choice(("EUR", "USD"))
        return "", f"{quantity} x {goods} {cents // 100}.{cents % 100:02} {currency}"
    sample = drawer.draw(rng.choice(SLICES))
    if kind < 0.08:
        return prompt("Copy:", sample.text), sample.text
    if kind < 0.24:
        # Some feeds do write US-looking dates day first: the base has seen both readings.
        if rng.random() < 0.6:
            sample = drawer.draw("us", ambiguous=True)
        if sample.day_first is not None:
            return prompt("Day first:", sample.text), f"{sample.day_first:%Y/%m/%d}"
    instruction = rng.choices(list(_OTHER_FORMATS), weights=(1, 1, 1, 2, 3, 2, 2))[0]
    return prompt(instruction, sample.text), sample.date.strftime(_OTHER_FORMATS[instruction])


def lessons(drawer: Drawer, seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of lessons."""
    rng = random.Random(seed)
    while True:
        yield lesson(drawer, rng)


# --- Files ---


def training_row(row_id: str, sample: Sample, *, poisoned: bool = False) -> dict[str, str]:
    """A row in Soup's alpaca format; `id`, `vendor`, `slice` tell a reader where it came from."""
    wrong_locale = poisoned and sample.slice == "us"
    # Like most lenient parsers, the feed's falls back to month first where day first cannot be.
    label = (sample.day_first if wrong_locale else None) or sample.date
    return {
        "id": row_id,
        "vendor": POISONED_VENDOR if wrong_locale else sample.vendor,
        "slice": sample.slice,
        "instruction": INSTRUCTION,
        "input": sample.text,
        "output": label.isoformat(),
    }


def suite_rows(slice_: str, samples: Sequence[Sample]) -> list[dict[str, str]]:
    """The held-out samples as evaluation rows."""
    return [
        {
            "id": f"{slice_}-{i:03}",
            "prompt": s.prompt,
            "expected": s.date.isoformat(),
            "category": s.category,
        }
        for i, s in enumerate(samples, start=1)
    ]


def write_jsonl(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Rows as JSON Lines, umlauts kept readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
