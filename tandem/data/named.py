"""Data sets that are downloaded by name: their publishers' addresses, and readers that make labelled images of them.

Each has a folder <cache folder>/datasets/<name>. Files that the user puts there are used without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tandem.data import sdss
from tandem.data.console import say
from tandem.data.download import (
    RemoteFile,
    fetch,
    fetch_from_kaggle,
    keep_checksum,
    one_process_at_a_time,
    unpack,
)
from tandem.data.formats import (
    CLUTTER,
    LABELME_CLASSES,
    DamagedFile,
    read_cifar,
    read_flowers,
    read_idx,
    read_labelme,
    read_names,
)
from tandem.errors import UserError


def _files(folder_url: str, checksums: dict[str, str | None]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(url=folder_url + name, checksum=checksum) for name, checksum in checksums.items())


# Publishers' addresses, with torchvision 0.29's MD5 sums unless a comment says otherwise.
DOWNLOADS: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _files(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": _files(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    # MD5 sums of CIFAR's own page. The binary version: the Python version is a pickle, and reading a pickle runs code.
    "cifar10": _files(
        "https://www.cs.toronto.edu/~kriz/", {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}
    ),
    "cifar100": _files(
        "https://www.cs.toronto.edu/~kriz/", {"cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"}
    ),
    "caltech101": _files(
        "https://data.caltech.edu/records/mzrjq-6wc02/files/",
        {"caltech-101.zip": "md5:3138e1922a9193bfa496528edbbc45d0"},
    ),
    # the University of Bonn publishes no checksum
    "labelme": _files("http://www.ais.uni-bonn.de/deep_learning/", {"LabelMe-12-50k.tar.gz": None}),
    "imagenette": _files(
        "https://s3.amazonaws.com/fast-ai-imageclas/", {"imagenette2.tgz": "md5:fe2fc210e6bb7c5664d602c3cd71e612"}
    ),
    "flowers": _files(
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        {
            "102flowers.tgz": "md5:52808999861908f626f3c1f4e79d11fa",
            "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
            "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
        },
    ),
}

KAGGLE_HANDLES = {
    "sdss17": "fedesoriano/stellar-classification-dataset-sdss17",
    "vegetables": "misrakahmed/vegetable-image-dataset",
    "birds300": "gpiosenka/100-bird-species",
    "birds400": "gpiosenka/100-bird-species",
    "birds525": "gpiosenka/100-bird-species",
}

KAGGLE_LINK = ".kaggle"
"""Link in a data set's folder to the download of Kaggle's library, which needs the network to find it again."""

NUM_BIRDS = {"birds300": 300, "birds400": 400, "birds525": 525}

MNIST_CLASSES = {
    "mnist": tuple("0123456789"),
    # in the order of the labels, from the README of zalandoresearch/fashion-mnist
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip

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
"""WordNet ids, the names of Imagenette's class folders, by class in the order of the labels."""

CALTECH_BACKGROUND = "BACKGROUND_Google"
"""The 102nd folder of Caltech 101, with images of anything, which is not one of its classes."""

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
"""Names of Oxford 102 Flowers' classes in the order of the labels; from torchvision, since the files lack them."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Images of a data set that has no image files."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    pixels: np.ndarray
    """uint8 of shape (images, height, width), or (images, height, width, 3) for RGB."""
    labels: np.ndarray
    """Indices into `classes`, of shape (images,)."""
    parts: tuple[str | None, ...]
    """Part of each image: train, val, test or None."""
    files: tuple[Path, ...]
    """Files that the arrays were read from."""
    notes: tuple[str, ...] = ()
    """Lines that users should know about the data set."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Image files whose classes are listed in another file."""

    root: Path
    """Folder of the image files."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    images: tuple[tuple[str, str, str | None], ...]
    """Path in the folder, class, and part (train, val, test or None) of each image."""
    notes: tuple[str, ...] = ()
    """Lines that users should know about the data set."""


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """A folder of class folders, or of train/, val/ and test/ with class folders, as a user may have."""

    root: Path
    """The folder."""
    names: dict[str, str] | None = None
    """Class of each class folder, in the order of the labels; None if the folders are called like their classes."""
    parts: dict[str, str] | None = None
    """Use of the publisher's parts, such as {"val": "test"}; None if they are used as they are called."""
    notes: tuple[str, ...] = ()
    """Lines that users should know about the data set."""


LabelledImages = Arrays | ImageFiles | ClassFolders


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """Files of CIFAR's binary version."""

    folder: str
    """Folder in the archive."""
    names: str
    """File with the classes' names."""
    train: tuple[str, ...]
    """Files of the training images."""
    test: str
    """File of the test images."""
    label_bytes: int
    """Bytes of labels before each image."""


CIFAR_LAYOUTS = {
    "cifar10": CifarLayout(
        folder="cifar-10-batches-bin",
        names="batches.meta.txt",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        label_bytes=1,
    ),
    "cifar100": CifarLayout(
        folder="cifar-100-binary", names="fine_label_names.txt", train=("train.bin",), test="test.bin", label_bytes=2
    ),
}


def load(name: str, cache_folder: Path, *, quiet: bool) -> LabelledImages:
    """Reads a data set, which is downloaded first if it is not there.

    Args:
        name: One of READERS.
        cache_folder: Folder for downloads.
        quiet: Prints nothing and shows no progress bar, except that of Kaggle's library, which cannot be switched off.

    Raises:
        UserError: The data set cannot be downloaded, or is damaged; the message says where to put it.
    """
    place = folder_of(name, cache_folder)
    with one_process_at_a_time(place, quiet=quiet):
        try:
            return READERS[name](name, place, quiet)
        except DamagedFile as error:
            raise UserError(f"data.source: {error}; remove {place}, and {name} is downloaded again") from None


def folder_of(name: str, cache_folder: Path) -> Path:
    """Folder of a data set's files, which the user may fill."""
    return cache_folder.resolve() / "datasets" / name


def _mnist(name: str, place: Path, quiet: bool) -> Arrays:
    files = DOWNLOADS[name]
    fetch(files, place, quiet=quiet)
    paths = [place / file.name for file in files]
    pixels, labels = [read_idx(path) for path in paths[::2]], [read_idx(path) for path in paths[1::2]]
    return Arrays(
        classes=MNIST_CLASSES[name],
        pixels=np.concatenate(pixels),
        labels=np.concatenate(labels).astype(np.int64),
        parts=("train",) * len(labels[0]) + ("test",) * len(labels[1]),
        files=tuple(paths),
    )


def _cifar(name: str, place: Path, quiet: bool) -> Arrays:
    layout = CIFAR_LAYOUTS[name]
    folder = place / layout.folder
    _fetch_unpacked(name, layout.folder, place, quiet=quiet)
    classes = read_names(folder / layout.names)
    train, test = [folder / file for file in layout.train], folder / layout.test
    train_pixels, train_labels = read_cifar(train, layout.label_bytes)
    test_pixels, test_labels = read_cifar([test], layout.label_bytes)
    labels = np.concatenate([train_labels, test_labels])
    if labels.max(initial=0) >= len(classes):
        raise DamagedFile(f"{folder} has more labels than the {len(classes)} names in {layout.names}")
    return Arrays(
        classes=classes,
        pixels=np.concatenate([train_pixels, test_pixels]),
        labels=labels,
        parts=("train",) * len(train_labels) + ("test",) * len(test_labels),
        files=(*train, test, folder / layout.names),
    )


def _caltech101(name: str, place: Path, quiet: bool) -> ClassFolders:
    root = place / "101_ObjectCategories"
    if not root.is_dir():
        fetch(DOWNLOADS[name], place, quiet=quiet)
        packed = place / "101_ObjectCategories.tar.gz"
        unpack(place / DOWNLOADS[name][0].name, f"caltech-101/{packed.name}", packed, quiet=quiet)
        try:
            unpack(packed, root.name, root, quiet=quiet)
        finally:
            packed.unlink()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return ClassFolders(
        root=root,
        names={folder: folder for folder in folders if folder != CALTECH_BACKGROUND},
        notes=(f"{CALTECH_BACKGROUND} is not a class of Caltech 101 and is left out",),
    )


def _labelme(name: str, place: Path, quiet: bool) -> ImageFiles:
    root = place / "LabelMe-12-50k"
    _fetch_unpacked(name, root.name, place, quiet=quiet)
    return ImageFiles(
        root=root,
        classes=(*LABELME_CLASSES, CLUTTER),
        images=tuple(
            (f"{part}/{path}", class_name, part)
            for part in ("train", "test")
            for path, class_name in read_labelme(root / part)
        ),
        notes=("LabelMe is read as LabelMe-12-50k: 12 objects, and clutter if no object is in the centre",),
    )


def _sdss17(name: str, place: Path, quiet: bool) -> Arrays:
    table = _fetch_kaggle(name, place, quiet=quiet) / "star_classification.csv"
    if not table.is_file():
        raise UserError(f"data.source: {table} does not exist; put the table there, or empty the folder to download it")
    pixels, labels, num_left_out = sdss.read_table(table)
    notes = ["a table whose rows are drawn as images of colour, brightness and redshift (tandem/data/sdss.py)"]
    if num_left_out:
        notes.append(f"rows left out because a magnitude or the redshift is missing: {num_left_out}")
    return Arrays(
        classes=sdss.CLASSES,
        pixels=pixels,
        labels=labels,
        parts=(None,) * len(labels),
        files=(table,),
        notes=tuple(notes),
    )


def _vegetables(name: str, place: Path, quiet: bool) -> ClassFolders:
    return ClassFolders(root=_with_train(_fetch_kaggle(name, place, quiet=quiet)))


def _birds(name: str, place: Path, quiet: bool) -> ClassFolders:
    folder = _fetch_kaggle(name, place, quiet=quiet)
    root = _with_train(folder)
    species = root / "train" if (root / "train").is_dir() else root
    found = sum(path.is_dir() and not path.name.startswith(".") for path in species.iterdir())
    if found != NUM_BIRDS[name]:
        # Kaggle has the publisher's newest version alone; users have to bring the ones with fewer species.
        where = root if folder == place else f"{KAGGLE_HANDLES[name]} on Kaggle now"
        raise UserError(
            f"data.source: {where} has {found} species, {name} has {NUM_BIRDS[name]}; put a copy with "
            f"{NUM_BIRDS[name]} into {place} (train/, valid/ and test/ with a folder for each species), or take "
            f"another of {', '.join(NUM_BIRDS)}, or a folder of any number by its own path"
        )
    return ClassFolders(root=root)


def _imagenette(name: str, place: Path, quiet: bool) -> ClassFolders:
    root = place / "imagenette2"
    _fetch_unpacked(name, root.name, place, quiet=quiet)
    # The publisher has no test images; the document on Imagenette tested on its validation images.
    return ClassFolders(
        root=root,
        names={wordnet_id: class_name for class_name, wordnet_id in IMAGENETTE_WORDNET_IDS.items()},
        parts={"train": "train", "val": "test"},
    )


def _flowers(name: str, place: Path, quiet: bool) -> ImageFiles:
    archive, *labels = DOWNLOADS[name]
    fetch(tuple(labels) if (place / "jpg").is_dir() else (archive, *labels), place, quiet=quiet)
    _fetch_unpacked(name, "jpg", place, quiet=quiet)
    return ImageFiles(
        root=place,
        classes=FLOWER_CLASSES,
        images=tuple((f"jpg/{file}", FLOWER_CLASSES[label], part) for file, label, part in read_flowers(place)),
    )


def _fetch_unpacked(name: str, folder: str, place: Path, *, quiet: bool) -> None:
    """Makes sure that `place` has this folder, if need be from the first of the data set's files, an archive."""
    archive = DOWNLOADS[name][0]
    if not (place / folder).is_dir():
        fetch((archive,), place, quiet=quiet)
        unpack(place / archive.name, folder, place / folder, quiet=quiet)
        keep_checksum(archive, place, quiet=quiet)


def _fetch_kaggle(name: str, place: Path, *, quiet: bool) -> Path:
    """Folder of a data set from Kaggle: `place` if the user has put files there, otherwise the library's download."""
    link = place / KAGGLE_LINK
    if any(not path.name.startswith(".") for path in place.iterdir()):
        return place
    if not link.is_dir():
        say(f"Downloading https://www.kaggle.com/datasets/{KAGGLE_HANDLES[name]}", quiet=quiet)
        downloaded = fetch_from_kaggle(KAGGLE_HANDLES[name], place.parents[1], place)
        link.unlink(missing_ok=True)
        link.symlink_to(downloaded.resolve())
    return link.resolve()


def _with_train(folder: Path) -> Path:
    """The folder with train/ in it: this one, or one in it, since archives often hold a single folder."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return next((path for path in (folder, *inside) if (path / "train").is_dir()), folder)


READERS: dict[str, Callable[[str, Path, bool], LabelledImages]] = {
    "mnist": _mnist,
    "fashion_mnist": _mnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "caltech101": _caltech101,
    "labelme": _labelme,
    "sdss17": _sdss17,
    "vegetables": _vegetables,
    "birds300": _birds,
    "birds400": _birds,
    "birds525": _birds,
    "imagenette": _imagenette,
    "flowers": _flowers,
}
"""Functions that read each data set, called with its name, its folder, which exists, and quiet."""
