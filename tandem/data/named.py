"""The data sets that are downloaded by name: where they are published, and how their files become labelled images.

Each has a folder <cache folder>/datasets/<name>. Files that the user puts there are taken without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tandem.data import sdss
from tandem.data.console import say
from tandem.data.download import RemoteFile, fetch, fetch_from_kaggle, one_process_at_a_time, unpack
from tandem.data.formats import (
    CLUTTER,
    LABELME_CLASSES,
    read_cifar,
    read_flowers,
    read_idx,
    read_labelme,
    read_names,
)
from tandem.errors import UserError

# The publishers' own addresses and the MD5 sums that torchvision 0.29 has for them, unless said otherwise.
MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_MNIST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CIFAR = "https://www.cs.toronto.edu/~kriz/"
FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""In the order of the labels (README of zalandoresearch/fashion-mnist)."""

IMAGENETTE_WORDNET_IDS = {
    "tench": "n01440764",
    "English springer": "n02102040",
    "cassette player": "n02979186",
    "chain saw": "n03000684",
    "church": "n03028079",
    "French horn": "n03394916",
    "garbage truck": "n03417042",
    "gas pump": "n03425413",
    "golf ball": "n03445777",
    "parachute": "n03888257",
}
"""WordNet's ids, which are the names of Imagenette's class folders, by name of the class, in the order of the ids."""

FLOWER_CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip
"""Oxford 102 Flowers' names in the order of its labels, which its files do not hold (as torchvision has them)."""

CALTECH_BACKGROUND = "BACKGROUND_Google"
"""The 102nd folder of Caltech 101, of pictures of anything: no class of it."""


KAGGLE_LINK = ".kaggle"
"""In a data set's folder, leads to what Kaggle's library downloaded: asked for it again, that needs the network."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Images that are not files of their own."""

    classes: tuple[str, ...]
    pixels: np.ndarray
    """uint8 of shape (images, height, width), or (images, height, width, 3) for RGB."""
    labels: np.ndarray
    """Indices into classes, of shape (images,)."""
    parts: tuple[str | None, ...]
    """For each image train, val, test or None."""
    files: tuple[Path, ...]
    """What the arrays were read from."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Image files whose classes stand in another file."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[str, str, str | None], ...]
    """Path from the root, class, and train, val, test or None."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """A folder laid out as the user's own may be."""

    root: Path
    names: dict[str, str] | None = None
    """The class that each class folder stands for, in the order of the classes; None where all folders stand for
    themselves."""
    notes: tuple[str, ...] = ()


LabelledImages = Arrays | ImageFiles | ClassFolders


def load(name: str, cache_folder: Path, *, quiet: bool) -> LabelledImages:
    """The images of a data set, which is downloaded first if it is not there.

    Args:
        name: One of READERS.
        cache_folder: Where downloads are kept.
        quiet: No messages and no progress bar.

    Raises:
        UserError: The data set cannot be had, which says where it is and where it has to be put; or it is damaged.
    """
    place = cache_folder.resolve() / "datasets" / name
    with one_process_at_a_time(place, quiet=quiet):
        return READERS[name](place, quiet)


def _mnist(url: str, checksums: dict[str, str], classes: tuple[str, ...], place: Path, quiet: bool) -> Arrays:
    fetch(_files(url, checksums), place, quiet=quiet)
    pixels, labels, parts = [], [], []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images_file, labels_file = (place / f"{prefix}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
        pixels.append(read_idx(images_file))
        labels.append(read_idx(labels_file))
        if pixels[-1].ndim != 3 or labels[-1].shape != pixels[-1].shape[:1] or labels[-1].max() >= len(classes):
            raise UserError(f"data.source: {images_file} and {labels_file.name} do not belong together; remove them")
        parts += [part] * len(labels[-1])
    return Arrays(
        classes=classes,
        pixels=np.concatenate(pixels),
        labels=np.concatenate(labels).astype(np.int64),
        parts=tuple(parts),
        files=tuple(place / name for name in checksums),
    )


def _cifar(archive: RemoteFile, folder: str, names: str, label_bytes: int, place: Path, quiet: bool) -> Arrays:
    # the binary version, whose reading takes no pickle, which could run any code
    _fetch_unpacked(archive, folder, place, quiet=quiet)
    unpacked = place / folder
    classes = read_names(unpacked / names)
    train = sorted(unpacked.glob("data_batch_*.bin")) or [unpacked / "train.bin"]
    test = unpacked / ("test_batch.bin" if label_bytes == 1 else "test.bin")
    pixels, labels = read_cifar([*train, test], label_bytes)
    num_test = test.stat().st_size // (label_bytes + pixels[0].size)
    if labels.max() >= len(classes):
        raise UserError(f"data.source: {unpacked} has labels beyond the {len(classes)} classes of {names}; remove it")
    return Arrays(
        classes=classes,
        pixels=pixels,
        labels=labels,
        parts=("train",) * (len(labels) - num_test) + ("test",) * num_test,
        files=(*train, test, unpacked / names),
    )


def _caltech101(place: Path, quiet: bool) -> ClassFolders:
    archive = RemoteFile(
        url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
        checksum="md5:3138e1922a9193bfa496528edbbc45d0",
    )
    root = place / "101_ObjectCategories"
    if not root.is_dir():
        fetch((archive,), place, quiet=quiet)
        packed = place / "101_ObjectCategories.tar.gz"
        unpack(place / archive.name, f"caltech-101/{packed.name}", packed, quiet=quiet)
        try:
            unpack(packed, root.name, root, quiet=quiet)
        finally:
            packed.unlink()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return ClassFolders(
        root=root,
        names={folder: folder for folder in folders if folder != CALTECH_BACKGROUND},
        notes=(f"{CALTECH_BACKGROUND} is no class of Caltech 101 and is left out",),
    )


def _labelme(place: Path, quiet: bool) -> ImageFiles:
    # Published by the Autonomous Intelligent Systems group of the University of Bonn, without a checksum.
    archive = RemoteFile(url="http://www.ais.uni-bonn.de/deep_learning/LabelMe-12-50k.tar.gz", checksum=None)
    root = place / "LabelMe-12-50k"
    _fetch_unpacked(archive, root.name, place, quiet=quiet)
    return ImageFiles(
        root=root,
        classes=(*LABELME_CLASSES, CLUTTER),
        images=tuple(
            (f"{part}/{path}", name, part) for part in ("train", "test") for path, name in read_labelme(root / part)
        ),
        notes=("LabelMe is read as LabelMe-12-50k: 12 objects, and clutter where no object stands in the centre",),
    )


def _sdss17(place: Path, quiet: bool) -> Arrays:
    table = (
        _fetch_kaggle("fedesoriano/stellar-classification-dataset-sdss17", place, quiet=quiet)
        / "star_classification.csv"
    )
    pixels, labels, num_left_out = sdss.read_table(table)
    notes = [
        "SDSS17 is a table; its rows are drawn as pictures of colours, brightness and redshift (tandem/data/sdss.py)"
    ]
    if num_left_out:
        notes.append(f"{num_left_out} rows without all five magnitudes are left out")
    return Arrays(
        classes=sdss.CLASSES,
        pixels=pixels,
        labels=labels,
        parts=(None,) * len(labels),
        files=(table,),
        notes=tuple(notes),
    )


def _vegetables(place: Path, quiet: bool) -> ClassFolders:
    return ClassFolders(root=_with_train(_fetch_kaggle("misrakahmed/vegetable-image-dataset", place, quiet=quiet)))


def _birds(num_species: int, place: Path, quiet: bool) -> ClassFolders:
    # Kaggle gives the publisher's newest version, so earlier ones with fewer species come from the user.
    handle = "gpiosenka/100-bird-species"
    root = _with_train(_fetch_kaggle(handle, place, quiet=quiet))
    if root.is_relative_to(place):
        return ClassFolders(root=root)
    found = len([folder for folder in (root / "train").iterdir() if folder.is_dir()])
    if found != num_species:
        raise UserError(
            f"data.source: {handle} on Kaggle has {found} species now, and {place.name} has {num_species}; put a copy "
            f"with {num_species} into {place} (train/, valid/ and test/ with a folder for each species), or name "
            f"birds{found}"
        )
    return ClassFolders(root=root)


def _imagenette(place: Path, quiet: bool) -> ClassFolders:
    archive = RemoteFile(
        url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",
        checksum="md5:fe2fc210e6bb7c5664d602c3cd71e612",
    )
    root = place / "imagenette2"
    _fetch_unpacked(archive, root.name, place, quiet=quiet)
    return ClassFolders(root=root, names={wordnet_id: name for name, wordnet_id in IMAGENETTE_WORDNET_IDS.items()})


def _flowers(place: Path, quiet: bool) -> ImageFiles:
    checksums = {
        "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
        "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
    }
    archive = RemoteFile(url=FLOWERS + "102flowers.tgz", checksum="md5:52808999861908f626f3c1f4e79d11fa")
    fetch(_files(FLOWERS, checksums), place, quiet=quiet)
    _fetch_unpacked(archive, "jpg", place, quiet=quiet)
    return ImageFiles(
        root=place,
        classes=FLOWER_CLASSES,
        images=tuple((f"jpg/{file}", FLOWER_CLASSES[label], part) for file, label, part in read_flowers(place)),
    )


def _files(url: str, checksums: dict[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(url=url + name, checksum=checksum) for name, checksum in checksums.items())


def _fetch_unpacked(archive: RemoteFile, folder: str, place: Path, *, quiet: bool) -> None:
    """A folder of this name stands in `place` afterwards, from the archive if it is not there yet."""
    if not (place / folder).is_dir():
        fetch((archive,), place, quiet=quiet)
        unpack(place / archive.name, folder, place / folder, quiet=quiet)


def _fetch_kaggle(handle: str, place: Path, *, quiet: bool) -> Path:
    """`place` where the user has put something there, otherwise where Kaggle's library has put its download."""
    link = place / KAGGLE_LINK
    if link.is_dir():
        return link.resolve()
    if any(not path.name.startswith(".") for path in place.iterdir()):
        return place
    say(f"Downloading https://www.kaggle.com/datasets/{handle}", quiet=quiet)
    downloaded = fetch_from_kaggle(handle, place.parents[1], place)
    link.unlink(missing_ok=True)
    link.symlink_to(downloaded)
    return downloaded.resolve()


def _with_train(folder: Path) -> Path:
    """The folder itself or, where that has no train/, one in it that does: archives hold a folder of their own."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return next((path for path in (folder, *inside) if (path / "train").is_dir()), folder)


READERS: dict[str, Callable[[Path, bool], LabelledImages]] = {
    "mnist": partial(
        _mnist,
        MNIST,
        {
            "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
        },
        tuple("0123456789"),
    ),
    "fashion_mnist": partial(
        _mnist,
        FASHION_MNIST,
        {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
        FASHION_CLASSES,
    ),
    # the MD5 sums of the binary versions stand on CIFAR's own page
    "cifar10": partial(
        _cifar,
        RemoteFile(url=CIFAR + "cifar-10-binary.tar.gz", checksum="md5:c32a1d4ab5d03f1284b67883e8d87530"),
        "cifar-10-batches-bin",
        "batches.meta.txt",
        1,
    ),
    "cifar100": partial(
        _cifar,
        RemoteFile(url=CIFAR + "cifar-100-binary.tar.gz", checksum="md5:03b5dce01913d631647c71ecec9e9cb8"),
        "cifar-100-binary",
        "fine_label_names.txt",
        2,
    ),
    "caltech101": _caltech101,
    "labelme": _labelme,
    "sdss17": _sdss17,
    "vegetables": _vegetables,
    "birds300": partial(_birds, 300),
    "birds400": partial(_birds, 400),
    "birds525": partial(_birds, 525),
    "imagenette": _imagenette,
    "flowers": _flowers,
}
"""By name; called with the data set's folder, which exists, and quiet."""
