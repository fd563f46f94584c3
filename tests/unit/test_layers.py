"""The house: a module imports only lower layers, and a backend never loads what it must not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "pgml_tune"
LAYERS = {
    "errors": -1,  # the root: even records and settings raise them
    "records": 0, "settings": 0,
    "db": 1, "engine": 1, "ipc": 1,
    "store": 2,
    "service": 3, "report": 3,
    "backend": 4, "worker": 4, "serving": 4, "jobs": 4, "cli": 4,
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_lower_layers(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not imported_modules(path)
        return
    for module in imported_modules(path):
        other = part(module) if module.startswith("pgml_tune.") else ""
        if other and other != own:
            assert LAYERS[other] < LAYERS[own], f"{path} imports {module}"


def test_plpy_is_imported_in_two_places_only():
    importers = {str(path.relative_to(PACKAGE)) for path in MODULES if "plpy" in imported_modules(path)}
    assert importers == {"backend/__init__.py", "db/spi.py"}


def test_training_libraries_are_imported_by_jobs_only():
    training = {"torch", "transformers", "sentence_transformers", "onnx", "onnxscript", "peft", "datasets"}
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in MODULES
        if {module.split(".")[0] for module in imported_modules(path)} & training
    }
    assert importers <= {"jobs"}


BACKEND_IMPORT = """
import sys, types
plpy = types.ModuleType("plpy")
server = types.ModuleType("pgml_tune.db.server")
sys.modules["plpy"], sys.modules["pgml_tune.db.server"] = plpy, server
import pgml_tune.db
pgml_tune.db.server = server
from pgml_tune.backend import cache, embedding, operations, registry
light = {"numpy", "onnxruntime", "tokenizers"} & set(sys.modules)
from pgml_tune.service import inference
heavy = {"torch", "transformers", "sentence_transformers", "psycopg", "click", "huggingface_hub"} & set(sys.modules)
print(sorted(light), sorted(heavy))
"""


def test_the_backend_loads_no_training_library_and_nothing_heavy_before_the_first_call():
    run = subprocess.run(
        [sys.executable, "-c", BACKEND_IMPORT],
        capture_output=True, text=True, env={"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert run.stderr == ""
    assert run.stdout.strip() == "[] []"


# The tokenizers library raises bare Exception, and jobs load foreign folders with libraries that raise anything.
CATCHES_EVERYTHING = {PACKAGE / "engine" / "tokenizer.py", *(PACKAGE / "jobs").glob("*.py")}


def test_no_code_catches_everything():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                names = "" if node.type is None else ast.unparse(node.type)
                if path not in CATCHES_EVERYTHING:
                    assert names and "Exception" not in names.split("."), f"{path}:{node.lineno}"


def test_the_version_is_the_one_of_the_control_file():
    from pgml_tune import __version__

    control = (PACKAGE.parents[1] / "pgml_tune.control").read_text()
    assert f"default_version = '{__version__}'" in control
