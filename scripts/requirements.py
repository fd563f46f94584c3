"""Prints what the package and the named extras need, one requirement per line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "python" / "pyproject.toml").read_text())["project"]
extras = sys.argv[1:]
lines = {requirement for extra in extras for requirement in project["optional-dependencies"][extra]}
if extras not in (["model"], ["openvino"]):  # each is installed alone, without what it names
    lines.update(project["dependencies"])
print("\n".join(sorted(lines)))
