from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tandem.data import named
from tandem.data.download import RemoteFile
from tandem.data.manifest import scan
from tandem.data.prepare import PreparedData, prepare
from tandem.data.sources import find_source
from tandem.errors import UserError
from tandem.protocol.data_sets import DATA_SETS
from tandem.protocol.settings import DataSettings
from tests.data.publisher import Publisher

WriteImages = Callable[..., Path]

RANDOM = np.random.default_rng(0)


def jpeg() -> bytes:
    file = BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return packed.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def offer(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Publishes small files in a data set's format, under the names of its real files."""

    def offer(name: str, **contents: bytes) -> None:
        real = named.DOWNLOADS[name]
        by_ending = {
            file.name: next(c for e, c in contents.items() if e in file.name.replace("-", "_")) for file in real
        }
        for file_name, content in by_ending.items():
            publisher.files[f"/{file_name}"] = content
        ours = tuple(
            RemoteFile(
                url=publisher.url(file.name),
                checksum=file.checksum and f"md5:{hashlib.md5(by_ending[file.name]).hexdigest()}",
            )
            for file in real
        )
        monkeypatch.setitem(named.DOWNLOADS, name, ours)

    return offer


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def mnist(num_train: int = 70, num_test: int = 20) -> dict[str, bytes]:
    return {
        "train_images": idx(RANDOM.integers(0, 256, (num_train, 28, 28))),
        "train_labels": idx(np.arange(num_train) % 10),
        "t10k_images": idx(RANDOM.integers(0, 256, (num_test, 28, 28))),
        "t10k_labels": idx(np.arange(num_test) % 10),
    }


def cifar_rows(labels: Iterable[tuple[int, ...]]) -> bytes:
    return b"".join(bytes(label) + RANDOM.bytes(3072) for label in labels)


def cifar10(per_batch: int = 10) -> bytes:
    files = {f"data_batch_{n}.bin": cifar_rows((i % 10,) for i in range(per_batch)) for n in range(1, 6)}
    files["test_batch.bin"] = cifar_rows((i % 10,) for i in range(20))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files["batches.meta.txt"] = ("\n".join(names) + "\n\n").encode()
    return tar({f"cifar-10-batches-bin/{name}": content for name, content in files.items()})


def cifar100(train_per_class: int, test_per_class: int) -> bytes:
    files = {
        "train.bin": cifar_rows((i % 20, i % 100) for i in range(100 * train_per_class)),
        "test.bin": cifar_rows((i % 20, i % 100) for i in range(100 * test_per_class)),
        "fine_label_names.txt": "\n".join(f"class {99 - i:02d}" for i in range(100)).encode(),
    }
    return tar({f"cifar-100-binary/{name}": content for name, content in files.items()})


def labelme() -> bytes:
    files: dict[str, bytes] = {}
    for part, number in (("train", 8), ("test", 3)):
        rows = []
        for index in range(13 * number):
            one = [1.0 if column == index % 13 else -1.0 for column in range(12)]
            rows.append(f"{index:06d} {' '.join(f'{value:.2f}' for value in one)}")
            files[f"LabelMe-12-50k/{part}/0000/{index:06d}.jpg"] = jpeg()
        files[f"LabelMe-12-50k/{part}/annotation.txt"] = ("\n".join(rows) + "\n").encode()
    return tar(files)


def flowers() -> dict[str, bytes]:
    def mat(**variables: list[int]) -> bytes:
        file = BytesIO()
        scipy.io.savemat(file, {name: [values] for name, values in variables.items()})
        return file.getvalue()

    numbers = range(1, 307)
    labels = [1 + (number - 1) % 102 for number in numbers]
    return {
        "102flowers": tar({f"jpg/image_{number:05d}.jpg": jpeg() for number in numbers}),
        "imagelabels": mat(labels=labels),
        "setid": mat(trnid=list(range(1, 103)), valid=list(range(103, 205)), tstid=list(range(205, 307))),
    }


def ready(name: str, cache: Path, **settings: Any) -> PreparedData:
    return prepare(DataSettings(source=name, image_size=32, cache_folder=str(cache), **settings), quiet=True)


def counts(data: PreparedData) -> tuple[int, int, int]:
    return len(data.rows("train")), len(data.rows("val")), len(data.rows("test"))


# ------------------------------------------------------------------------------------------------------------- MNIST


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_keeps_the_publishers_test_images(name: str, offer: Callable[..., None], tmp_path: Path) -> None:
    offer(name, **mnist(num_train=120, num_test=20))
    data = ready(name, tmp_path)
    assert counts(data) == (100, 20, 20)
    assert data.report["split"]["kind"] == "publisher"
    assert data.keys[data.rows("test")[0]] == f"{name}/120"
    assert data.images.shape == (140, 28, 28, 3)


def test_mnist_images_are_those_of_its_files(offer: Callable[..., None], tmp_path: Path) -> None:
    files = mnist()
    offer("mnist", **files)
    source = find_source(DataSettings(source="mnist", cache_folder=str(tmp_path)), quiet=True)
    pixels = np.frombuffer(gzip.decompress(files["t10k_images"])[16:], np.uint8).reshape(-1, 28, 28)
    last = source.images[-1]
    assert (last.key, last.class_name, last.part) == ("mnist/89", "9", "test")
    assert np.array_equal(np.asarray(source.open("", source.read("mnist/89"))), pixels[19])
    assert source.classes == tuple("0123456789")


def test_fashion_mnist_classes_are_in_the_order_of_the_labels(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("fashion_mnist", **mnist())
    source = find_source(DataSettings(source="fashion_mnist", cache_folder=str(tmp_path)), quiet=True)
    assert source.classes[0] == "T-shirt/top" and source.classes[9] == "Ankle boot"
    assert [image.class_name for image in source.images[:10]] == list(source.classes)


def test_files_are_fetched_once_for_all_runs(
    offer: Callable[..., None], publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer("mnist", **mnist())
    first = ready("mnist", tmp_path)
    assert len(publisher.requests) == 4
    second = ready("mnist", tmp_path)
    assert len(publisher.requests) == 4
    assert first.split.hash == second.split.hash
    assert capsys.readouterr().out == ""


def test_classes_of_a_data_set_can_be_chosen(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("mnist", **mnist(num_train=120))
    data = ready("mnist", tmp_path, classes=["7", "1"])
    assert data.classes == ("7", "1")
    assert counts(data) == (20, 4, 4)


# ------------------------------------------------------------------------------------------------------------- CIFAR


def test_cifar10_keeps_the_publishers_test_images(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("cifar10", cifar=cifar10(per_batch=20))
    data = ready("cifar10", tmp_path)
    assert counts(data) == (80, 20, 20)
    assert data.classes[0] == "airplane" and data.classes[9] == "truck"
    assert data.images.shape == (120, 32, 32, 3)


def test_cifar100_validates_on_a_fifth_of_the_training_images(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("cifar100", cifar=cifar100(train_per_class=10, test_per_class=2))
    data = ready("cifar100", tmp_path)
    assert counts(data) == (800, 200, 200)
    assert set(Counter(data.labels[data.rows("val")]).values()) == {2}
    # the fine label, in the order of the names' file
    assert data.classes[:2] == ("class 99", "class 98")


def test_cifar_folder_of_the_users_needs_no_network(tmp_path: Path) -> None:
    place = tmp_path / "datasets/cifar10"
    place.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(cifar10())) as archive:
        archive.extractall(place, filter="data")
    assert counts(ready("cifar10", tmp_path)) == (40, 10, 20)


def test_cifar_folder_that_lacks_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "datasets/cifar10"
    place.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(cifar10())) as archive:
        archive.extractall(place, filter="data")
    (place / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    with pytest.raises(UserError) as caught:
        find_source(DataSettings(source="cifar10", cache_folder=str(tmp_path)), quiet=True)
    assert "data_batch_3.bin is not a file of 3073 bytes per image" in str(caught.value)
    assert str(caught.value).endswith(f"; remove {place}, and cifar10 is downloaded again")


def test_changed_files_are_scanned_again(tmp_path: Path) -> None:
    place = tmp_path / "datasets/cifar10"
    place.mkdir(parents=True)
    hashes = []
    for when in (1_000_000_000, 1_000_000_001):
        with tarfile.open(fileobj=BytesIO(cifar10())) as archive:
            archive.extractall(place, filter="data")
        for file in (place / "cifar-10-batches-bin").iterdir():
            os.utime(file, (when, when))
        manifest, _ = scan(
            find_source(DataSettings(source="cifar10", cache_folder=str(tmp_path)), quiet=True), tmp_path, quiet=True
        )
        hashes.append(manifest.images["hash"].tolist())
    assert set(hashes[0]).isdisjoint(hashes[1])


# ----------------------------------------------------------------------------------------------- archives of folders


def test_caltech_archive_in_an_archive_is_unpacked_without_its_background(
    offer: Callable[..., None], tmp_path: Path
) -> None:
    inner = tar(
        {
            f"101_ObjectCategories/{name}/image_{index:04d}.jpg": jpeg()
            for name in ("accordion", "BACKGROUND_Google", "Faces")
            for index in range(10)
        }
    )
    offer("caltech101", caltech=pack({"caltech-101/101_ObjectCategories.tar.gz": inner, "caltech-101/show.m": b""}))
    data = ready("caltech101", tmp_path)
    assert data.classes == ("Faces", "accordion")
    assert counts(data) == (14, 2, 4)
    assert data.report["notes"] == ["BACKGROUND_Google is not a class of Caltech 101 and is left out"]
    left = sorted(path.name for path in (tmp_path / "datasets/caltech101").iterdir())
    assert left == ["101_ObjectCategories", "caltech-101.zip"]


def test_imagenettes_validation_images_are_the_test_images(offer: Callable[..., None], tmp_path: Path) -> None:
    files = {
        f"imagenette2/{part}/{wordnet_id}/{part}_{index}.JPEG": jpeg()
        for wordnet_id in named.IMAGENETTE_WORDNET_IDS.values()
        for part, number in (("train", 16), ("val", 5))
        for index in range(number)
    }
    offer("imagenette", imagenette=tar(files))
    data = ready("imagenette", tmp_path)
    assert counts(data) == (140, 20, 50)
    assert data.classes == (
        "tench",
        "English springer",
        "cassette player",
        "chain saw",
        "church",
        "French horn",
        "garbage truck",
        "gas pump",
        "golf ball",
        "parachute",
    )
    key = data.keys[data.rows("test")[-1]]
    assert key.startswith("imagenette2/") is False and key.startswith("val/n03888257/")
    assert data.classes[data.labels[data.rows("test")[-1]]] == "parachute"


def test_imagenette_folder_that_lacks_a_class_is_refused(write_images: WriteImages, tmp_path: Path) -> None:
    ids = list(named.IMAGENETTE_WORDNET_IDS.values())
    write_images(
        {f"{part}/{wordnet_id}": 1 for part in ("train", "val") for wordnet_id in ids[:-1]},
        root="datasets/imagenette/imagenette2",
    )
    with pytest.raises(UserError, match=r"imagenette2 lacks the class folders n03888257; remove imagenette2"):
        find_source(DataSettings(source="imagenette", cache_folder=str(tmp_path)), quiet=True)


def test_imagenette_folder_with_an_additional_part_is_refused(write_images: WriteImages, tmp_path: Path) -> None:
    write_images(
        {
            f"{part}/{wordnet_id}": 1
            for part in ("train", "val", "test")
            for wordnet_id in named.IMAGENETTE_WORDNET_IDS.values()
        },
        root="datasets/imagenette/imagenette2",
    )
    with pytest.raises(
        UserError, match=r"/imagenette2 holds test/, which is not a part of imagenette; allowed: train/, "
    ):
        find_source(DataSettings(source="imagenette", cache_folder=str(tmp_path)), quiet=True)


def test_labelme_has_twelve_objects_and_clutter(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("labelme", LabelMe=labelme())
    data = ready("labelme", tmp_path)
    assert data.classes[:2] == ("person", "car") and data.classes[11:] == ("head", "clutter")
    assert counts(data) == (78, 26, 39)
    assert all(data.keys[row].startswith("test/0000/") for row in data.rows("test"))
    assert "LabelMe-12-50k" in data.report["notes"][0]
    kept = tmp_path / "datasets/labelme/LabelMe-12-50k.tar.gz.sha256"
    assert kept.read_text().strip() == hashlib.sha256(kept.with_suffix("").read_bytes()).hexdigest()


def test_damaged_archive_leaves_no_checksum(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("labelme", LabelMe=labelme()[:-1000])
    with pytest.raises(UserError, match=r"LabelMe-12-50k\.tar\.gz is damaged"):
        ready("labelme", tmp_path)
    place = tmp_path / "datasets/labelme"
    assert [path.name for path in place.iterdir()] == ["LabelMe-12-50k.tar.gz"]


def test_flowers_keep_all_three_published_parts(offer: Callable[..., None], tmp_path: Path) -> None:
    offer("flowers", **flowers())
    data = ready("flowers", tmp_path)
    assert counts(data) == (102, 102, 102)
    assert data.classes[0] == "pink primrose" and data.classes[101] == "blackberry lily"
    row = data.keys.index("jpg/image_00205.jpg")
    assert data.split.parts[row] == "test" and data.labels[row] == 0


# ------------------------------------------------------------------------------------------------------------ Kaggle


def test_birds_of_the_user_are_merged_and_split_again(write_images: WriteImages, tmp_path: Path) -> None:
    sizes = {"train": 8, "valid": 1, "test": 1}
    write_images(
        {f"{part}/BIRD {n:03d}": number for part, number in sizes.items() for n in range(300)},
        root="datasets/birds300",
    )
    data = ready("birds300", tmp_path)
    assert len(data.classes) == 300 and data.classes[299] == "BIRD 299"
    assert counts(data) == (2100, 300, 600)
    assert {key.split("/")[0] for row in data.rows("train") for key in [data.keys[row]]} == {"train", "valid", "test"}
    assert (data.name, data.report["split"]["kind"]) == ("birds300", "fractions")


@pytest.mark.parametrize("folder", ["datasets/birds300", "datasets/birds300/archive/train"])
def test_birds_of_the_user_have_the_number_of_species_in_the_name(
    folder: str, write_images: WriteImages, tmp_path: Path
) -> None:
    write_images({"ABBOTTS BABBLER": 1, "OSPREY": 1, ".hidden": 1}, root=folder)
    with pytest.raises(UserError, match=r"data\.source: .*/birds300.* has 2 species, birds300 has 300; put a copy"):
        find_source(DataSettings(source="birds300", cache_folder=str(tmp_path)), quiet=True)


def vegetables() -> dict[str, bytes]:
    return {
        f"Vegetable Images/{part}/{name}/{index}.jpg": jpeg()
        for part, number in (("train", 20), ("validation", 10), ("test", 10))
        for name in ("Bean", "Tomato")
        for index in range(number)
    }


def test_vegetables_from_kaggle_are_split_as_their_document_has_it(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files["/archive"] = pack(vegetables())
    data = ready("vegetables", tmp_path)
    assert counts(data) == (56, 12, 12)
    assert data.report["split"]["fractions"] == [0.7, 0.15, 0.15]
    asked = len(publisher.requests)
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    assert ready("vegetables", tmp_path).split.hash == data.split.hash
    assert len(publisher.requests) == asked


def test_birds_of_kaggle_have_the_number_of_species_in_the_name(publisher: Publisher, tmp_path: Path) -> None:
    species = {f"{part}/BIRD {n}/{part}.jpg": jpeg() for part in ("train", "valid", "test") for n in range(525)}
    publisher.files["/archive"] = pack(species)
    assert len(find_source(DataSettings(source="birds525", cache_folder=str(tmp_path)), quiet=True).classes) == 525
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            find_source(DataSettings(source="birds300", cache_folder=str(tmp_path)), quiet=True)
        assert "on Kaggle now has 525 species, birds300 has 300; put a copy with 300 into" in str(caught.value)
        assert str(tmp_path / "datasets/birds300") in str(caught.value)


def test_users_copy_comes_before_kaggles(publisher: Publisher, write_images: WriteImages, tmp_path: Path) -> None:
    publisher.files["/archive"] = pack(vegetables())
    find_source(DataSettings(source="vegetables", cache_folder=str(tmp_path)), quiet=True)
    write_images({"train/Leek": 3, "train/Kale": 3}, root="datasets/vegetables")
    assert find_source(DataSettings(source="vegetables", cache_folder=str(tmp_path)), quiet=True).classes == (
        "Kale",
        "Leek",
    )


def test_sdss17_rows_become_images(publisher: Publisher, tmp_path: Path) -> None:
    lines = ["obj_ID,u,g,r,i,z,class,redshift"]
    for index in range(30):
        name, redshift = (("GALAXY", 0.3), ("QSO", 1.7), ("STAR", 0.0))[index % 3]
        lines.append(f"{index},{19 + index / 7:.4f},18.5,18,17.8,17.7,{name},{redshift}")
    lines.append("99,-9999.0,-9999.0,18,18,-9999.0,STAR,0.00009")
    publisher.files["/archive"] = pack({"star_classification.csv": "\n".join(lines).encode()})
    data = ready("sdss17", tmp_path)
    assert data.classes == ("GALAXY", "QSO", "STAR")
    assert counts(data) == (21, 3, 6)
    assert data.images.shape == (30, 5, 5, 3)
    assert data.report["notes"][1] == "rows left out because a magnitude or the redshift is missing: 1"


def test_folder_without_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets/sdss17").mkdir(parents=True)
    (tmp_path / "datasets/sdss17/archive.zip").touch()
    with pytest.raises(UserError, match=r"sdss17/star_classification\.csv does not exist; put the table there"):
        find_source(DataSettings(source="sdss17", cache_folder=str(tmp_path)), quiet=True)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that no user can read is known on Linux only")
def test_unreadable_data_set_is_not_reported_as_a_wrong_folder(tmp_path: Path) -> None:
    place = tmp_path / "datasets/sdss17"
    place.mkdir(parents=True)
    (place / "star_classification.csv").symlink_to("/proc/self/mem")
    with pytest.raises(UserError) as caught:
        find_source(DataSettings(source="sdss17", cache_folder=str(tmp_path)), quiet=True)
    assert str(caught.value) == (
        f"data.source: {place} cannot be read (Input/output error); make it readable, or remove it"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_of_a_data_set_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = tmp_path / "datasets/sdss17/star_classification.csv"
    table.parent.mkdir(parents=True)
    table.touch(mode=0o000)
    with pytest.raises(UserError, match=r"star_classification\.csv cannot be read \(Permission denied\)"):
        find_source(DataSettings(source="sdss17", cache_folder=str(tmp_path)), quiet=True)


# -------------------------------------------------------------------------------------------------- names and folders


def test_folder_called_like_a_data_set_is_named_with_a_dot(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images({"cat": 2, "dog": 2}, root="mnist")
    monkeypatch.chdir(tmp_path)
    assert find_source(DataSettings(source="./mnist")).classes == ("cat", "dog")


def test_message_for_an_unknown_name_lists_all(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_source(DataSettings(source="cifar-10"))
    assert f"allowed: {', '.join(DATA_SETS)}, or a folder" in str(caught.value)


@pytest.mark.skipif("TANDEM_REAL_DATA" not in os.environ, reason="TANDEM_REAL_DATA names no folder with data/")
def test_real_files_are_read() -> None:
    folder = Path(os.environ["TANDEM_REAL_DATA"]).expanduser() / "data"
    images, labels = (
        named.read_idx(folder / "mnist_t10k" / f"t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1")
    )
    assert images.shape == (10_000, 28, 28)
    # the first four test images are a 7, a 2, a 1 and a 0, and the last is a 6
    assert labels[:4].tolist() == [7, 2, 1, 0] and labels[-1] == 6
    published = {file.name: file.checksum for file in named.DOWNLOADS["mnist"]}
    for path in (folder / "mnist_t10k").iterdir():
        assert published[path.name] == f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"

    pixels, classes, num_left_out = named.sdss.read_table(folder / "tabular/star_classification_sdss17_9999rows.csv")
    assert np.bincount(classes).tolist() == [6091, 1915, 1993] and num_left_out == 0
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == 9999
