"""What the article on MobileNetV2 and EfficientNetV2 claims."""

from __future__ import annotations

from collections.abc import Callable

from tandem.published.judging import (
    Claim,
    Judgement,
    best_row,
    judged,
    missing,
    most_accurate,
    together,
)
from tandem.published.rows import Results
from tandem.rendering.tables import format_value

_ARTICLE = ("efficientnet_v2_b0", "mobilenet_v2", "resnet50_v2")


def _share_of_parameters(first: str, second: str, share: float) -> Callable[[Results], Judgement]:
    """To a twentieth."""

    def judge(results: Results) -> Judgement:
        rows = [best_row(results, backbone=backbone) for backbone in (first, second)]
        known = [row.parameters for row in rows if row is not None and row.parameters]
        if len(known) < len(rows):
            return missing(results, f"parameters of {first} and {second}")
        of_both = " of ".join(format_value(number, "amount") for number in known)
        return judged(abs(known[0] / known[1] - share) <= 0.05, f"{of_both}, {known[0] / known[1]:.2f} of them")

    return judge


CLAIMS: tuple[Claim, ...] = (
    Claim(
        words="EfficientNetV2 is more accurate than MobileNetV2",
        judge=together(_ARTICLE, most_accurate("efficientnet_v2_b0", ("mobilenet_v2",), "frozen")),
    ),
    Claim(
        words="EfficientNetV2 is more accurate than ResNet50V2",
        judge=together(_ARTICLE, most_accurate("efficientnet_v2_b0", ("resnet50_v2",), "frozen")),
    ),
    Claim(
        words="EfficientNetV2 has a quarter of the parameters of ResNet50V2",
        judge=together(_ARTICLE, _share_of_parameters("efficientnet_v2_b0", "resnet50_v2", 0.25)),
    ),
)
