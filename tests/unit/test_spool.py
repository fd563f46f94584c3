import errno
import fcntl
import os

import pytest

from pgml_tune.ipc import spool
from pgml_tune.ipc.call_line import Dropped, parse
from pgml_tune.ipc.spool import FILE_BYTES, RETRY_SECONDS, SpoolWriter, database_folder, files, make_room

NODE, OTHER = "0123456789ab", "ba9876543210"
PLENTY = 256 << 20
LINE = b"a line\n"


@pytest.fixture
def folder(tmp_path):
    return database_folder(tmp_path, 5)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def writer(folder, clock):
    return SpoolWriter(folder, NODE, "17-abc", clock)


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes as many bytes as the test says; None: it fails outright."""

    class Disk:
        room: int | None = PLENTY

        def write(self, descriptor, data):
            if self.room is None or (self.room == 0 and data):
                raise OSError(errno.ENOSPC, "no space")
            taken = data[: self.room]
            self.room -= len(taken)
            return real_write(descriptor, taken)

    real_write, disk = os.write, Disk()
    monkeypatch.setattr(spool.os, "write", disk.write)
    return disk


def content(folder):
    return b"".join(file.path.read_bytes() for file in files(folder))


def dropped_bytes(folder):
    told = (parse(line) for line in content(folder).decode().split("\n"))
    return sum(line.bytes for line in told if isinstance(line, Dropped))


def test_a_writer_appends_whole_lines_to_one_file_of_its_own(folder, writer):
    for _ in range(3):
        writer.write(LINE, PLENTY)
    [file] = files(folder, NODE)
    assert (file.name, file.path.read_bytes()) == (f"{NODE}-17-abc-0.log", LINE * 3)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_is_complete_only_when_its_writer_is_gone(folder, writer):
    writer.write(LINE, PLENTY)
    [file] = files(folder)
    assert not file.read(0).is_complete
    writer._close()
    assert file.read(0).is_complete


def test_two_readers_do_not_keep_each_other_from_reading(folder, writer):
    writer.write(LINE, PLENTY)
    writer._close()
    [file] = files(folder)
    with open(file.path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert file.read(0).content == LINE


def test_reading_goes_on_where_it_ended(folder, writer):
    writer.write(b"1\n2\n", PLENTY)
    [file] = files(folder)
    piece = file.read(0)
    writer.write(b"3\n", PLENTY)
    assert (list(piece.lines()), list(file.read(piece.end).lines())) == (["1", "2"], ["3"])
    assert list(file.read(6).lines()) == []


def test_a_line_that_is_being_written_waits_for_its_end(folder, writer):
    writer.write(b"whole\nhal", PLENTY)
    [file] = files(folder)
    assert (file.read(0).content, file.read(0).end) == (b"whole\n", 6)


def test_a_line_torn_by_the_death_of_its_writer_is_passed_over(folder, writer):
    writer.write(b"whole\nhal", PLENTY)
    writer._close()
    [file] = files(folder)
    assert (list(file.read(0).lines()), file.read(0).end) == (["whole", "hal"], 9)


def test_bytes_without_end_do_not_hold_up_the_reader(folder, writer, monkeypatch):
    monkeypatch.setattr(spool, "_READ_BYTES", 64)
    writer.write(b"x" * 100, PLENTY)
    [file] = files(folder)
    assert file.read(0).end == 64


def test_a_full_disk_leaves_no_torn_line_and_is_told_afterwards(folder, writer, disk):
    writer.write(LINE, PLENTY)
    for disk.room in (3, 0, None):
        writer.write(LINE, PLENTY)
    assert content(folder) == LINE
    disk.room = PLENTY
    writer.write(LINE, PLENTY)
    assert content(folder).startswith(LINE * 2)
    assert dropped_bytes(folder) == 3 * len(LINE)
    writer.write(LINE, PLENTY)
    assert dropped_bytes(folder) == 3 * len(LINE)


def test_nothing_follows_a_torn_line_that_cannot_be_taken_back(folder, writer, disk, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "broken")

    disk.room = 3
    monkeypatch.setattr(spool.os, "ftruncate", refuse)
    writer.write(LINE, PLENTY)
    disk.room = PLENTY
    writer.write(LINE, PLENTY)
    torn, whole = sorted(files(folder), key=lambda file: file.name)
    assert (torn.path.read_bytes(), whole.path.read_bytes()[: len(LINE)]) == (LINE[:3], LINE)


def test_a_folder_that_cannot_be_used_fails_no_call_and_is_tried_again_later(folder, writer, clock):
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("in the way")
    writer.write(LINE, PLENTY)
    folder.parent.unlink()
    writer.write(LINE, PLENTY)
    assert not folder.exists()
    clock.now += RETRY_SECONDS
    writer.write(LINE, PLENTY)
    assert dropped_bytes(folder) == 2 * len(LINE)


def test_a_long_file_is_followed_by_another(folder, writer):
    writer.write(b"x" * FILE_BYTES + b"\n", PLENTY)
    writer.write(LINE, PLENTY)
    first, second = sorted(files(folder), key=lambda file: file.name)
    assert first.read(0).is_complete
    assert second.path.read_bytes() == LINE


def test_beyond_the_cap_the_oldest_complete_files_are_dropped_and_told(folder, writer):
    folder.mkdir(parents=True)
    for age, name in enumerate(["3", "2", "1"]):
        path = folder / f"{NODE}-1-{name}-0.log"
        path.write_bytes(b"x" * FILE_BYTES)
        os.utime(path, (1000 + age, 1000 + age))
    writer.write(LINE, 3 * FILE_BYTES)
    assert sorted(file.name for file in files(folder)) == [f"{NODE}-{name}-0.log" for name in ("1-1", "1-2", "17-abc")]
    assert dropped_bytes(folder) == FILE_BYTES


def test_files_that_are_being_written_are_never_dropped(folder, clock):
    writers = [SpoolWriter(folder, NODE, f"{number}-a", clock) for number in range(3)]
    for writer in writers:
        writer.write(b"x" * FILE_BYTES + b"\n", 3 * FILE_BYTES)
    assert len(files(folder)) == 2  # the third had no room
    dropped, is_below = make_room(folder, NODE, 0)
    assert (dropped, is_below) == ([], False)


def test_files_of_another_node_are_not_its_business(folder, writer):
    SpoolWriter(folder, OTHER, "17-abc").write(LINE, PLENTY)
    writer.write(LINE, PLENTY)
    assert [file.name for file in files(folder, NODE)] == [f"{NODE}-17-abc-0.log"]
    assert make_room(folder, NODE, 0) == ([], False)
    assert len(files(folder)) == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_plain_file_is_passed_over(folder, make):
    folder.mkdir(parents=True)
    make(folder / f"{NODE}-1-a-0.log")
    assert [file.read(0) for file in files(folder)] == [None]


def test_files_of_other_names_are_not_looked_at(folder, writer):
    writer.write(LINE, PLENTY)
    for name in ("notes.log", f"{NODE}-1-a-0.new", f"{NODE}-1-a-0.log.gz", "..log"):
        (folder / name).write_text("x")
    assert len(files(folder)) == 1


def test_a_folder_that_is_missing_has_no_files(folder):
    assert files(folder) == []
