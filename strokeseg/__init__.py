"""strokeseg: distributed hyperparameter search for ischemic stroke lesion segmentation.

Import direction: commands -> tuning -> learning -> imaging -> errors. `config` serves
learning and above, `experiment` the commands and `tuning.study`.
"""

import os

# No usage data is sent, unless somebody opts in: ONNX Runtime (from 1.29 on) would send its makers
# names and hashes of models, Ray the size of a cluster.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Threads of PyTorch that wait for each other spin for milliseconds by default, which takes the CPU
# from whoever they wait for where others use it too; see benchmarks/README.md. Read when
# PyTorch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
