"""Recording of a training run, the same for both scripts.

    with start_run(settings, framework="torch", backend="torch", versions={"torch": torch.__version__}) as run:
        run.log_metrics({"train/loss": 0.3}, step=4)
        run.log_artifact(run.folder / "final")

Logging never waits for MLflow: entries go to the journal in the run's folder, and a thread sends them from there.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from tandem.commands import module_command, script_command
from tandem.errors import one_line
from tandem.files import write_text
from tandem.output import warn
from tandem.protocol.frameworks import Framework
from tandem.secrets import hide_secrets, shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.checkpoints import Checkpoints
from tandem.tracking.journal import Journal, encode_values, read_journal
from tandem.tracking.mlflow_store import (
    RunWriter,
    database_file,
    resolve_uri,
)
from tandem.tracking.numbers import Numbers
from tandem.tracking.provenance import parameter_text
from tandem.tracking.sender import Sender
from tandem.tracking.views import MODEL_TRAINING

REFUSED_IN_MODEL_NAMES = re.compile(r"[/:.%\"']")  # mlflow.utils.validation._validate_logged_model_name

TAG_LIMIT = 5000  # characters per value


class Run:
    """Open run. Its methods may be called from any thread."""

    def __init__(
        self,
        client: MlflowClient,
        *,
        run_id: str,
        experiment_id: str,
        name: str,
        framework: Framework,
        folder: Path,
        continued: Journal | None = None,
    ) -> None:
        """
        Args:
            client: The MLflow that has the run.
            run_id: The run.
            experiment_id: Its experiment.
            name: Its name.
            framework: torch or keras.
            folder: Its folder.
            continued: The open journal of an interrupted run that goes on: what it has is not logged again.
        """
        self.id = run_id
        self.framework = framework
        self.folder = folder
        self.name = name
        self.checkpoints: Checkpoints | None = None
        """Set by the code that trains, for the message after an interruption."""
        self._uri = client.tracking_uri
        self._experiment_id = experiment_id
        self._params: dict[str, str] = {}
        self._models: set[str] = set()
        self._lock = threading.RLock()
        self._numbers = Numbers()
        self._logged: set[tuple[str, int]] = set()
        self._logged_files: set[tuple[str, str]] = set()
        self._has_dataset = False
        self._journal = continued or Journal(folder)
        writer = RunWriter(client, run_id=run_id, experiment_id=experiment_id, folder=folder)
        self._sender = Sender(writer, self._journal, shown_uri(self._uri))
        if continued:
            self._continue()
        else:
            self._record("run", run_id=run_id, experiment_id=experiment_id, name=name, uri=shown_uri(self._uri))

    def _continue(self) -> None:
        content = read_journal(self._journal.path)
        for entry in content.entries:
            match entry.kind:
                case "metrics":
                    self._logged |= {(name, entry.content["step"]) for name in entry.content["values"]}
                case "params":
                    self._params |= entry.content["values"]
                case "tags":
                    self._numbers.restore(entry.content["values"], self.id)
                case "dataset":
                    self._has_dataset = True
                case "artifact" if entry.number not in content.refusals:
                    self._logged_files.add((entry.content["path"], entry.content["folder"]))
                case "model" if entry.number not in content.refusals:
                    self._logged_files.add((entry.content["path"], ""))
        for entry in content.unsent():
            if entry.kind == "end":  # that of the interruption
                self._journal.mark_sent(entry.number, entry.number)
            else:
                self._sender.put(entry)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters: strings, numbers, lists, None.

        Raises:
            ValueError: A parameter has another value already, which MLflow would refuse.
        """
        texts = {name: hide_secrets(parameter_text(value)) for name, value in params.items()}
        for name, text in texts.items():
            if self._params.get(name, text) != text:
                raise ValueError(f"parameter {name} is {self._params[name]!r} already. Received: {text!r}")
        if new := {name: text for name, text in texts.items() if name not in self._params}:
            self._params |= new
            self._record("params", values=new)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags; a later value replaces an earlier one."""
        self._record("tags", values={name: hide_secrets(str(value))[:TAG_LIMIT] for name, value in tags.items()})

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics at a step, in microseconds; values may be NaN or infinite.

        A point that the run logged before it was interrupted stays as it is.
        """
        if new := {name: value for name, value in values.items() if (name, int(step)) not in self._logged}:
            self._record("metrics", step=int(step), values=encode_values(new))

    def log_numbers(self, values: Mapping[str, float]) -> None:
        """Logs numbers of the whole run: as metrics what people chart, the others in tags (tandem.tracking.numbers).

        One that the run logged before it was interrupted stays as it is.
        """
        with self._lock:
            metrics, tags = self._numbers.add(values)
            self.log_metrics(metrics)
            if tags:
                self._record("tags", values=tags)

    def numbers_table(self) -> str:
        """All numbers of the whole run so far as CSV: one row per name, one column per phase."""
        return self._numbers.table()

    def num_logged(self, prefix: str) -> int:
        """Number of steps that an interrupted run has logged of the metrics whose names begin like this."""
        return 1 + max((step for name, step in self._logged if name.startswith(prefix)), default=-1)

    def log_artifact(self, path: str | Path, folder: str = "", remove: bool = False) -> None:
        """Uploads a file, or a folder under its own name, in the background.

        Args:
            path: The file or folder; it must not change until the run ends.
            folder: The target folder among the run's artifacts; the top by default.
            remove: Delete the local copy after the upload.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if not self.is_logged(path, folder):
            self._record("artifact", path=self._existing(path), folder=folder, remove=remove)

    def is_logged(self, path: str | Path, folder: str = "") -> bool:
        """True if the run logged this file, folder or model before it was interrupted."""
        absolute = Path(path).absolute()
        is_within = absolute.is_relative_to(self.folder)
        return (str(absolute.relative_to(self.folder) if is_within else absolute), folder) in self._logged_files

    def log_dataset(
        self, *, name: str, digest: str, source: str, contexts: Sequence[str], profile: Mapping[str, Any]
    ) -> None:
        """Logs a data set as an input of the run.

        Args:
            name: The data set's name.
            digest: A hash that identifies the data among data sets of the same name, at most 36 characters.
            source: An absolute path, or the name of a built-in data set.
            contexts: The uses of the data in the run: train, val, test.
            profile: Facts about the data that JSON can hold.
        """
        assert len(digest) <= 36, digest
        if self._has_dataset:
            return
        self._record("dataset", name=name, digest=digest, source=source, contexts=list(contexts), profile=dict(profile))

    def log_model(self, path: str | Path, remove: bool = False) -> None:
        """Uploads a folder that a save_model function of MLflow wrote, as a logged model with this run as its source.

        The model has the run's name, without the characters that MLflow refuses in names of models. MLflow loads it as
        models:/<model id>.

        Args:
            path: The folder; it must not change until the run ends.
            remove: Delete the local copy after the upload.
        """
        name = REFUSED_IN_MODEL_NAMES.sub("_", self.name)
        assert name not in self._models, f"the model {name!r} is logged already"
        self._models.add(name)
        self._record("model", path=self._existing(path), name=name, remove=remove)

    def where_to_look(self) -> list[str]:
        """Lines for the terminal: how to open the run in the MLflow UI, and the folder of its files."""
        # without a workflow type, MLflow opens its GenAI pages on first use
        page = f"/#/experiments/{self._experiment_id}/runs/{self.id}?{MODEL_TRAINING}"
        database = database_file(self._uri)
        if database:
            at_default = self._uri == resolve_uri(vocabulary.DEFAULT_URI)
            command = script_command("mlflow_server/serve.py", *([] if at_default else ["--uri", self._uri]))
            look = [f"Start the MLflow UI: {command}", f"Run {self.name}: http://127.0.0.1:5000{page}"]
        elif self._uri.startswith("http"):
            look = [f"Run {self.name}: {shown_uri(self._uri)}{page}"]
        else:
            look = [f"Run {self.name}: {self.id} in {shown_uri(self._uri)}"]
        return [*look, f"Files of the run: {self.folder}"]

    def _record(self, kind: str, **content: Any) -> None:
        with self._lock:
            self._sender.put(self._journal.append(kind, **content))

    def _existing(self, path: str | Path) -> str:
        """Path for the journal: relative within the run's folder, so that the folder can be moved."""
        absolute = Path(path).absolute()
        if not absolute.exists():
            raise FileNotFoundError(f"nothing to log at {absolute}")
        return str(absolute.relative_to(self.folder) if absolute.is_relative_to(self.folder) else absolute)

    def fail(self, error: BaseException) -> None:
        """Records the traceback and the reason of a run that an exception ends."""
        file = self.folder / vocabulary.TRACEBACK_FILE
        with contextlib.suppress(OSError):  # the failure may be a full disk
            write_text(file, hide_secrets("".join(traceback.format_exception(error))))
            self.log_artifact(file)
        self.set_tags({vocabulary.FAILURE: one_line(error)})

    def end(self, status: str) -> None:
        """Ends the run in MLflow with this status, after everything that was logged."""
        self._record("end", status=status, ended=time.time_ns() // 1_000_000)
        try:
            self._sender.close()
        finally:
            self._say_what_is_unsent()
        self._journal.close()

    def _say_what_is_unsent(self) -> None:
        content = read_journal(self._journal.path)
        if unsent := content.unsent():
            reason = f" (first refusal: {next(iter(content.refusals.values()))})" if content.refusals else ""
            warn(
                f"{len(unsent)} journal entries of this run are not in MLflow{reason}; to send them: "
                f"{module_command('tandem.tracking.replay', self.folder)}"
            )
