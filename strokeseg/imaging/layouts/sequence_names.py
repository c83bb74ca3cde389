"""What BIDS and nnU-Net call the sequences of an experiment.

Names are compared without regard to case. `T1`, `T2` and the like are also known by the suffixes
of BIDS (`T1w`, `T2w`); `T1c`, `T1ce`, `T1gd` and `T1post` are a T1w with contrast agent. All
other names stand for themselves: `DWI`, `ADC`, `FLAIR`, `trace`.
"""

from __future__ import annotations

_SUFFIXES = {
    **{"t1": "t1w", "t2": "t2w", "pd": "pdw", "t2star": "t2starw"},
    **{"t1c": "t1w", "t1ce": "t1w", "t1gd": "t1w", "t1post": "t1w"},
}
_ENHANCED = frozenset({"t1c", "t1ce", "t1gd", "t1post"})


def is_sequence(name: str, sequence: str) -> bool:
    """Whether a name stands for a sequence, such as `T1w` for T1."""
    found, wanted = name.casefold(), sequence.casefold()
    if found == wanted:
        return True
    # With contrast agent or without it must be recognised by more than the suffix.
    return wanted not in _ENHANCED and found == _SUFFIXES.get(wanted)


def is_suffix(suffix: str, enhanced: bool, sequence: str) -> bool:
    """Whether a file of BIDS holds a sequence.

    Args:
        suffix: The file's, such as `T1w`.
        enhanced: Whether its name has the entity `ce`, which tells of a contrast agent.
    """
    wanted = sequence.casefold()
    same = suffix.casefold() in {wanted, _SUFFIXES.get(wanted)}
    return same and enhanced == (wanted in _ENHANCED)
