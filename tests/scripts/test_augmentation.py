from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

FRAMEWORKS = ("torch", "keras")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_frameworks_train_on_the_same_augmented_batches(
    new_store: Callable[[], Any], train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> None:
    store = new_store()
    random = np.random.default_rng(0)
    for index in range(40):
        # in two sizes, so that images are stored at the network's size and, for the crops, at 37 x 37 pixels
        pixels = random.integers(0, 256, (48, 60 if index % 2 else 64, 3), dtype=np.uint8)
        path = store.folder / "images" / f"class_{index % 4}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    plain = ["--config", "settings.yaml", "--regime", "frozen", "--max_epochs", "1", "--tracking.log_model", "false"]
    plain += ["--data.source", "images", "--data.classes", "null", "--data.images_per_class", "null"]
    augmented = [*plain, "--augmentation.horizontal_flip", "true", "--augmentation.crop_padding", "2"]
    augmented += ["--augmentation.random_resized_crop", "[0.2, 1.0]", "--augmentation.hue", "0.1"]
    augmented += ["--augmentation.vertical_flip", "true", "--augmentation.rotation", "15"]
    augmented += ["--test_time_augmentation", "flip_and_crops"]
    augmented += ["--augmentation.policy", "rand_augment", "--augmentation.random_erasing", "0.5"]
    for name in ("brightness", "contrast", "saturation"):
        augmented += [f"--augmentation.{name}", "0.4"]

    # classes of 8 to 12 images
    for index in (0, 4, 8):
        (store.folder / "images" / "class_0" / f"{index}.png").unlink()
    mixed = [*augmented, "--mixing.mixup_alpha", "0.2", "--mixing.cutmix_alpha", "1", "--loss.label_smoothing", "0.1"]
    mixed += ["--loss.class_weights", "balanced", "--sampling", "balanced"]

    def train_in_all_ways(framework: str) -> list[Any]:
        runs = []
        for experiment, words in (("plain", plain), ("augmented", augmented), ("mixed", mixed)):
            done = train(framework, *words, "--tracking.experiment", experiment, cwd=store.folder)
            assert done.returncode == 0, done.stderr
            runs.append(store.only_run(experiment, done, framework=framework))
        return runs

    runs = in_both(train_in_all_ways)
    hashes = {
        name: [[run.tags[f"tandem.{name}"] for run in runs[framework]] for framework in FRAMEWORKS]
        for name in ("batches_hash", "test_hash")
    }
    assert hashes["batches_hash"][0] == hashes["batches_hash"][1]
    assert len(set(hashes["batches_hash"][0])) == 3
    assert len({value for values in hashes["test_hash"] for value in values}) == 1
    for of_framework in runs.values():
        without, with_views, _ = (run.metrics for run in of_framework)
        assert with_views["tta/views"] == 12 and 0 <= with_views["tta/test/accuracy"] <= 1
        assert not any(name.startswith("tta/") for name in without)
    assert sorted(np.load(path, mmap_mode="r").shape for path in store.folder.glob("cache/stores/*/images.npy")) == [
        (37, 32, 32, 3),
        (37, 37, 37, 3),
    ]
    for framework in FRAMEWORKS:
        params = runs[framework][2].run.data.params
        assert (params["mixing.mixup_alpha"], params["loss.class_weights"], params["sampling"]) == (
            "0.2",
            "balanced",
            "balanced",
        )
