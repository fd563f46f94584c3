"""What a search says of itself, and what is found out instead."""

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.searches import Route


def test_a_route_names_the_collection_and_the_try():
    assert Route.parse('{"collection": "docs"}') == Route("docs", is_fallback=False)
    assert Route.parse('{"collection": "docs", "is_fallback": true, "unit": 7}') == Route("docs", is_fallback=True)


@pytest.mark.parametrize(
    "route",
    ["", "null", "[]", "1", "{", "[" * 100_000, "{}", '{"collection": null}', '{"collection": 1}',
     '{"collection": ["a"]}', '{"collection": "a", "is_fallback": 1}', '{"collection": "a", "is_fallback": null}'],
)  # fmt: skip
def test_anything_else_is_refused(route):
    with pytest.raises(InvalidArgument):
        Route.parse(route)
