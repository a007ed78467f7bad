from __future__ import annotations

import itertools

from tandem.comparison.styles import run_styles
from tests.comparison.made_rows import configuration

BACKBONES = ("mobilenet_v2", "resnet50")
REGIMES = ("scratch", "frozen", "two_stage", "finetune")
FRAMEWORKS = ("torch", "keras")
CONFIGURATIONS = [
    configuration(" ".join(parts), backbone=parts[0], regime=parts[1], framework=parts[2])
    for parts in itertools.product(BACKBONES, REGIMES, FRAMEWORKS)
]
STYLES = run_styles(CONFIGURATIONS)


def test_all_rows_look_different() -> None:
    looks = {(style.color, style.symbol, style.dash) for style in STYLES.values()}
    assert len(looks) == len(CONFIGURATIONS) == 16


def test_colour_shows_the_regime_symbol_and_dash_show_the_framework() -> None:
    def of_all(field: str, **wanted: str) -> set[str]:
        return {
            getattr(style, field)
            for style in STYLES.values()
            if all(getattr(style, key) == value for key, value in wanted.items())
        }

    for framework in FRAMEWORKS:
        assert len(of_all("symbol", framework=framework)) == len(of_all("dash", framework=framework)) == 1
    for backbone, regime in itertools.product(BACKBONES, REGIMES):
        assert len(of_all("color", backbone=backbone, regime=regime)) == 1
    assert len(of_all("color", backbone=BACKBONES[0])) == len(REGIMES)


def test_known_regime_has_the_same_colour_in_every_report() -> None:
    label = "mobilenet_v2 finetune torch"
    (alone,) = [one for one in CONFIGURATIONS if one.label == label]
    assert run_styles([alone])[label].color == STYLES[label].color == "#d55e00"


def test_many_unknown_regimes_and_frameworks_have_styles() -> None:
    many = [configuration(str(n), backbone=f"b{n}", regime=f"r{n}", framework=f"f{n}") for n in range(20)]
    assert all(style.color.startswith("#") and len(style.color) == 7 for style in run_styles(many).values())
