"""What strokeseg stands on sends its makers nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SILENCE = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
SCRIPT = """
import os, sys
{imports}
print(*(os.environ.get(name) for name in {names}))
"""


def _python(imports: str, home: Path) -> str:
    # ONNX Runtime is silent in what it takes for a test.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in SILENCE and not name.startswith(("CI", "GITHUB", "ORT_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(imports=imports, names=SILENCE)],
        env={**environment, "HOME": str(home), "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_onnx_runtime_begins_no_session_of_telemetry(tmp_path: Path) -> None:
    assert _python("import strokeseg.ensemble.onnx_predictor", tmp_path) == "1 0"
    assert sorted(path.name for path in tmp_path.rglob("*")) == []


def test_who_wants_to_tell_may_do_so(tmp_path: Path) -> None:
    imports = "os.environ['RAY_USAGE_STATS_ENABLED'] = '1'; import strokeseg"
    assert _python(imports, tmp_path) == "1 1"
