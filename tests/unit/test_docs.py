"""What the documents say is what the code does."""

from pathlib import Path

from pgml_tune.errors import JobFailed, TuneError
from pgml_tune.settings import SETTINGS

CHECKOUT = Path(__file__).parents[2]
REFERENCE = (CHECKOUT / "docs" / "reference.md").read_text()


def test_the_reference_lists_every_setting_as_declared():
    section = REFERENCE.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{setting.name}` | {setting.default} | {setting.range.replace('|', 'or')} | {setting.trades} |"
        for setting in SETTINGS.values()
    ]


def test_the_reference_lists_the_sqlstate_of_every_error():
    section = REFERENCE.split("\n## Errors\n")[1].split("\n## ")[0]
    kinds = [kind for kind in TuneError.__subclasses__() if kind is not JobFailed]  # which has the one of its job
    assert [kind.sqlstate for kind in kinds if f"| {kind.sqlstate} |" not in section] == []


def test_the_default_that_sql_knows_is_the_declared_one():
    default = SETTINGS["table_cache_bytes"].default
    assert f"{default}  -- the default in settings.py" in (CHECKOUT / "sql/functions/internal.sql").read_text()
