"""`python -m pgml_tune.jobs run ID`: does one job, in its folder, and reports it as JSON lines.

`python -m pgml_tune.jobs import SOURCE` makes artifacts of a model without a worker. Registering them is SQL's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgml_tune.errors import TuneError
from pgml_tune.jobs.failures import explain
from pgml_tune.jobs.job import Job, available_threads
from pgml_tune.jobs.lifeline import tie_to_parent
from pgml_tune.jobs.reports import Reporter, claim_stdout
from pgml_tune.records import TASKS
from pgml_tune.settings import read_paths

MODULES = {  # kind -> module with run(job, report) -> result, loaded when such a job runs
    "import_model": "importing",
    "finetune_sbert": "finetune_sbert",
    "finetune_classifier": "finetune_classifier",
    "finetune_text_to_sql": "finetune_text_to_sql",
    "distill_model": "distill",
    "quantize_model": "quantizing",
    "export_onnx": "exporting",
    "export_tensorrt": "tensorrt",
    "evaluate_model": "evaluating",
    "tune_engine": "tuning",
}
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one job; the exit status is 0 when everything asked for is in place."""
    options = _parser().parse_args(arguments)
    report = Reporter(claim_stdout())
    os.environ.update(_QUIET)
    try:
        report.result(options.do(options, report))
    except Exception as error:  # the one place that everything ends in: the libraries raise whatever they like
        if not isinstance(error, TuneError):
            traceback.print_exc()
        report.error(explain(error))
        return 1
    return 0


def _run(options: argparse.Namespace, report: Reporter) -> dict[str, Any]:
    tie_to_parent()
    job = Job.load(Path.cwd())
    if job.job_id != options.job_id:
        raise ValueError(f"the folder is that of job {job.job_id}")
    module = importlib.import_module(f"pgml_tune.jobs.{MODULES[job.kind]}")
    result: dict[str, Any] = module.run(job, report)
    return result


def _import(options: argparse.Namespace, report: Reporter) -> dict[str, Any]:
    from pgml_tune.jobs.importing import import_model
    from pgml_tune.jobs.publishing import Site

    model_root = options.model_root or read_paths().model_root
    return import_model(
        options.source, options.task, options.quantize, Site(model_root, "", available_threads(), report)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pgml_tune.jobs", description=__doc__)
    jobs = parser.add_subparsers(required=True)
    run = jobs.add_parser("run", help="do the job whose folder is the current one")
    run.add_argument("job_id", type=int)
    run.set_defaults(do=_run)
    job = jobs.add_parser("import", help="export a model folder to artifacts below the model root")
    job.add_argument("source", help="folder of sentence-transformers or transformers, or org/model on a hub")
    job.add_argument("--task", choices=TASKS, default=TASKS[0])
    job.add_argument("--quantize", action="append", choices=("int8_dynamic", "int8_block"), default=[])
    job.add_argument("--model-root", type=Path, help="default: as in the configuration file")
    job.set_defaults(do=_import)
    return parser


if __name__ == "__main__":
    _status = main()
    sys.stderr.flush()
    # At once: libraries take seconds to leave, and who started this may have let go of standard input meanwhile.
    os._exit(_status)
