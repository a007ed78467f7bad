from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.small_runs import assert_same_outputs

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture(scope="module")
def store(new_store: Callable[[], Any]) -> Any:
    return new_store()


@pytest.fixture(scope="module")
def cells(store: Any, train: Callable[..., Any]) -> dict[str, Any]:
    """A run of one epoch per phase on each of Keras's backends."""
    # statistics of batch norm that follow within one epoch, so that outputs differ between images
    words = ["--config", "settings.yaml", "--max_epochs", "1", "--batch_norm_momentum", "0.1"]
    runs = {}
    for backend in BACKENDS:
        # JAX uses the threads that the process may use, and refuses a number of threads
        threads = ["--threads", "null"] if backend == "jax" else []
        done = train("keras", *words, *threads, cwd=store.folder, KERAS_BACKEND=backend)
        assert done.returncode == 0, done.stderr
        runs[backend] = store.only_run("pair", done, backend=backend)
    return runs


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_finishes_a_run_with_the_same_names(cells: dict[str, Any], backend: str) -> None:
    run, reference = cells[backend], cells["tensorflow"]
    assert run.run.info.status == "FINISHED"
    assert run.tags["tandem.framework"] == "keras" and f"tandem.version.{backend}" in run.tags
    assert set(run.metrics) == set(reference.metrics)
    assert set(run.run.data.params) == set(reference.run.data.params)
    assert run.tags["tandem.phase_1.backbone_before"] == run.tags["tandem.phase_1.backbone_after"]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_gets_the_same_images_and_batches(cells: dict[str, Any], backend: str) -> None:
    run, reference = cells[backend], cells["tensorflow"]
    for tag in ("settings_hash", "split_hash", "test_hash", "batches_hash"):
        assert run.tags[f"tandem.{tag}"] == reference.tags[f"tandem.{tag}"]
    assert run.predictions()["key"].tolist() == reference.predictions()["key"].tolist()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_served_model_of_a_backend_gives_the_logged_predictions(
    cells: dict[str, Any], store: Any, serve: Callable[..., pd.DataFrame], backend: str
) -> None:
    answer = serve(cells[backend], store.uri, KERAS_BACKEND=backend).filter(like="probability:")
    assert answer.shape == (100, 5)
    assert_same_outputs(answer, cells[backend].probabilities(), atol=1e-5)


def test_unknown_backend_is_refused_in_one_line(new_store: Callable[[], Any], train: Callable[..., Any]) -> None:
    store = new_store()
    done = train("keras", "--config", "settings.yaml", cwd=store.folder, KERAS_BACKEND="theano")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith("train_keras.py: error: ") and "theano" in message and "tensorflow" in message
