from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quickstudy.data import ClassDataset, describe, load, names, read_image
from quickstudy.data.quickdraw import categories
from quickstudy.errors import DataError, UserError


def numbered(counts: list[int]) -> ClassDataset:
    """Class `c` has `counts[c]` pictures; every pixel of row `r` is `r`."""
    m = sum(counts)
    x = np.broadcast_to(np.arange(m, dtype=np.uint8)[:, None, None], (m, 4, 4))
    labels = np.repeat(np.arange(len(counts)), counts)
    data = ClassDataset.from_arrays(x, labels, attributes={"row": np.arange(m)})
    return replace(data, class_attributes={"group": tuple(f"g{c % 2}" for c in range(len(counts)))})


COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(COUNTS, st.data())
def test_subset_keeps_rows_with_their_classes(counts: list[int], draw: st.DataObject) -> None:
    data = numbered(counts)
    chosen = draw.draw(st.lists(st.sampled_from(range(len(counts))), unique=True))
    part = data.subset(chosen)
    assert part.names == tuple(str(c) for c in chosen)
    assert part.class_attributes["group"] == tuple(f"g{c % 2}" for c in chosen)
    for i, c in enumerate(chosen):
        assert torch.equal(part.examples(i), data.examples(c))
    assert torch.equal(part.x[:, 0, 0, 0].long(), part.attributes["row"])


@given(COUNTS)
def test_rotated_makes_four_classes_of_each(counts: list[int]) -> None:
    data = numbered(counts)
    data = replace(data, x=data.x + torch.arange(16, dtype=torch.uint8).reshape(4, 4))
    turned = data.rotated()
    assert len(turned) == 4 * len(data)
    for k in range(4):
        for c in range(len(data)):
            i = k * len(data) + c
            assert turned.names[i] == f"{c}/rot{90 * k:03d}"
            expected = np.rot90(data.examples(c).numpy(), k, (2, 3))
            np.testing.assert_array_equal(turned.examples(i).numpy(), expected)


def bases(part: ClassDataset) -> set[str]:
    return {name.split("/")[0] for name in part.names}


@pytest.mark.parametrize("how", ["mine", "random"])
def test_a_class_and_its_turns_are_in_one_part(how: str) -> None:
    data = replace(numbered([1] * 12), splits={"mine": ((3, 5), (0, 1, 2), tuple(range(6, 12)))})
    for seed in range(5) if how == "random" else [None]:
        before = [part.rotated() for part in data.split(how, seed=seed)]
        after = data.rotated().split(how, seed=seed)
        again = data.rotated().subset(range(24)).split("random", seed=seed)  # two turns of each class
        for parts in (after, again, data.rotated().rotated().split(how, seed=seed)):
            assert sum(len(bases(part)) for part in parts) == len(set.union(*map(bases, parts))) >= 11
        assert [p.names for p in after] == [p.names for p in before]
        assert all(torch.equal(a.x, b.x) for a, b in zip(after, before, strict=True))


def test_rotated_needs_square_pictures() -> None:
    with pytest.raises(DataError, match="only square"):
        ClassDataset.from_arrays(np.zeros((2, 4, 5), np.uint8), [0, 1]).rotated()


@given(st.integers(3, 60), st.integers(0, 5), st.floats(0.01, 0.98), st.floats(0.01, 0.99))
def test_random_split_is_disjoint_complete_and_seeded(
    classes: int, seed: int, train: float, val: float
) -> None:
    data = numbered([1] * classes)
    parts = data.split(seed=seed, fractions=(train, val * (0.99 - train)))
    assert sorted(int(n) for part in parts for n in part.names) == list(range(classes))
    assert all(len(part) >= min(3, classes // 3) for part in parts)
    parts = data.split(seed=seed)
    assert sorted(int(n) for part in parts for n in part.names) == list(range(classes))
    assert all(len(part) >= min(3, classes // 3) for part in parts)
    assert [p.names for p in parts] == [p.names for p in data.split("random", seed=seed)]


@pytest.mark.parametrize(
    "fractions", [(0.9, 0.8), (1.0, 0.0), (0.6, 0.4), (-0.1, 0.5), (0.5, np.nan), (0.6,)]
)
def test_shares_that_leave_a_part_empty(fractions: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"shares .* of meta-train and meta-validation must"):
        numbered([1] * 9).split(fractions=fractions)


def test_split_by_name() -> None:
    data = replace(numbered([1] * 4), splits={"mine": ((3,), (0,), (1, 2))})
    assert [p.names for p in data.split()] == [("3",), ("0",), ("1", "2")]
    with pytest.raises(UserError, match="did you mean 'mine'"):
        data.split("mone")
    with pytest.raises(DataError, match="2 classes cannot be split"):
        numbered([1, 1]).split()


def test_limit() -> None:
    data = numbered([3, 5])
    assert data.limit(2).x[:, 0, 0, 0].tolist() == [0, 1, 3, 4]
    drawn = [data.limit(2, seed=s).x[:, 0, 0, 0].tolist() for s in range(20)]
    assert len({tuple(d) for d in drawn}) > 5
    assert all(a < b < 3 <= c < d for a, b, c, d in drawn)
    assert data.limit(2, seed=1).fingerprint() == data.limit(2, seed=1).fingerprint()
    with pytest.raises(DataError, match="class '0' has 3 examples, fewer than the 4"):
        data.limit(4)
    for none in (0, -1):
        with pytest.raises(DataError, match=f"{none} examples a class; at least 1"):
            data.limit(none)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 8, 9), (1, 8, 9)), ((6, 8, 9, 3), (3, 8, 9)), ((6, 3, 8, 9), (3, 8, 9)), ((6, 7), (7,))],
)
def test_from_arrays_shapes(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = ClassDataset.from_arrays(np.zeros(shape, np.uint8), list("babaab"))
    assert data.image_shape == expected
    assert data.names == ("a", "b")
    assert data.labels().tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((2, 4, 4)), [0], "2 examples but 1 labels"),
        (np.zeros((2, 4, 4)), [[0], [1]], r"labels of shape \(2, 1\)"),
        (np.zeros((2, 4, 4)), [0.0, np.nan], "label 1 is NaN"),
        (np.zeros((2, 4, 4)), [0.0, 1.5], r"label 1\.5 is a fraction"),
        (np.zeros((2, 4, 4)), np.array([0, "a"], object), "labels of different kinds"),
        (np.full((2, 4, 4), 256), [0, 1], "whole numbers from 256 to 256 are not pixels"),
        (np.full((2, 4, 4), -1), [0, 1], "whole numbers from -1 to -1 are not pixels"),
        (np.zeros((0, 4, 4)), [], "no examples"),
        (np.array([[1.0], [np.nan]]), [0, 1], "example 1 holds NaN"),
        (np.array([["a"], ["b"]]), [0, 1], "are not numbers"),
        (np.zeros((2, 2, 2, 2, 2)), [0, 1], "neither pictures nor vectors"),
    ],
)
def test_from_arrays_refuses(x: np.ndarray, y: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ClassDataset.from_arrays(x, y)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_pictures_of_whole_numbers_are_pixels(dtype: type) -> None:
    x = np.arange(256).reshape(4, 8, 8)
    data = ClassDataset.from_arrays(x.astype(dtype), [0, 0, 1, 1])
    assert data.x.dtype == torch.uint8
    np.testing.assert_array_equal(data.x[:, 0].numpy(), x)
    assert ClassDataset.from_arrays([[1, 300], [-2, 0]], [0, 1]).x.tolist() == [[1, 300], [-2, 0]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a", "b"], "attribute 'tint' is of type <U1, not whole numbers; number its values"),
        ([0.5, 1.0], "attribute 'tint' is of type float64"),
        ([1], r"attribute 'tint' has shape \(1,\), not one for each of 2"),
        ([1, 2, 3], r"attribute 'tint' has shape \(3,\)"),
    ],
)
def test_attributes_are_one_whole_number_each(values: list[object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ClassDataset.from_arrays(np.zeros((2, 4, 4)), [0, 1], attributes={"tint": values})


@pytest.mark.parametrize("offsets", [[0, 2, 4], [1, 2, 5], [0, 6, 5], [-1, 2, 5]])
def test_offsets_must_cover_the_examples(offsets: list[int]) -> None:
    with pytest.raises(DataError, match="offsets must rise from 0 to the 5"):
        replace(numbered([2, 3]), offsets=torch.tensor(offsets))


def test_class_attributes_are_one_a_class() -> None:
    with pytest.raises(DataError, match="1 values of 'alphabet' for 2 classes"):
        replace(numbered([2, 3]), class_attributes={"alphabet": ("a",)})


def test_two_classes_of_one_name() -> None:
    with pytest.raises(DataError, match="two classes are both called 'a'"):
        ClassDataset.from_arrays(np.zeros((2, 4, 4)), [0, 1], names=["a", "a"])


def test_fingerprint_sees_everything() -> None:
    base = numbered([2, 3])
    other = base.x.clone()
    other[4, 0, 3, 3] += 1
    variants = [
        base,
        replace(base, x=other),
        replace(base, names=("0", "2")),
        replace(base, offsets=torch.tensor([0, 3, 5])),
        base.subset([1, 0]),
    ]
    assert len({v.fingerprint() for v in variants}) == len(variants)


class Pictures:
    """A torchvision-like data set."""

    classes = ("zero", "one", "two")

    def __init__(self, pairs: list[tuple[object, object]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[object, object]:
        return self.pairs[i]


def test_from_torch() -> None:
    picture = Image.new("RGB", (4, 4), (1, 2, 3))
    data = ClassDataset.from_torch(Pictures([(picture, 2), (picture, torch.tensor(0)), (picture, 2)]))
    assert data.names == ("zero", "two")
    assert data.counts.tolist() == [1, 2]
    assert data.x[0, :, 0, 0].tolist() == [1, 2, 3]
    tensors = torch.utils.data.TensorDataset(torch.rand(4, 1, 5, 5), torch.tensor([1, 0, 1, 0]))
    data = ClassDataset.from_torch(tensors)
    assert torch.equal(data.x, tensors.tensors[0][[1, 3, 0, 2]])


def test_pictures_of_any_depth_come_as_from_a_folder(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    for picture in (ramp, clear):
        assert picture.mode in ("I;16", "RGBA")
        data = ClassDataset.from_torch(Pictures([(picture, 0)]))
        picture.save(tmp_path / "a.png")
        color = "grey" if picture is ramp else "rgb"
        np.testing.assert_array_equal(data.x[0], read_image(tmp_path / "a.png", None, color))


def test_indices_of_classes() -> None:
    data = numbered_classes()
    assert torch.equal(data.examples(-1), data.examples(2))
    assert data.subset([-1, 0]).names == ("c", "a")
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            data.examples(wrong)
        with pytest.raises(IndexError):
            data.subset([wrong])


def test_a_path_is_a_folder_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="digits"):
        load(Path("digits"))


def numbered_classes() -> ClassDataset:
    return ClassDataset.from_arrays(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), list("aabbbc"))


def test_from_torch_refuses() -> None:
    with pytest.raises(DataError, match="Pictures: example 1 has shape"):
        ClassDataset.from_torch(Pictures([(np.zeros((4, 4)), 0), (np.zeros((4, 5)), 1)]))
    with pytest.raises(DataError, match="Pictures: no examples"):
        ClassDataset.from_torch(Pictures([]))


def test_load_by_name() -> None:
    data = load("digits", samples_per_class=20, seed=3)
    assert data.counts.tolist() == [20] * 10
    assert [len(p) for p in data.split()] == [4, 3, 3]
    with pytest.raises(UserError, match="unknown data set 'digit': did you mean 'digits'"):
        load("digit")
    with pytest.raises(DataError, match="there is no such folder"):
        load("some/where")
    with pytest.raises(DataError, match="0 samples per class"):
        load("digits", samples_per_class=0)
    with pytest.raises(DataError, match="quickdraw: the pictures are 28x28, not 84x84"):
        load("quickdraw", size=84)
    assert load("glyphs", samples_per_class=2, size=14).x.shape == (6000, 1, 14, 14)


@pytest.mark.parametrize("name", names())
def test_describe(name: str) -> None:
    info = describe(name)
    assert info.name == name
    assert info.licence
    assert info.citation
    assert bool(info.urls) == bool(info.bytes)
    if not info.files:
        assert info.ready()
        data = load(name)
        assert len(data) == info.classes
        assert {k: "/".join(str(len(p)) for p in v) for k, v in data.splits.items()} == info.splits


def test_describe_finds_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    info = describe("omniglot")
    assert not info.ready()
    assert info.target() == tmp_path / "cache/data/omniglot"
    (tmp_path / "mine/omniglot").mkdir(parents=True)
    (tmp_path / "mine/omniglot/images_background.zip").touch()
    (tmp_path / "mine/images_evaluation.zip").touch()
    assert len(info.present(tmp_path / "mine")) == 2
    assert info.ready(tmp_path / "mine")
    with pytest.raises(UserError, match="did you mean 'omniglot'"):
        describe("omniglott")


def test_an_empty_folder_is_not_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    bitmaps = tmp_path / "quickdraw/numpy_bitmap"
    bitmaps.mkdir(parents=True)
    info = describe("quickdraw")
    assert not info.ready(tmp_path)
    for name in categories()[1:]:
        (bitmaps / f"{name}.npy").touch()
    assert len(info.present(tmp_path)) == 344
    assert not info.ready(tmp_path)
    (bitmaps / f"{categories()[0]}.npy").touch()
    assert info.ready(tmp_path)


def test_a_seed_is_for_random_splits(blobs: ClassDataset) -> None:
    data = load("digits")
    for options in ({"seed": 1}, {"fractions": (0.4, 0.3)}):
        with pytest.raises(DataError, match="the split 'default' is ready-made"):
            data.split(**options)
        assert len(data.split("random", **options)) == 3
