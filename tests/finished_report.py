"""What a finished report warns of, on its page and in its Markdown."""

from __future__ import annotations

import html
import re
from pathlib import Path

SIMULATED = (
    "The cases are simulated: the numbers tell how the program behaves, and nothing of patients."
)


def few_patients(patients: int) -> str:
    """The caution that every report ends with."""
    return (
        f"{patients} patients of one data set say little about other scanners, hospitals, stroke "
        "stages or diseases. For research only; this is no medical device."
    )


def cautions_of(folder: Path) -> list[str]:
    """Return the cautions of the report in a folder, which both its files must have."""
    page = (folder / "index.html").read_text()
    (block,) = re.findall(r'<div class="warning">(.*?)</div>', page, flags=re.DOTALL)
    output = [html.unescape(text) for text in re.findall(r"<p[^>]*>(.*?)</p>", block, re.DOTALL)]
    head, _, _ = (folder / "report.md").read_text().partition("\n## ")
    title, dice, *paragraphs = head.strip().split("\n\n")
    assert title.startswith("# ") and dice.startswith("**Dice")
    assert paragraphs == output
    return output
