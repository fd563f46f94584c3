"""The options of `prepare_rollout()`."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.blocks import MAX_BATCH
from pgml_tune.service.options import parse_options

_NUMBERS: dict[str, tuple[type, float, float]] = {
    "batch_size": (int, 1, MAX_BATCH),
    "rows_per_second": (float, 0.1, 1_000_000),
    "sample": (int, 1, 10_000),
    "min_recall": (float, 0, 1),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `prepare_rollout()`; None means not given."""

    batch_size: int | None = None
    rows_per_second: float | None = None
    sample: int = 200
    min_recall: float = 0.9
    golden_query: str | None = None
    drop: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Options:
        values = {
            name: value
            for name, value in parse_options(text, cls.__slots__, "'rows_per_second', 500").items()
            if value is not None
        }
        for name, value in values.items():
            _check_option(name, value)
        return cls(**values)

    def batch(self, usual: int) -> int:
        """Rows at once: not more than a second's worth, so that no pause gets long."""
        size = self.batch_size or usual
        return size if self.rows_per_second is None else max(1, min(size, int(self.rows_per_second)))


def _check_option(name: str, value: object) -> None:
    if name == "golden_query":
        if type(value) is not str or not value.strip():
            raise InvalidArgument('option "golden_query" is not a query')
        return
    if name == "drop":
        if type(value) is not bool:
            raise InvalidArgument('option "drop" is neither true nor false')
        return
    kind, lowest, highest = _NUMBERS[name]
    is_number = type(value) is int or (kind is float and type(value) is float)
    if not is_number or not lowest <= value <= highest:  # type: ignore[operator]
        noun = "an integer" if kind is int else "a number"
        raise InvalidArgument(f'option "{name}" is not {noun} from {lowest:,} to {highest:,}')
