"""The messages of TensorBoard's HParams table.

The *configuration* of a study says which parameters vary, each with its *domain* (an interval
or a list of values), and which scalars are the table's metrics. A *session* is one trial: its
*start* holds the trial's values, its *end* what became of it. TensorBoard takes the first
message of a kind that it meets in a folder and ignores all later ones, so each is written
once, however many processes a study takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, summary_v2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

from strokeseg.tuning.space import Dimension, Space, all_values

BEST_DICE, EPOCHS_RUN = "validation/best_dice", "training/epochs_run"
CONFIGURATION, START, END = (
    metadata.EXPERIMENT_TAG,
    metadata.SESSION_START_INFO_TAG,
    metadata.SESSION_END_INFO_TAG,
)
_METRICS = {
    BEST_DICE: ("best Dice", "best mean 3D Dice over the validation patients so far"),
    EPOCHS_RUN: ("epochs run", "epochs that were reported so far"),
}


def configuration_summary(space: Space, seconds: float) -> Summary:
    """Describe a study: the domains of what varies, and the metrics.

    Args:
        space: The study's search space.
        seconds: The time of writing, since 1970.
    """
    experiment = api_pb2.Experiment(
        hparam_infos=[_domain(name, dimension) for name, dimension in _varied(space).items()],
        metric_infos=[
            summary_v2.Metric(tag, display_name=name, description=description).as_proto()
            for tag, (name, description) in _METRICS.items()
        ],
        time_created_secs=seconds,
    )
    return _summary(CONFIGURATION, HParamsPluginData(experiment=experiment))


def start_summary(space: Space, parameters: Mapping[str, Any], seconds: float) -> Summary:
    """Tell a trial's values of the parameters that vary.

    Args:
        space: The study's search space.
        parameters: The trial's whole configuration.
        seconds: The time of its start, since 1970.
    """
    values = {name: parameters[name] for name in _varied(space)}
    # Without an id TensorBoard takes the folder's name, which is another for every axis.
    return summary_v2.hparams_pb(values, trial_id="", start_time_secs=seconds)


def end_summary(state: str, seconds: float) -> Summary:
    """Tell how a trial ended.

    Args:
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        seconds: The time of its end, since 1970.
    """
    status = api_pb2.STATUS_FAILURE if state == "FAIL" else api_pb2.STATUS_SUCCESS
    end = SessionEndInfo(status=status, end_time_secs=seconds)
    return _summary(END, HParamsPluginData(session_end_info=end))


def is_written(folder: Path, tag: str) -> bool:
    """Whether a folder's event files hold a message of a kind, an earlier process's included."""
    return any(tag.encode() in path.read_bytes() for path in folder.glob("events.*"))


def _varied(space: Space) -> dict[str, Dimension]:
    return {
        name: dimension
        for name, dimension in space.dimensions.items()
        if len(set(all_values(name, dimension))) > 1
    }


def _domain(name: str, dimension: Dimension) -> api_pb2.HParamInfo:
    values = sorted(set(all_values(name, dimension)))
    if not isinstance(values[0], (bool, str)):
        values = [float(value) for value in values]
    # The table shows at first the columns that differ.
    info = api_pb2.HParamInfo(name=name, differs=True)
    if dimension.choices is None and isinstance(values[0], float):
        # What a parameter is where its condition fails may lie outside its range.
        summary_v2.RealInterval(values[0], values[-1]).update_hparam_info(info)
    else:
        summary_v2.Discrete(values).update_hparam_info(info)
    return info


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    return Summary(
        value=[
            Summary.Value(
                tag=tag,
                metadata=metadata.create_summary_metadata(content),
                tensor=metadata.NULL_TENSOR,
            )
        ]
    )
