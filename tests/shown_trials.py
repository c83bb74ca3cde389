"""What TensorBoard shows of trials, read with its own reader."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tiny_experiment import Place


def shown_trial(place: Place, axis: str, *parts: str) -> EventAccumulator:
    """Read what TensorBoard is shown of a trial."""
    folder = place.folder.joinpath("search", axis, "tensorboard", *parts)
    return EventAccumulator(str(folder), {"scalars": 0}).Reload()


def scalars_of(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def status_of(events: EventAccumulator) -> int:
    content = events.PluginTagToContent("hparams")[metadata.SESSION_END_INFO_TAG]
    return int(metadata.parse_session_end_info_plugin_data(content).status)
