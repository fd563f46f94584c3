"""An import removes what killed ones left; needs no training libraries."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from pgml_tune.errors import ObjectNotFound
from pgml_tune.jobs.importing import import_model
from pgml_tune.jobs.reports import Reporter


def test_an_import_removes_what_killed_ones_left(tmp_path: Path) -> None:
    for name, hours in (("old", 25), ("running", 1)):
        folder = tmp_path / f".building-{name}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"")
        os.utime(folder, (time.time() - hours * 3600,) * 2)
    stream = io.StringIO()
    with pytest.raises(ObjectNotFound):
        import_model(str(tmp_path / "none"), "embedding", (), tmp_path, Reporter(stream))
    assert [path.name for path in tmp_path.glob(".building-*")] == [".building-running"]
    assert "removing .building-old" in stream.getvalue()
