"""The SDSS17 table of galaxies, quasars and stars, drawn as images for a convolutional network.

The document that classifies this table with convolutional networks does not say how its rows became images; this is
Tandem's own way. A row of the table becomes an image of 5 x 5 pixels, whose rows and columns are the survey's five
filters u, g, r, i, z, from ultraviolet to infrared:

- red is the colour index between the row's and the column's filter, the difference of their magnitudes;
- green is the brightness in the two filters, the mean of their magnitudes (on the diagonal, that of one filter);
- blue is the redshift, the same in all pixels, on a scale that is linear near 0 and logarithmic further out.

Numbers are scaled by constants and never by statistics of the table, so an image depends on its own row alone, and the
test rows do not influence the others. Positions in the sky and identifiers (of object, run, camera, field, spectrum,
plate, day, fibre) are not used: they tell what the survey was looking for, not what it saw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tandem.errors import UserError

CLASSES = ("GALAXY", "QSO", "STAR")
FILTERS = ["u", "g", "r", "i", "z"]
COLUMNS = [*FILTERS, "redshift", "class"]

MISSING = -9999
"""The survey's value for a missing magnitude."""

# Values that become 0 and 255; others are clipped. In 9,999 rows, 999 of 1,000 magnitudes are from 12.8 to 27.4, and
# 999 of 1,000 colour indices of neighbouring filters from -3.6 to 6.6. Fainter objects have larger magnitudes.
FAINTEST, BRIGHTEST = 28.0, 12.0
COLOUR_INDEX = 6.0
REDSHIFTS = (-0.01, 10.0)

STELLAR_REDSHIFT = 1e-3
"""Redshift at which the scale turns from linear to logarithmic: 300 km/s, about the most that stars of our galaxy
reach."""


def read_table(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Reads the table as it is published.

    Args:
        path: A CSV file with the columns u, g, r, i, z, redshift and class, and any others.

    Returns:
        Images, uint8 of shape (rows, 5, 5, 3); indices into CLASSES, int64 of shape (rows,); and the number of rows
        that were left out because a magnitude is missing (one of the published 100,000).

    Raises:
        UserError: The file is not this table.
    """
    try:
        table = pd.read_csv(path, usecols=COLUMNS)
        numbers = table[[*FILTERS, "redshift"]].to_numpy(dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.source: {path} is not the SDSS17 table ({' '.join(str(error).split())}); it needs the columns "
            f"{', '.join(COLUMNS)}"
        ) from None
    labels = pd.Index(CLASSES).get_indexer(pd.Index(table["class"]))
    if (labels < 0).any():
        strange = sorted(set(table["class"][labels < 0].astype(str)))
        raise UserError(f"data.source: {path} has rows of class {', '.join(strange)}; allowed: {', '.join(CLASSES)}")
    complete = np.isfinite(numbers).all(axis=1) & (numbers[:, :-1] != MISSING).all(axis=1)
    return draw(numbers[complete, :-1], numbers[complete, -1]), labels[complete], int((~complete).sum())


def draw(magnitudes: np.ndarray, redshifts: np.ndarray) -> np.ndarray:
    """Draws objects as images.

    Args:
        magnitudes: Of shape (objects, 5), in the order u, g, r, i, z.
        redshifts: Of shape (objects,).

    Returns:
        uint8 RGB of shape (objects, 5, 5, 3).
    """
    rows, columns = magnitudes[:, :, None], magnitudes[:, None, :]
    lowest, highest = (np.arcsinh(bound / STELLAR_REDSHIFT) for bound in REDSHIFTS)
    redness = np.arcsinh(redshifts / STELLAR_REDSHIFT)[:, None, None]
    channels = (
        _to_levels(rows - columns, -COLOUR_INDEX, COLOUR_INDEX),
        _to_levels((rows + columns) / 2, FAINTEST, BRIGHTEST),
        np.broadcast_to(_to_levels(redness, lowest, highest), (len(redshifts), len(FILTERS), len(FILTERS))),
    )
    return np.stack(channels, axis=-1)


def _to_levels(values: np.ndarray, darkest: float, brightest: float) -> np.ndarray:
    shares = np.clip((values - darkest) / (brightest - darkest), 0, 1)
    return np.round(255 * shares).astype(np.uint8)
