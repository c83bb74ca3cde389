"""One case as files that are named one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case, is_case_name


def name_case(case: str, images: Sequence[str], sequences: Sequence[str]) -> Case:
    """Make a case of `SEQUENCE=FILE`, once for every sequence.

    Args:
        images: What was given, each as `SEQUENCE=FILE`.
        sequences: The sequences that there are.

    Raises:
        UserError: When the name cannot name a file, a sequence is unknown, or one is given
            twice.
    """
    if not is_case_name(case):
        raise UserError(f"--case {case}: must be letters, digits and . _ + - only")
    files: dict[str, Path] = {}
    for image in images:
        sequence, separator, path = image.partition("=")
        if not separator or sequence not in sequences:
            raise UserError(
                f"--image {image}: must be SEQUENCE=FILE with one of the bundle's sequences, "
                f"{', '.join(sequences)}"
            )
        if sequence in files:
            raise UserError(f"--image {image}: every sequence must be given once only")
        files[sequence] = Path(path)
    return Case(name=case, patient=case, images=files, mask=None)
