from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tandem.errors import UserError
from tandem.protocol.search_space import Choice, Range
from tandem.protocol.settings import SweepSettings
from tandem.search.study import (
    ALIVE,
    HAVE_ENDED,
    OWNER,
    RETRIED,
    SECONDS_TO_DEATH,
    begin_trial,
    best_trial,
    end_trial,
    ended_trials,
    give_back,
    lost_trials,
    open_study,
    running_elsewhere,
    signs_of_life,
    values_of,
)

ROOT = Path(__file__).resolve().parents[2]
DIMENSIONS = (
    Range(name="learning_rate", low=1e-4, high=1e-1, log=True, whole=False),
    Range(name="batch_size", low=8, high=32, log=False, whole=True),
    Choice(name="head.hidden", values=([], [16])),
)
IDENTITY = {"settings": "abc", "objective": "val_loss"}


def open_in(folder: Path, identity: Mapping[str, Any] = IDENTITY, *, seed: int = 0, **sweep: Any) -> optuna.Study:
    study, _ = open_study(
        SweepSettings(**sweep),
        name="study",
        journal=folder / "study.journal",
        identity=identity,
        seed=seed,
        max_epochs=9,
    )
    return study


def train_one(study: optuna.Study, num_trials: int) -> bool:
    """Runs a trial whose loss is the learning rate; False if there is none left."""
    trial = begin_trial(study, DIMENSIONS, num_trials)
    return trial is not None and end_trial(study, trial, TrialState.COMPLETE, values_of(trial)["learning_rate"])


def values_in(folder: Path, num_trials: int, **options: Any) -> list[dict[str, Any]]:
    study = open_in(folder, **options)
    while train_one(study, num_trials):
        pass
    return [values_of(trial) for trial in ended_trials(study)]


def in_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Starts another process that opens `study` in the folder and runs some code."""
    begin = f"import sys, time; sys.path[:0] = {[str(ROOT)]!r}\nfrom pathlib import Path\n"
    begin += f"from tests.search.test_study import *\nstudy = open_in(Path({str(folder)!r}))\n"
    words = [sys.executable, "-c", begin + code]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ------------------------------------------------------------------------------------------------- what is suggested


def test_suggestions_are_within_the_space_and_of_its_types(tmp_path: Path) -> None:
    for values in values_in(tmp_path, 12):
        assert list(values) == [dimension.name for dimension in DIMENSIONS]
        assert 1e-4 <= values["learning_rate"] <= 1e-1
        assert isinstance(values["batch_size"], int) and 8 <= values["batch_size"] <= 32
        assert values["head.hidden"] in ([], [16])


def test_suggestions_depend_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (values_in(tmp_path / name, 12, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_continued_search_makes_the_same_suggestions(tmp_path: Path) -> None:
    # more than the ten random trials that TPE begins with
    at_once = values_in(tmp_path / "at once", 14)
    for num_trials in (3, 11, 14):
        in_parts = values_in(tmp_path / "in parts", num_trials)
    assert in_parts == at_once


def test_suggestions_come_closer_to_the_best(tmp_path: Path) -> None:
    rates = [values["learning_rate"] for values in values_in(tmp_path, 40)]
    # the loss is the rate: half of the random rates are above the middle of the logarithmic range
    assert sum(rate < 1e-3 for rate in rates[10:]) > 20


# ---------------------------------------------------------------------------------------------------- what counts


def test_study_ends_after_its_number_of_trials(tmp_path: Path) -> None:
    study = open_in(tmp_path)
    while train_one(study, 3):
        pass
    assert len(study.trials) == 3
    assert not train_one(study, 3)
    assert train_one(study, 4)


def test_pruned_and_failed_trials_count_and_are_never_the_best(tmp_path: Path) -> None:
    study = open_in(tmp_path)
    for state in (TrialState.PRUNED, TrialState.FAIL):
        trial = begin_trial(study, DIMENSIONS, 3)
        assert trial is not None and end_trial(study, trial, state)
    assert best_trial(study) is None
    assert train_one(study, 3) and not train_one(study, 3)
    best = best_trial(study)
    assert best is not None and best.number == 2
    assert [trial.state for trial in ended_trials(study)] == [TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]


def test_interrupted_trial_does_not_count_and_is_tried_again(tmp_path: Path) -> None:
    study = open_in(tmp_path)
    trial = begin_trial(study, DIMENSIONS, 2)
    assert trial is not None
    assert give_back(study, trial, "interrupted")
    assert not give_back(study, trial, "interrupted")
    study = open_in(tmp_path)
    while train_one(study, 2):
        pass
    ended = ended_trials(study)
    assert [trial.number for trial in ended] == [1, 2]
    assert values_of(ended[0]) == values_of(trial)
    assert study.trials[0].user_attrs[RETRIED] == "interrupted"


def test_hyperband_prunes_trials_that_fall_behind(tmp_path: Path) -> None:
    study = open_in(tmp_path, pruner="hyperband")
    ends = []
    for _ in range(12):
        trial = begin_trial(study, DIMENSIONS, 12)
        assert trial is not None
        epochs = 0
        while epochs < 9 and not (epochs and trial.should_prune()):
            epochs += 1
            trial.report(values_of(trial)["learning_rate"], epochs)
        end_trial(study, trial, TrialState.PRUNED if epochs < 9 else TrialState.COMPLETE, None if epochs < 9 else 1.0)
        ends.append(epochs)
    # successive halving with factor 3 looks at trials after 1, 3 and 9 epochs
    assert set(ends) <= {1, 3, 9} and len(set(ends)) > 1


def test_median_prunes_trials_from_the_sixth_on(tmp_path: Path) -> None:
    study = open_in(tmp_path)
    pruned = []
    for number in range(8):
        trial = begin_trial(study, DIMENSIONS, 8)
        assert trial is not None
        trial.report(float(number), 1)
        pruned.append(trial.should_prune())
        end_trial(study, trial, TrialState.COMPLETE, float(number))
    assert pruned == [False] * 5 + [True] * 3


def test_higher_accuracy_is_better(tmp_path: Path) -> None:
    study = open_in(tmp_path, objective="val_accuracy")
    for value in (0.5, 0.9, 0.7):
        trial = begin_trial(study, DIMENSIONS, 3)
        assert trial is not None
        end_trial(study, trial, TrialState.COMPLETE, value)
    best = best_trial(study)
    assert best is not None and best.value == 0.9


# --------------------------------------------------------------------------------------------------------- processes


def test_two_processes_share_the_trials_of_a_study(tmp_path: Path) -> None:
    code = "while train_one(study, 9): time.sleep(0.05)\n"
    processes = [in_process(code, tmp_path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    study = open_in(tmp_path)
    ended = ended_trials(study)
    assert len(ended) == 9
    assert {trial.state for trial in ended} == {TrialState.COMPLETE}
    assert len({json.dumps(values_of(trial)) for trial in ended}) == 9
    assert len({trial.user_attrs[OWNER]["process"] for trial in ended}) == 2


def test_trial_of_a_killed_process_is_lost_at_once_and_tried_again(tmp_path: Path) -> None:
    process = in_process("t = begin_trial(study, DIMENSIONS, 2); print('begun', flush=True); time.sleep(60)", tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    study = open_in(tmp_path)
    assert lost_trials(study) == [] and running_elsewhere(study) == 1
    process.kill()
    process.communicate()
    (lost,) = lost_trials(study)
    assert running_elsewhere(study) == 0
    assert give_back(study, lost, "its process has died")
    assert lost_trials(study) == []
    while train_one(study, 2):
        pass
    ended = ended_trials(study)
    assert len(ended) == 2 and values_of(ended[0]) == values_of(lost)


def test_trial_of_another_machine_is_lost_without_a_sign_of_life(tmp_path: Path) -> None:
    study = open_in(tmp_path)
    trial = begin_trial(study, DIMENSIONS, 2)
    assert trial is not None
    trial.set_user_attr(OWNER, {"machine": "another", "process": 1, "started": 0.0})
    trial.set_user_attr(ALIVE, time.time() - SECONDS_TO_DEATH / 2)
    assert lost_trials(study) == [] and running_elsewhere(study) == 1
    trial.set_user_attr(ALIVE, time.time() - 2 * SECONDS_TO_DEATH)
    assert len(lost_trials(study)) == 1 and running_elsewhere(study) == 0


def test_running_trial_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.search.study.SECONDS_BETWEEN_SIGNS_OF_LIFE", 0.05)
    study = open_in(tmp_path)
    trial = begin_trial(study, DIMENSIONS, 2)
    assert trial is not None
    trial.set_user_attr(ALIVE, 0.0)
    with signs_of_life(trial):
        time.sleep(0.5)
    assert time.time() - open_in(tmp_path).trials[0].user_attrs[ALIVE] < 60


def test_trial_that_another_process_gave_up_is_not_ended_twice(tmp_path: Path) -> None:
    study, elsewhere = open_in(tmp_path), open_in(tmp_path)
    trial = begin_trial(study, DIMENSIONS, 2)
    assert trial is not None
    assert give_back(elsewhere, elsewhere.trials[0], "no sign of life")
    assert not end_trial(study, trial, TrialState.COMPLETE, 1.0)
    assert ended_trials(study) == []
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.report(1.0, 1)


# ------------------------------------------------------------------------------------------------------------ storage


def test_study_of_other_settings_is_refused(tmp_path: Path) -> None:
    open_in(tmp_path)
    with pytest.raises(UserError, match=r"belongs to other settings \(settings differ\)"):
        open_in(tmp_path, {**IDENTITY, "settings": "other"})


def test_study_can_be_kept_in_a_database(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    assert len(values_in(tmp_path, 2, storage=storage)) == 2
    assert len(values_in(tmp_path, 3, storage=storage)) == 3
    assert not (tmp_path / "study.journal").exists()


@pytest.mark.parametrize("storage", ["study.db", "sqlite:////proc/nothing/study.db", "oracle+nothing://host/db"])
def test_database_that_cannot_be_opened_is_one_line(storage: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sweep\.storage: [^\n]*$"):
        open_in(tmp_path, storage=storage)


def test_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--tracking\.folder"):
        open_in(tmp_path / "file" / "folder")


def test_all_states_but_two_have_ended() -> None:
    assert set(TrialState) - set(HAVE_ENDED) == {TrialState.RUNNING, TrialState.WAITING}


def test_cut_last_line_of_a_journal_is_dropped_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = open_in(tmp_path)
    trial = begin_trial(study, DIMENSIONS, 3)
    assert trial is not None
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"worker_id":"0123')  # of a killed process
    again = open_in(tmp_path)
    assert (
        capsys.readouterr().err
        == f"warning: the last line of {journal} is dropped: a process was killed while it wrote it\n"
    )
    assert [found.number for found in again.trials] == [0]
    assert begin_trial(again, DIMENSIONS, 3) is not None
    assert len(open_in(tmp_path).trials) == 2


@pytest.mark.parametrize("storage", ["zzz", "mongodb://host/db", "http://host:5000", "postgresql://a:[b@host:99999/db"])
def test_storage_that_is_no_database_is_refused(storage: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sweep\.storage: .*sqlite:///FILE\.db and postgresql://"):
        open_in(tmp_path, storage=storage)
