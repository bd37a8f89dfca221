from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data import ClassDataset, from_folder, read_image
from quickstudy.errors import DataError, UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(
    path: Path, value: object = 128, size: tuple[int, int] = (8, 8), mode: str = "L", **options: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


def pets(root: Path) -> Path:
    for name, value in [("cats/b.png", 2), ("cats/a.png", 1), ("dogs/c.png", 3)]:
        save(root / name, value)
    return root


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- which files are which class


def test_classes_and_files_in_order(tmp_path: Path) -> None:
    data = from_folder(pets(tmp_path / "pets"))
    assert data.names == ("cats", "dogs")
    assert data.counts.tolist() == [2, 1]
    assert data.x.shape == (3, 1, 28, 28)
    assert data.x[:, 0, 5, 5].tolist() == [1, 2, 3]
    assert data.name == "pets"


def test_nested_folders_are_named_by_their_paths(tmp_path: Path) -> None:
    for name in ("greek/alpha/1.png", "greek/beta/1.png", "latin/a/1.png", "latin/2.png"):
        save(tmp_path / name)
    assert from_folder(tmp_path).names == ("greek/alpha", "greek/beta", "latin", "latin/a")


def test_rubbish_is_passed_over(tmp_path: Path) -> None:
    pets(tmp_path)
    for name in (
        ".DS_Store",
        "cats/.DS_Store",
        "cats/Thumbs.db",
        "dogs/desktop.ini",
        "dogs/notes.txt",
        "README.md",
    ):
        (tmp_path / name).write_bytes(b"\0\1")
    save(tmp_path / ".hidden/x.png")
    save(tmp_path / "__MACOSX/x.png")
    save(tmp_path / "cats/.hidden.png")
    data = from_folder(tmp_path)
    assert data.names == ("cats", "dogs")
    assert data.counts.tolist() == [2, 1]


def test_no_such_folder_a_file_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a\.png: a file, where a folder"):
        from_folder(save(tmp_path / "x/a.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no class folders"):
        from_folder(tmp_path / "empty")


def test_a_picture_outside_any_class(tmp_path: Path) -> None:
    save(pets(tmp_path) / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: a picture outside any class folder"):
        from_folder(tmp_path)


@pytest.mark.parametrize("others", [[], ["notes.txt", "list.csv"]])
def test_an_empty_class_is_named(tmp_path: Path, others: list[str]) -> None:
    (pets(tmp_path) / "birds").mkdir()
    for name in others:
        (tmp_path / "birds" / name).touch()
    with pytest.raises(DataError, match="birds: the class folder holds no pictures") as caught:
        from_folder(tmp_path)
    assert ("2 files" in one_line(caught)) == bool(others)


@pytest.mark.parametrize(
    ("one", "two"), [("Cats", "cats"), ("caf\u00e9", "cafe\u0301"), ("\ufb01sh", "fish")]
)
def test_names_that_collide(tmp_path: Path, one: str, two: str) -> None:
    save(tmp_path / one / "a.png")
    save(tmp_path / two / "a.png")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system holds only one of the two names")
    with pytest.raises(DataError, match="the same name but for") as caught:
        from_folder(tmp_path)
    assert repr(one) in one_line(caught)
    assert repr(two) in one_line(caught)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    try:
        save(pets(tmp_path) / os.fsdecode(b"\xff") / "a.png")
    except OSError:
        pytest.skip("this file system holds no such name")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        from_folder(tmp_path)
    one_line(caught).encode()


def test_a_link_in_a_circle(tmp_path: Path) -> None:
    (pets(tmp_path) / "cats/again").symlink_to(tmp_path)
    with pytest.raises(DataError, match="again: a link back"):
        from_folder(tmp_path)


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (pets(tmp_path) / "cats/gone.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        from_folder(tmp_path)


# --- files that cannot be read


def no_picture(path: Path) -> None:
    path.write_text("hello, I am a text")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-500])


def short_jpeg(path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-500])


def huge(side: int) -> bytes:
    """A PNG that says it is `side` pixels square; decoding it would take `side` squared bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(side))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_picture, "not a picture, whatever its name"),
        (empty, "not a picture, whatever its name"),
        (truncated, "damaged or cut off"),
        (short_jpeg, "damaged or cut off"),
        (lambda path: path.write_bytes(huge(20_000)), "more than 80 megapixels"),
        (lambda path: path.write_bytes(huge(10_000)), "more than 80 megapixels"),
        (lambda path: path.write_bytes(huge(9_000)), "more than 80 megapixels"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, damage: object, said: str) -> None:
    bad = pets(tmp_path) / "dogs/bad.png"
    damage(bad)
    with pytest.raises(DataError, match=said) as caught:
        from_folder(tmp_path)
    assert str(bad) in one_line(caught)
    with pytest.raises(DataError, match=said):
        read_image(bad)


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_huge_picture_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    (tmp_path / "a.png").write_bytes(huge(side))
    with pytest.raises(DataError, match="megapixels"):
        read_image(tmp_path / "a.png")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets(tmp_path)
    real = open

    def guarded(file: object, *args: object, **kwargs: object) -> object:
        if str(file).endswith("c.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    with pytest.raises(DataError, match=r"dogs/c\.png: no permission to read it"):
        from_folder(tmp_path)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets(tmp_path)
    real = Path.iterdir

    def guarded(self: Path) -> object:
        if self.name == "dogs":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", guarded)
    with pytest.raises(DataError, match="dogs: no permission to read this folder"):
        from_folder(tmp_path)


def test_read_image_names_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="a folder, where a picture was expected"):
        read_image(tmp_path)


# --- pixels


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "expected"),
    [
        ("1", 1, "png", 255),
        ("L", 77, "bmp", 77),
        ("LA", (77, 255), "png", 77),
        ("LA", (77, 0), "png", 255),
        ("RGB", (77, 77, 77), "jpg", 77),
        ("RGBA", (0, 0, 0, 0), "png", 255),
        ("RGBA", (0, 0, 0, 51), "webp", 204),
        ("CMYK", (0, 0, 0, 255), "tif", 0),
        ("I;16", 30000, "png", round(30000 / 257)),
        ("I", 30000, "tif", round(30000 / 257)),
        ("F", 0.5, "tif", 128),
        ("P", 3, "gif", 3),
    ],
)
def test_every_kind_of_pixel(tmp_path: Path, mode: str, value: object, suffix: str, expected: int) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    if mode == "P":
        picture = Image.new("P", (8, 8), 3)
        picture.putpalette([v for v in range(256) for _ in range(3)])
        picture.save(tmp_path / "a.gif")
    else:
        save(tmp_path / f"a.{suffix}", value, mode=mode, **options)
    pixels = read_image(tmp_path / f"a.{suffix}", size=8)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1, 8, 8)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([0, 0, 0] * 256)
    picture.save(tmp_path / "a.png", transparency=0)
    assert (read_image(tmp_path / "a.png", size=8) == 255).all()


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("F", 2.0), ("F", float("nan"))])
def test_pixels_without_a_known_scale_are_refused(tmp_path: Path, mode: str, value: float) -> None:
    with pytest.raises(DataError, match="its pixels reach from"):
        read_image(save(tmp_path / "a.tif", value, mode=mode))


def test_area_average_of_the_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pixels.reshape(28, 2, 28, 2).mean((1, 3))
    assert np.abs(read_image(tmp_path / "a.png", 28)[0] - expected).max() <= 1
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", None)[0], pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", None, invert=True)[0], 255 - pixels)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((40, 20), slice(5, 15), slice(0, 20)), ((20, 40), slice(0, 20), slice(5, 15))],
)
def test_the_shape_is_kept_by_padding_with_the_border(
    tmp_path: Path, size: tuple[int, int], rows: slice, columns: slice
) -> None:
    picture = Image.new("RGB", size, (10, 200, 30))
    picture.paste((0, 0, 0), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    picture.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 20, "rgb")
    inside = np.zeros((20, 20), bool)
    inside[rows, columns] = True
    assert (pixels[:, ~inside].T == [10, 200, 30]).all()
    dark = (pixels == 0).all(0)
    assert dark[rows, columns].mean() == pytest.approx(0.25, abs=0.08)


def test_an_extreme_shape(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", 9, (3000, 1)), 28).tolist() == [[[9] * 28] * 28]


def test_exif_rotation(tmp_path: Path) -> None:
    picture = Image.new("L", (8, 8), 255)
    picture.paste(0, (0, 0, 8, 4))  # the upper half is dark
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be upright
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png", 8)[0]
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 0).all()


def test_colour_is_found(tmp_path: Path) -> None:
    pets(tmp_path)
    assert from_folder(tmp_path).image_shape == (1, 28, 28)
    save(tmp_path / "cats/tint.png", (100, 105, 100), mode="RGB")
    assert from_folder(tmp_path).image_shape == (1, 28, 28)
    save(tmp_path / "cats/red.png", (200, 0, 0), mode="RGB")
    data = from_folder(tmp_path)
    assert data.image_shape == (3, 28, 28)
    assert data.x[2, :, 0, 0].tolist() == [200, 0, 0]
    assert from_folder(tmp_path, color="grey").image_shape == (1, 28, 28)


def test_the_folder_and_read_image_agree(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 33, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/1.png")
    for color in ("grey", "rgb"):
        data = from_folder(tmp_path, size=20, color=color, invert=True)
        alone = read_image(tmp_path / "a/1.png", 20, color, invert=True)
        np.testing.assert_array_equal(data.x[0].numpy(), alone)


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    save(pets(tmp_path) / "dogs/d.png", size=(8, 9))
    with pytest.raises(DataError, match=r"d\.png: 8x9, but .*a\.png is 8x8; give a size"):
        from_folder(tmp_path, size=None)


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'grey'"):
        from_folder(pets(tmp_path), color="gray")
    with pytest.raises(DataError, match="the size is 0"):
        from_folder(tmp_path, size=0)


# --- kept


def test_decoded_once_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets(tmp_path / "pets")
    kept = tmp_path / "kept"
    first = from_folder(tmp_path / "pets", cache_dir=kept)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", None)
        again = from_folder(tmp_path / "pets", cache_dir=kept)
    assert again.fingerprint() == first.fingerprint()
    assert (again.name, again.note) == (first.name, first.note)
    path = save(tmp_path / "pets/cats/a.png", 9)
    os.utime(path, ns=(1, 1))
    assert from_folder(tmp_path / "pets", cache_dir=kept).x[0, 0, 0, 0] == 9
    (tmp_path / "pets/cats/a.png").rename(tmp_path / "pets/cats/z.png")
    assert from_folder(tmp_path / "pets", cache_dir=kept).x[1, 0, 0, 0] == 9
    assert from_folder(tmp_path / "pets", cache_dir=kept, invert=True).x[1, 0, 0, 0] == 246
    assert from_folder(tmp_path / "pets", cache_dir=kept, size=9).image_shape == (1, 9, 9)


def test_static_method(tmp_path: Path) -> None:
    assert torch.equal(ClassDataset.from_folder(pets(tmp_path), size=9).x, from_folder(tmp_path, size=9).x)
