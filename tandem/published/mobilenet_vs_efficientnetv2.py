"""Claims of the article on MobileNetV2 and EfficientNetV2."""

from __future__ import annotations

from collections.abc import Callable

from tandem.evaluation.ties import is_above
from tandem.published.entries import Results
from tandem.published.judging import Claim, Judgement, judged, missing, most_accurate, together
from tandem.rendering.tables import format_value

_ARTICLE = ("efficientnet_v2_b0", "mobilenet_v2", "resnet50_v2")


def _share_of_parameters(first: str, second: str, share: float) -> Callable[[Results], Judgement]:
    """Judges the share that the parameters of one backbone are of those of another; within a twentieth."""

    def judge(results: Results) -> Judgement:
        entries = [results.best(backbone=backbone) for backbone in (first, second)]
        known = [entry.parameters for entry in entries if entry is not None and entry.parameters]
        if len(known) < len(entries):
            return missing(results, f"parameters of {first} and {second}")
        of_both = " of ".join(format_value(number, "amount") for number in known)
        ratio = known[0] / known[1]
        return judged(not is_above(abs(ratio - share), 0.05), f"{of_both}, {ratio:.2f} of them")

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
