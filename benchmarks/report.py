"""Results as Markdown: RESULTS.md is made of results.json and of nothing else.

Where we lose is derived: every comparison whose median ratio is on the wrong side of 1, or of
its target, stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from benchmarks.results import Comparison, Figure, Measured, PartResult, Setting


def render(measured: Mapping[str, Measured]) -> str:
    """Return RESULTS.md."""
    settings: list[Setting] = []
    for part in measured.values():
        if part.setting not in settings:
            settings.append(part.setting)
    blocks = [
        "# Measured",
        "Written by `python -m benchmarks` from `benchmarks/results.json`; change neither by "
        "hand. Ratios are ours divided by theirs, both measured in one run on one machine; ratios "
        "travel to other machines, seconds do not. The spread is the smallest and the largest of "
        "the repeats.",
        *(block for setting in settings for block in _setting(setting, measured)),
        *(block for name, part in measured.items() for block in _part(name, part)),
        "## Where we lose",
        *_losses(measured),
    ]
    return "\n\n".join(blocks) + "\n"


def render_part(result: PartResult) -> str:
    """Return one part's tables."""
    return "\n\n".join(_tables(result))


def _setting(setting: Setting, measured: Mapping[str, Measured]) -> Iterator[str]:
    names = [name for name, part in measured.items() if part.setting == setting]
    yield f"## Machine and versions of {', '.join(names)}"
    yield _table(("what", "value"), (*setting.machine.items(), *setting.versions.items()))


def _part(name: str, part: Measured) -> Iterator[str]:
    load = ", ".join(f"{average:.2f}" for average in part.load)
    yield f"## {name}: {part.result.title}"
    yield part.result.method
    yield (
        f"Measured {part.date} at commit {part.commit} in {part.seconds / 60:.1f} minutes"
        f"{', small sizes (--quick)' if part.quick else ''}. Load averages at the start, over 1, "
        f"5 and 15 minutes: {load}."
    )
    yield from _tables(part.result)


def _tables(result: PartResult) -> Iterator[str]:
    if result.comparisons:
        yield _table(
            ("ours against", "unit", "ours", "theirs", "ratio", "spread", "repeats", "asked"),
            map(_comparison_cells, result.comparisons),
        )
    if result.figures:
        reference = next((one for one in result.figures if one.name == result.reference), None)
        heads = ("figure", "unit", "median", "spread")
        if reference is not None:
            heads = (*heads, f"by *{reference.name}*")
        yield _table(heads, (_figure_cells(one, reference) for one in result.figures))
    for reason in result.left_out:
        yield f"Left out: {reason}"


def _comparison_cells(one: Comparison) -> tuple[str, ...]:
    ours = Figure(name=one.what, unit=one.unit, values=one.ours)
    theirs = Figure(name=one.other, unit=one.unit, values=one.theirs)
    return (
        *(f"{one.what}: {one.other}", one.unit, number(ours.middle), number(theirs.middle)),
        *(f"**{one.ratio:.2f}**", spread(one.ratios), str(len(one.ratios))),
        f"{_bound(one)} {one.target:g}",
    )


def _figure_cells(one: Figure, reference: Figure | None) -> tuple[str, ...]:
    cells = (one.name, one.unit, number(one.middle), spread(one.values))
    if reference is None:
        return cells
    return (*cells, f"{one.middle / reference.middle:.3g}")


def _losses(measured: Mapping[str, Measured]) -> Iterator[str]:
    lines = [
        f"- {name}: {_loss(one)}"
        for name, part in measured.items()
        for one in part.result.comparisons
        if one.falls_short_of(1.0) or one.falls_short_of(one.target)
    ]
    yield "\n".join(lines) or "Nowhere, in what was measured."
    missing = [
        f"- {name}: {reason}" for name, part in measured.items() for reason in part.result.left_out
    ]
    if missing:
        yield "Not known, since it was left out:"
        yield "\n".join(missing)


def _loss(one: Comparison) -> str:
    against = f"{one.what} ({one.unit}), {one.ratio:.2f} times that of {one.other}"
    if one.falls_short_of(1.0):
        return f"{against}; asked is {_bound(one)} {one.target:g}"
    return f"{against}: ahead, but asked is {_bound(one)} {one.target:g}"


def _bound(one: Comparison) -> str:
    return "at most" if one.less_is_better else "at least"


def number(value: float) -> str:
    """Return a value with three digits that count, and no fewer than its whole part."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: tuple[float, ...]) -> str:
    """Return the smallest and the largest of some values; None for a single one."""
    return f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else "-"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
