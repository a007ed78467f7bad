from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tandem.errors import UserError
from tandem.launch.scripts import begin, run_script, start_process, training_command, training_script
from tandem.protocol.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_command_starts_the_script_with_this_python(framework: str) -> None:
    assert training_command(framework, ["--seed", "3"]) == [
        sys.executable,
        str(ROOT / f"train_{framework}.py"),
        "--seed",
        "3",
    ]
    assert training_script(framework).is_file()


def test_settings_of_a_single_run_are_read_and_set_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_torch.py", "--regime", "scratch", "--device", "cpu", "--threads", "3"])
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, "before")
    settings = begin("torch")
    assert (settings.regime, settings.threads) == ("scratch", 3)
    assert os.environ["OMP_NUM_THREADS"] == "3" and os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_several_seeds_are_trained_elsewhere_and_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--regime", "scratch", "--seeds", "[1, 2]"]
    monkeypatch.setattr(sys, "argv", ["train_keras.py", *words])
    asked: list[tuple[str, list[int] | None, list[str]]] = []
    monkeypatch.setattr(
        "tandem.launch.repeats.run_repeats",
        lambda framework, settings, words: asked.append((framework, settings.seeds, words)),
    )
    with pytest.raises(SystemExit) as ended:
        begin("keras")
    assert ended.value.code is None
    assert asked == [("keras", [1, 2], words)]


def test_errors_of_a_script_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(settings: Settings) -> None:
        raise UserError(f"seed: received {settings.seed}")

    with pytest.raises(SystemExit) as ended:
        run_script("torch", main, Settings(seed=5))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "train_torch.py: error: seed: received 5\n"


# Prints a process's folder, variable, session and input.
LOOK = """
import json, os, sys
print(json.dumps({
    "folder": os.getcwd(), "word": os.environ.get("WORD"), "session": os.getsid(0), "stdin": sys.stdin.read()
}))
print("to stderr", file=sys.stderr)
"""


@pytest.mark.parametrize("own_session", [True, False])
def test_process_has_its_folder_variables_output_and_session(own_session: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = start_process(
            [sys.executable, "-c", LOOK],
            folder=tmp_path,
            output=output,
            variables={"WORD": "word"},
            own_session=own_session,
        )
        assert process.wait() == 0
    seen, errors = log.read_text().splitlines()
    session = process.pid if own_session else os.getsid(0)
    assert json.loads(seen) == {"folder": str(tmp_path), "word": "word", "session": session, "stdin": ""}
    assert errors == "to stderr"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel tells a process of its parent's death")
def test_process_ends_when_the_one_that_started_it_is_killed() -> None:
    code = (
        "import sys, time\nfrom tandem.launch.scripts import start_process\n"
        "process = start_process([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(process.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        script = psutil.Process(int(parent.stdout.readline()))
        assert script.is_running()
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while script.is_running() and script.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
