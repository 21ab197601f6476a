"""Candidates, the gate, promotion and rollback, through the real store, command and server."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import requests
from streamlit.testing.v1 import AppTest

from mlapp import loaders
from mlapp.cli import main
from mlapp.errors import ArtifactError, DiskFull, InvalidSettings, ModelNotFound, OutputError
from mlapp.families.contract import replay
from mlapp.families.regression import RegressionModel
from mlapp.service import create_app
from mlapp.store import artifacts, changes, gate, promotion
from mlapp.store.repository import Repository
from tests.conftest import ROOT, Server, client_of, wait_until

NAME = "houses"


def publish(root: Path, losses: list[float] | None = None, *, candidate: bool = True) -> int:
    """Publish the model again, with what held-out rows cost it."""
    current = artifacts.open(root, NAME, 1)
    report = json.loads(current.files["report.json"])
    if losses is not None:
        values = {str(place): loss for place, loss in enumerate(losses)}
        report["losses"] = {"metric": "squared error", "values": values}
    files = {**current.files, "report.json": json.dumps(report).encode()}
    kept = ("task", "data", "training", "input_schema", "metrics", "golden")
    fields = {field: getattr(current.manifest, field) for field in kept}
    libraries = tuple(current.manifest.libraries)
    drafted = artifacts.draft(NAME, files, libraries, **fields)
    published = artifacts.publish(
        root, drafted, lambda each: replay(RegressionModel(each)), candidate=candidate
    )
    return published.manifest.version


def losses(shift: float = 0.0) -> list[float]:
    rng = np.random.default_rng(1)
    found: list[float] = (rng.gamma(2, 1, 200) + shift * (1 + rng.normal(0, 0.1, 200))).tolist()
    return found


def test_a_candidate_is_published_and_not_served(folder: Path) -> None:
    assert publish(folder) == 2
    assert artifacts.candidates(folder, NAME) == [2]
    assert loaders.load_model(NAME).manifest.version == 1
    assert loaders.load_regression(NAME, version=2).manifest.version == 2


def test_a_promoted_candidate_is_served_at_once_and_rolled_back_at_once(folder: Path) -> None:
    publish(folder)
    promotion.promote(folder, NAME, 2, "better")
    assert loaders.load_model(NAME).manifest.version == 2
    promotion.roll_back(folder, NAME, "customers complained")
    assert loaders.load_model(NAME).manifest.version == 1
    assert [(each.action, each.version, each.previous) for each in history(folder)] == [
        ("promoted", 2, 1),
        ("rolled back", 1, 2),
    ]
    assert history(folder)[1].reason == "customers complained"


def test_a_damaged_version_is_not_rolled_back_to(folder: Path) -> None:
    for _ in range(2):
        publish(folder, candidate=False)
    damage(folder / NAME / "2")
    assert promotion.roll_back(folder, NAME, "customers complained").version == 1
    assert artifacts.candidates(folder, NAME) == [2, 3]
    assert loaders.load_model(NAME).manifest.version == 1


def test_a_rollback_to_damaged_versions_alone_changes_nothing(folder: Path) -> None:
    publish(folder, candidate=False)
    damage(folder / NAME / "1")
    with pytest.raises(ArtifactError, match=r"report\.json"):
        promotion.roll_back(folder, NAME, "customers complained")
    assert (artifacts.candidates(folder, NAME), history(folder)) == ([], [])
    assert loaders.load_model(NAME).manifest.version == 2


def test_a_rollback_starts_from_the_version_that_is_really_served(folder: Path) -> None:
    for _ in range(2):
        publish(folder, candidate=False)
    damage(folder / NAME / "3")
    change = promotion.roll_back(folder, NAME, "customers complained")
    assert (change.version, change.previous) == (1, 2)
    assert artifacts.candidates(folder, NAME) == [2, 3]


def test_a_candidate_is_judged_against_the_version_that_is_really_served(folder: Path) -> None:
    publish(folder, candidate=False)
    damage(folder / NAME / "2")
    publish(folder)
    assert main(["promote", NAME]) == 0
    [change] = history(folder)
    assert (change.version, change.previous) == (3, 1)


# --- what cannot be written -------------------------------------------------------------------


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_change_that_is_not_in_the_history_is_undone(
    folder: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, candidate=action == "promote")
    (folder / NAME / promotion.HISTORY).mkdir()
    before = artifacts.candidates(folder, NAME)
    assert main([action, NAME]) == 1
    assert capsys.readouterr().err == (
        f"error: {folder}/{NAME}/history.jsonl cannot be written: Is a directory\n"
    )
    assert artifacts.candidates(folder, NAME) == before


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_full_disk_leaves_the_history_as_it_was(
    folder: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder)
    promotion.promote(folder, NAME, 2, "better")
    publish(folder)
    before = (folder / NAME / promotion.HISTORY).read_bytes(), artifacts.candidates(folder, NAME)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFull, match=r"history\.jsonl"):
        if action == "promote":
            promotion.promote(folder, NAME, 3, "better")
        else:
            promotion.roll_back(folder, NAME, "worse")
    after = (folder / NAME / promotion.HISTORY).read_bytes(), artifacts.candidates(folder, NAME)
    assert after == before


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_an_error_of_one_line_and_nothing_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, candidate=False)
    publish(folder)
    powers = "-dac_override,-dac_read_search"
    unprivileged = ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"]
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can write everywhere, and there is no setpriv on this machine")
    commands = ["promote houses", "rollback houses", "pin houses 1", "remove houses 1"]
    commands += ["unpin regression", "rename houses homes"]
    code = (
        "import sys; from mlapp.cli import main\n"
        "for line in sys.argv[1:]: print(main(line.split()), flush=True)"
    )
    monkeypatch.setenv("MLAPP_DATABASE_URL", f"sqlite:///{tmp_path}/records.db")
    (folder / "regression" / "pinned").write_text("1")
    (folder / NAME / promotion.HISTORY).touch()
    files = sorted(folder.rglob("*"))
    folders = [folder, *(path for path in files if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        ran = subprocess.run(
            [*(unprivileged if os.getuid() == 0 else []), sys.executable, "-c", code, *commands],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for path in folders:
            path.chmod(0o755)
    assert (sorted(folder.rglob("*")), history(folder)) == (files, [])
    errors = ran.stderr.splitlines()
    assert len(errors) == len(commands), ran.stderr
    for error in errors:
        assert error.startswith(f"error: {folder}")
        assert error.endswith(" cannot be written: Permission denied")


def test_a_model_whose_own_folder_is_read_only_is_not_renamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder / NAME / "1")
    with pytest.raises(OutputError, match="houses/1 cannot be written: Permission denied"):
        changes.rename(folder, NAME, "homes")
    assert sorted(folder.rglob("*")) == before


def test_a_version_in_a_folder_that_is_read_only_is_not_half_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder / NAME)
    with pytest.raises(OutputError, match="houses cannot be written: Permission denied"):
        changes.remove(folder, NAME, 1)
    assert sorted(folder.rglob("*")) == before


# --- the gate ---------------------------------------------------------------------------------


def damage(version: Path) -> None:
    """Add a byte to a file of a version."""
    with (version / "report.json").open("ab") as file:
        file.write(b" ")


def history(folder: Path) -> list[promotion.Change]:
    return promotion.history(folder, NAME)


def test_the_gate_refuses_a_candidate_that_is_worse_beyond_chance(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, losses(), candidate=False)
    publish(folder, losses(0.5))
    assert main(["promote", NAME]) == 1
    refused = capsys.readouterr()
    assert "worse; mean squared error" in refused.err
    assert "--force" in refused.err
    assert loaders.load_model(NAME).manifest.version == 2
    assert main(["promote", NAME, "--force", "the new rooms matter"]) == 0
    assert loaders.load_model(NAME).manifest.version == 3
    [change] = history(folder)
    assert change.forced
    assert change.reason == "the new rooms matter"


@pytest.mark.parametrize(
    ("shift", "wobble", "said"),
    [
        (-0.5, 0.0, "better; mean"),
        (0.0, 1e-9, "no different; mean"),
        (0.0, 0.0, "no verdict: each"),
    ],
)
def test_the_gate_lets_a_candidate_pass_that_is_no_worse_and_says_what_it_knows(
    folder: Path, shift: float, wobble: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, losses(), candidate=False)
    publish(folder, [loss + wobble * (-1) ** place for place, loss in enumerate(losses(shift))])
    assert main(["promote", NAME]) == 0
    assert f"held-out rows: {said}" in capsys.readouterr().out
    assert f"held-out rows: {said}" in history(folder)[0].reason
    assert not history(folder)[0].forced


@pytest.mark.parametrize("harm", ["served", "records"])
def test_a_candidate_that_cannot_be_judged_is_promoted_by_force_alone(
    folder: Path,
    harm: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(folder)
    if harm == "served":
        (folder / NAME / "1" / "model.joblib").write_bytes(b"damaged")
    else:
        (folder / "not-a-database").write_bytes(b"text" * 5_000)
        monkeypatch.setenv("MLAPP_DATABASE_URL", f"sqlite:///{folder}/not-a-database")
    assert main(["promote", NAME]) == 1
    assert "houses 2 is not promoted: it cannot be judged" in capsys.readouterr().err
    assert main(["promote", NAME, "--force", "it is all there is"]) == 0
    [change] = history(folder)
    assert (change.forced, change.reason) == (True, "it is all there is")


@pytest.mark.slow
def test_the_gate_flags_equal_models_as_worse_in_one_of_forty() -> None:
    rng = np.random.default_rng(3)
    verdicts = [
        gate.compare(rng.gamma(2, 1, 200).tolist(), rng.gamma(2, 1, 200).tolist(), "loss", "rows")
        for _ in range(200)
    ]
    assert sum(each.worse for each in verdicts) <= 12  # five are expected


def test_few_rows_in_common_are_never_worse() -> None:
    verdict = gate.compare([0.0] * 29, [9.0] * 29, "loss", "held-out rows")
    assert not verdict.worse
    assert "too few" in str(verdict)


def test_rows_of_a_few_groups_that_chance_moved_together_are_not_better_or_worse() -> None:
    rng = np.random.default_rng(2)
    shifts = rng.normal(0, 1, 12)
    groups = np.repeat(np.arange(12), 50)
    old = rng.gamma(2, 1, 600)
    new = old + (shifts - shifts.mean() + 0.2)[groups]
    alone = gate.compare(old.tolist(), new.tolist(), "loss", "rows")
    grouped = gate.compare(old.tolist(), new.tolist(), "loss", "rows", groups.tolist())
    assert alone.worse
    assert not grouped.worse
    assert "on 600 rows of 12 groups" in str(grouped)
    few = gate.compare(old.tolist(), new.tolist(), "loss", "rows", (groups % 9).tolist())
    assert not few.worse
    assert "600 rows of 9 groups in common, too few to compare" in str(few)


def test_a_version_that_is_not_a_candidate_cannot_be_promoted(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match="not a candidate"):
        promotion.promote(folder, NAME, 1, "why not")
    with pytest.raises(ModelNotFound, match="before 1"):
        promotion.roll_back(folder, NAME, "there is nothing before")


def test_a_pinned_version_is_released_before_anything_is_promoted(folder: Path) -> None:
    publish(folder)
    artifacts.pin(folder, NAME, 1)
    with pytest.raises(InvalidSettings, match="mlapp unpin houses"):
        promotion.promote(folder, NAME, 2, "better")
    with pytest.raises(InvalidSettings, match="pinned to version 1"):
        promotion.roll_back(folder, NAME, "worse")


def test_a_model_of_candidates_alone_is_not_served(folder: Path) -> None:
    artifacts.candidate_mark(folder, NAME, 1).touch()
    with pytest.raises(ModelNotFound, match="candidates"):
        loaders.load_model(NAME)
    assert main(["promote", NAME]) == 0
    assert loaders.load_model(NAME).manifest.version == 1


def test_a_model_of_candidates_alone_leaves_the_service_as_if_it_were_not_there(
    folder: Path,
) -> None:
    artifacts.candidate_mark(folder, "regression", 1).touch()  # its form would come first
    client = client_of(create_app())
    for path in ("/readyz", "/v2/health/ready", "/", "/form", "/docs"):
        assert client.get(path).status_code == 200, path
        assert "regression" not in client.get(path).text
    assert [each["name"] for each in client.get("/v1/models").json["models"]] == [NAME]
    assert [each["name"] for each in client.post("/v2/repository/index").json] == [NAME]
    assert "regression" not in client.get("/openapi.json").text
    assert 'mlapp_model_refused{model="regression"}' not in client.get("/metrics").text
    for path in ("/v1/models/regression", "/v2/models/regression", "/form?_model=regression"):
        assert client.get(path).status_code == 404
    assert client.get("/v1/models/regression/versions/1").json["version"] == 1


def test_the_first_candidate_of_a_model_is_served_when_it_is_promoted(folder: Path) -> None:
    artifacts.candidate_mark(folder, NAME, 1).touch()
    client = client_of(create_app())
    assert client.get(f"/v1/models/{NAME}").status_code == 404
    promotion.promote(folder, NAME, 1, "it is the first")
    assert client.get(f"/v1/models/{NAME}").json["version"] == 1
    assert NAME in client.get("/form").text


def test_a_model_that_keeps_candidates_alone_is_withdrawn(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder)
    here = Repository(folder, 1 << 30)
    assert here.get(NAME).manifest.version == 1
    assert main(["remove", NAME, "1"]) == 0
    with pytest.raises(ModelNotFound, match="candidates"):
        here.get(NAME)
    assert here.refused(NAME) is None
    assert NAME not in here.names()
    capsys.readouterr()
    main(["models"])
    assert "candidate" in capsys.readouterr().out


@pytest.mark.parametrize("pin", ["1", "garbage", "7"])
def test_a_model_of_candidates_alone_is_to_be_served_if_there_is_a_pin(
    folder: Path, pin: str
) -> None:
    artifacts.candidate_mark(folder, NAME, 1).touch()
    (folder / NAME / "pinned").write_text(pin)
    client = client_of(create_app())
    assert NAME in [each["name"] for each in client.get("/v1/models").json["models"]]
    assert client.get("/readyz").status_code == (200 if pin == "1" else 503)


@pytest.mark.slow
def test_the_pages_offer_no_model_of_candidates_alone_but_promote_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.candidate_mark(folder, "regression", 1).touch()
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    home = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60).run()
    assert NAME in [each.value for each in home.header]
    assert "regression" not in [each.value for each in home.header]
    assert "regression" in home.info[0].value
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60).run()
    app.switch_page("pages/versions.py").run()
    app.selectbox(key="_versions_model").select("regression").run()
    assert "are candidates" in app.warning[0].value
    assert not app.error
    app.button(key="_promote_1").click().run()
    assert not app.exception
    assert loaders.load_model("regression").manifest.version == 1
    assert "regression" in [each.value for each in home.run().header]


def open_versions(model: str = NAME) -> AppTest:
    """Open the page Versions, and choose a model."""
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60).run()
    app.switch_page("pages/versions.py").run()
    app.selectbox(key="_versions_model").select(model).run()
    assert not app.exception
    return app


def states(app: AppTest) -> dict[int, str]:
    table = app.dataframe[0].value
    return dict(zip(table["version"], table["state"], strict=True))


@pytest.mark.slow
def test_the_page_shows_the_version_that_is_really_served_and_why_a_newer_one_is_not(
    folder: Path,
) -> None:
    publish(folder, candidate=False)
    damage(folder / NAME / "2")
    app = open_versions()
    assert states(app) == {2: "cannot be opened", 1: "served"}
    assert "houses/2/report.json" in app.warning[0].value.replace("\\", "")
    damage(folder / NAME / "1")
    app.run()
    assert states(app) == {2: "cannot be opened", 1: "cannot be opened"}
    assert "houses/2/report.json" in app.warning[0].value.replace("\\", "")


@pytest.mark.slow
def test_the_page_offers_a_rollback_only_where_there_is_a_version_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app = open_versions()
    button = app.button(key="_rollback")
    assert (button.disabled, button.help) == (True, "There is no version before 1 to serve.")
    publish(folder, candidate=False)
    assert not app.run().button(key="_rollback").disabled
    artifacts.pin(folder, NAME, 2)
    button = app.run().button(key="_rollback")
    assert (button.disabled, button.help) == (True, "Version 2 is pinned.")


@pytest.mark.slow
def test_a_rollback_that_cannot_be_written_is_an_error_on_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, candidate=False)
    (folder / NAME / "candidate-2").symlink_to(folder / "nowhere" / "mark")
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app = open_versions()
    app.button(key="_rollback").click().run()
    assert not app.exception
    assert "houses cannot be written" in app.error[-1].value


@pytest.mark.slow
def test_the_page_links_to_the_reasons_of_both_versions_and_has_a_card_of_each(
    folder: Path,
) -> None:
    publish(folder)
    app = open_versions()
    [link] = app.main.get("page_link")
    assert link.proto.page == "regression"
    assert link.proto.query_string == "_model=houses&_version=2"
    cards = [each.proto.label for each in app.main.get("download_button")]
    assert cards == ["Model card of version 2", "Model card of version 1"]
    labels = {each.get("label") for each in json.loads(app.dataframe[0].proto.columns).values()}
    assert {"Version", "State", "Created", "Trained on"} <= labels
    app.switch_page("pages/regression.py")
    for key, value in {"_model": NAME, "_version": "2"}.items():
        app.query_params[key] = value
    app.run()
    app.session_state[f"_tabs_{NAME}"] = "Compare"
    assert app.run().selectbox(key=f"_against_{NAME}").value == 1
    assert not app.exception


@pytest.mark.parametrize("hindrance", ["not a candidate", "pinned"])
def test_what_cannot_be_promoted_is_not_compared_first(
    folder: Path, hindrance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, losses(), candidate=False)
    publish(folder, losses(), candidate=hindrance == "pinned")
    if hindrance == "pinned":
        artifacts.pin(folder, NAME, 2)
    assert main(["promote", NAME, "3"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert hindrance in said.err


def test_the_commands_list_candidates_and_the_history(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder)
    main(["models"])
    assert "candidate" in capsys.readouterr().out
    main(["promote", NAME])
    main(["rollback", NAME, "--because", "a mistake"])
    capsys.readouterr()
    main(["history", NAME])
    lines = capsys.readouterr().out.splitlines()
    assert "version 2 after 1 promoted" in lines[0]
    assert lines[1].endswith(": a mistake")


def test_a_reason_of_several_lines_takes_one_line_of_the_history_and_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "customers complained\nabout prices\u2028and rooms"
    publish(folder)
    assert main(["promote", NAME, "--force", reason]) == 0
    capsys.readouterr()
    assert main(["history", NAME]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith(": customers complained about prices and rooms")
    assert [each.reason for each in history(folder)] == [reason]


def test_the_history_of_a_model_that_does_not_exist_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "typo"]) == 1
    assert "No complete version of 'typo'" in capsys.readouterr().err
    assert main(["history", NAME]) == 0
    assert capsys.readouterr().out == ""


def test_a_history_without_changes_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", NAME]) == 0
    assert capsys.readouterr().err == "Nothing has been promoted or rolled back yet.\n"


def test_a_change_without_a_reason_ends_with_who_made_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, candidate=False)
    change = promotion.roll_back(folder, NAME, "", by="the operator")
    assert change.reason == ""
    assert main(["history", NAME]) == 0
    assert capsys.readouterr().out.endswith("rolled back by the operator\n")


@pytest.mark.slow
def test_promotion_and_rollback_under_load_fail_no_request(folder: Path, tmp_path: Path) -> None:
    server = Server(folder, tmp_path / "log", "--api-only", "--workers", "2")
    ended, versions, failures = threading.Event(), set[str](), list[object]()
    row: dict[str, float | str] = {"area": 100.0, "rooms": 3.0, "district": "east"}

    def ask() -> None:
        with requests.Session() as session:
            while not ended.is_set():
                answer = session.post(
                    f"{server.address}/v1/models/{NAME}:predict", json={"instances": [row]}
                )
                found = session.get(f"{server.address}/v1/models/{NAME}").json()
                versions.add(str(found.get("version")))
                if answer.status_code != 200:
                    failures.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    try:
        publish(folder)
        for thread in threads:
            thread.start()
        for _ in range(3):
            promotion.promote(folder, NAME, 2, "better")
            wait_for_version(server, 2)
            promotion.roll_back(folder, NAME, "worse")
            wait_for_version(server, 1)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        server.stop()
    assert not failures
    assert versions == {"1", "2"}


def wait_for_version(server: Server, version: int) -> None:
    address = f"{server.address}/v1/models/{NAME}"
    wait_until(
        lambda: requests.get(address, timeout=10).json()["version"] == version,
        f"version {version}",
    )
