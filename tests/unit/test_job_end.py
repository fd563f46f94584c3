"""What the artifacts and the figures of a job are called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pgml_tune.errors import InvalidArgument
from pgml_tune.records import ModelReference
from pgml_tune.service.job_end import Target, name_versions, rows_of
from pgml_tune.store.registry import VersionRow

OLD, NEW, SMALL = "a" * 64, "b" * 64, "c" * 64


def named(
    files: list[tuple[str, str]], stem: str, version: str | None = None, base: str | None = None,
    existing: dict[str, str] | None = None,
) -> list[tuple[str, str | None, bool]]:  # fmt: skip
    target = Target("minilm", "embedding", version, base, None)
    rows = [VersionRow(1, "embedding", name, "ready", digest) for name, digest in (existing or {}).items()]
    artifacts: Any = [(suffix, SimpleNamespace(digest=digest)) for suffix, digest in files]
    return [(new.version, new.base, new.is_registered) for new in name_versions(target, stem, artifacts, rows)]


def test_derived_artifacts_are_named_after_the_main_one_and_based_on_it() -> None:
    files = [("", NEW), ("-int8", SMALL)]
    assert named(files, "v2", base="v1") == [("v2", "v1", False), ("v2-int8", "v2", False)]


def test_a_derived_artifact_alone_has_the_base_that_was_asked_for() -> None:
    assert named([("-int8", SMALL)], "v1", version="v1", base="v1") == [("v1-int8", "v1", False)]


def test_an_artifact_that_is_there_already_is_not_registered_again() -> None:
    existing = {"v1": NEW, "v1-int8": SMALL}
    assert named([("", NEW), ("-int8", SMALL)], "v1", existing=existing) == [
        ("v1", None, True),
        ("v1-int8", "v1", True),
    ]


def test_the_same_artifact_may_get_a_second_name_that_was_asked_for() -> None:
    assert named([("", OLD)], "best", version="best", existing={"v1": OLD}) == [("best", None, False)]


@pytest.mark.parametrize(
    "target", [3, {"model": "../x", "task": "embedding"}, {"model": "x"}, {"model": "x", "task": "e", "more": 1}]
)
def test_a_target_that_no_procedure_would_write_is_refused(target: object) -> None:
    with pytest.raises(InvalidArgument):
        Target.parse({"target": target})


@pytest.mark.parametrize("parameters", [{}, {"target": None}])
def test_a_job_may_make_no_versions(parameters: dict[str, object]) -> None:
    assert Target.parse(parameters) is None


def entry(of: str, digest: str = NEW, **figures: object) -> dict[str, Any]:
    return {"of": of, "digest": digest, "figures": figures, "dataset": {"dataset_rows": 3}}


def test_the_figures_of_a_new_artifact_belong_to_its_version() -> None:
    rows = list(rows_of(entry("new", spearman=89.1, note="x", exact=True), {NEW: ModelReference("minilm", "v2")}))
    assert rows == [
        {
            "model": "minilm", "version": "v2", "artifact_sha256": NEW, "metric": "spearman", "metric_value": 89.1,
            "dataset_rows": 3,
        }
    ]  # fmt: skip


def test_the_figures_of_a_version_belong_to_it() -> None:
    (row,) = rows_of(entry("minilm@v1", OLD, spearman=86.7), {})
    assert (row["model"], row["version"]) == ("minilm", "v1")


def test_the_figures_of_what_got_no_name_are_left_out() -> None:
    assert list(rows_of(entry("new", OLD, spearman=1.0), {NEW: ModelReference("minilm", "v2")})) == []
