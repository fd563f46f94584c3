"""`python -m pgml_tune.jobs import SOURCE`: makes artifacts and reports them as JSON lines; registering is SQL's."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pgml_tune.errors import DiskFull, NotReady, TuneError
from pgml_tune.jobs.reports import Reporter, claim_stdout
from pgml_tune.records import TASKS
from pgml_tune.settings import read_paths

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job; the exit status is 0 when everything asked for is in place."""
    options = _parser().parse_args(arguments)
    report = Reporter(claim_stdout())
    os.environ.update(_QUIET)
    try:
        from pgml_tune.jobs.importing import import_model

        model_root = options.model_root or read_paths().model_root
        import_model(options.source, options.task, options.quantize, model_root, report)
    except TuneError as error:
        report.error(error)
        return 1
    except OSError as error:
        traceback.print_exc()
        report.error(_file_error(error))
        return 1
    except ModuleNotFoundError as error:
        traceback.print_exc()
        report.error(
            NotReady(
                f'Python package "{error.name}" is not installed',
                detail="Importing a model needs the training libraries; inference does not.",
                hint="make install-train",
            )
        )
        return 1
    return 0


def _file_error(error: OSError) -> TuneError:
    reason = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("no space left for the artifact", detail=reason)
    hint = "Run it as the operating system user that owns the model root."
    return NotReady("a file cannot be read or written", detail=reason, hint=hint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pgml_tune.jobs", description=__doc__)
    jobs = parser.add_subparsers(required=True)
    job = jobs.add_parser("import", help="export a model folder to artifacts below the model root")
    job.add_argument("source", help="folder of sentence-transformers or transformers, or org/model on a hub")
    job.add_argument("--task", choices=TASKS, default=TASKS[0])
    job.add_argument("--quantize", action="append", choices=("int8_dynamic", "int8_block"), default=[])
    job.add_argument("--model-root", type=Path, help="default: as in the configuration file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
