from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tandem.data_report.figures import MOST_SIZES, class_bars, class_share_bars, file_size_boxes, image_size_marks
from tandem.rendering.theme import NEUTRAL_COLOR, TRAIN_COLOR, VAL_COLOR


def make_counts(num_classes: int, unused: int = 0) -> pd.DataFrame:
    counts = pd.DataFrame(
        {"train": range(1, num_classes + 1), "val": 2, "test": 3, "unused": unused},
        index=[str(number) for number in range(num_classes)],
    )
    return counts.assign(all=counts.sum(axis=1))


def make_sizes(least: int, greatest: int) -> pd.DataFrame:
    values = np.linspace(least, greatest, 9)
    return pd.DataFrame({name: pd.Series(values).describe() for name in ("cat", "dog", "all")}).T


def test_bars_of_a_class_add_up_to_its_images() -> None:
    figure = class_bars(make_counts(3, unused=1))
    assert [bar.name for bar in figure.data] == ["train", "val", "test", "unused"]
    assert figure.layout.barmode == "stack"
    assert sum(np.array(bar.y) for bar in figure.data).tolist() == [7, 8, 9]
    assert figure.layout.annotations[0].text == "mean 8"


def test_parts_have_colours_of_their_own_and_axes_say_what_they_count() -> None:
    figure = class_bars(make_counts(3, unused=1))
    colours = {bar.name: bar.marker.color for bar in figure.data}
    # as in the figures of a run, where training and validation are drawn, and Okabe and Ito's green for test
    assert colours == {"train": TRAIN_COLOR, "val": VAL_COLOR, "test": "#009E73", "unused": NEUTRAL_COLOR}
    assert len(set(colours.values())) == 4
    assert figure.layout.yaxis.title.text == "images"
    assert file_size_boxes(make_sizes(100, 300)).layout.yaxis.title.text == "bytes"
    assert file_size_boxes(make_sizes(100, 3000)).layout.yaxis.title.text == "bytes, logarithmic"
    sizes = pd.DataFrame({"width": [30, 40], "height": [20, 50], "images": [90, 10]})
    layout = image_size_marks(sizes).layout
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("width in pixels", "height in pixels")


def test_part_without_images_has_no_bars() -> None:
    assert [bar.name for bar in class_bars(make_counts(3)).data] == ["train", "val", "test"]
    assert [bar.name for bar in class_share_bars(make_counts(3).assign(val=0)).data] == ["train", "test"]


def test_shares_of_each_part_add_up_to_a_hundred_percent() -> None:
    figure = class_share_bars(make_counts(3, unused=1))
    assert {bar.name: bar.y.tolist() for bar in figure.data} == {
        "train": pytest.approx([100 / 6, 200 / 6, 300 / 6]),
        "val": pytest.approx([100 / 3] * 3),
        "test": pytest.approx([100 / 3] * 3),
    }
    assert figure.layout.barmode == "group"
    assert figure.layout.yaxis.title.text == "% of the part's images"
    assert figure.layout.annotations[0].text == "equal 33.3 %"


def test_classes_that_are_numbers_keep_their_places() -> None:
    figure = class_bars(make_counts(12))
    assert figure.layout.xaxis.type == "category"
    assert list(figure.data[0].x) == [str(number) for number in range(12)]


def test_boxes_hold_the_numbers_of_the_table_but_not_those_of_all_files() -> None:
    box, mean = file_size_boxes(make_sizes(100, 300)).data
    assert list(box.x) == list(mean.x) == ["cat", "dog"]
    assert [box.lowerfence[0], box.q1[0], box.median[0], box.q3[0], box.upperfence[0]] == [100, 150, 200, 250, 300]
    assert mean.y[0] == 200


@pytest.mark.parametrize(("greatest", "kind"), [(999, None), (1000, "log")])
def test_axis_of_bytes_is_logarithmic_if_sizes_differ_tenfold(greatest: int, kind: str | None) -> None:
    assert file_size_boxes(make_sizes(100, greatest)).layout.yaxis.type == kind


def test_each_image_size_is_a_mark() -> None:
    sizes = pd.DataFrame({"width": [30, 40], "height": [20, 50], "images": [90, 10]})
    (marks,) = image_size_marks(sizes).data
    assert list(zip(marks.x, marks.y, marks.customdata, strict=True)) == [(30, 20, 90), (40, 50, 10)]
    # plotly's rule for areas: sizeref = 2 * max / (pixels across the largest)**2
    assert marks.marker.sizeref == pytest.approx(2 * 90 / 40**2)


def test_neighbouring_sizes_share_a_mark_if_there_are_too_many() -> None:
    random = np.random.default_rng(0)
    sizes = pd.DataFrame(random.integers(100, 800, (9000, 2)), columns=["width", "height"]).drop_duplicates()
    sizes["images"] = 2
    figure = image_size_marks(sizes)
    (marks,) = figure.data
    assert 200 < len(marks.x) <= MOST_SIZES
    assert sum(marks.customdata) == 2 * len(sizes)
    assert abs(np.average(marks.x, weights=marks.customdata) - sizes["width"].mean()) < 2
    assert figure.layout.xaxis.title.text == "width in pixels (to 16 pixels)"
