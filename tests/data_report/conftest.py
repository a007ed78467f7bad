from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tandem.data.prepare import PreparedData, prepare
from tandem.protocol.settings import DataSettings


@pytest.fixture(scope="session")
def messy_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """13 owls and 6 emus, among them an exact copy, a grey one in another part and a blank; and two broken files."""
    folder = tmp_path_factory.mktemp("messy")
    birds = folder / "birds"
    names = {"train/owl": range(9), "train/emu": range(3), "test/owl": range(2), "test/emu": range(2)}
    scenes: dict[str, Image.Image] = {}
    for seed, name in enumerate(f"{of_class}/{number}" for of_class, numbers in names.items() for number in numbers):
        # large soft spots of colour, which like a photograph have most of their detail at low frequencies
        spots = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        scenes[name] = Image.fromarray(spots).resize((64 + 4 * seed, 60), Image.Resampling.BICUBIC)
        (birds / name).parent.mkdir(parents=True, exist_ok=True)
        scenes[name].save(birds / f"{name}.png")
    (birds / "train/owl/copy.png").write_bytes((birds / "train/owl/0.png").read_bytes())
    scenes["test/owl/1"].convert("L").save(birds / "train/owl/compressed.jpg", quality=80)
    Image.new("RGB", (64, 60), (9, 9, 9)).save(birds / "test/emu/blank.png")
    (birds / "train/emu/text.jpg").write_text("this is a text")
    (birds / "train/emu/empty.jpg").touch()
    (birds / "train/emu/drawing.svg").touch()
    (birds / "test/owl/notes.txt").touch()
    settings = DataSettings(
        source=str(birds),
        image_size=48,
        split="publisher",
        fractions=[0.6, 0.2, 0.2],
        on_bad_image="skip",
        cache_folder=str(folder / "cache"),
    )
    return prepare(settings, quiet=True)


@pytest.fixture(scope="session")
def plain_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """scikit-learn's digits: no files, no near duplicates, one size."""
    return prepare(DataSettings(cache_folder=str(tmp_path_factory.mktemp("cache"))), quiet=True)
