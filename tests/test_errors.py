import pickle

import pytest

from mlapp.errors import (
    ROW,
    ArtifactError,
    Fault,
    InvalidData,
    InvalidInput,
    InvalidSettings,
    MlappError,
    ModelNotFound,
)


def test_a_fault_names_the_row_the_input_what_arrived_and_what_is_allowed() -> None:
    fault = Fault("var_1", "'abc'", "a finite number", row=3)
    assert str(fault) == "row 3, var_1: got 'abc', expected a finite number"


def test_a_fault_of_a_whole_table_names_no_row() -> None:
    assert str(Fault("var_1", "no such column", "a finite number")).startswith("var_1: got no such")


def test_invalid_input_lists_every_fault() -> None:
    error = InvalidInput([Fault("a", "'x'", "a number", 0), Fault("b", "nothing", "a number", 1)])
    assert len(error.faults) == 2
    assert "row 0, a" in str(error)
    assert "row 1, b" in str(error)


def test_an_artifact_error_says_how_to_fix_it() -> None:
    assert str(ArtifactError("It broke", "do this")) == "It broke. To fix it: do this"
    assert str(ArtifactError("It broke")) == "It broke"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (MlappError, 500),
        (InvalidInput, 422),
        (InvalidData, 422),
        (InvalidSettings, 500),
        (ArtifactError, 503),
        (ModelNotFound, 404),
    ],
)
def test_each_error_knows_its_http_status(kind: type[MlappError], status: int) -> None:
    assert kind.status == status


def test_an_input_that_is_called_row_is_named_and_a_row_as_a_whole_is_not() -> None:
    assert str(Fault("row", "'x'", "a finite number", 2)).startswith("row 2, row: got 'x'")
    assert str(Fault(ROW, "3 cells", "2 cells", 2)) == "row 2, got 3 cells, expected 2 cells"
    assert pickle.loads(pickle.dumps(Fault(ROW, "3 cells", "2 cells"))).message.startswith("got")
