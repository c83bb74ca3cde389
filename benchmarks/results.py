"""What a part of the benchmarks measured, as records, and as JSON and back.

A *part* answers one question by measuring two sides in one run. A *comparison* sets our figure
against another's; its *ratio* is ours by theirs, one a *repeat*, and the *target* is what the
ratio shall reach. A *figure* is any other measured value. A part's *setting* is the machine and
the versions that it ran with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from strokeseg.storage.files import write_text


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Our figure and another's, measured side by side.

    Attributes:
        what: What is compared.
        other: Whose figure ours is set against.
        unit: Of both figures.
        ours: One value a repeat.
        theirs: The other's, of the same repeats.
        less_is_better: Whether a ratio below 1 is a gain.
        target: The ratio asked for.
    """

    what: str
    other: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    less_is_better: bool
    target: float = 1.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, repeat by repeat."""
        return tuple(mine / other for mine, other in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    def falls_short_of(self, mark: float) -> bool:
        """Whether the median ratio is on the wrong side of a mark."""
        return self.ratio > mark if self.less_is_better else self.ratio < mark


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value without another to set it against.

    Attributes:
        name: What was measured.
        unit: Its unit.
        values: One a repeat.
    """

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median of the values."""
        return median(self.values)


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """All that a part measured.

    Attributes:
        title: The part's question.
        method: What was compared, and how, in a few sentences.
        comparisons: Ours against others.
        figures: The rest.
        reference: Name of the figure by which the others are divided in the table, if any.
        left_out: What could not be measured, and why.
    """

    title: str
    method: str
    comparisons: tuple[Comparison, ...] = ()
    figures: tuple[Figure, ...] = ()
    reference: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a part ran with.

    Attributes:
        machine: Processor, cores, memory and GPU, by name.
        versions: Of Python and packages, by name.
    """

    machine: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A part's result with the circumstances of its run.

    Attributes:
        result: What was measured.
        setting: On what.
        commit: The code's version.
        date: Day and time of the start, UTC.
        load: Load averages over 1, 5 and 15 minutes at the start.
        seconds: What the part took.
        quick: Whether it measured the small sizes.
    """

    result: PartResult
    setting: Setting
    commit: str
    date: str
    load: tuple[float, ...]
    seconds: float
    quick: bool


def write_results(path: Path, measured: Mapping[str, Measured]) -> None:
    """Write the last result of every part, by the part's name."""
    values = {name: asdict(part) for name, part in measured.items()}
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_results(path: Path) -> dict[str, Measured]:
    """Read what `write_results` wrote; None where there is no such file."""
    if not path.exists():
        return {}
    parts = json.loads(path.read_text(encoding="utf-8"))
    return {name: _measured(values) for name, values in parts.items()}


def _measured(values: dict[str, Any]) -> Measured:
    result = values["result"]
    comparisons = [
        {**one, "ours": tuple(one["ours"]), "theirs": tuple(one["theirs"])}
        for one in result["comparisons"]
    ]
    figures = [{**one, "values": tuple(one["values"])} for one in result["figures"]]
    known = {
        "comparisons": tuple(Comparison(**one) for one in comparisons),
        "figures": tuple(Figure(**one) for one in figures),
        "left_out": tuple(result["left_out"]),
    }
    circumstances = {
        "result": PartResult(**{**result, **known}),
        "setting": Setting(**values["setting"]),
        "load": tuple(values["load"]),
    }
    return Measured(**{**values, **circumstances})
