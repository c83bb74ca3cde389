"""A report needs nothing that trains or searches."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from strokeseg.reporting.results import Results

WRITE = """
import pickle, sys
from pathlib import Path
results = pickle.loads(Path(sys.argv[1]).read_bytes())
from strokeseg.reporting.markdown import report_markdown
from strokeseg.reporting.page import report_page
assert "</html>" in report_page(results)
assert report_markdown(results).startswith("# ")
print(*{"torch", "ray", "optuna", "pandas", "pyarrow", "sklearn"}.intersection(sys.modules))
"""


def test_a_report_is_written_without_torch_ray_or_optuna(results: Results, tmp_path: Path) -> None:
    (tmp_path / "results").write_bytes(pickle.dumps(results))
    ended = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "results")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
