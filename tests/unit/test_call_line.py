import pytest

from pgml_tune.ipc import call_line
from pgml_tune.ipc.call_line import BEGIN, COLUMNS, END, Call, Dropped, dropped_line, parse, without_text

VALUES = {
    "logged_at": 1_700_000_000_000_000, "call_id": 7, "task": "search", "model": "minilm", "version": "v1.0-int8",
    "variant": "candidate", "rollout_id": 3, "phase": 2, "share": 500, "unit": (1 << 60) - 1, "collection": "notes",
    "texts": 1, "input_bytes": 11, "tokens": 5, "unknown_tokens": 0, "output_count": 10, "cache": "miss",
    "latency_ms": 1.25, "is_cold": False, "is_fallback": True, "sqlstate": "XX001", "memory_bytes": 1 << 30,
    "gpu_memory_bytes": None, "sample_rate": 0.1, "role_id": 4294967295, "sketch": "AAEC+/==", "answer": "card lost",
    "input_text": "a question",
}  # fmt: skip
OPTIONAL = (
    "variant", "rollout_id", "phase", "share", "unit", "collection", "tokens", "unknown_tokens", "sqlstate",
    "memory_bytes", "gpu_memory_bytes", "sketch", "answer", "input_text",
)  # fmt: skip


def line(kind=END, **values):
    return call_line.call_line(kind, list((VALUES | values).values())).decode().removesuffix("\n")


def fields(**values):
    return parse(line(**values)).fields.split("\t")


def test_the_values_are_in_the_order_of_the_columns():
    assert tuple(VALUES) == COLUMNS


@pytest.mark.parametrize(("kind", "has_ended"), [(BEGIN, False), (END, True)])
def test_a_line_is_understood_as_it_was_written(kind, has_ended):
    call = parse(line(kind))
    assert (call.has_ended, call.call_id, len(call.fields.split("\t"))) == (has_ended, 7, len(COLUMNS))


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_may_be_null_is_read_as_null(name):
    assert fields(**{name: None})[COLUMNS.index(name)] == "%"


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - set(OPTIONAL)))
def test_what_must_not_be_null_makes_a_line_invalid(name):
    assert parse(line(**{name: None})) is None


@pytest.mark.parametrize("text", ["", "%", "%25", "a\tb", "a\nb\r\n", "\\N", "100 %\t\n%09", "猫 é 🐈", "x" * 10_000])
def test_any_text_stays_on_its_line_and_can_be_told_from_null(text):
    form = fields(input_text=text)[-1]
    assert form.replace("%09", "\t").replace("%0A", "\n").replace("%25", "%") == text
    assert form != "%"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("call_id", 1 << 63), ("call_id", -1), ("logged_at", 17), ("task", "DROP TABLE"), ("model", "a b"),
        ("model", "x" * 64), ("unit", 1 << 62), ("texts", 1 << 31), ("input_bytes", 1 << 64), ("cache", ""),
        ("latency_ms", float("nan")), ("latency_ms", float("inf")), ("latency_ms", -1.0), ("latency_ms", 1e300),
        ("sample_rate", 0.0), ("sample_rate", 2.0), ("sqlstate", "XX0001"), ("role_id", 1 << 32), ("role_id", -1),
        ("sketch", "*"), ("is_cold", "yes"), ("input_text", "a\0b"), ("memory_bytes", 10**18),
    ],
)  # fmt: skip
def test_a_value_that_its_column_would_not_take_makes_a_line_invalid(name, value):
    assert parse(line(**{name: value})) is None


@pytest.mark.parametrize(
    "text",
    ["", "E", "E\t", "B\t1\t2", "X" + line()[1:], line()[:-40], line() + "\tmore", line() + line(), line()[5:],
     "\0" * 300, "E" + "\t" * 27, "D\tfile", "D\tfile\tmany", "D\tfile\t" + "9" * 30],
)  # fmt: skip
def test_a_torn_or_forged_line_is_refused(text):
    assert parse(text) is None


def test_every_beginning_of_a_line_but_the_whole_is_refused_or_lacks_only_text():
    whole = line(input_text=None)
    assert [end for end in range(len(whole)) if parse(whole[:end]) is not None] == [len(whole) - 1]
    assert isinstance(parse(whole), Call)


def test_lost_lines_are_told_with_their_file():
    assert parse(dropped_line(Dropped("a-1-2-0.log", 4096)).decode().removesuffix("\n")) == Dropped("a-1-2-0.log", 4096)


def test_the_text_of_a_call_can_be_left_out():
    assert without_text(parse(line()).fields) == parse(line(input_text=None)).fields
