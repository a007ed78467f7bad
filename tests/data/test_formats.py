from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tandem.data.formats import (
    DamagedFile,
    read_cifar,
    read_flowers,
    read_idx,
    read_labelme,
    read_names,
)

RANDOM = np.random.default_rng(0)


def test_idx_file_is_read_in_row_order(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3]) + pixels.tobytes()))
    assert np.array_equal(read_idx(path), pixels)


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_images_are_three_planes_after_their_labels(tmp_path: Path, label_bytes: int) -> None:
    planes = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = [3, 9, 0, 1, 200]
    rows = [bytes([7, label][-label_bytes:]) + image.tobytes() for label, image in zip(labels, planes, strict=True)]
    (tmp_path / "a.bin").write_bytes(b"".join(rows[:3]))
    (tmp_path / "b.bin").write_bytes(b"".join(rows[3:]))
    pixels, read = read_cifar([tmp_path / "a.bin", tmp_path / "b.bin"], label_bytes)
    assert read.tolist() == labels
    assert pixels.shape == (5, 32, 32, 3)
    assert pixels[4, 10, 20].tolist() == planes[4, :, 10, 20].tolist()
    assert np.array_equal(np.moveaxis(pixels, -1, 1), planes)


def test_truncated_cifar_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(3073 * 2 - 1))
    with pytest.raises(DamagedFile, match=r"a\.bin is not a file of 3073 bytes per image"):
        read_cifar([tmp_path / "a.bin"], 1)
    with pytest.raises(DamagedFile, match=r"b\.bin .* \(No such file or directory\)"):
        read_cifar([tmp_path / "b.bin"], 1)


def test_names_are_the_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("apple\naquarium_fish\n\n")
    assert read_names(tmp_path / "names.txt") == ("apple", "aquarium_fish")


def write_labelme(folder: Path, rows: dict[str, list[float]], *, binary: bool) -> None:
    lines = [f"{name} {' '.join(f'{value:.2f}' for value in values)}" for name, values in rows.items()]
    (folder / "annotation.txt").write_text("\n".join(lines) + "\n")
    if binary:
        (folder / "annotation.bin").write_bytes(np.array(list(rows.values()), "<f4").tobytes())


def values(**given: float) -> list[float]:
    row = [-1.0] * 12
    for position, value in given.items():
        row[int(position[1:])] = value
    return row


def test_labelme_image_is_of_the_object_in_its_centre_or_clutter(tmp_path: Path) -> None:
    rows = {
        "000000": values(_0=1.0, _3=-0.2),
        "000999": values(_11=1.0),
        "001000": values(_2=0.4, _4=0.1),
        "039999": values(),
    }
    write_labelme(tmp_path, rows, binary=False)
    assert read_labelme(tmp_path) == [
        ("0000/000000.jpg", "person"),
        ("0000/000999.jpg", "head"),
        ("0001/001000.jpg", "clutter"),
        ("0039/039999.jpg", "clutter"),
    ]


def test_exact_labelme_values_are_preferred_to_rounded_ones(tmp_path: Path) -> None:
    rows = {"000000": values(_1=0.996), "000001": values(_1=0.996, _5=1.0)}
    write_labelme(tmp_path, rows, binary=True)
    assert [name for _, name in read_labelme(tmp_path)] == ["clutter", "sign"]


def test_damaged_labelme_annotation_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"annotation\.txt is not .* \(No such file"):
        read_labelme(tmp_path)
    (tmp_path / "annotation.txt").write_text("000000 1.0 -1.0\n")
    with pytest.raises(DamagedFile, match=r"annotation\.txt is not a name and 12 values in each line"):
        read_labelme(tmp_path)


def test_labelme_values_for_another_number_of_lines_are_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path, {"000000": values(_1=1.0), "000001": values()}, binary=True)
    (tmp_path / "annotation.bin").write_bytes(bytes(4 * 12 * 3))
    with pytest.raises(DamagedFile, match=r"annotation\.bin is not 12 float32 per line of annotation\.txt \(.*36"):
        read_labelme(tmp_path)


def test_flowers_are_numbered_from_one(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": [[102, 1, 7, 7]]})
    scipy.io.savemat(tmp_path / "setid.mat", {"trnid": [[2]], "valid": [[4]], "tstid": [[1, 3]]})
    assert read_flowers(tmp_path) == [
        ("image_00002.jpg", 0, "train"),
        ("image_00004.jpg", 6, "val"),
        ("image_00001.jpg", 101, "test"),
        ("image_00003.jpg", 6, "test"),
    ]
