"""How much memory there is, on a machine and in a control group."""

import pytest

from pgml_tune.engine import machine_memory
from pgml_tune.engine.machine_memory import free_bytes, machine_bytes

MB = 1 << 20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Says which groups this process is in; gives what lays out one."""
    own, meminfo = tmp_path / "own", tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable:    {8 << 20} kB\n")
    monkeypatch.setattr(machine_memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine_memory, "_OWN", own)
    monkeypatch.setattr(machine_memory, "_MEMINFO", meminfo)
    own.write_text("")

    def lay_out(line, **folders):
        own.write_text(line)
        for name, files in folders.items():
            folder = tmp_path / "groups" / name.replace("_", "/").strip("/")
            folder.mkdir(parents=True, exist_ok=True)
            for file, content in files.items():
                (folder / file).write_text(f"{content}\n")

    return lay_out


def group(most, used, cached):
    return {"memory.max": most, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {cached}"}


def test_without_a_group_it_is_the_machines(groups):
    assert free_bytes() == 8192 * MB
    assert machine_bytes() > MB


def test_the_least_of_all_groups_around_counts(groups):
    groups(
        "0::/system/worker\n",
        _=group(900 * MB, 100 * MB, 0),
        system=group(600 * MB, 500 * MB, 0),
        system_worker=group(700 * MB, 400 * MB, 50 * MB),
    )
    assert machine_bytes() == 600 * MB
    assert free_bytes() == 100 * MB


def test_a_group_without_a_limit_does_not_count(groups):
    groups("0::/worker\n", _=group("max", 1, 0), worker=group("max", 1, 0))
    assert free_bytes() == 8192 * MB


def test_files_that_are_cached_can_be_given_up(groups):
    groups("0::/\n", _=group(600 * MB, 590 * MB, 500 * MB))
    assert free_bytes() == 510 * MB


def test_groups_of_the_older_kind_and_paths_that_only_the_machine_has(groups):
    old = {
        "memory.limit_in_bytes": 300 * MB,
        "memory.usage_in_bytes": 350 * MB,
        "memory.stat": f"inactive_file 7\ntotal_inactive_file {100 * MB}",
    }
    groups("9:name=systemd:/\n4:cpu,memory:/docker/0123\n", memory=old)
    assert machine_bytes() == 300 * MB
    assert free_bytes() == 50 * MB
