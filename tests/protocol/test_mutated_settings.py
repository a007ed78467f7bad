"""Settings with a value that nobody would write on purpose: accepted, or refused in one line that names the field."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.errors import UserError
from tandem.protocol.parser import parse_settings, read_settings
from tandem.protocol.settings import FIELDS, Settings

GROUPS = sorted({name.partition(".")[0] for name in FIELDS if "." in name})

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("", " ", "\0", "a\0b", "\r\n", "${HOME}", "~nobody/x", "null", "~", "#5", "---", "...", "&a", "*a", "!!"),
            *(
                "{",
                "[",
                "]",
                "[1,",
                "{a: b",
                "'",
                '"',
                "%",
                "@x",
                "`",
                "0x10",
                "1e999",
                "1_0",
                "1:30",
                "010",
                "no",
                "-",
            ),
            *("!!python/object:os.system x", "<<", "? a", "\ud800", "\u202e", "x" * 100_000, "é" * 300, "\x1b[31m"),
            *("http://[", "sqlite://", "postgresql://a:b[@h:99999999/x", "runs:/", "torchvision:", ":", "a" * 5000),
        ]
    ),
)
HUGE = "9" * 5000  # digits, which Python refuses to write
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, HUGE, 2**63, 2**64, -1, 1e-320, 1e308, float("nan"), float("inf"), 0, -0.0]),
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.dictionaries(st.text(max_size=5), SCALARS, max_size=3),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=6),
)


def written(value: Any) -> str:
    """A value as it may be written in YAML, with numbers of any length."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    if value == HUGE:
        return HUGE
    if isinstance(value, str | float):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return "{" + ", ".join(f"{json.dumps(key)}: {written(item)}" for key, item in value.items()) + "}"


def check(argv: list[str], names: tuple[str, ...]) -> None:
    # again if other programs had the cores
    assert any(seconds_of_check(argv, names) < 1 for _ in range(3))


def seconds_of_check(argv: list[str], names: tuple[str, ...]) -> float:
    start = time.perf_counter()
    try:
        read_settings("torch", argv)
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and message.isprintable(), repr(message)
        assert len(message) < 1500, message
        assert any(name in message for name in names), message
    return time.perf_counter() - start


@st.composite
def mutations(draw: st.DrawFn) -> tuple[list[str] | None, str | None, tuple[str, ...]]:
    """Words of a command line or the text of a file, and what the message has to name."""
    name = draw(st.sampled_from([*FIELDS, *GROUPS, "phases", "sweep.space", "nonsense", "data.nonsense"]))
    value = draw(VALUES)
    names = (name, name.partition(".")[0], "config", "KERAS_BACKEND", "tracking URI")
    if draw(st.booleans()):
        text = value if isinstance(value, str) else written(value)
        return [draw(st.sampled_from([f"--{name}={text}", f"--{name}"])), text], None, names
    nested = f"{name}: {written(value)}"
    if "." in name and draw(st.booleans()):
        group, _, last = name.partition(".")
        nested = f"{group}:\n  {last}: {written(value)}"
    extra = draw(st.sampled_from(["", "", "\ndata:\n", "\nregime: gradual", f"\n{nested}"]))
    return None, nested + extra, (*names, "data", "regime")


def try_mutation(mutation: tuple[list[str] | None, str | None, tuple[str, ...]]) -> None:
    words, text, names = mutation
    if words is not None:
        words = words if "=" not in words[0] else words[:1]
        check(words, (*names, words[-1][:20]))
        return
    assert text is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_bytes(text.encode(errors="surrogatepass"))
        check(["--config", str(file)], names)


@given(mutations())
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_mutated_settings_are_refused_in_one_line(mutation: tuple[Any, Any, tuple[str, ...]]) -> None:
    try_mutation(mutation)


@pytest.mark.long
@pytest.mark.timeout(900)
@given(mutations())
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_two_thousand_mutated_settings_are_refused_in_one_line(mutation: tuple[Any, Any, tuple[str, ...]]) -> None:
    try_mutation(mutation)


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"max_epochs: {'9' * 400}",
            r"^max_epochs: received 9{80}\.\.\. \(400 characters\), .* at most 40 digits$",
        ),
        (f"data:\n  image_size: {'9' * 5000}", r"^data\.image_size: received 9{80}\.\.\. \(5000 characters\)"),
        (f"phases: {'[' * 3000}{']' * 3000}", r"^phases: .*deeper than the 20 allowed$"),
        (f"regime: gradual\nphases: [{', '.join(['{trainable: head}'] * 3000)}]", "^phases: received more than 200 "),
        (f"data:\n  classes: &a [{', '.join(['x'] * 300_000)}]", r"^data\.classes: received more than 200,000 values"),
        (ALIASES, "received more than 200,000 values"),
        ("x" * 2_000_001, r"^config: received 2,000,001 characters"),
        ("data:\n  source: birds\ndata:\n  image_size: 32", "^data: given twice in the same file; give it once$"),
        ("data.source: birds\ndata:\n  source: cats", r"^data\.source: given twice"),
        ("", "^config: .* holds no settings"),
        ("# learning_rate: 1\n", "^config: .* holds no settings"),
        ("data:\n  source: ${USER}", r"^data\.source: received '\$\{USER\}', .*variables are not replaced"),
        ("optimizer: sgd", r"did you mean optimizer\.name sgd\?$"),
        ("horizontal_flip: yes", r"augmentation\.horizontal_flip"),
        ("augmentation:\n  horizontal_flip: si", r"^augmentation\.horizontal_flip: received 'si', allowed: true or"),
    ],
)
def test_file_of_settings_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(UserError) as raised:
        read_settings("torch", ["--config", str(tmp_path / "settings.yaml")])
    assert time.perf_counter() - start < 5
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--learning_rate", "1e-320"],
            "^learning_rate: received 1e-320, allowed: a number, at least 1e-12, at most",
        ),
        (["--early_stopping.min_delta", "1000"], r"^early_stopping\.min_delta: received 1000.0, .*at most 10"),
        (["--schedule.min_delta", "1000"], r"^schedule\.min_delta: "),
        (["--tracking.system_interval", "1e-320"], r"^tracking\.system_interval: "),
        (["--tracking.experiment", ""], r"^tracking\.experiment: received '', allowed: a text that is not empty"),
        (["--data.cache_folder", " "], r"^data\.cache_folder: received ' '"),
        (["--sweep.study", ""], r"^sweep\.study: "),
        (["--tracking.experiment", "x" * 300], r"^tracking\.experiment: .*at most 250 printable characters$"),
        (["--tracking.run_name", "a\x1b[31m"], r"^tracking\.run_name: received 'a\\x1b\[31m'"),
        (["--data.source", "a\0b"], r"^data\.source: received 'a\\x00b', allowed: a text without NUL characters$"),
        (["--tracking.uri", "sqlite:///a\0b.db"], r"^tracking\.uri: .*NUL"),
        (["--config", "a\0b"], r"^config: received 'a\\x00b'"),
        (["--sweep.storage", "zzz"], r"^sweep\.storage: a study cannot be kept there: received 'zzz'"),
        (["--regime", "fine-tune"], r"did you mean finetune\?$"),
        (["--regime", "Two-Stage"], r"did you mean two_stage\?$"),
        (["--optimizer", "sgd"], r"did you mean optimizer\.name sgd\?$"),
        (["--schedule", "cosine"], r"did you mean schedule\.name cosine\?$"),
        (["--backbone", "resnet18"], r"did you mean torchvision:resnet18\?$"),
        (["--backbone", "ResNet50"], r"did you mean resnet50\?$"),
        (["--backbone", "convnext-tiny"], r"did you mean torchvision:convnext_tiny\?$"),
        (["--regime", "x" * 100_000], r"^regime: received '?x{70,80}\.\.\. \(1000\d\d characters\), allowed: "),
        (["--" + "x" * 100_000, "1"], r"^x{80}\.\.\. \(100000 characters\): there is no such setting"),
    ],
)
def test_value_is_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_settings("torch", words)
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_keras_network_is_suggested_by_its_name() -> None:
    with pytest.raises(UserError, match=r"did you mean keras:NASNetMobile\?$"):
        read_settings("keras", ["--backbone", "nasnet_mobile"])


def test_refused_settings_are_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        parse_settings("torch", ["--max_epochs", "9" * 400])
    assert exited.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["#5", "a #5", "5", "no", "null and void", "a: b", "[a]", "café", "1e5"])
def test_name_of_a_run_is_what_was_written(name: str) -> None:
    assert read_settings("torch", ["--tracking.run_name", name]).tracking.run_name == name


def test_words_of_yaml_1_1_are_class_names(tmp_path: Path) -> None:
    classes = ["no", "yes", "on", "off", "Yes", "010", "1:30"]
    (tmp_path / "settings.yaml").write_text("data:\n  classes: [no, yes, on, off, Yes, 010, 1:30]\n")
    assert read_settings("torch", ["--config", str(tmp_path / "settings.yaml")]).data.classes == classes
    assert read_settings("torch", ["--data.classes", "[no, yes, on, off, Yes, 010, 1:30]"]).data.classes == classes
    (tmp_path / "dumped.yaml").write_text(yaml.safe_dump({"data": {"classes": classes}}))
    assert read_settings("torch", ["--config", str(tmp_path / "dumped.yaml")]).data.classes == classes


@pytest.mark.parametrize("group", GROUPS)
def test_empty_group_is_its_defaults(group: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(f"{group}:\n  # nothing yet\nseed: 1\n")
    words = ["--config", str(tmp_path / "settings.yaml")]
    expected = read_settings("torch", ["--seed", "1"])
    assert read_settings("torch", words) == expected
    assert read_settings("torch", [*words, "--data.image_size", "64", "--seed", "1"]).data.image_size == 64


def test_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(UserError, match=r"^data\.cache_folder: received '~/\.cache/tandem', .*HOME$"):
        read_settings("torch", [])
    assert isinstance(read_settings("torch", ["--data.cache_folder", "/cache"]), Settings)
