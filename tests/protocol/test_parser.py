from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from tandem.errors import UserError
from tandem.protocol.backbones import CATALOGUE
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.parser import parse_settings, read_settings
from tandem.protocol.refusals import OTHER_NAMES
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import PhaseSettings, Settings, flatten
from tandem.protocol.settings_hash import settings_hash

FRAMEWORKS = ("torch", "keras")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(*argv: str, framework: Any = "torch") -> str:
    """The message about wrong settings, which is one line."""
    with pytest.raises(UserError) as caught:
        read_settings(framework, list(argv))
    message = str(caught.value)
    assert "\n" not in message
    return message


def config(content: str | bytes) -> list[str]:
    """Words that read a configuration file with this content."""
    file = Path("settings.yaml")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ["--config", str(file)]


def nested(name: str, value: Any) -> str:
    """YAML with one setting, given by its dotted name."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return yaml.safe_dump(value)


def leaves(owner: Any = Settings, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Dotted name, field and type of each setting."""
    hints = typing.get_type_hints(owner)
    for item in dataclasses.fields(owner):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from leaves(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item, hints[item.name]


def alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def limits_of(item: dataclasses.Field[Any]) -> dict[str, float]:
    return {name: item.metadata[name] for name in ("above", "at_least", "at_most") if name in item.metadata}


FIELDS = {name: (limits_of(item), hint) for name, item, hint in leaves()}
LISTS = {name for name, (_, hint) in FIELDS.items() if typing.get_origin(alternatives(hint)[0]) is list}
WHOLE_NUMBERS = {name for name, (_, hint) in FIELDS.items() if {int, list[int]} & set(alternatives(hint))}
MAPPINGS = {name for name, (_, hint) in FIELDS.items() if dict[str, float] in alternatives(hint)}
NUMBERS = WHOLE_NUMBERS | MAPPINGS
NUMBERS |= {name for name, (_, hint) in FIELDS.items() if {float, list[float]} & set(alternatives(hint))}
NULLABLE = {name for name, (_, hint) in FIELDS.items() if type(None) in alternatives(hint)}
LITERALS = {name: typing.get_args(hint) for name, (_, hint) in FIELDS.items() if typing.get_origin(hint) is Literal}
LIMITED_ABOVE = {name for name, (limits, _) in FIELDS.items() if "at_most" in limits}
LIMITS = [(name, limit) for name, (limits, _) in FIELDS.items() for limit in limits]

# Options that a value at its limit, or a choice, needs so that no other rule refuses it.
COMPANIONS = {
    ("cache_views", "at_least"): ["--regime", "frozen", "--augmentation.horizontal_flip", "true"],
    **{
        (f"augmentation.{name}", limit): ["--augmentation.policy", "rand_augment"]
        for name in ("num_operations", "magnitude")
        for limit in ("at_least", "at_most")
    },
    ("data.fold", "at_least"): ["--data.split", "folds"],
    ("data.fold", "at_most"): ["--data.split", "folds"],
    ("optimizer.nesterov", True): ["--optimizer.name", "sgd"],
    ("optimizer.weight_decay", "at_most"): ["--optimizer.name", "adamw"],
    ("regime", "gradual"): ["--phases", "[{trainable: head}]"],
}
# Values at these limits are refused by another rule, which has a test of its own.
REFUSED_BY_ANOTHER_RULE = {
    ("accumulate", "at_most"),
    ("data.image_size", "at_least"),
    ("data.fractions", "at_least"),
    ("data.fractions", "at_most"),
    ("augmentation.random_resized_crop", "at_least"),
    ("augmentation.random_resized_crop", "at_most"),
    ("optimizer.layer_decay", "at_least"),
    ("sweep.num_trials", "at_least"),
    ("sweep.num_trials", "at_most"),
}


def beside(name: str, limit: str) -> tuple[float, float]:
    """The nearest values outside and inside of a limit."""
    bound = FIELDS[name][0][limit]
    outwards = math.inf if limit == "at_most" else -math.inf
    whole = name in WHOLE_NUMBERS
    further = bound + int(math.copysign(1, outwards)) if whole else math.nextafter(bound, outwards)
    if limit == "above":
        return bound, bound + 1 if whole else math.nextafter(bound, math.inf)
    return further, bound


def as_value(name: str, value: Any) -> Any:
    return [value] if name in LISTS else {"a": value} if name in MAPPINGS else value


def written(name: str, value: float) -> str:
    return repr(as_value(name, value))


# ------------------------------------------------------------------------------------------------- numbers and choices


def test_all_fields_are_under_test() -> None:
    assert set(FIELDS) == set(flatten(Settings()))
    assert len(LIMITS) > 40 and len(LITERALS) >= 10
    assert {"head.hidden", "data.fractions"} < NUMBERS and "threads" in NULLABLE


def test_every_number_has_a_limit_below() -> None:
    assert [name for name in NUMBERS if not {"above", "at_least"} & set(FIELDS[name][0])] == []


@pytest.mark.parametrize(("name", "limit"), LIMITS, ids=str)
def test_number_just_outside_its_limits_is_refused(name: str, limit: str) -> None:
    outside, _ = beside(name, limit)
    for argv in ([f"--{name}={written(name, outside)}"], config(nested(name, as_value(name, outside)))):
        message = refusal(*argv)
        assert message.startswith(f"{name}: received ") and ", allowed: " in message
        assert float(message.split("received ")[1].split(", allowed")[0].split(": ")[-1].strip("[]{}'")) == outside
        # the message states the exact limit
        said = message.split(limit.replace("_", " "), 1)[1].split(",")[0]
        assert float(said) == FIELDS[name][0][limit]


@pytest.mark.parametrize("limit", ["above", "at_least", "at_most"])
def test_numbers_just_inside_their_limits_are_allowed(limit: str) -> None:
    names = [name for name, kind in LIMITS if kind == limit and (name, limit) not in REFUSED_BY_ANOTHER_RULE]
    expected = {name: as_value(name, beside(name, limit)[1]) for name in names}
    options = [word for name in names for word in COMPANIONS.get((name, limit), [])]
    from_options = [*options, *(f"--{name}={written(name, beside(name, limit)[1])}" for name in names)]
    Path("settings.yaml").write_text(yaml.safe_dump(expected))
    for argv in (from_options, ["--config", "settings.yaml", *options]):
        settings = flatten(read_settings("torch", argv))
        assert {name: settings[name] for name in names} == expected


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_numbers_that_are_not_finite_are_refused(name: str) -> None:
    word = ".nan" if name in LIMITED_ABOVE else ".inf"
    for argv in (
        [f"--{name}", f"[{word}]" if name in LISTS else f"{{a: {word}}}" if name in MAPPINGS else word],
        config(nested(name, as_value(name, math.inf if name in WHOLE_NUMBERS else math.nan))),
    ):
        message = refusal(*argv)
        assert message.startswith(f"{name}: received ") and ", allowed: " in message


@pytest.mark.parametrize("word", ["nan", ".nan", "NaN", "inf", "-inf", ".inf", "1e400"])
@pytest.mark.parametrize("name", ["learning_rate", "max_epochs", "schedule.min_delta"])
def test_no_spelling_of_nan_or_infinity_gets_through(name: str, word: str) -> None:
    for argv in ([f"--{name}={word}"], config(f"{name}: {word}")):
        assert refusal(*argv).startswith(f"{name}: received ")


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_text_for_a_number_is_refused(name: str) -> None:
    argv = [f"--{name}", "many"] if name in WHOLE_NUMBERS else config(nested(name, "many"))
    message = refusal(*argv)
    assert message.startswith(f"{name}: received 'many', allowed: ")
    assert ("whole number" if name in WHOLE_NUMBERS else "number") in message


@pytest.mark.parametrize("name", sorted(WHOLE_NUMBERS))
def test_fraction_for_a_whole_number_is_refused(name: str) -> None:
    message = refusal(*config(nested(name, as_value(name, 20.5))))
    assert message.startswith(f"{name}: received ") and "20.5" in message and "whole number" in message


@pytest.mark.parametrize("name", sorted(NUMBERS - LISTS))
def test_boolean_for_a_number_is_refused(name: str) -> None:
    assert refusal(*config(nested(name, True))).startswith(f"{name}: received 'True', allowed: ")


@pytest.mark.parametrize("name", sorted(LITERALS))
def test_word_that_is_not_a_choice_is_refused(name: str) -> None:
    for argv in ([f"--{name}", "sideways"], config(nested(name, "sideways"))):
        assert refusal(*argv) == f"{name}: received 'sideways', allowed: {', '.join(LITERALS[name])}"
    # capital letters are different
    assert refusal(f"--{name}", LITERALS[name][0].upper()).startswith(f"{name}: received ")


@pytest.mark.parametrize("name", sorted(LITERALS))
def test_every_choice_is_allowed(name: str) -> None:
    for choice in LITERALS[name]:
        if (name, choice) == ("data.split", "auto"):
            continue  # replaced by the data set's own value: test_data_sets.py
        argv = [f"--{name}", choice, *COMPANIONS.get((name, choice), [])]
        assert flatten(read_settings("keras", argv))[name] == choice


# null stands for the data set's own value: test_data_sets.py
@pytest.mark.parametrize("name", sorted(NULLABLE - {"data.fractions"}))
def test_null_is_allowed_where_it_has_a_meaning(name: str) -> None:
    assert flatten(read_settings("torch", [f"--{name}", "null"]))[name] is None
    assert flatten(read_settings("torch", config(nested(name, None))))[name] is None


@pytest.mark.parametrize("name", sorted(set(FIELDS) - NULLABLE))
def test_null_is_refused_where_it_has_no_meaning(name: str) -> None:
    message = refusal(*config(nested(name, None)))
    assert message.startswith(f"{name}: received ") and ", allowed: " in message


@pytest.mark.parametrize("name", ["optimizer.nesterov", "tracking.log_model", "augmentation.horizontal_flip"])
def test_booleans_are_words(name: str) -> None:
    for value in (True, False):
        companions = COMPANIONS.get((name, value), [])
        assert flatten(read_settings("torch", [f"--{name}", str(value).lower(), *companions]))[name] is value
        assert flatten(read_settings("torch", [*config(nested(name, value)), *companions]))[name] is value
    assert refusal(f"--{name}", "perhaps") == f"{name}: received 'perhaps', allowed: true or false"


@pytest.mark.parametrize("name", sorted(LISTS))
def test_message_for_a_list_shows_how_to_write_one(name: str) -> None:
    for word in ("word", "{a: 1}"):
        message = refusal(f"--{name}", word)
        assert message.startswith(f"{name}: received ") and "a list of " in message and "like [" in message


def test_classes_are_strings() -> None:
    for argv in (["--data.classes", "[0, 1]"], config("data: {classes: [0, 1]}")):
        assert refusal(*argv).startswith("data.classes: received '[0, 1]', allowed: a list of texts")


def test_numbers_may_be_written_with_an_exponent_alone() -> None:
    # 1e-2 is a text by the letter of YAML 1.1
    assert read_settings("torch", config("learning_rate: 1e-2")).learning_rate == 0.01
    assert read_settings("torch", ["--learning_rate", "1e-2"]).learning_rate == 0.01


# --------------------------------------------------------------------------------------------- what there is no such of


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("regme", "did you mean regime?"),
        ("data.image_sizes", "data.image_size"),
        ("optimizer.weight_decays", "optimizer.weight_decay"),
        ("run_name", "did you mean tracking.run_name?"),
        ("qqqqqqq", "--help lists all settings"),
        ("data.qqqqqqq", ""),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_message_for_an_unknown_setting_suggests_similar_ones(option: str, hint: str, framework: str) -> None:
    for argv in ([f"--{option}", "1"], [f"--{option}=1"], config(nested(option, 1))):
        message = refusal(*argv, framework=framework)
        assert message.startswith(f"{option}: there is no such setting; ") and hint in message


@pytest.mark.parametrize("name", ["model", "no", "help.me"])
def test_unknown_group_is_named(name: str) -> None:
    assert refusal(*config(nested(name, {"size": 1}))).startswith(name.split(".")[0])


def test_beginning_of_a_name_is_refused() -> None:
    # otherwise `--data.image` would change its meaning with each new setting
    assert refusal("--learning", "0.1").startswith("learning: there is no such setting")


@pytest.mark.parametrize("group", ["data", "head", "optimizer", "tracking", "early_stopping"])
@pytest.mark.parametrize("value", ["5", "null", "[1]", "text"])
def test_value_for_a_group_of_settings_is_refused(group: str, value: str) -> None:
    # an empty group of a file means its defaults
    for argv in ([f"--{group}={value}"], *([config(f"{group}: {value}")] if value != "null" else [])):
        message = refusal(*argv)
        assert message.startswith(f"{group}: received ") and "allowed: a group of " in message


def test_group_for_a_value_is_refused() -> None:
    assert refusal(*config("data: {source: {a: 1}}")).startswith("data.source: received ")
    assert refusal(*config("seed: {a: 1}")).startswith("seed: received ")
    assert refusal(*config("seed: [1]")).startswith("seed: received ")


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("seed", ", allowed: a whole number, at least 0, at most 2147483647"),
        ("seeds", ", allowed: a list of whole numbers, like [0, 1, 2] or null, at least 0, at most 2147483647"),
        ("regime", ", allowed: off_the_shelf, scratch, frozen, two_stage, finetune, gradual"),
        ("backbone", ", allowed: a text"),
        ("data.image_size", ", allowed: a whole number, at least 8, at most 2048"),
        ("tracking.experiment", ", allowed: a text"),
        ("config", "; give the path of a YAML file of settings by name, such as `regime: frozen`"),
    ],
)
def test_option_without_a_value_is_named_with_what_is_allowed(option: str, allowed: str) -> None:
    for rest in ([], ["--max_epochs", "3"]):
        assert refusal(f"--{option}", *rest) == f"{option}: received no value{allowed}"


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("seeds", "0", "[0]"),
        ("seeds", "0,1,2", "[0, 1, 2]"),
        ("seeds", "[0, 1", "[0, 1]"),
        ("data.fractions", "0.7, 0.1, 0.2", "[0.7, 0.1, 0.2]"),
        ("data.classes", "cat,dog", "[cat, dog]"),
        ("seeds", "some", None),
        ("seeds", "1.5", None),
        ("data.classes", "\x1b", None),
        ("data.classes", "it's", None),
        ("data.classes", "a" * 100_000, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_list_without_brackets_is_refused_with_the_list_that_was_meant(
    option: str, value: str, meant: str | None
) -> None:
    message = refusal(f"--{option}", value)
    assert message.startswith(f"{option}: received ")
    assert message.endswith(f"; did you mean '{meant}'?") if meant else "did you mean" not in message
    if meant:
        read_settings("torch", [f"--{option}", meant, "--data.source", "."])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-h2"], "-h and --help: received '2', takes no value"),
        (["--", "--x"], "--: unexpected word on the command line; names of settings begin with --"),
        (["--model", "a"], "model: there is no such setting; did you mean backbone?"),
        (["--dataset", "a"], "dataset: there is no such setting; did you mean data.source?"),
        (["--lr", "1"], "lr: there is no such setting; did you mean learning_rate?"),
        (
            ["--augmentation.flip", "true"],
            "augmentation.flip: there is no such setting; did you mean augmentation.horizontal_flip or "
            "augmentation.vertical_flip?",
        ),
    ],
)
def test_words_of_other_programs_get_a_useful_line(words: list[str], message: str) -> None:
    assert refusal(*words) == message


def test_names_of_other_programs_lead_to_settings_that_exist() -> None:
    names = set(flatten(Settings()))
    assert set(OTHER_NAMES.values()) <= names and not names & set(OTHER_NAMES)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("resnet", "resnet50 or resnet101 or resnet152"),
        ("vgg", "vgg16 or vgg19"),
        ("MobileNet", "mobilenet_v2"),
        ("efficientnet", "efficientnet_b0 or efficientnet_v2_b0"),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_name_of_a_family_suggests_its_networks_in_both_frameworks(given: str, meant: str, framework: str) -> None:
    assert refusal("--backbone", given, framework=framework).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("words", [["stray"], ["--regime", "frozen", "stray"], ["--seed", "1", "2"]])
def test_stray_word_is_named(words: list[str]) -> None:
    message = refusal(*words)
    assert message.startswith(f"{words[-1]}: ") and "names of settings begin with --" in message


# -------------------------------------------------------------------------------------------------- configuration files


def test_missing_file_is_named() -> None:
    message = refusal("--config", "x.yaml", "--regime", "frozen")
    assert message.startswith("config: ") and "x.yaml" in message and "YAML" in message


def test_folder_for_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    message = refusal("--config", "settings")
    assert message.startswith("config: ") and "settings" in message and "YAML" in message


@pytest.mark.parametrize("content", ["regime: [frozen", "\tregime: frozen", "regime: 'frozen", "a: b: c"])
def test_broken_yaml_says_where(content: str) -> None:
    message = refusal(*config(content))
    assert message.startswith("config: ") and "not YAML" in message and "line 1" in message


@pytest.mark.parametrize(
    "content", ["[regime, frozen]", "- regime: frozen\n- seed: 1\n", "frozen", "5", "2: 3", "null: 1"]
)
def test_yaml_that_is_not_a_mapping_of_names_is_refused(content: str) -> None:
    message = refusal(*config(content))
    assert message.startswith("config: ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"backbone: \xe9", b"\x89PNG\r\n\x1a\n\x00"])
def test_file_that_is_not_text_is_refused(content: bytes) -> None:
    assert refusal(*config(content)).startswith("config: ")


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_empty_file_is_allowed_or_named(content: str) -> None:
    try:
        assert read_settings("torch", config(content)) == Settings()
    except UserError as error:
        assert str(error).startswith("config: ") and "YAML" in str(error)


def test_file_cannot_run_code() -> None:
    assert refusal(*config("regime: !!python/object/apply:os.system ['touch touched']")).startswith("config: ")
    assert not Path("touched").exists()


def test_options_after_a_file_override_it() -> None:
    argv = config("regime: frozen\nseed: 7\ndata: {image_size: 64, resize: crop}\nhead: {hidden: [8, 4]}\n")
    settings = read_settings("keras", [*argv, "--seed", "8", "--data.image_size", "96", "--head.hidden", "[16]"])
    assert (settings.regime, settings.seed, settings.data.image_size) == ("frozen", 8, 96)
    assert settings.data.resize == "crop" and settings.head.hidden == [16]
    assert settings.data.fractions == [0.7, 0.1, 0.2]


def test_later_file_overrides_an_earlier_one() -> None:
    Path("a.yaml").write_text("seed: 1\nmax_epochs: 3\ndata: {image_size: 64, split_seed: 5}")
    Path("b.yaml").write_text("seed: 2\ndata: {image_size: 96}")
    settings = read_settings("torch", ["--config", "a.yaml", "--config", "b.yaml"])
    assert (settings.seed, settings.max_epochs) == (2, 3)
    assert (settings.data.image_size, settings.data.split_seed) == (96, 5)


def test_defaults_are_used_without_options() -> None:
    expected = dataclasses.replace(Settings(), data=resolve_split(Settings().data))
    for framework in FRAMEWORKS:
        assert read_settings(framework, []) == expected  # type: ignore[arg-type]


def test_lists_are_not_shared_between_settings() -> None:
    one, other = read_settings("torch", []), read_settings("torch", [])
    one.head.hidden.append(1)
    assert other.head.hidden == [] and Settings().head.hidden == []


PRINTED = {
    "defaults": "",
    "scratch": "--regime scratch --seed 5",
    "lists": "--data.classes ['0','no','null','3.5'] --head.hidden [7,3] --learning_rate 3e-4",
    "nulls": "--early_stopping.patience null --threads 2 --tracking.run_name null --tracking.experiment äöü",
    "phases": """--regime gradual --phases [{"trainable":"last","blocks":2,"learning_rate":0.1},{"trainable":"all"}]""",
    "numbers": "--optimizer.name adamw --optimizer.epsilon 1e-9 --optimizer.weight_decay 0.3 --precision bfloat16",
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", PRINTED)
def test_printed_settings_can_be_read_back(name: str, framework: Any, capsys: pytest.CaptureFixture[str]) -> None:
    argv = PRINTED[name].split()
    with pytest.raises(SystemExit) as caught:
        parse_settings(framework, [*argv, "--print_config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    expected = read_settings(framework, argv)
    content = yaml.safe_load(printed)
    assert flatten_mapping(content).keys() == flatten(Settings()).keys()
    other = "keras" if framework == "torch" else "torch"
    for reader in (framework, other):
        assert read_settings(reader, config(printed)) == expected  # type: ignore[arg-type]


def flatten_mapping(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(flatten_mapping(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_help_all_explains_every_setting(framework: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(framework, ["--help_all"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"train_{framework}.py" in text.splitlines()[0] and "--SETTING" in text.splitlines()[0]
    for name in FIELDS:
        after = text.split(f"--{name} ", 1)[1] if f"--{name} " in text else ""
        explanation = after.split("\n  --", 1)[0]
        assert len(explanation.split()) > 5, f"--{name} is not explained"


RUN_CONFIGS = [
    file
    for file in sorted(ROOT.glob("configs/**/*.yaml"))
    if {"regime", "backbone", "data"} & set(yaml.safe_load(file.read_text()))
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("file", RUN_CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_configuration_of_a_run_works_in_both_frameworks(file: Path, framework: Any) -> None:
    settings = read_settings(framework, ["--config", str(file)])
    written = yaml.safe_load(file.read_text())
    assert settings.sweep.space == written.get("sweep", {}).pop("space", None)  # its keys are names of settings
    for name, value in flatten_mapping(written).items():
        found = flatten(settings)[name]
        assert found == (float(value) if isinstance(found, float) else value)


def test_the_demonstration_has_configurations() -> None:
    assert {file.name for file in RUN_CONFIGS} >= {"digits.yaml", "source.yaml", "target.yaml"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_wrong_settings_end_the_program_with_one_line(framework: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(framework, ["--batch_size", "1"])
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"train_{framework}.py: error: batch_size: received 1, allowed: a whole number, at least 2, at most 65536\n"
    )


# -------------------------------------------------------------------------------------- settings that contradict others


@pytest.mark.parametrize(
    "fractions",
    ["[0.5, 0.5]", "[0.7, 0.1, 0.1, 0.1]", "[0.7, 0.1, 0.1]", "[0.8, 0.1, 0.2]", "[0.7, 0, 0.3]", "[1, 0, 0]", "[]"],
)
def test_fractions_are_three_parts_of_the_whole(fractions: str) -> None:
    for argv in (["--data.fractions", fractions], config(f"data: {{fractions: {fractions}}}")):
        message = refusal(*argv)
        assert message.startswith("data.fractions: received [") and "three numbers above 0" in message


def test_fractions_may_be_off_by_rounding() -> None:
    third = 0.3333333
    settings = read_settings("torch", ["--data.fractions", f"[{third}, {third}, {third}]"])
    assert settings.data.fractions == [third] * 3


@pytest.mark.parametrize("split", ["folds", "publisher_folds"])
def test_fold_counts_up_to_the_number_of_folds(split: str) -> None:
    folds = ["--data.split", split, "--data.folds", "3"]
    assert read_settings("torch", [*folds, "--data.fold", "2"]).data.fold == 2
    assert refusal(*folds, "--data.fold", "3") == "data.fold: received 3, allowed: 0 to 2, since data.folds is 3"


@pytest.mark.parametrize("split", ["auto", "fractions", "publisher"])
def test_fold_is_refused_without_folds(split: str) -> None:
    assert refusal("--data.split", split, "--data.fold", "2") == (
        f"data.fold: received 2, allowed: null with data.split {split}; data.split folds and publisher_folds take it"
    )


@pytest.mark.parametrize("classes", ["[]", "['a']", "['a', 'a']"])
def test_classes_are_two_or_more_different_ones(classes: str) -> None:
    message = refusal("--data.classes", classes)
    assert message.startswith("data.classes: received ") and message.endswith("two or more different class names")


def test_weight_decay_is_refused_with_adam() -> None:
    message = refusal("--optimizer.name", "adam", "--optimizer.weight_decay", "0.01")
    assert message == (
        "optimizer.weight_decay: received 0.01, allowed: 0 with optimizer.name adam; optimizer.name adamw takes it"
    )
    for name in ("adamw", "sgd"):
        read_settings("torch", ["--optimizer.name", name, "--optimizer.weight_decay", "0.01"])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_nesterov_is_refused_with_optimizers_without_momentum(name: str) -> None:
    assert refusal("--optimizer.name", name, "--optimizer.nesterov", "true") == (
        f"optimizer.nesterov: received True, allowed: false with optimizer.name {name}; optimizer.name sgd takes it"
    )


@pytest.mark.parametrize("shares", ["[]", "[0.5]", "[0.5, 0.25]", "[0.1, 0.2, 0.3]"])
def test_random_resized_crop_has_a_least_and_a_greatest_share(shares: str) -> None:
    message = refusal("--augmentation.random_resized_crop", shares)
    assert message.startswith("augmentation.random_resized_crop: received [")
    assert message.endswith("allowed: two numbers, the smallest and the largest share")
    for taken in ("[0.08, 1]", "[0.5, 0.5]"):
        read_settings("torch", ["--augmentation.random_resized_crop", taken])


@pytest.mark.parametrize("policy", ["none", "trivial_augment"])
@pytest.mark.parametrize(("name", "default"), [("num_operations", 2), ("magnitude", 9)])
def test_strength_of_rand_augment_is_refused_with_other_policies(policy: str, name: str, default: int) -> None:
    assert refusal("--augmentation.policy", policy, f"--augmentation.{name}", "3") == (
        f"augmentation.{name}: received 3, allowed: {default} with augmentation.policy {policy}; rand_augment takes it"
    )
    read_settings("torch", ["--augmentation.policy", policy, f"--augmentation.{name}", str(default)])


@pytest.mark.parametrize("seeds", ["[]", "[1, 1]", "[3, 1, 3]"])
def test_seeds_are_different_ones(seeds: str) -> None:
    assert refusal("--seeds", seeds) == f"seeds: received {seeds}, allowed: one or more different whole numbers"
    assert read_settings("torch", ["--seeds", "[0, 7]"]).seeds == [0, 7]


@pytest.mark.parametrize("regime", ["frozen", "off_the_shelf", "gradual"])
def test_layer_decay_is_refused_if_the_backbone_is_not_trained(regime: str) -> None:
    argv = ["--regime", regime, "--optimizer.layer_decay", "0.5", *COMPANIONS.get(("regime", regime), [])]
    assert refusal(*argv) == (
        f"optimizer.layer_decay: received 0.5, allowed: 1 with regime {regime}, which does not train the backbone"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--regime", "two_stage"],
        ["--regime", "finetune"],
        ["--regime", "gradual", "--phases", "[{trainable: head}, {trainable: last, blocks: 1}]"],
    ],
    ids=lambda options: options[1],
)
def test_layer_decay_is_allowed_if_a_part_of_the_backbone_is_trained(options: list[str]) -> None:
    assert read_settings("torch", [*options, "--optimizer.layer_decay", "0.5"]).optimizer.layer_decay == 0.5


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ("--regime scratch", "regime scratch, whose backbone has no statistics to keep"),
        ("--regime frozen", "regime frozen, which does not train the backbone"),
        ("--regime off_the_shelf", "regime off_the_shelf, which does not train the backbone"),
        ("--weights random", "weights random, since a random backbone has no statistics to keep"),
    ],
)
def test_frozen_batch_norm_is_refused_without_pretrained_statistics_of_a_trained_backbone(
    options: str, cause: str
) -> None:
    words = [*options.split(), "--backbone_batch_norm", "frozen"]
    assert refusal(*words) == f"backbone_batch_norm: received 'frozen', allowed: train with {cause}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_frozen_batch_norm_is_that_of_each_phase(framework: Any, backbone: str) -> None:
    words = ["--regime", "two_stage", "--backbone", backbone]
    settings = read_settings(framework, [*words, "--backbone_batch_norm", "frozen"])
    assert [phase.batch_norm for phase in phases_of(settings)] == ["frozen", "frozen"]
    assert [phase.batch_norm for phase in phases_of(read_settings(framework, words))] == ["train", "train"]


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ("--regime frozen", "null without augmentation, since each image has one view"),
        ("--regime frozen --augmentation.hue 0.1 --cache_features false", "null with cache_features false"),
        (
            "--regime frozen --augmentation.hue 0.1 --num_devices 2",
            "null unless num_devices is 1, since features are cached on one device only",
        ),
        ("--augmentation.hue 0.1", "null with regime finetune, in which no phase trains only the head"),
        *(
            (
                f"--regime frozen --augmentation.hue 0.1 --mixing.{method}_alpha 1",
                "null with mixing.mixup_alpha or mixing.cutmix_alpha, which mix other images in each epoch",
            )
            for method in ("mixup", "cutmix")
        ),
    ],
)
def test_cached_views_are_refused_where_they_would_have_no_effect(options: str, allowed: str) -> None:
    assert refusal(*options.split(), "--cache_views", "4") == f"cache_views: received 4, allowed: {allowed}"


def test_cached_views_are_allowed_if_one_phase_trains_only_the_head() -> None:
    argv = ["--regime", "two_stage", "--augmentation.crop_padding", "4", "--cache_views", "4"]
    assert read_settings("keras", argv).cache_views == 4


def test_weights_of_classes_are_words_or_numbers_by_class() -> None:
    for text, value in (("balanced", "balanced"), ("{cat: 2, '7': 0.5}", {"cat": 2, "7": 0.5})):
        for argv in (["--loss.class_weights", text], config(f"loss: {{class_weights: {text}}}")):
            assert read_settings("torch", argv).loss.class_weights == value


@pytest.mark.parametrize("value", ["{}", "null", "[1, 2]", "2", "{cat: many}", "even"])
def test_weights_of_classes_in_another_form_are_refused(value: str) -> None:
    message = refusal(*config(f"loss: {{class_weights: {value}}}"))
    assert message.startswith("loss.class_weights: received ") and "allowed: none, balanced" in message


@pytest.mark.parametrize("refused", ["plateau", "one_cycle"])
def test_warmup_is_refused_with_schedules_that_have_none(refused: str) -> None:
    argv = ["--schedule.warmup_epochs", "2"]
    assert refusal("--schedule.name", refused, *argv) == (
        f"schedule.warmup_epochs: received 2, allowed: 0 with schedule.name {refused}; "
        "schedule.name none, cosine or step takes it"
    )
    for name in ("none", "cosine", "step"):
        read_settings("torch", ["--schedule.name", name, *argv])


def test_one_cycle_takes_no_lowest_rate() -> None:
    assert refusal("--schedule.name", "one_cycle", "--schedule.min_learning_rate", "0.00001") == (
        "schedule.min_learning_rate: received 1e-05, allowed: 0 with schedule.name one_cycle, which ends at a "
        "250,000th of the rate"
    )


@pytest.mark.parametrize("parts", ["5", "32"])
def test_accumulation_cuts_batches_into_equal_parts_of_two_images_or_more(parts: str) -> None:
    assert refusal("--batch_size", "32", "--accumulate", parts) == (
        f"accumulate: received {parts}, allowed: a divisor of batch_size 32, with parts of at least 2 images"
    )
    assert read_settings("torch", ["--batch_size", "32", "--accumulate", "16"]).accumulate == 16


def test_accumulation_is_refused_where_frameworks_differ() -> None:
    assert refusal("--accumulate", "2", "--precision", "float16", "--device", "gpu") == (
        "accumulate: received 2, allowed: 1 with precision float16; precision bfloat16 takes it"
    )
    assert refusal("--accumulate", "2", "--find_learning_rate", "true") == (
        "accumulate: received 2, allowed: 1 with find_learning_rate, whose steps are single passes"
    )


def test_parts_of_batches_are_shared_equally_among_devices() -> None:
    assert refusal("--batch_size", "32", "--accumulate", "8", "--num_devices", "3") == (
        "batch_size: received 32, allowed: a multiple of num_devices times accumulate, 24, since each part of a batch "
        "is split across the devices (24 or 48 for example)"
    )


def test_warmup_is_shorter_than_each_phase() -> None:
    argv = ["--regime", "gradual", "--phases", "[{trainable: head}, {trainable: all, max_epochs: 3}]"]
    assert refusal(*argv, "--schedule.warmup_epochs", "3") == (
        "schedule.warmup_epochs: received 3, allowed: less than the 3 epochs of phase 2 of regime gradual"
    )
    read_settings("torch", [*argv, "--schedule.warmup_epochs", "2"])


@pytest.mark.parametrize("name", ["plateau", "cosine"])
def test_lowest_rate_is_not_above_the_rate_of_a_phase(name: str) -> None:
    argv = ["--regime", "two_stage", "--learning_rate", "0.01", "--schedule.name", name]
    assert refusal(*argv, "--schedule.min_learning_rate", "0.002") == (
        "schedule.min_learning_rate: received 0.002, allowed: at most 0.001, the learning rate of phase 2 of regime "
        "two_stage"
    )
    read_settings("torch", [*argv, "--schedule.min_learning_rate", "0.001"])


def test_imagenet_classes_are_refused_without_an_imagenet_head() -> None:
    assert refusal("--imagenet_classes", "classes.yaml") == (
        "imagenet_classes: received 'classes.yaml', allowed: null with regime finetune; off_the_shelf takes it"
    )


@pytest.mark.parametrize("weights", ["random", "runs:/" + "0" * 32])
def test_network_off_the_shelf_needs_weights_with_an_imagenet_head(weights: str) -> None:
    message = refusal("--regime", "off_the_shelf", "--weights", weights)
    assert message.startswith(f"weights: received '{weights}', allowed: imagenet or a file, with regime off_the_shelf")
    Path("whole.pth").touch()
    for taken in ("imagenet", "whole.pth"):
        read_settings("torch", ["--regime", "off_the_shelf", "--weights", taken])


# -------------------------------------------------------------------------------------------------------------- phases


def gradual(phases: str) -> Iterator[list[str]]:
    """Words that give phases on the command line and in a file."""
    yield ["--regime", "gradual", f"--phases={phases}"]
    yield config(f"regime: gradual\nphases: {phases}\n")


def test_phases_are_read_with_defaults_for_what_they_leave_out() -> None:
    for argv in gradual("[{trainable: head}, {trainable: last, blocks: 2, learning_rate: 1e-4, max_epochs: 5}]"):
        assert read_settings("keras", argv).phases == [
            PhaseSettings(trainable="head"),
            PhaseSettings(trainable="last", blocks=2, learning_rate=1e-4, max_epochs=5),
        ]


def test_gradual_needs_phases() -> None:
    for argv in (["--regime", "gradual"], *gradual("[]"), *gradual("null")):
        message = refusal(*argv)
        assert message.startswith("phases: received ")
        assert message.endswith(
            "with regime gradual one or more, like [{trainable: head}, {trainable: last, blocks: 2}]"
        )


def test_phases_are_refused_with_another_regime() -> None:
    assert refusal("--regime", "two_stage", "--phases", "[{trainable: head}]") == (
        "phases: received [{'trainable': 'head', 'blocks': None, 'learning_rate': None, 'max_epochs': None... "
        "(82 characters), allowed: null with regime two_stage; regime gradual takes phases"
    )


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ("{trainable: middle}", "phases.trainable: received 'middle', allowed: head, last, all"),
        ("{blocks: 2}", "phases.trainable: received nothing in one of the phases, allowed: head, last, all"),
        ("{trainable: null}", "phases.trainable: received nothing in one of the phases, allowed: head, last, all"),
        (
            "{trainable: last, blocks: two}",
            "phases.blocks: received 'two', allowed: a whole number or null, at least 1, at most 1000",
        ),
        (
            "{trainable: last, blocks: 2.5}",
            "phases.blocks: received '2.5', allowed: a whole number or null, at least 1, at most 1000",
        ),
        (
            "{trainable: last, blocks: 0}",
            "phases.blocks: received 0, allowed: a whole number or null, at least 1, at most 1000",
        ),
        (
            "{trainable: all, learning_rate: 20}",
            "phases.learning_rate: received 20.0, allowed: a number or null, at least 1e-12, at most 10",
        ),
        (
            "{trainable: all, learning_rate: .nan}",
            "phases.learning_rate: received nan, allowed: a number or null, at least 1e-12, at most 10",
        ),
        (
            "{trainable: all, max_epochs: 0}",
            "phases.max_epochs: received 0, allowed: a whole number or null, at least 1, at most 1000000",
        ),
        (
            "{trainable: head, bloks: 2}",
            "phases.bloks: there is no such setting; a phase has trainable, blocks, learning_rate, max_epochs",
        ),
        ("{trainable: last}", "phases.blocks: received None, allowed: with trainable last a whole number, at least 1"),
        (
            "{trainable: head, blocks: 1}",
            "phases.blocks: received 1, allowed: null with trainable head; trainable last takes it",
        ),
    ],
)
def test_problem_of_a_phase_is_reported_in_one_line(phase: str, message: str) -> None:
    for argv in gradual(f"[{{trainable: all}}, {phase}]"):
        assert refusal(*argv) == message


@pytest.mark.parametrize("phases", ["5", "head", "{trainable: head}", "[head]", "[{trainable: head}, null]", "[[]]"])
def test_wrong_list_of_phases_is_refused_with_an_example(phases: str) -> None:
    for argv in gradual(phases):
        message = refusal(*argv)
        assert message.startswith("phases: received ") and "Namespace" not in message
        assert "allowed: a list of phases, like [{trainable: head}, {trainable: last, blocks: 2}]" in message


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_phase_trains_no_more_blocks_than_there_are(framework: str) -> None:
    # the stem and four stages
    argv = ["--backbone", "resnet50", "--regime", "gradual", "--phases"]
    message = refusal(*argv, "[{trainable: last, blocks: 6}]", framework=framework)
    assert message == "phases.blocks: received 6, allowed: at most 5, which resnet50 has"
    read_settings(framework, [*argv, "[{trainable: last, blocks: 5}]"])  # type: ignore[arg-type]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_float16_is_refused_on_a_cpu(framework: str) -> None:
    message = refusal("--precision", "float16", "--device", "cpu", framework=framework)
    assert message == "precision: received 'float16', allowed: float32 or bfloat16 with device cpu"


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50", "densenet121"])
def test_image_smaller_than_the_backbone_takes_is_refused(backbone: str) -> None:
    message = refusal("--backbone", backbone, "--data.image_size", "31")
    assert message == f"data.image_size: received 31, allowed: at least 32 for backbone {backbone}"
    read_settings("torch", ["--backbone", backbone, "--data.image_size", "32"])


def test_padding_is_smaller_than_the_image() -> None:
    message = refusal("--data.image_size", "32", "--augmentation.crop_padding", "32")
    assert message == "augmentation.crop_padding: received 32, allowed: less than 32"
    read_settings("torch", ["--data.image_size", "32", "--augmentation.crop_padding", "31"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_message_for_an_unknown_backbone_lists_all(framework: str) -> None:
    message = refusal("--backbone", "resnet5", framework=framework)
    libraries = "torchvision:NAME or timm:NAME" if framework == "torch" else "keras:NAME"
    assert message == (
        f"backbone: received 'resnet5', allowed in {framework}: {', '.join(CATALOGUE)}, or {libraries}; "
        "did you mean resnet50?"
    )
    assert "did you mean" not in refusal("--backbone", "zzz", framework=framework)


# ------------------------------------------------------------------------------------------------------------- weights


RUN = "runs:/" + "0123456789abcdef" * 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("weights", ["imagenet", "random", RUN])
def test_names_of_weights_are_allowed(weights: str, framework: Any) -> None:
    assert read_settings(framework, ["--weights", weights]).weights == weights


@pytest.mark.parametrize(
    ("framework", "name"),
    [("torch", "w.pth"), ("torch", "w.pt"), ("keras", "w.weights.h5")],
)
def test_weight_file_of_the_framework_is_allowed(framework: Any, name: str) -> None:
    Path(name).touch()
    assert read_settings(framework, ["--weights", name]).weights == name
    other = "keras" if framework == "torch" else "torch"
    message = refusal("--weights", name, framework=other)
    assert message.startswith(f"weights: received '{name}', allowed: imagenet, random, runs:/<run id")
    assert f"train_{other}.py" in message


def test_torchs_weights_are_allowed_for_networks_that_keras_lacks() -> None:
    Path("w.safetensors").touch()
    words = ["--weights", "w.safetensors", "--backbone", "alexnet", "--data.image_size", "64"]
    assert read_settings("keras", words).weights == "w.safetensors"


def test_backbone_of_a_library_is_allowed_in_its_framework_only() -> None:
    assert read_settings("torch", ["--backbone", "timm:convnext_tiny"]).backbone == "timm:convnext_tiny"
    message = refusal("--backbone", "timm:convnext_tiny", framework="keras")
    assert message.startswith("backbone: 'timm:convnext_tiny' exists in torch only; allowed in keras: ")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_missing_weight_file_is_named(framework: str) -> None:
    name = "lacking.pth" if framework == "torch" else "lacking.weights.h5"
    message = refusal("--weights", name, framework=framework)
    assert message.startswith(f"weights: received '{name}', allowed: ") and message.endswith("there is no such file")


@pytest.mark.parametrize(
    "weights", ["runs:/", "runs:/abc", RUN + "0", RUN + "/weights", "runs:" + "0" * 32, "ImageNet"]
)
def test_weights_of_unknown_form_are_refused(weights: str) -> None:
    message = refusal(f"--weights={weights}")
    assert message.startswith(f"weights: received {weights!r}, allowed: imagenet, random, runs:/")


def test_folder_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").mkdir()
    assert refusal("--weights", "weights.pth").startswith("weights: received 'weights.pth'")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scratch_starts_from_random_weights_despite_other_settings(framework: Any) -> None:
    assert read_settings(framework, ["--regime", "scratch"]).weights == "random"
    assert read_settings(framework, ["--regime", "scratch", "--weights", RUN]).weights == "random"
    assert read_settings(framework, ["--regime", "finetune"]).weights == "imagenet"


# ------------------------------------------------------------------------------------------------- the user's own data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--data.parts {test:Testing}",
            "data.parts: received {'test': 'Testing'}, allowed: a mapping with the key train",
        ),
        ("--data.parts {train:a,testing:b}", "data.parts: received {'train': 'a', 'testing': 'b'}, allowed: a mapping"),
        ("--data.parts {train:a,test:a}", "allowed: a different name for each part"),
        (
            "--data.parts Training",
            "data.parts: received 'Training', allowed: a mapping of texts to texts, like {train:",
        ),
        (
            "--data.columns {image:file}",
            "data.columns: received {'image': 'file'}, allowed: a mapping with some of the keys",
        ),
        (
            "--data.source mnist --data.labels x.csv",
            "data.labels: received 'x.csv', allowed: null with data.source mnist",
        ),
        ("--data.max_pixels 0", "data.max_pixels: received 0, allowed: a whole number, at least 1"),
    ],
)
def test_settings_of_the_users_data_are_refused_where_they_make_no_sense(words: str, message: str) -> None:
    argv = [word.replace(":", ": ") if word.startswith("{") else word for word in f"--data.source pets {words}".split()]
    assert message in refusal(*argv)


def test_parts_and_columns_are_mappings() -> None:
    argv = ["--data.source", "pets", "--data.parts", "{train: Training, test: Testing}"]
    settings = read_settings("torch", argv)
    assert settings.data.parts == {"train": "Training", "test": "Testing"}
    again = read_settings("keras", config(yaml.safe_dump({"data": {"source": "pets", "parts": settings.data.parts}})))
    assert settings_hash(again) == settings_hash(settings) != settings_hash(read_settings("torch", argv[:2]))
