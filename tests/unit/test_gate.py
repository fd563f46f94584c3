import pytest

from pgml_tune.db.gate import check_result, check_value


class Hostile:
    def __str__(self):
        raise RuntimeError("PL/Python would crash the server here")


class Text(str):
    pass


FAITHFUL = [None, True, 0, -(2**63), 2**63 - 1, 1.5, "", "ä", "😀", b"\0", [], ["a", None], [[1.0]], [{"a": 1}]]
UNFAITHFUL = [
    Hostile(), 2**63, -(2**63) - 1, 10**5000, float("nan"), float("inf"), "a\0b", "\ud800", Text("a"), (1,), {1},
    object, [Hostile()], [[Hostile()]], ["a\0"], [{"a": Hostile()}], bytearray(b"x"), 1j,
]  # fmt: skip


@pytest.mark.parametrize("value", FAITHFUL, ids=repr)
def test_a_value_that_converts_faithfully_passes_unchanged(value):
    assert check_result(value) is value


@pytest.mark.parametrize("value", UNFAITHFUL, ids=lambda value: type(value).__name__)
def test_a_value_that_would_crash_or_change_is_stopped(value):
    with pytest.raises((TypeError, UnicodeEncodeError)):
        check_result(value)


def test_a_dict_is_no_argument():
    with pytest.raises(TypeError):
        check_value({"a": 1})
