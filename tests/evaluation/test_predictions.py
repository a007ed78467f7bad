from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tandem.errors import TrainingDiverged, UserError
from tandem.evaluation.predictions import Predictions, align, softmax

STRANGE_NAMES = ("key", "truth", "a,b", "c/d", "probability:key", "ääh 鳥 🐦", "", "0", 'quote"s', "predicted")


def make_predictions(*, classes: tuple[str, ...] = STRANGE_NAMES, images: int = 40) -> Predictions:
    random = np.random.default_rng(3)
    return Predictions(
        keys=tuple(f"folder/{index}.jpg" for index in range(images)),
        hashes=tuple(f"{index:064x}" for index in range(images)),
        truth=random.integers(0, len(classes), images),
        probabilities=softmax(random.normal(size=(images, len(classes))) * 5),
        classes=classes,
    )


def test_softmax_of_known_logits() -> None:
    probabilities = softmax(np.log([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]).astype(np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, [[0.125, 0.25, 0.625], [0.375, 0.375, 0.25]], rtol=1e-6)


def test_softmax_of_huge_logits_stays_finite() -> None:
    logits = np.array([[1e4, -1e4, 0], [-3e38, -3e38, -3e38]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


def test_softmax_leaves_its_input_unchanged() -> None:
    logits = np.ones((2, 2))
    softmax(logits)
    np.testing.assert_array_equal(logits, np.ones((2, 2)))


def test_predictions_read_from_a_file_are_equal_to_the_bit(tmp_path: Path) -> None:
    written = make_predictions()
    written.write(tmp_path / "final" / "a:b.parquet")
    read = Predictions.read(tmp_path / "final" / "a:b.parquet")
    assert (read.keys, read.hashes, read.classes) == (written.keys, written.hashes, written.classes)
    np.testing.assert_array_equal(read.truth, written.truth)
    assert read.truth.dtype == np.int64
    assert read.probabilities.tobytes() == written.probabilities.tobytes()


def test_file_can_be_read_by_other_programs(tmp_path: Path) -> None:
    predictions = make_predictions(classes=("cat", "dog"))
    predictions.write(tmp_path / "predictions.parquet")
    frame = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(frame.columns) == ["key", "hash", "truth", "predicted", "probability:cat", "probability:dog"]
    assert frame["truth"].tolist() == [("cat", "dog")[index] for index in predictions.truth]
    more_likely = np.where(frame["probability:dog"] > frame["probability:cat"], "dog", "cat")
    assert frame["predicted"].tolist() == more_likely.tolist()


def test_lowest_class_is_predicted_for_equal_probabilities() -> None:
    predictions = Predictions(
        keys=("a", "b"),
        hashes=("1", "2"),
        truth=np.array([0, 0]),
        probabilities=np.array([[0.2, 0.4, 0.4], [0.5, 0, 0.5]], np.float32),
        classes=("x", "y", "z"),
    )
    assert predictions.predicted.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hashes": ("1",)}, "one hash for each of 2 images"),
        ({"truth": np.array([0, 3])}, "0..2.*Received: 0..3"),
        ({"truth": np.array([0, -1])}, "0..2.*Received: -1..0"),
        ({"truth": np.array([0, 1], np.int32)}, "truth has to be int64"),
        ({"probabilities": np.ones((2, 2), np.float32)}, r"shape \(2, 3\).*Received: float32 of shape \(2, 2\)"),
        ({"probabilities": np.ones((2, 3))}, "Received: float64"),
        ({"probabilities": np.full((2, 3), 3, np.float32)}, "logits need softmax first"),
        ({"classes": ("x", "y", "x")}, "class names have to differ"),
        ({"keys": (), "hashes": ()}, "predictions need images"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    fields = {
        "keys": ("a", "b"),
        "hashes": ("1", "2"),
        "truth": np.array([0, 1]),
        "probabilities": np.full((2, 3), 1 / 3, np.float32),
        "classes": ("x", "y", "z"),
    }
    Predictions(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Predictions(**(fields | change))  # type: ignore[arg-type]


def test_output_that_is_not_a_number_is_called_divergence() -> None:
    with pytest.raises(TrainingDiverged, match="1 of 2 images"):
        Predictions(
            keys=("a", "b"),
            hashes=("1", "2"),
            truth=np.array([0, 1]),
            probabilities=softmax(np.array([[1.0, 2.0], [np.nan, 0.0]])),
            classes=("x", "y"),
        )


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.parquet: No such file"):
        Predictions.read(tmp_path / "none.parquet")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.parquet"
    make_predictions().write(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"half\.parquet is not a complete Parquet file"):
        Predictions.read(path)


def test_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"height": [1, 2], "width": [3, 4]}), path)
    with pytest.raises(UserError, match=r"Parquet file without predictions of a Tandem run.*height, width"):
        Predictions.read(path)


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    make_predictions().write(path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=r"empty\.parquet holds no images"):
        Predictions.read(path)


def test_file_that_lacks_a_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    make_predictions().write(path)
    pq.write_table(pq.read_table(path).drop_columns(["probability:c/d"]), path)
    with pytest.raises(UserError, match=r"damaged predictions.*c/d"):
        Predictions.read(path)


def test_aligned_runs_stand_image_by_image(make_run: Callable[..., Predictions]) -> None:
    run, other = make_run(0), make_run(1)
    order = np.random.default_rng(0).permutation(len(other.keys))
    shuffled = replace(
        other,
        keys=tuple(other.keys[row] for row in order),
        hashes=tuple(other.hashes[row] for row in order),
        truth=other.truth[order],
        probabilities=other.probabilities[order],
    )
    first, second = align([run, shuffled])
    assert first.hashes == second.hashes == tuple(sorted(run.hashes))
    assert first.keys == second.keys
    row = first.keys.index("17.png")
    np.testing.assert_array_equal(first.probabilities[row], run.probabilities[17])
    np.testing.assert_array_equal(second.probabilities[row], other.probabilities[17])


def test_runs_of_other_images_or_classes_are_not_aligned(make_run: Callable[..., Predictions]) -> None:
    run = make_run(0)
    with pytest.raises(UserError, match="different images"):
        align([run, make_run(0, test_set=1)])
    with pytest.raises(UserError, match="classes of runs 1 and 2 differ"):
        align([run, replace(run, classes=run.classes[::-1])])
