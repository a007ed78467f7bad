from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tandem.data.sdss import draw, read_table
from tandem.errors import UserError

HEADER = "obj_ID,alpha,delta,u,g,r,i,z,run_ID,class,redshift,plate"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def row(magnitudes: str = "23.8,22.2,20.4,19.1,18.7", class_name: str = "GALAXY", redshift: str = "0.63") -> str:
    return f"1.2e18,135.6,32.4,{magnitudes},3606,{class_name},{redshift},5812"


def test_image_holds_colour_brightness_and_redshift() -> None:
    picture = draw(np.array([[20.0, 18.5, 18.0, 17.8, 17.7]]), np.array([0.0]))[0].astype(int)
    # red: u - g = 1.5 on a scale from -6 to 6; green: the mean magnitude on one from 28 to 12
    assert picture[0, 1, 0] == round(255 * (6 + 1.5) / 12)
    assert picture[1, 0, 0] == round(255 * (6 - 1.5) / 12)
    assert picture[0, 1, 1] == picture[1, 0, 1] == round(255 * (28 - 19.25) / 16)
    assert picture[4, 4, 1] == round(255 * (28 - 17.7) / 16)
    # blue: arsinh(z / 0.001), from -2.998 at -0.01 to 9.903 at 10
    assert set(picture[:, :, 2].ravel()) == {round(255 * 2.99822 / (2.99822 + 9.90349))}


def test_redder_fainter_and_farther_objects_differ_in_one_channel_each() -> None:
    magnitudes = np.array([[20.0, 19.0, 18.0, 17.5, 17.0]])
    base = draw(magnitudes, np.array([0.1]))[0]
    fainter = draw(magnitudes + 1, np.array([0.1]))[0]
    assert np.array_equal(fainter[..., [0, 2]], base[..., [0, 2]]) and (fainter[..., 1] < base[..., 1]).all()
    farther = draw(magnitudes, np.array([0.2]))[0]
    assert np.array_equal(farther[..., :2], base[..., :2]) and (farther[..., 2] > base[..., 2]).all()


def test_redshifts_of_stars_and_galaxies_differ() -> None:
    magnitudes = np.full((4, 5), 18.0)
    blue = draw(magnitudes, np.array([-0.0005, 0.0005, 0.01, 0.1]))[:, 0, 0, 2].astype(int)
    assert (np.diff(blue) > 15).all()


def test_values_beyond_the_scale_are_clipped() -> None:
    picture = draw(np.array([[40.0, 10.0, 10.0, 10.0, 10.0]]), np.array([20.0]))[0]
    assert picture[0, 1].tolist() == [255, round(255 * 3 / 16), 255]
    assert picture[1, 0, 0] == 0 and picture[0, 0, 1] == 0 and picture[1, 1, 1] == 255


def test_image_of_a_row_depends_on_neither_other_rows_nor_ids(tmp_path: Path) -> None:
    alone, _, _ = read_table(write(tmp_path / "a.csv", row()))
    others = [row("15,14,13,13,13", "STAR", "0.0001"), row().replace("135.6", "1.0").replace("5812", "9")]
    both, _, _ = read_table(write(tmp_path / "b.csv", *others))
    assert np.array_equal(alone[0], both[1])


def test_rows_with_missing_magnitudes_are_counted_and_left_out(tmp_path: Path) -> None:
    missing = row("-9999.0,-9999.0,18.16,18.01,-9999.0", "STAR", "0.00009")
    path = write(tmp_path / "t.csv", row(), missing, row(class_name="QSO"), row(class_name="STAR", redshift=""))
    pixels, labels, num_left_out = read_table(path)
    assert pixels.shape == (2, 5, 5, 3) and pixels.dtype == np.uint8
    assert labels.tolist() == [0, 1]
    assert num_left_out == 2


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("a,b", ["1,2"], "is not the SDSS17 table (.*columns.*); it needs the columns u, g, r, i, z, redshift, class"),
        (HEADER, [row("a,b,c,d,e")], "is not the SDSS17 table"),
        (HEADER, [row(class_name="PLANET")], "has rows of class PLANET; allowed: GALAXY, QSO, STAR"),
    ],
)
def test_other_table_is_refused_in_one_line(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = write(tmp_path / "t.csv", *rows, header=header)
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(UserError, match=pattern) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(UserError, match="is not the SDSS17 table"):
        read_table(tmp_path / "t.csv")
