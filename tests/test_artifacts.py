import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlapp.errors import ArtifactError, InvalidSettings, ModelNotFound, OutputError
from mlapp.manifest import Artifact, Data, Manifest
from mlapp.store import artifacts
from mlapp.store.artifacts import MANIFEST, TEMPORARY
from training import classification, regression, sentiment

PUBLISHER = Path(__file__).with_name("publisher.py")


TRAINING = {"command": "python -m training.regression --name toy"}


def draft(name: str = "toy", training: dict[str, Any] = TRAINING, **files: bytes) -> Artifact:
    return artifacts.draft(
        name,
        files or {"weights": b"12345", "notes": b"abc"},
        ("mlapp",),
        task="regression",
        data=Data(source="none", rows=1, columns=1, sha256="0" * 64),
        training=training,
        metrics={"r2": 1.0},
        golden=(),
    )


def accept(artifact: Artifact) -> None:
    """Find nothing wrong."""


def publish(
    root: Path, name: str = "toy", training: dict[str, Any] = TRAINING, **files: bytes
) -> Artifact:
    return artifacts.publish(root, draft(name, training, **files), accept)


def test_a_mark_that_was_left_behind_makes_no_candidate(tmp_path: Path) -> None:
    publish(tmp_path)
    artifacts.candidate_mark(tmp_path, "toy", 2).touch()  # of a publication that was killed
    publish(tmp_path)
    assert (artifacts.candidates(tmp_path, "toy"), artifacts.served_version(tmp_path, "toy")) == (
        [],
        2,
    )


def test_a_candidate_that_cannot_be_published_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("disk failure")

    publish(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OutputError, match="disk failure"):
            artifacts.publish(tmp_path, draft(), accept, candidate=True)
    assert artifacts.candidates(tmp_path, "toy") == []
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["1"]


# --- publish and open -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "train", [regression.train, partial(classification.train, target="label"), sentiment.train]
)
@pytest.mark.parametrize(("place", "name"), [("a file", "toy"), ("new", "Toy")])
def test_what_cannot_be_published_is_refused_before_the_data_is_read(
    train: Callable[..., Artifact], place: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(ArtifactError, match=place if place == "a file" else name):
        train(data=tmp_path / "none.csv", name=name, root=tmp_path / place)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy").touch()
    with pytest.raises(OutputError, match="toy cannot be written"):
        publish(tmp_path)


def test_versions_are_numbered_from_one_and_the_newest_is_opened(tmp_path: Path) -> None:
    for number in range(1, 12):
        assert publish(tmp_path, weights=bytes([number])).manifest.version == number
    assert artifacts.versions(tmp_path, "toy") == list(range(1, 12))
    opened = artifacts.open(tmp_path, "toy")
    assert opened.manifest.version == 11
    assert opened.files == {"weights": bytes([11])}
    assert artifacts.open(tmp_path, "toy", 2).files == {"weights": bytes([2])}


def test_models_are_found_by_name_and_kind(tmp_path: Path) -> None:
    publish(tmp_path, "b")
    publish(tmp_path, "a")
    (tmp_path / "README.md").write_text("no model")
    (tmp_path / "empty").mkdir()
    assert artifacts.names(tmp_path) == ["a", "b"]
    assert artifacts.kind(tmp_path, "a") == ("text", "number")


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert artifacts.names(tmp_path / "nothing") == []
    with pytest.raises(ModelNotFound, match="No complete version of 'toy'"):
        artifacts.open(tmp_path / "nothing", "toy")


def test_a_version_without_a_manifest_is_not_served(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "toy" / "7").mkdir()
    assert artifacts.open(tmp_path, "toy").manifest.version == 1
    assert publish(tmp_path).manifest.version == 8


@pytest.mark.parametrize("name", ["", "A", "../evil", "a/b", "a b", ".hidden", "x" * 65, "a\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="name"):
        draft(name)
    assert artifacts.versions(tmp_path, name) == []


def test_a_version_that_fails_its_check_is_not_published(tmp_path: Path) -> None:
    def refuse(artifact: Artifact) -> None:
        raise ArtifactError("wrong predictions")

    publish(tmp_path)
    with pytest.raises(ArtifactError, match="wrong predictions"):
        artifacts.publish(tmp_path, draft(), refuse)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["1"]


def test_the_check_sees_what_will_be_served(tmp_path: Path) -> None:
    seen: list[Artifact] = []
    published = artifacts.publish(tmp_path, draft(), seen.append)
    assert (seen[0].manifest, seen[0].files) == (published.manifest, published.files)


def test_leftovers_of_killed_publishers_go_after_a_day(tmp_path: Path) -> None:
    publish(tmp_path)
    old, new = (tmp_path / "toy" / f"{TEMPORARY}{name}" for name in ("old", "new"))
    for leftover in (old, new):
        leftover.mkdir()
    os.utime(old, (0, 0))
    publish(tmp_path)
    assert not old.exists()
    assert new.exists()


# --- damage -----------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    (path / "weights").write_bytes(b"1234")


def flip(path: Path) -> None:
    (path / "weights").write_bytes(b"12344")


def remove(path: Path) -> None:
    (path / "weights").unlink()


def add(path: Path) -> None:
    (path / "extra.py").write_text("import os")


def swap(path: Path) -> None:
    first, second = (path / "weights").read_bytes(), (path / "notes").read_bytes()
    (path / "weights").write_bytes(second)
    (path / "notes").write_bytes(first)


def replace_by_folder(path: Path) -> None:
    (path / "weights").unlink()
    (path / "weights").mkdir()


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (truncate, "weights has 4 bytes, expected 5"),
        (flip, "weights is damaged"),
        (remove, "weights cannot be read"),
        (add, r"files that its manifest does not list: extra\.py"),
        (swap, "has 5 bytes, expected 3"),
        (replace_by_folder, "weights cannot be read"),
    ],
)
def test_a_damaged_file_is_named_with_the_command_that_fixes_it(
    damage: Callable[[Path], None], reported: str, tmp_path: Path
) -> None:
    damage(publish(tmp_path).path)
    with pytest.raises(ArtifactError, match=reported) as caught:
        artifacts.open(tmp_path, "toy")
    assert caught.value.fix == "python -m training.regression --name toy"


def test_the_command_is_the_manifests_own_whatever_the_model_is_called(tmp_path: Path) -> None:
    path = publish(tmp_path, "moods", training={"command": "python -m anything --name moods"}).path
    flip(path)
    with pytest.raises(ArtifactError, match="To fix it: python -m anything --name moods"):
        artifacts.open(tmp_path, "moods")


def test_a_damaged_manifest_leaves_the_command_to_another_version(tmp_path: Path) -> None:
    publish(tmp_path, "moods", training={"command": "python -m anything"})
    second = publish(tmp_path, "moods", training={"command": "python -m anything --seed 1"}).path
    (second / MANIFEST).write_bytes(b"{}")
    with pytest.raises(ArtifactError) as caught:
        artifacts.open(tmp_path, "moods")
    assert caught.value.fix == "python -m anything"


@pytest.mark.parametrize("training", [{}, {"command": None}, {"command": ""}])
def test_no_command_is_made_up(training: dict[str, Any], tmp_path: Path) -> None:
    flip(publish(tmp_path, "sentiment", training=training).path)
    with pytest.raises(ArtifactError) as caught:
        artifacts.open(tmp_path, "sentiment")
    assert caught.value.fix is None
    assert "None" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "fix"),
    [
        ("python -m anything --name toy", "mlapp retrain toy"),
        ("mlapp publish toy.joblib --name toy", "mlapp publish toy.joblib --name toy --candidate"),
    ],
)
def test_the_command_for_a_damaged_candidate_makes_a_candidate(
    command: str, fix: str, tmp_path: Path
) -> None:
    publish(tmp_path)
    drafted = draft(training={"command": command})
    path = artifacts.publish(tmp_path, drafted, accept, candidate=True).path
    flip(path)
    with pytest.raises(ArtifactError) as caught:
        artifacts.open(tmp_path, "toy", 2)
    assert caught.value.fix == fix
    (path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(ArtifactError, match="manifest") as caught:
        artifacts.open(tmp_path, "toy", 2)
    assert caught.value.fix == "mlapp retrain toy"  # by the manifest of version 1


def test_a_candidate_is_made_by_its_own_command_while_nothing_is_served(tmp_path: Path) -> None:
    flip(artifacts.publish(tmp_path, draft(), accept, candidate=True).path)
    with pytest.raises(ArtifactError) as caught:
        artifacts.open(tmp_path, "toy", 1)
    assert caught.value.fix == "python -m training.regression --name toy --candidate"


def rename_in_manifest(path: Path, old: str, new: str) -> None:
    """Write a manifest with another file name and a digest that matches."""
    content = json.loads((path / MANIFEST).read_text())
    content["files"][new] = content["files"].pop(old)
    del content["digest"]
    content["digest"] = hashlib.sha256(artifacts._serialize(content)).hexdigest()
    (path / MANIFEST).write_bytes(artifacts._serialize(content))


@pytest.mark.parametrize(
    "name",
    ["../../../etc/hostname", "/etc/hostname", "..", "a/b", "a\\b", "", ".hidden", "C:x", "a\n"],
)
def test_a_manifest_may_name_plain_files_only(name: str, tmp_path: Path) -> None:
    path = publish(tmp_path).path
    rename_in_manifest(path, "notes", name)
    (path / "notes").unlink()
    with pytest.raises(ArtifactError, match="not a valid manifest"):
        artifacts.open(tmp_path, "toy")


def test_a_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path = publish(tmp_path).path
    (path / "notes").rename(tmp_path / "elsewhere")
    (path / "notes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="notes is a link"):
        artifacts.open(tmp_path, "toy")


def test_a_file_of_another_version_is_found_out(tmp_path: Path) -> None:
    first = publish(tmp_path, weights=b"11111")
    second = publish(tmp_path, weights=b"22222")
    shutil.copy(first.path / "weights", second.path / "weights")
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.open(tmp_path, "toy")


def test_a_version_under_another_number_or_name_is_found_out(tmp_path: Path) -> None:
    path = publish(tmp_path).path
    shutil.copytree(path, tmp_path / "toy" / "2")
    shutil.copytree(path, tmp_path / "other" / "1")
    for name in ("toy", "other"):
        with pytest.raises(ArtifactError, match="it was moved here"):
            artifacts.open(tmp_path, name)


def test_a_manifest_of_a_future_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    file = publish(tmp_path).path / MANIFEST
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ArtifactError, match="format 2") as caught:
        artifacts.open(tmp_path, "toy")
    assert caught.value.fix == "upgrade mlapp"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'"text"'])
def test_an_invalid_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (publish(tmp_path).path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=MANIFEST):
        artifacts.open(tmp_path, "toy")
    assert artifacts.kind(tmp_path, "toy") is None


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    file = publish(tmp_path).path / MANIFEST
    file.write_text(file.read_text().replace('"r2": 1.0', '"r2": 2.0'))
    with pytest.raises(ArtifactError, match="digest"):
        artifacts.open(tmp_path, "toy")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("toy")).path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found_out(toy: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path.name for path in toy.iterdir())))
    whole = (toy / file).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = bytes([*whole[:place], whole[place] ^ bit, *whole[place + 1 :]])
    try:
        (toy / file).write_bytes(flipped)
        with pytest.raises(ArtifactError):
            artifacts.open(toy.parent.parent, "toy")
    finally:
        (toy / file).write_bytes(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.dictionaries(st.from_regex(r"[a-z]{1,8}\.bin", fullmatch=True), st.binary()))
@pytest.mark.slow
def test_files_come_back_as_they_were_published(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("round")
    artifacts.publish(root, Artifact(Path(), *_drafted(files)), accept)
    assert artifacts.open(root, "toy").files == files


def _drafted(files: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    drafted = artifacts.draft(
        "toy",
        files,
        (),
        task="regression",
        data=Data(source="none", rows=1, columns=1, sha256=""),
        training={},
        metrics={},
        golden=(),
    )
    return drafted.manifest, dict(drafted.files)


# --- pins -------------------------------------------------------------------------------------


def test_a_pinned_version_is_served_until_it_is_unpinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLAPP_PINS", raising=False)
    publish(tmp_path)
    publish(tmp_path)
    artifacts.pin(tmp_path, "toy", 1)
    publish(tmp_path)
    assert artifacts.served_version(tmp_path, "toy") == artifacts.pinned(tmp_path, "toy") == 1
    artifacts.unpin(tmp_path, "toy")
    artifacts.unpin(tmp_path, "toy")
    assert artifacts.served_version(tmp_path, "toy") == 3
    assert artifacts.pinned(tmp_path, "toy") is None


def test_only_a_published_version_can_be_pinned(tmp_path: Path) -> None:
    publish(tmp_path)
    with pytest.raises(ModelNotFound, match="published: 1"):
        artifacts.pin(tmp_path, "toy", 2)
    with pytest.raises(ModelNotFound, match="published: none"):
        artifacts.pin(tmp_path, "other", 1)
    with pytest.raises(ModelNotFound):
        artifacts.unpin(tmp_path, "other")


def test_a_pinned_version_that_was_deleted_is_reported(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path)
    artifacts.pin(tmp_path, "toy", 1)
    shutil.rmtree(tmp_path / "toy" / "1")
    with pytest.raises(ModelNotFound, match="pinned to version 1; published are 2") as caught:
        artifacts.open(tmp_path, "toy")
    assert caught.value.fix == "mlapp unpin toy"


def test_a_pin_of_the_settings_is_changed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    monkeypatch.setenv("MLAPP_PINS", "toy=9")
    with pytest.raises(ModelNotFound, match="pinned to version 9") as caught:
        artifacts.open(tmp_path, "toy")
    assert caught.value.fix == "change MLAPP_PINS, which holds toy"


@pytest.mark.parametrize("name", ["records.db", "records.db-wal"])
def test_no_model_takes_the_name_of_the_records_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="the file of the records has it"):
        artifacts.require_name(name)


def test_a_pin_that_is_not_a_number_is_reported(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "toy" / artifacts.PIN).write_text("newest")
    with pytest.raises(ArtifactError, match="'newest'"):
        artifacts.open(tmp_path, "toy")


def test_the_environment_pins_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    publish(tmp_path)
    monkeypatch.setenv("MLAPP_PINS", "toy=1")
    assert artifacts.open(tmp_path, "toy").manifest.version == 1
    with pytest.raises(InvalidSettings, match="MLAPP_PINS"):
        artifacts.pin(tmp_path, "toy", 2)


# --- many at once -----------------------------------------------------------------------------


def start_publisher(root: Path, *count: str) -> subprocess.Popen[str]:
    publisher = subprocess.Popen(
        [sys.executable, str(PUBLISHER), str(root), *count], stdout=subprocess.PIPE, text=True
    )
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == "ready\n"
    return publisher


@pytest.mark.slow(15)
def test_publishers_killed_at_random_moments_leave_only_whole_versions(tmp_path: Path) -> None:
    chance = random.Random(1)
    cut_off = 0
    for _ in range(25):
        before = artifacts.versions(tmp_path, "toy")
        with start_publisher(tmp_path) as publisher:
            try:
                publisher.wait(timeout=chance.uniform(0.0, 0.12))
            except subprocess.TimeoutExpired:
                publisher.kill()
        after = artifacts.versions(tmp_path, "toy")
        assert after[: len(before)] == before
        for version in after[len(before) :]:
            artifacts.open(tmp_path, "toy", version)
        if after:
            assert artifacts.open(tmp_path, "toy").manifest.version == after[-1]
        cut_off = len(list((tmp_path / "toy").glob(f"{TEMPORARY}*"))) if after else 0
    assert cut_off > 0, "no publisher was killed half-way: the test shows nothing"
    assert publish(tmp_path).manifest.version == artifacts.versions(tmp_path, "toy")[-1]


def test_of_two_publishers_with_the_same_number_the_later_takes_the_next(tmp_path: Path) -> None:
    def publish_meanwhile(artifact: Artifact) -> None:
        if artifact.manifest.version == 1:
            publish(tmp_path, weights=b"other")

    mine = artifacts.publish(tmp_path, draft(weights=b"mine"), publish_meanwhile)
    assert mine.manifest.version == 2
    opened = [artifacts.open(tmp_path, "toy", version) for version in (1, 2)]
    assert [artifact.files["weights"] for artifact in opened] == [b"other", b"mine"]


@pytest.mark.slow
def test_two_publishers_at_once_lose_no_version(tmp_path: Path) -> None:
    both = [start_publisher(tmp_path, "20") for _ in range(2)]
    for publisher in both:
        with publisher:
            assert publisher.wait(timeout=60) == 0
    assert artifacts.versions(tmp_path, "toy") == list(range(1, 41))
    opened = [artifacts.open(tmp_path, "toy", version) for version in range(1, 41)]
    numbers = sorted(int(str(artifact.manifest.training["number"])) for artifact in opened)
    assert numbers == sorted([*range(20), *range(20)])
