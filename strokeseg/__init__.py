"""strokeseg: distributed hyperparameter search for ischemic stroke lesion segmentation.

Import direction: commands -> tuning -> learning -> imaging -> errors. `config` serves
learning and above, `experiment` the commands and `tuning.study`.
"""

__version__ = "0.1.0"
