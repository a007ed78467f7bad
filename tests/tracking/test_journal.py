from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from tandem.errors import UserError
from tandem.tracking.journal import Journal, encode_values, read_journal


def test_nan_and_infinities_are_unchanged_by_the_journal(tmp_path: Path) -> None:
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1, "e": 3}
    journal = Journal(tmp_path)
    journal.append("metrics", step=2, values=encode_values(values))
    journal.close()

    for line in journal.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (entry,) = read_journal(journal.path).entries
    back = {name: float(value) for name, value in entry.content["values"].items()}
    assert math.isnan(back.pop("a"))
    assert back == {"b": math.inf, "c": -math.inf, "d": 0.1, "e": 3.0}
    assert (entry.kind, entry.number, entry.content["step"]) == ("metrics", 1, 2)


def test_journal_continues_after_an_incomplete_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("tags", values={"a": "1"})
    journal.append("tags", values={"b": "2"})
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-5])
    assert [entry.number for entry in read_journal(journal.path).entries] == [1]

    again = Journal(tmp_path)
    again.append("tags", values={"c": "3"})
    again.close()
    entries = read_journal(again.path).entries
    assert [(entry.number, entry.content["values"]) for entry in entries] == [(1, {"a": "1"}), (2, {"c": "3"})]


def test_damaged_line_is_reported_with_its_number(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for _ in range(3):
        journal.append("tags", values={})
    journal.close()
    lines = journal.path.read_text().splitlines()
    lines[1] = lines[1][:10]
    journal.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*journal\.jsonl is damaged"):
        read_journal(journal.path)


def test_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no journal at"):
        read_journal(tmp_path / "journal.jsonl")


def test_open_journal_is_locked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(UserError, match="in use by another process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_entries_of_several_threads_are_complete_and_numbered_without_gaps(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def log() -> None:
        for step in range(200):
            journal.append("metrics", step=step, values={"a": 1.0})

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert [entry.number for entry in read_journal(journal.path).entries] == list(range(1, 801))


def test_entries_without_a_sent_mark_are_unsent(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for _ in range(6):
        journal.append("tags", values={})
    journal.mark_sent(1, 2)
    journal.mark_refused(3, "no")
    journal.mark_refused(4, "not yet")
    journal.mark_sent(4, 5)
    journal.close()
    content = read_journal(journal.path)
    assert [entry.number for entry in content.unsent()] == [3, 6]
    assert content.refusals == {3: "no"}
