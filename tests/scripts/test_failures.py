from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tandem.tracking import vocabulary

FRAMEWORKS = ("torch", "keras")
ROOT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------------------------------------- before the framework


REFUSED_AT_ONCE = {
    "a configuration that is not there": ("--config x.yaml --regime frozen", ["config", "x.yaml"]),
    "an unknown setting": ("--regme frozen", ["regme", "regime"]),
    "a value out of range": ("--batch_size 1", ["batch_size", "1", "at least 2"]),
    "a wrong type": ("--data.image_size wide", ["data.image_size", "wide", "whole number"]),
    "a wrong word": ("--regime thaw", ["regime", "thaw", "two_stage"]),
    "a weight file that is not there": ("--weights lacking.weights", ["weights", "lacking.weights", "no such file"]),
    "an unknown backbone": ("--backbone resnet51", ["backbone", "resnet51", "resnet50"]),
    "a precision of GPUs": ("--precision float16 --device cpu", ["precision", "float16", "bfloat16"]),
}


@pytest.mark.parametrize("what", REFUSED_AT_ONCE)
def test_wrong_settings_are_one_line_and_leave_no_files(
    what: str, train: Callable[..., Any], in_both: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    words, told = REFUSED_AT_ONCE[what]
    for framework, done in in_both(lambda framework: train(framework, *words.split(), cwd=tmp_path)).items():
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.endswith("\n") and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"train_{framework}.py: error: {told[0]}: ")
        assert all(word in done.stderr for word in told)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- data and tracking


def the_message(done: Any, framework: str) -> str:
    """The error message at the end of the output; libraries may have printed warnings before it."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    _, begin, message = done.stderr.partition(f"train_{framework}.py: error: ")
    assert begin and "error: " not in message
    return message


@pytest.fixture(scope="module")
def spoiled(new_store: Callable[[], Any]) -> Any:
    """A store with a folder of images: three are truncated, one is a text file, and one class is empty."""
    store = new_store()
    images = store.folder / "images"
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (images / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / name / f"{number}.jpg")
    for key in ("ant/3.jpg", "ant/7.jpg", "bee/0.jpg"):
        whole = (images / key).read_bytes()
        (images / key).write_bytes(whole[: len(whole) * 2 // 3])
        with Image.open(images / key) as image:
            image.verify()  # does not notice the truncation
    (images / "bee" / "text.jpg").write_text("no image at all")
    (images / "wasp").mkdir()
    return store


@pytest.fixture(scope="module")
def refused(spoiled: Any, train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The scripts' messages about wrong images or a wrong place to record, which they find after their imports."""
    wrong = {
        "torch": {"bad images": "--data.source images --data.classes null", "no folder": "--data.source lacking"},
        "keras": {"no tracking": "--tracking.uri ftp://elsewhere"},
    }

    def start(framework: str) -> dict[str, str]:
        return {
            name: the_message(
                train(framework, "--config", "settings.yaml", *words.split(), cwd=spoiled.folder), framework
            )
            for name, words in wrong[framework].items()
        }

    messages = in_both(start)
    return messages["torch"] | messages["keras"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no folder", ["data.source: received 'lacking'", "allowed: digits"]),
        ("no tracking", ["ftp://elsewhere", "sqlite:///"]),
    ],
)
def test_wrong_place_is_one_line(name: str, told: list[str], refused: dict[str, str]) -> None:
    assert len(refused[name].splitlines()) == 1
    assert all(word in refused[name] for word in told)


def test_every_bad_file_is_named_in_one_message(spoiled: Any, refused: dict[str, str]) -> None:
    message = refused["bad images"]
    assert "data.source" in message and "data.on_bad_image" in message
    for key in ("ant/3.jpg", "ant/7.jpg", "bee/0.jpg", "bee/text.jpg", "wasp/"):
        assert len([line for line in message.splitlines() if key in line]) == 1, message
    assert len(message.splitlines()) == 6
    assert "ant/4.jpg" not in message
    assert not (spoiled.folder / "runs").exists()


@pytest.mark.long
def test_off_the_shelf_run_stores_no_larger_images_for_crops(
    train: Callable[..., Any], in_both: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    words = "--regime off_the_shelf --augmentation.random_resized_crop [0.5,1] --device cpu --threads 1"
    words += " --data.source images --data.image_size 32 --data.cache_folder"
    done = in_both(lambda framework: train(framework, *words.split(), f"{framework}_cache", cwd=tmp_path))
    for framework in FRAMEWORKS:
        # no class of ImageNet: the run ends after the images are stored
        assert "left" in the_message(done[framework], framework)
        assert len(list((tmp_path / f"{framework}_cache/stores").glob("*/images.npy"))) == 1


# -------------------------------------------------------------------------------------------------- ends of a run


def training_lines(folder: Path) -> int:
    """Number of epochs in the journals of a folder."""
    return sum(
        "train/loss" in entry.get("values", {})
        for journal in folder.glob(f"runs/**/{vocabulary.JOURNAL_FILE}")
        for entry in map(json.loads, complete_lines(journal))
    )


def complete_lines(journal: Path) -> list[str]:
    return [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.timeout(600)
def test_interrupted_run_ends_killed_at_once(
    start: Callable[..., subprocess.Popen[str]],
    in_both: Callable[..., dict[str, Any]],
    new_store: Callable[[], Any],
) -> None:
    def interrupt(framework: str) -> tuple[Any, int, str, str, float]:
        store = new_store()
        words = ["--config", "settings.yaml", "--regime", "frozen", "--max_epochs", "100000"]
        words += ["--early_stopping.patience", "null"]
        process = start(ROOT / f"train_{framework}.py", *words, cwd=store.folder)
        try:
            deadline = time.monotonic() + 120
            while training_lines(store.folder) < 2:
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        return store, process.returncode, output, errors, time.monotonic() - sent

    for framework, (store, status, _, errors, seconds) in in_both(interrupt).items():
        assert status == 130, errors
        assert errors.splitlines()[-1] == f"train_{framework}.py: interrupted"
        assert "Traceback" not in errors
        assert seconds < 15
        (run,) = store.runs("pair")
        assert run.info.status == "KILLED"
        # earlier measurements are kept
        assert run.data.metrics["epoch/phase"] == 1
        assert len(store.client.get_metric_history(run.info.run_id, "train/loss")) >= 2


@pytest.mark.long
@pytest.mark.timeout(600)
def test_run_that_diverges_ends_failed_with_its_traceback(
    train: Callable[..., Any], in_both: Callable[..., dict[str, Any]], new_store: Callable[[], Any]
) -> None:
    store = new_store()
    words = ["--config", "settings.yaml", "--regime", "frozen", "--learning_rate", "10"]
    # decoupled weight decay: each step multiplies the weights by 1 - 10 * 1, so that float32 overflows in 40 steps
    words += ["--optimizer.name", "adamw", "--optimizer.weight_decay", "1"]
    done = in_both(lambda framework: train(framework, *words, cwd=store.folder))
    for framework in FRAMEWORKS:
        message = the_message(done[framework], framework)
        assert len(message.splitlines()) == 1
        assert "diverged" in message and "learning_rate below 10" in message
        run = store.only_run("pair", done[framework], framework=framework)
        assert run.run.info.status == "FAILED"
        traceback = (run.artifacts / vocabulary.TRACEBACK_FILE).read_text()
        assert traceback.startswith("Traceback") and "TrainingDiverged" in traceback
        assert f"train_{framework}.py" in traceback
        assert "diverged" in run.tags["tandem.failure"]
        assert "test/accuracy" not in run.metrics
