"""Records the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from tandem.evaluation.architecture import Layer
from tandem.files import write_text
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.run import Run


def record_architecture(run: Run, layers: Sequence[Layer]) -> None:
    """Records one line per layer as a CSV file: name, kind, shape of the output for one image, parameters.

    Args:
        run: The run that is being recorded.
        layers: Of its network, from input to output.
    """
    lines = [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "output_shape": None if layer.output_shape is None else " x ".join(map(str, layer.output_shape)),
            "parameters": layer.parameters,
        }
        for layer in layers
    ]
    path = run.folder / vocabulary.ARCHITECTURE_FILE
    write_text(path, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))
    run.log_artifact(path)
