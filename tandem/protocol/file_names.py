"""Names of files and folders: as text, endings of images, and folders that belong to a system or are no classes."""

from __future__ import annotations

import os
import re
import unicodedata

IMAGE_ENDINGS = frozenset(
    (
        ".apng", ".avif", ".avifs", ".bmp", ".bw", ".dcm", ".dds", ".dib", ".dicom", ".gif", ".heic", ".heics",
        ".heif", ".heifs", ".hif", ".icb", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
        ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd",
        ".qoi", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp",
    )
)  # fmt: skip
"""Endings of image files. Files with other endings are looked into only when images are listed."""

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl")

MARKS = ("@", "#", "$", "~")
"""First letters that many folders of systems have, and few classes."""

# Folders that operating systems, network storage, archives and notebooks put beside a user's own. Hidden folders, whose
# names begin with a dot, are theirs too.
SYSTEM_FOLDERS = frozenset(
    (
        *("lost+found", "recycler", "recycled", "system volume information", "_trash", "_recycle"),
        *("__macosx", "_macosx", "__pycache__", "_gsdata_", "_thumbs", "_thumbnails", "network trash folder"),
        *("temporary items", "trashes", "resource.frk", "dfsrprivate", "desktop folder", "thevolumesettingsfolder"),
        *("ipynb_checkpoints", "_vti_cnf", "_notes", "_thumb", "node_modules", "mlruns", "mlartifacts", "wandb"),
        *("lightning_logs", "site-packages"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "@__thumb", "@sharesnap", "@appstore"),
        *("#recycle", "#snapshot", "~snapshot", "~tmp", "$recycle.bin", "$recycled", "$extend", "$windows.~bt"),
        *("$windows.~ws", "$winreagent", "$sysreset", "$getcurrent", "$av_asw"),
    )
)

NO_CLASSES = frozenset(
    (
        *("image", "images", "img", "imgs", "picture", "pictures", "jpegimages", "data", "dataset", "raw"),
        *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations"),
        *("trimaps", "bboxes", "ground_truth", "groundtruth", "thumbnails", "thumbs"),
    )
)
"""Names, in lower case, of folders that data sets have beside each other, and that nobody gives to classes."""


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC); macOS and its archives write names decomposed (NFD)."""
    return unicodedata.normalize("NFC", name)


def text_of(name: str) -> str:
    """A file's name as UTF-8, whatever the locale is; bytes that are not UTF-8 become surrogates."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """True if a name from text_of has no bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_system_folder(name: str) -> bool:
    """True for the name of a folder that belongs to a system and not to the user's images."""
    folded = name.casefold()
    return name.startswith(".") or folded in SYSTEM_FOLDERS or bool(re.fullmatch(r"found\.\d{3}", folded))
