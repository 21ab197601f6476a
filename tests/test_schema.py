import datetime
import math
import sys
import types
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlapp.errors import InvalidInput
from mlapp.schema import (
    LARGEST,
    Category,
    Number,
    Output,
    Schema,
    is_frame,
    is_series,
    match_label,
    parse_number,
    parse_text,
)

SCHEMA = Schema(
    inputs=(
        Number(
            name="area",
            minimum=10,
            maximum=200,
            quantiles=(15, 50, 90, 130, 190),
            typical=90,
            step=1,
            decimals=0,
        ),
        Number(
            name="rooms",
            minimum=1,
            maximum=7,
            quantiles=(1, 2, 3, 4, 6),
            typical=3,
            step=1,
            decimals=0,
            missing=True,
        ),
        Category(name="district", categories=("east", "north", "west"), typical="north"),
    ),
    output=Output(name="price", minimum=0, maximum=1000, decimals=1),
)
GOOD = {"area": 80, "rooms": 3, "district": "east"}


def faults(rows: Any) -> list[tuple[Any, str]]:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.check(rows)
    return [(fault.row, fault.input) for fault in caught.value.faults]


def test_good_rows_pass_with_their_index() -> None:
    checked = SCHEMA.check(pd.DataFrame([GOOD, GOOD], index=["a", "b"]))
    assert list(checked.index) == ["a", "b"]
    assert checked.row(1) == {"area": 80.0, "rooms": 3.0, "district": "east"}


def test_columns_are_taken_by_name_in_any_order() -> None:
    backwards = pd.DataFrame([GOOD])[["district", "rooms", "area"]]
    assert SCHEMA.check(backwards).row(0) == SCHEMA.check([GOOD]).row(0)


def test_a_column_that_is_not_an_input_is_ignored_and_in_a_row_reported() -> None:
    more = GOOD | {"colour": "red"}
    assert [notice.input for notice in SCHEMA.check([more]).notices] == ["colour"]
    assert SCHEMA.check(pd.DataFrame([more])).row(0) == SCHEMA.check([more]).row(0)


def test_a_missing_column_of_a_table_is_one_fault() -> None:
    assert faults(pd.DataFrame([GOOD] * 5).drop(columns="area")) == [(None, "area")]


@pytest.mark.parametrize("value", [-1e308, 10**400, "1e999", "-2e100", np.float64(1e101)])
def test_a_finite_number_that_is_too_large_is_told_the_limits(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.check([GOOD | {"area": value, "rooms": value}])
    limits = "a number from -1e100 to 1e100"
    assert [each.allowed for each in caught.value.faults] == [limits, f"{limits} or no value"]
    with pytest.raises(InvalidInput, match="expected a number from -1e100 to 1e100"):
        SCHEMA.check(pd.DataFrame([GOOD | {"area": value}]))


@pytest.mark.parametrize("value", [math.inf, "inf", "-Infinity", "abc", "1_0", True])
def test_what_is_no_number_is_told_that_one_is_expected(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"area: got .*, expected a finite number$"):
        SCHEMA.check([GOOD | {"area": value}])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (np.bool_(False), "false"),
        (datetime.date(2020, 1, 31), "2020-01-31"),
        (datetime.datetime(2020, 1, 31, 12, 30), "2020-01-31 12:30:00"),
        (np.datetime64("2020-01-31"), "2020-01-31"),
        (pd.Timestamp("2020-01-31"), "2020-01-31 00:00:00"),
    ],
)
def test_a_fault_shows_truth_values_and_dates_as_files_have_them(value: object, shown: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.check([GOOD | {"area": value}])
    assert caught.value.faults[0].got == shown


def test_a_fault_of_a_whole_row_names_no_input_but_has_one() -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.check([GOOD, 734])  # type: ignore[list-item]
    assert str(caught.value) == "row 1, got 734, expected values by input name"
    assert caught.value.faults[0].input == "row"


def test_a_column_given_twice_is_a_fault() -> None:
    rows = pd.DataFrame([[80, 3, "east", 81]], columns=["area", "rooms", "district", "area"])
    assert faults(rows) == [(None, "area")]


def test_every_fault_of_every_row_is_reported_in_order() -> None:
    rows = [GOOD, {"area": "abc", "rooms": 3, "district": "south"}, GOOD | {"area": None}]
    assert faults(rows) == [(1, "area"), (1, "district"), (2, "area")]


def test_faults_name_the_index_label_of_a_table() -> None:
    assert faults(pd.DataFrame([GOOD | {"area": "x"}], index=["row-9"])) == [("row-9", "area")]


@pytest.mark.parametrize(
    "value",
    ["abc", "1,5", "1_000", "0x10", "nan", "inf", "-Infinity", "１２", "1e999", " ", ""]
    + [None, math.nan, math.inf, -math.inf, 1e308, 10**400, True, [1], {}, 1j, pd.NA, pd.NaT]
    + [np.bool_(True), np.datetime64("2020-01-01"), pd.Timestamp("2020-01-01"), b"1"],
)
def test_what_is_not_a_finite_number_is_refused(value: object) -> None:
    assert faults([GOOD | {"area": value}]) == [(0, "area")]


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("5", 5), (" 5.5 ", 5.5), ("+.5e1", 5), ("1.", 1), (Decimal("0.1"), 0.1)]
    + [(np.int8(3), 3), (np.float32(0.5), 0.5), (-0.0, 0), (LARGEST, LARGEST)],
)
def test_numbers_arrive_as_numbers_or_plain_decimal_text(value: object, number: float) -> None:
    assert SCHEMA.check([GOOD | {"area": value}]).values["area"][0] == number


@pytest.mark.parametrize("value", [None, math.nan, "", " ", "NA", "nan", pd.NA])
def test_a_missing_value_is_allowed_where_training_saw_some(value: object) -> None:
    assert SCHEMA.check([GOOD | {"rooms": value}]).row(0)["rooms"] is None


@pytest.mark.parametrize("value", ["south", "East", "", None, 1, "east,north", ["east"], math.nan])
def test_a_category_never_seen_is_refused(value: object) -> None:
    assert faults([GOOD | {"district": value}]) == [(0, "district")]


def test_a_category_may_have_blanks_around_it() -> None:
    assert SCHEMA.check([GOOD | {"district": " west "}]).row(0)["district"] == "west"


def test_a_row_that_is_not_a_mapping_is_refused() -> None:
    assert faults([GOOD, [1, 2, 3]]) == [(1, "row")]


def test_a_fault_says_what_arrived_and_what_is_allowed() -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.check([{"area": "x" * 500, "rooms": "many", "district": "south"}])
    area, rooms, district = caught.value.faults
    assert len(area.got) <= 80
    assert area.allowed == "a finite number"
    assert (rooms.got, rooms.allowed) == ("'many'", "a finite number or no value")
    assert (district.got, district.allowed) == ("'south'", "one of 'east', 'north', 'west'")


@pytest.mark.parametrize("others", [0, 1000])
@pytest.mark.parametrize(("area", "has_notice"), [(9.99, True), (10, False), (200.01, True)])
def test_a_row_gets_the_same_notices_alone_and_among_many(
    others: int, area: float, has_notice: bool
) -> None:
    checked = SCHEMA.check([GOOD] * others + [GOOD | {"area": area}])
    assert [each.row for each in checked.notices] == ([others] if has_notice else [])


def test_a_value_outside_the_training_range_gets_a_notice_and_is_not_refused() -> None:
    checked = SCHEMA.check([GOOD, GOOD | {"area": 900, "rooms": 0.5}])
    assert [(notice.row, notice.input) for notice in checked.notices] == [(1, "area"), (1, "rooms")]
    assert checked.notices[0].message == (
        "area: 900 lies outside the range seen in training, 10 to 200"
    )


def test_the_ends_of_the_training_range_are_inside() -> None:
    assert SCHEMA.check([GOOD | {"area": 10}, GOOD | {"area": 200}]).notices == []


def test_no_rows_are_checked_as_no_rows() -> None:
    assert SCHEMA.encode(SCHEMA.check([])).shape == (0, 5)
    assert SCHEMA.encode(SCHEMA.check(pd.DataFrame([GOOD]).iloc[:0])).shape == (0, 5)


def test_rows_are_encoded_with_indicators_and_typical_values() -> None:
    assert SCHEMA.terms == ["area", "rooms", "rooms missing", "district = east", "district = west"]
    rows: list[dict[str, Any]] = [GOOD, {"area": 1, "rooms": None, "district": "north"}]
    expected = [[80, 3, 0, 1, 0], [1, 3, 1, 0, 0]]
    np.testing.assert_array_equal(SCHEMA.encode(SCHEMA.check(rows)), expected)


def test_the_same_rows_get_the_same_values_as_table_and_as_mappings() -> None:
    rows = [GOOD, GOOD | {"area": 12.5, "rooms": None}]
    by_table, by_mapping = SCHEMA.check(pd.DataFrame(rows)), SCHEMA.check(rows)
    for name in SCHEMA.names:
        np.testing.assert_array_equal(by_table.values[name], by_mapping.values[name])


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["east", "1", "-2.5", " 3 ", "NA"]),
)


@given(st.fixed_dictionaries({"area": ANYTHING, "rooms": ANYTHING, "district": ANYTHING}))
def test_any_row_is_either_finite_numbers_or_faults_that_name_inputs(row: dict[str, Any]) -> None:
    try:
        checked = SCHEMA.check([row])
    except InvalidInput as error:
        assert {fault.input for fault in error.faults} <= set(SCHEMA.names)
    else:
        assert np.isfinite(SCHEMA.encode(checked)).all()
        assert SCHEMA.check([checked.row(0)]).row(0) == checked.row(0)


@given(st.lists(st.fixed_dictionaries({"area": ANYTHING, "district": ANYTHING}), max_size=4))
def test_tables_and_mappings_get_the_same_answer(rows: list[dict[str, Any]]) -> None:
    rows = [row | {"rooms": 2} for row in rows]
    table = pd.DataFrame(rows, columns=SCHEMA.names, dtype=object)
    answers: list[list[Any]] = []
    for given_rows in (rows, table):
        try:
            checked = SCHEMA.check(given_rows)
            answers.append([checked.row(place) for place in range(len(rows))])
        except InvalidInput as error:
            answers.append([str(fault) for fault in error.faults])
    assert answers[0] == answers[1]


@given(st.floats(min_value=-LARGEST, max_value=LARGEST))
def test_the_text_of_a_number_reads_back_as_the_number(number: float) -> None:
    assert parse_number(repr(number)) == number


@given(st.text())
def test_parsing_text_strips_it_or_finds_it_missing(text: str) -> None:
    parsed = parse_text(text)
    assert parsed is None or parsed == text.strip() != ""


@pytest.mark.parametrize("word", ["YeS", "yES", "tRUE", "oN", "1.0", True])
def test_a_truth_value_may_be_any_word_for_it_in_any_case(word: object) -> None:
    column = Category(name="member", categories=("False", "True"), typical="True")
    assert column.parse(word) == 1
    assert column.parse("maybe") is None


@pytest.mark.parametrize("unit", [None, "€"])
@pytest.mark.parametrize("number", [2.493, 1234.5, 5.0, -0.0, 1.5e-07, 1e22])
def test_the_text_of_an_inputs_number_is_read_as_that_number(
    number: float, unit: str | None
) -> None:
    column = SCHEMA["area"].model_copy(update={"unit": unit, "mark": ","})
    assert isinstance(column, Number)
    assert column.parse(column.as_text(number)) == number


def test_a_schema_reads_back_from_json() -> None:
    assert Schema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA


def test_rows_are_checked_while_another_thread_imports_pandas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", types.ModuleType("pandas"))  # without its classes
    assert not is_series(["a text"])
    assert not is_frame([{"var_1": 1}])


def test_names_that_rows_lack_or_the_model_does_not_know_get_a_notice() -> None:
    checked = SCHEMA.check([{"area": 50, "district": "east", "colour": "red"}])
    assert list(map(str, checked.notices)) == [
        "row 0, rooms: not given, so treated as missing",
        "row 0, colour: not an input of this model; it has 'area', 'rooms', 'district'",
    ]


def test_a_name_that_many_rows_lack_gets_one_notice() -> None:
    rows = [{"area": 50, "district": "east"}] * 500 + [GOOD]
    [notice] = SCHEMA.check(rows).notices
    assert str(notice) == "rooms: not given, so treated as missing (in 500 rows, first in row 0)"


def test_an_input_that_is_given_as_missing_gets_no_notice() -> None:
    assert SCHEMA.check([GOOD | {"rooms": None}]).notices == []


@pytest.mark.parametrize(
    ("given", "labels", "expected"),
    [
        ("glad", ("angry", "glad"), "glad"),
        ("Glad", ("angry", "glad"), None),
        ("1.0", ("0", "1"), "1"),
        (1.0, ("0", "1"), "1"),
        ("1.0", ("0", "1", "1.0"), "1.0"),
        ("v1.0", ("v1", "v2"), None),
        ("2031-05-17 00:00:00", ("2031-05-17", "2031-05-18"), "2031-05-17"),
        ("2031-05-17T00:00:00", ("2031-05-17", "2031-05-18"), "2031-05-17"),
        (True, ("False", "True"), "True"),
        ("false", ("False", "True"), "False"),
        ("true", ("maybe", "no", "yes"), None),
        ("", ("0", "1"), None),
        (None, ("0", "1"), None),
    ],
)
def test_a_label_may_be_written_as_other_formats_write_it(
    given: object, labels: tuple[str, ...], expected: str | None
) -> None:
    assert match_label(given, labels) == expected
