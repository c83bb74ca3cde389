"""The record of a member file, read without its weights and without PyTorch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from strokeseg.errors import UserError
from strokeseg.records.member import MemberRecord, parse_member_record


def read_member_record(path: Path) -> MemberRecord:
    """Read a member's record.

    Raises:
        UserError: When the file is missing or is no member.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return parse_member_record(path, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no readable member ({reason}); make it again") from None
