from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.publisher import Publisher, publish

WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Writes images of noise, each different, into folders: write_images({"cat": 5, "train/dog": 3})."""

    def write(folders: dict[str, int], size: tuple[int, int] = (12, 10), root: str = "pets") -> Path:
        for folder, number in folders.items():
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                path = tmp_path / root / folder / f"{index:03d}.png"
                random = np.random.default_rng(zlib.crc32(f"{folder}/{index}".encode()))
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
        return tmp_path / root

    return write


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A server on this machine, also of what goes to Kaggle."""
    with publish() as server:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, server.address)  # http://localhost is Kaggle's service, as told below
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
        yield server
