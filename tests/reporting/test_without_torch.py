"""A report needs nothing that trains or searches."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from strokeseg.reporting.findings import Findings

WRITE = """
import pickle, sys
from pathlib import Path
findings = pickle.loads(Path(sys.argv[1]).read_bytes())
from strokeseg.reporting.markdown import report_markdown
from strokeseg.reporting.page import report_page
assert "</html>" in report_page(findings)
assert report_markdown(findings).startswith("# ")
print(*{"torch", "ray", "optuna", "pandas", "pyarrow", "sklearn"}.intersection(sys.modules))
"""


def test_a_report_is_written_without_torch_ray_or_optuna(
    findings: Findings, tmp_path: Path
) -> None:
    (tmp_path / "findings").write_bytes(pickle.dumps(findings))
    ended = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "findings")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
