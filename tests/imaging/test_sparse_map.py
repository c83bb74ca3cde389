"""Maps of probability, packed and unpacked, on disk and in memory."""

import numpy as np
import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.sparse_map import pack, read_sparse_map

STEP = 1 / 65535
# A float32 below 1 is right to within this.
LAST_BIT = 2.0**-24


def random_map(shape=(7, 5, 3)):
    generator = np.random.default_rng(2)
    probability = generator.random(shape, dtype=np.float32)
    probability[probability < 0.6] = 0
    return probability


def test_a_map_comes_back_within_half_a_step():
    probability = random_map()
    dense = pack(probability).dense()
    assert dense.shape == probability.shape
    assert dense.dtype == np.float32
    error = np.abs(dense.astype(np.float64) - probability).max()
    assert 0 < error <= STEP / 2 + LAST_BIT


@pytest.mark.parametrize("value", [0.0, 1.0, STEP, 0.2, 0.6, 32768 * STEP])
def test_multiples_of_a_step_come_back_as_they_were(value):
    probability = np.full((2, 2, 2), value, dtype=np.float32)
    assert np.array_equal(pack(probability).dense(), probability)


def test_packing_twice_changes_nothing_more():
    once = pack(random_map()).dense()
    assert np.array_equal(pack(once).dense(), once)


def test_the_order_of_probabilities_is_kept():
    probability = np.sort(random_map(shape=(40, 40, 1)), axis=None).reshape(40, 40, 1)
    assert (np.diff(pack(probability).dense().ravel()) >= 0).all()


def test_what_is_next_to_nothing_is_nothing():
    probability = np.zeros((3, 3, 3), dtype=np.float32)
    probability[1, 1, 1], probability[2, 2, 2] = 0.4 * STEP, 0.6 * STEP
    packed = pack(probability)
    assert len(packed.values) == 1
    assert packed.dense()[2, 2, 2] == np.float32(STEP)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (4, 4, 4)])
def test_a_map_on_disk_is_the_map_in_memory(tmp_path, shape, order):
    packed = pack(np.asarray(random_map(shape), order=order))
    packed.save(tmp_path / "maps" / "axial-0001.npz")
    read = read_sparse_map(tmp_path / "maps" / "axial-0001.npz")
    assert read.shape == shape
    assert np.array_equal(read.dense(), packed.dense())
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["axial-0001.npz"]


def test_a_map_is_small_where_little_of_it_counts(tmp_path):
    probability = np.zeros((60, 60, 60), dtype=np.float32)
    probability[20:30, 20:30, 20:30] = random_map((10, 10, 10))
    packed = pack(probability)
    packed.save(tmp_path / "map.npz")
    assert packed.bits.nbytes + packed.values.nbytes < probability.nbytes / 25
    assert (tmp_path / "map.npz").stat().st_size < probability.nbytes / 200


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_what_is_no_probability_is_refused(value):
    probability = np.zeros((2, 2, 2), dtype=np.float32)
    probability[0, 0, 0] = value
    with pytest.raises(ValueError, match="from 0 to 1"):
        pack(probability)


def test_damaged_files_are_named_with_the_remedy(tmp_path):
    whole = tmp_path / "whole.npz"
    pack(random_map((20, 20, 20))).save(whole)
    content = whole.read_bytes()
    damaged = {
        "missing": None,
        "empty": b"",
        "cut": content[:-100],
        "text": b"no map",
        "changed": content[:500] + bytes(50) + content[550:],
    }
    for name, held in damaged.items():
        path = tmp_path / f"{name}.npz"
        if held is not None:
            path.write_bytes(held)
        with pytest.raises(UserError, match=f"{name}.npz.*remove it to make it again"):
            read_sparse_map(path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (2, 2, 3)},
        {"shape": (-2, -2, 2)},
        {"shape": (2, 2)},
        {"values": np.zeros(2, np.uint16)},
        {"values": np.zeros(1, np.float64)},
        {"bits": np.zeros(9, np.uint8)},
        {"bits": np.array([b"x"], dtype=object)},
    ],
)
def test_files_whose_parts_do_not_fit_are_refused(tmp_path, change):
    parts = {"shape": (2, 2, 2), "bits": np.array([128], np.uint8), "values": np.ones(1, np.uint16)}
    np.savez(tmp_path / "map.npz", **{**parts, **change})
    with pytest.raises(UserError, match="no readable map"):
        read_sparse_map(tmp_path / "map.npz")
