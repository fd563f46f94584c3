"""What a search may say of itself."""

import json

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.records import Exposure
from pgml_tune.service.searches import Route

ROLLOUT = {"rollout_id": 3, "phase": 1, "share": 2000, "unit": 12345, "variant": "candidate"}


def test_a_route_outside_a_rollout_names_the_collection_only():
    assert Route.parse('{"collection": "docs"}') == Route("docs", None, False)


def test_a_route_in_a_rollout_is_an_exposure():
    found = Route.parse(json.dumps({"collection": "docs", "is_fallback": True, **ROLLOUT}))
    assert found == Route("docs", Exposure(3, 1, 2000, 12345, "candidate"), True)


def without(left):
    return json.dumps({"collection": "a"} | {name: value for name, value in ROLLOUT.items() if name != left})


@pytest.mark.parametrize(
    "route",
    [
        "", "null", "[]", "1", "{", "[" * 100_000, "{}", '{"collection": null}', '{"collection": 1}',
        json.dumps({"collection": "x" * 201}), '{"collection": "a", "is_fallback": 1}',
        '{"collection": "a", "other": 1}',
        *(json.dumps({"collection": "a"} | ROLLOUT | {key: value}) for key, value in [
            ("variant", "both"), ("variant", None), ("variant", []), ("unit", -1), ("unit", 1 << 60), ("unit", 1.0),
            ("share", 10_001), ("phase", True), ("phase", 1 << 31), ("rollout_id", 1 << 63), ("rollout_id", "1"),
        ]),
        *map(without, ROLLOUT),
    ],
)  # fmt: skip
def test_anything_else_is_refused(route):
    with pytest.raises(InvalidArgument):
        Route.parse(route)
