"""What only the JSON store does: three files for eyes, and one writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import PersistentStoreFeatures, Workflow
from stormtracks.cluster.persistence.json import JSONPersistentStore
from tests.cluster.persistence.stores import TEMPLATE, campaign


def test_it_carries_one_attempt_at_a_time(tmp_path: Path) -> None:
    assert campaign(JSONPersistentStore, tmp_path / "campaign").features == PersistentStoreFeatures(submission=True)


def test_there_are_three_files_and_those_of_the_commit_before(tmp_path: Path) -> None:
    path = tmp_path / "campaign"
    store = campaign(JSONPersistentStore, path)
    for number in range(5):
        store.set_parameter(number, number)
        store.save()
        store.add_submission({"epoch": number})
        store.save()
        named = set(store.load_metadata()["files"].values())
        there = {file.name for file in path.iterdir()}
        assert len(named) == 2 and named | {"metadata.json"} <= there and len(there) <= 4


def test_the_files_can_be_read_by_eye(tmp_path: Path) -> None:
    store = campaign(JSONPersistentStore, tmp_path / "campaign")
    store.set_parameter(4, {"tracks": 12, "name": "nächste"})
    store.save()
    documents = store.load()
    assert documents["metadata"]["campaign"][0]["template"] == TEMPLATE
    assert documents["parameters"] == store.load_parameter_data()
    assert documents["submissions"] == store.load_submissions() == {"submissions": []}
    text = (tmp_path / "campaign" / documents["metadata"]["files"]["parameters"]).read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if "tracks" in line)
    assert json.loads(line.strip(" ,"))["data"] == {"tracks": 12, "name": "nächste"}
    elements = (tmp_path / "campaign" / "metadata.json").read_text(encoding="utf-8").split('"elements": [')[1]
    assert elements.splitlines()[1].strip().startswith('{"task": 0, "idx": 0, "year": 2001, "member": 1')


def test_files_of_a_commit_are_read_together_or_not_at_all(tmp_path: Path) -> None:
    store = campaign(JSONPersistentStore, tmp_path / "campaign")
    with JSONPersistentStore(Workflow(tmp_path / "campaign")) as reader:
        metadata = reader.load_metadata()
        store.set_parameter(0, "new")
        store.save()
        assert metadata["revision"] == 1 and not reader.load_parameter_data()["parameters"][0]["is_set"]
        store.set_parameter(1, "newer")
        store.save()
        with pytest.raises(FileNotFoundError):
            reader.load_parameter_data()
        reader.load_metadata()
        assert [row["is_set"] for row in reader.load_parameter_data()["parameters"]] == [1, 1, 0, 0, 0, 0]


def test_a_second_writer_is_refused_while_there_is_one(tmp_path: Path) -> None:
    store = campaign(JSONPersistentStore, tmp_path / "campaign")
    other = JSONPersistentStore(Workflow(tmp_path / "campaign"))
    other.set_parameter(0, 1)
    with pytest.raises(StoreError, match="takes one writer") as error:
        other.commit_pending()
    assert "sqlite" in error.value.remedy
    store.close()
    other.save()
    assert JSONPersistentStore(Workflow(tmp_path / "campaign")).is_parameter_set(0)


def test_a_commit_stands_whatever_becomes_of_older_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = campaign(JSONPersistentStore, tmp_path / "campaign")
    obstacle = tmp_path / "campaign" / "parameters-99.json"
    obstacle.mkdir()  # no file that could be removed
    for number in range(2):
        store.set_parameter(number, number)
        store.save()
    assert f"{obstacle} is left behind" in caplog.text
    assert JSONPersistentStore(Workflow(tmp_path / "campaign")).is_parameter_set(1)


def test_another_version_is_refused_by_number(tmp_path: Path) -> None:
    campaign(JSONPersistentStore, tmp_path / "campaign").close()
    path = tmp_path / "campaign" / "metadata.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"schema": 1', '"schema": 2'), encoding="utf-8")
    with pytest.raises(StoreError, match="version 2; this program knows version 1"):
        JSONPersistentStore(Workflow(tmp_path / "campaign"))
