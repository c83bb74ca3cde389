"""Ways of feeding slices to a network, one function each, and how they are timed.

A *method* is a function that gives batches without end: pairs of images (B, C, H, W) float32 and
masks of as many slices, drawn from all slices in random order. `METHODS` lists them; to add one,
write the function and name it there. Each is run in a process of its own, in our environment or
in the peers', and tells its speed as one line of JSON, after a few batches that are not counted:

    {"method": "...", "slices_per_second": 1234.5, "slices": 9876, "seconds": 8.0}

What a method needs is imported in its function, since no environment has everything.

python -m benchmarks.feed_methods "torch DataLoader, mapped, 0 workers" FOLDER --seconds 4

FOLDER holds what benchmarks/feed_peers.py writes: images.npy (N, C, H, W) float16, masks.npy
(N, H, W) uint8, cases.npy, and `parquet`, a link to the axis's Parquet files.
"""

# ruff: noqa: PLC0415 - no environment has everything that the methods need

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WARM_BATCHES = 16, 10
# Of a segmentation network with five halvings: nnU-Net's deep supervision asks for each.
_DEEP_SCALES = [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25], [0.125, 0.125]]

Batches = Iterator[tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of feeding slices.

    Attributes:
        batches: Gives batches of the slices in a folder without end.
        peer: Whether it needs the peers' environment.
        augmented: Whether the slices come augmented.
        ours: Whether it is strokeseg's own.
        least_seconds: How long to count at least, so that several epochs' starts are in it.
    """

    batches: Callable[[Path], Batches]
    peer: bool = False
    augmented: bool = False
    ours: bool = False
    least_seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    batches = METHODS[options.method].batches(options.folder)
    slices, seconds = count_slices(batches, options.seconds)
    reported = {"method": options.method, "slices_per_second": slices / seconds}
    print(json.dumps({**reported, "slices": slices, "seconds": seconds}), flush=True)
    # What a method started ends with its generator.
    batches.close()


def count_slices(batches: Batches, at_least_seconds: float) -> tuple[int, float]:
    """Return how many slices came in how many seconds, warm batches not counted."""
    for _ in range(WARM_BATCHES):
        next(batches)
    slices, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < at_least_seconds:
        images, _ = next(batches)
        slices += len(images)
    return slices, seconds


def _arrays(folder: Path, *, mapped: bool) -> tuple[np.ndarray, np.ndarray]:
    mode = "r" if mapped else None
    return np.load(folder / "images.npy", mode), np.load(folder / "masks.npy", mode)


def _index(folder: Path, *, stored: str) -> Batches:
    """The limit: index one tensor in memory, stored as float32 or as float16."""
    import torch

    images, masks = map(torch.from_numpy, _arrays(folder, mapped=False))
    images = images.to(getattr(torch, stored))
    while True:
        for indices in torch.randperm(len(images)).split(BATCH):
            yield images[indices].float(), masks[indices].float()


def _index_select(folder: Path) -> Batches:
    """The limit without a new allocation for each batch: float32 into the same memory."""
    import torch

    images, masks = map(torch.from_numpy, _arrays(folder, mapped=False))
    images, masks = images.float(), masks.float()
    image_batch = torch.empty((BATCH, *images.shape[1:]))
    mask_batch = torch.empty((BATCH, *masks.shape[1:]))
    while True:
        for indices in torch.randperm(len(images)).split(BATCH):
            if len(indices) == BATCH:
                torch.index_select(images, 0, indices, out=image_batch)
                torch.index_select(masks, 0, indices, out=mask_batch)
                yield image_batch, mask_batch


class _MappedSlices:
    """A data set over mapped arrays, as one writes it for torch's DataLoader."""

    def __init__(self, folder: Path) -> None:
        self._images, self._masks = _arrays(folder, mapped=True)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return image and mask of a slice, float32 tensors."""
        import torch

        # numpy takes several times as long as torch to make float32 of float16.
        image, mask = self._images[index].copy(), self._masks[index].copy()
        return torch.from_numpy(image).float(), torch.from_numpy(mask).float()


def _dataloader(folder: Path, *, workers: int) -> Batches:
    from torch.utils.data import DataLoader

    slices = _MappedSlices(folder)
    loader = DataLoader(
        slices, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        yield from loader


def _ray_data(folder: Path) -> Batches:
    """Stream from Parquet, epoch by epoch, each with its own start, shuffled in a buffer."""
    import pyarrow.parquet as pq
    import ray

    from strokeseg.compute.session import ray_session

    parquet = (folder / "parquet").resolve()
    schema = pq.read_schema(next(parquet.rglob("*.parquet")))
    dtypes = {"image": np.float16, "mask": np.uint8}
    shapes = {
        name: (dtype, tuple(json.loads(schema.field(name).metadata[f"{name}_shape".encode()])))
        for name, dtype in dtypes.items()
    }
    with ray_session():
        slices = ray.data.read_parquet(
            str(parquet), columns=list(shapes), partitioning=None, tensor_column_schema=shapes
        )
        while True:
            for batch in slices.iter_torch_batches(
                batch_size=BATCH, local_shuffle_buffer_size=16 * BATCH
            ):
                yield batch["image"].float(), batch["mask"].float()


def _monai(folder: Path, *, workers: int, augmented: bool) -> Batches:
    """MONAI's CacheDataset, with the 2D augmentation of its Auto3DSeg's SegResNet."""
    from monai import transforms
    from monai.data import CacheDataset, DataLoader

    keys = ["image", "mask"]
    images, masks = _arrays(folder, mapped=False)
    items = [
        {"image": image, "mask": mask[None]} for image, mask in zip(images, masks, strict=True)
    ]
    steps = [transforms.EnsureTyped(keys, dtype=np.float32)]
    if augmented:
        steps += [
            transforms.RandAffined(
                keys,
                **{"prob": 0.2, "rotate_range": 0.26, "scale_range": 0.2},
                **{"mode": ["bilinear", "nearest"], "padding_mode": "zeros"},
            ),
            transforms.RandGaussianSmoothd(
                "image", prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)
            ),
            transforms.RandScaleIntensityd("image", prob=0.5, factors=0.3),
            transforms.RandShiftIntensityd("image", prob=0.5, offsets=0.1),
            transforms.RandGaussianNoised("image", prob=0.2, mean=0.0, std=0.1),
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=0),
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=1),
        ]
    slices = CacheDataset(items, transforms.Compose(steps), progress=False)
    loader = DataLoader(
        slices, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for batch in loader:
            yield batch["image"], batch["mask"]


def _nnunet(folder: Path, *, workers: int) -> Batches:
    """nnU-Net's own 2D loader, augmentation and workers, on cases in its own files."""
    import os

    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = str(folder)
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
        NonDetMultiThreadedAugmenter,
    )
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    written, size, channels = _write_nnunet(folder)
    rotation = (-np.pi, np.pi)
    transforms = nnUNetTrainer.get_training_transforms(
        size, rotation, _DEEP_SCALES, (0, 1), False, use_mask_for_norm=[False] * channels
    )
    loader = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(written)),
        BATCH,
        get_patch_size(size, rotation, rotation, rotation, (0.85, 1.25)),
        size,
        LabelManager({"background": 0, "lesion": 1}, None),
        oversample_foreground_percent=0.33,
        transforms=transforms,
    )
    batches = NonDetMultiThreadedAugmenter(
        loader, None, num_processes=workers, num_cached=max(6, workers // 2), wait_time=0.002
    )
    try:
        while True:
            batch = next(batches)
            yield batch["data"], batch["target"]
    finally:
        batches._finish()


def _write_nnunet(folder: Path) -> tuple[Path, tuple[int, int], int]:
    """Write each case as nnU-Net's preprocessing does: blosc2 files and lesion positions."""
    from batchgenerators.utilities.file_and_folder_operations import write_pickle
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    images, masks = _arrays(folder, mapped=True)
    cases = np.load(folder / "cases.npy")
    size = images.shape[2:]
    written = folder / "nnunet"
    if written.exists():
        return written, size, images.shape[1]
    written.mkdir()
    for case in np.unique(cases):
        chosen = cases == case
        volume = images[chosen].swapaxes(0, 1).astype(np.float32)
        truth = masks[chosen][None].astype(np.int16)
        blocks, chunks = comp_blosc2_params(volume.shape, size, volume.itemsize)
        truth_blocks, truth_chunks = comp_blosc2_params(truth.shape, size, truth.itemsize)
        properties = {"class_locations": {1: np.argwhere(truth == 1)}}
        nnUNetDatasetBlosc2.save_case(
            np.ascontiguousarray(volume),
            truth,
            properties,
            str(written / str(case)),
            **{"chunks": chunks, "blocks": blocks},
            **{"chunks_seg": truth_chunks, "blocks_seg": truth_blocks},
        )
        write_pickle(properties, str(written / f"{case}.pkl"))
    return written, size, images.shape[1]


LIMIT = "limit: tensor[indices], float16 to float32"


def _ours(folder: Path, *, way: str) -> Batches:
    """Our feed: mapped from Ray's object store, unpacked, or held as a tensor."""
    import ray
    import torch

    from strokeseg.compute.session import ray_session
    from strokeseg.imaging.slice_file import SliceFile
    from strokeseg.imaging.unpacked import unpack
    from strokeseg.training.slice_set import SliceSet
    from strokeseg.training.stores import UnpackedSlices
    from strokeseg.tuning.trial_slices import mapped

    files = sorted((folder / "parquet").iterdir())
    opened = [SliceFile(path) for path in files]
    names = np.load(folder / "cases.npy")
    with ray_session():
        rows = None
        if way == "unpacked":
            counts = [len(file) for file in opened]
            with unpack(files, counts, opened[0].shape, folder) as file:
                path = Path(f"/proc/self/fd/{file.fileno()}")
                store = UnpackedSlices(path, sum(counts), opened[0].shape)
        else:
            # As the search does: Ray Data into the object store, then views of what lies there.
            blocks = ray.data.read_parquet(str(folder / "parquet"), partitioning=None)
            store, rows = mapped(ray.get(blocks.materialize().to_arrow_refs()))
        slices = SliceSet(
            store=store,
            cases=names,
            lesion_voxels=np.zeros(len(names), dtype=np.int64),
            holds_brain=np.ones(len(names), dtype=bool),
            rows=rows,
        )
        if way == "held":
            slices = slices.on(torch.device("cpu"))
        while True:
            plan = [part.numpy() for part in torch.randperm(len(names)).split(BATCH)]
            yield from slices.batches(plan, "cpu")


METHODS: dict[str, Method] = {
    "ours: mapped from the object store": Method(batches=partial(_ours, way="mapped"), ours=True),
    "ours: unpacked on the disk": Method(batches=partial(_ours, way="unpacked"), ours=True),
    "ours: held as one tensor": Method(batches=partial(_ours, way="held"), ours=True),
    LIMIT: Method(batches=partial(_index, stored="float16")),
    "limit: tensor[indices], float32": Method(batches=partial(_index, stored="float32")),
    "limit: index_select(out=), float32": Method(batches=_index_select),
    "torch DataLoader, mapped, 0 workers": Method(batches=partial(_dataloader, workers=0)),
    "torch DataLoader, mapped, 2 workers": Method(batches=partial(_dataloader, workers=2)),
    "Ray Data, streaming from Parquet": Method(batches=_ray_data, least_seconds=12.0),
    **{
        f"MONAI CacheDataset, {workers} workers{', augmented' if augmented else ''}": Method(
            batches=partial(_monai, workers=workers, augmented=augmented),
            peer=True,
            augmented=augmented,
        )
        for augmented in (False, True)
        for workers in (0, 2)
    },
    **{
        f"nnU-Net 2D loader, {workers} worker{'s'[: workers - 1]}, augmented": Method(
            batches=partial(_nnunet, workers=workers), peer=True, augmented=True
        )
        for workers in (1, 2)
    },
}


if __name__ == "__main__":
    main()
