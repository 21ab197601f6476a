"""What is served when versions come, go and break."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from mlapp import store
from mlapp.errors import ArtifactError
from mlapp.manifest import Artifact
from mlapp.service import create_app, run
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.store.repository import Repository, estimate
from tests.conftest import Client, Server, client_of, wait_until
from training.regression import train


def publish_again(folder: Path, houses_csv: Path) -> None:
    train(houses_csv, "price", "houses", folder, say=lambda line: None)


def damage(folder: Path, version: int) -> None:
    (folder / "houses" / str(version) / "model.joblib").write_bytes(b"broken")


def repository_of(folder: Path, capacity: int = 1 << 30) -> Repository:
    return Repository(folder, capacity)


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_newest_version_that_opens_is_served(folder: Path, houses_csv: Path) -> None:
    for _ in range(3):
        publish_again(folder, houses_csv)
    damage(folder, 4)
    damage(folder, 3)
    models_here = repository_of(folder)
    assert models_here.get("houses").manifest.version == 2
    assert "houses/4/model.joblib" in str(models_here.refused("houses"))


@pytest.mark.slow
def test_a_process_serves_what_one_started_later_does(folder: Path, houses_csv: Path) -> None:
    early = repository_of(folder)
    assert early.get("houses").manifest.version == 1
    publish_again(folder, houses_csv)
    assert early.get("houses").manifest.version == 2
    damage(folder, 2)
    assert early.get("houses").manifest.version == 1
    assert repository_of(folder).get("houses").manifest.version == 1


@pytest.mark.slow
def test_a_pinned_version_that_is_damaged_is_not_replaced(folder: Path, houses_csv: Path) -> None:
    publish_again(folder, houses_csv)
    artifacts.pin(folder, "houses", 1)
    damage(folder, 1)
    with pytest.raises(ArtifactError, match=r"houses/1/model\.joblib"):
        repository_of(folder).get("houses")


@pytest.mark.slow
def test_a_refusal_is_logged_once_and_read_once(
    folder: Path,
    houses_csv: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_again(folder, houses_csv)
    damage(folder, 2)
    opened = []
    open_model = store.open_model
    monkeypatch.setattr(
        store, "open_model", lambda *args: opened.append(args[2]) or open_model(*args)
    )
    here = repository_of(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert here.get("houses").manifest.version == 1
    assert len(caplog.records) == 1
    assert opened == [2, 1]


def metric(client: Client, model: str) -> str:
    [line] = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f'mlapp_model_refused{{model="{model}"}}')
    ]
    return line.rpartition(" ")[2]


def test_a_model_that_does_not_open_shows_before_anyone_asks_for_it(folder: Path) -> None:
    damage(folder, 1)
    client = client_of(create_app())
    assert metric(client, "houses") == "1.0"
    assert metric(client, "regression") == "0.0"
    assert client.get("/readyz").status_code == 503
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/regression/ready").status_code == 200
    listed = {each["name"]: each["ready"] for each in client.get("/v1/models").json["models"]}
    assert listed == {"houses": False, "regression": True}


@pytest.mark.slow
def test_an_older_version_keeps_the_service_ready(folder: Path, houses_csv: Path) -> None:
    publish_again(folder, houses_csv)
    damage(folder, 2)
    client = client_of(create_app())
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/models/houses").json["version"] == 1
    assert metric(client, "houses") == "1.0"


@pytest.mark.slow
def test_all_workers_follow_a_withdrawal_and_damage(
    own: Callable[..., Server], tmp_path: Path
) -> None:
    server = own("--workers", "2")
    folder = tmp_path / "artifacts"

    def statuses(path: str) -> set[int]:
        return {requests.get(server.address + path, timeout=10).status_code for _ in range(20)}

    assert statuses("/v1/models/houses") == {200}
    damage(folder, 1)
    wait_until(lambda: statuses("/readyz") == {503}, "all workers to see the damage")
    wait_until(lambda: statuses("/v1/models/houses") == {503}, "all workers to refuse it")
    shutil.rmtree(folder / "houses")
    wait_until(lambda: statuses("/v1/models/houses") == {404}, "all workers to let it go")
    wait_until(lambda: statuses("/readyz") == {200}, "all workers to be ready again")


# --- memory -----------------------------------------------------------------------------------


def copies(folder: Path, count: int) -> list[str]:
    """Publish the same small model under many names."""
    drafted = artifacts.open(folder, "houses")
    names = [f"houses-{number}" for number in range(count)]
    for name in names:
        manifest = drafted.manifest.model_copy(update={"name": name})
        again = Artifact(Path(), manifest, drafted.files)
        artifacts.publish(folder, again, lambda _: None)
    return names


@pytest.mark.slow
def test_many_models_are_each_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = copies(folder, 40)
    opened = []
    open_model = store.open_model
    monkeypatch.setattr(
        store, "open_model", lambda *args: opened.append(args[1]) or open_model(*args)
    )
    here = repository_of(folder)
    for _ in range(3):
        for name in names:
            assert here.get(name).manifest.name == name
    assert sorted(opened) == sorted(names)


def test_opened_models_take_no_more_memory_than_allowed(folder: Path) -> None:
    names = copies(folder, 6)
    one = estimate(store.open_model(folder, names[0]))
    here = repository_of(folder, capacity=3 * one)
    first = here.get(names[0])
    for name in names[1:3]:
        here.get(name)
    assert here.get(names[0]) is first  # and so it was used last
    here.get(names[3])
    assert here.get(names[0]) is first
    for name in names:
        here.get(name)
    assert len(here._opened) == 3
    assert here.get(names[0]) is not first


def test_a_repaired_version_is_opened_though_its_files_look_the_same(folder: Path) -> None:
    file = folder / "houses" / "1" / "model.joblib"
    content, before = file.read_bytes(), file.stat()
    models_here = repository_of(folder)
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactError, match="damaged"):
        models_here.get("houses")
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert models_here.get("houses").manifest.version == 1


def test_a_pinned_version_that_is_not_published_is_named_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLAPP_PINS", "houses=7,huoses=1,regression=1")
    run.warm(read_settings())
    assert [line for line in caplog.messages if "MLAPP_PINS:" in line] == [
        "MLAPP_PINS: version 7 of houses is not published",
        "MLAPP_PINS: version 1 of huoses is not published",
    ]


@pytest.mark.parametrize("content", [b"garbage", b"\xff\xfe", b"9" * 5000])
def test_a_pin_that_cannot_be_read_is_reported_and_other_models_are_served(
    folder: Path, content: bytes
) -> None:
    (folder / "houses" / "pinned").write_bytes(content)
    models_here = repository_of(folder)
    with pytest.raises(ArtifactError, match="pinned"):
        models_here.get("houses")
    assert models_here.refused("houses") is not None
    assert models_here.names() == ["houses", "regression"]
    assert models_here.get("regression").manifest.version == 1


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/models/houses/versions/{'9' * 300}",
        "/v1/models/hou%00ses/versions/1",
        f"/v1/models/{'a' * 300}/versions/1",
        f"/v2/models/{'a' * 300}/ready",
    ],
)
def test_a_name_or_version_that_no_model_can_have_is_not_found(folder: Path, path: str) -> None:
    assert client_of(create_app()).get(path).status_code == 404
