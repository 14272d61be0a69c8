"""All or nothing: how a file is written, whatever fails, and its permissions, owner and links."""

import contextlib
import errno
import itertools
import os
import re
import resource
import stat
import subprocess
import sys

import numpy as np
import pytest
from io_files import OLD, everything, leftovers

import fastrnn
from fastrnn import io as files

as_root = os.geteuid() == 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class Torn:
    """A file of which a write takes half, and after some bytes none."""

    def __init__(self, file, error):
        self.file, self.error, self.left = file, error, 300

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.file.close()

    def fileno(self):
        return self.file.fileno()

    def write(self, data):
        if self.left <= 0 and self.error is not None:
            raise self.error
        count = self.file.write(data[: (len(data) + 1) // 2])
        self.left -= count
        return count


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def torn_write(monkeypatch, error):
    def opened(*args, **options):
        return Torn(open(*args, **options), error)

    monkeypatch.setattr(files, "open", opened, raising=False)


def torn_call(name):
    def tear(monkeypatch, error):
        def fail(*args):
            raise error

        monkeypatch.setattr(os, name, fail)

    tear.__name__ = name
    return tear


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize(
    ("tear", "existing"),
    [
        *itertools.product((torn_write, torn_call("fsync"), torn_call("replace")), (True, False)),
        (torn_call("fchmod"), True),  # a new file has its permissions from the start
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_save_that_fails_changes_nothing(path, monkeypatch, tear, error, existing):
    if existing:
        path.write_bytes(OLD)
        path.chmod(0o666)  # more than the umask leaves, so that fchmod is needed
    with monkeypatch.context() as patches, umask(0o022):
        tear(patches, error)
        with pytest.raises(type(error)) as caught:
            fastrnn.save(path, everything())
    assert caught.value is error
    if existing:
        assert path.read_bytes() == OLD
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
    else:
        assert not path.exists()
    assert leftovers(path) == []
    fastrnn.save(path, everything())
    assert list(fastrnn.load(path)) == list(everything())


def test_short_writes_are_continued(path, monkeypatch):
    fastrnn.save(path, everything())
    expected = path.read_bytes()
    torn_write(monkeypatch, None)
    fastrnn.save(path, everything())
    assert path.read_bytes() == expected


def test_the_error_names_the_file(path, monkeypatch):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    torn_write(monkeypatch, error)
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{path}'")):
        fastrnn.save(path, everything())


def test_a_file_of_the_temporary_name_is_left_alone(path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * n)
    other = path.parent / f".fastrnn-{'0' * 16}.tmp"
    other.write_bytes(OLD)
    with pytest.raises(FileExistsError):
        fastrnn.save(path, everything())
    assert other.read_bytes() == OLD
    assert not path.exists()


def test_a_full_disk(path):
    """The system itself refuses to write more than 4 KiB to a file."""
    path.write_bytes(OLD)
    code = """if True:
        import resource, sys, numpy as np, fastrnn
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        fastrnn.save(sys.argv[1] + "2", {"a": np.ones(100)})
        try:
            fastrnn.save(sys.argv[1], {"a": np.ones(100_000)})
        except OSError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"[Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: '{path}'\n"
    assert path.read_bytes() == OLD
    assert leftovers(path) == [path.name + "2"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096  # of the other process only


def test_the_disk_has_the_file_before_it_gets_its_name(path, monkeypatch):
    events = []

    def told(name):
        original = getattr(os, name)

        def call(*args):
            what = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(*args).st_mode) else name
            events.append(what)
            if what == "fsync":  # complete by now
                (temporary,) = leftovers(path)
                assert fastrnn.load(path.parent / temporary)["a"].size == 1000
            return original(*args)

        monkeypatch.setattr(os, name, call)

    told("fsync")
    told("replace")
    fastrnn.save(path, {"a": np.ones(1000)})
    assert events == ["fsync", "replace", "folder"]


def test_a_folder_that_cannot_be_synchronised(path, monkeypatch):
    fsync = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    fastrnn.save(path, everything())
    assert list(fastrnn.load(path)) == list(everything())


@pytest.mark.parametrize("mask", [0, 0o022, 0o027, 0o077])
def test_permissions(path, mask):
    with umask(mask):
        fastrnn.save(path, {})
        with open(path.parent / "other", "wb"):
            pass
        other = path.parent / "other"
        assert path.stat().st_mode == other.stat().st_mode
        for mode in (0o600, 0o666, 0o640, 0o777, 0o2644):
            path.chmod(mode)
            fastrnn.save(path, {"a": np.zeros(1)})
            assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_reads_the_file_before_it_has_its_permissions(path, monkeypatch):
    path.write_bytes(OLD)
    path.chmod(0o600)
    modes = []
    fchown = os.fchown

    def told(descriptor, *ids):
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fchown(descriptor, *ids)

    monkeypatch.setattr(os, "fchown", told)
    with umask(0):
        fastrnn.save(path, {})
    assert modes == [0o600]


@pytest.mark.skipif(not as_root, reason="only root may give files away")
def test_root_leaves_a_file_to_its_owner(path):
    path.write_bytes(OLD)
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    fastrnn.save(path, {})
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)


@pytest.mark.skipif(as_root, reason="root may write to every file")
def test_a_read_only_file_stays(path):
    path.write_bytes(OLD)
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        fastrnn.save(path, {})
    assert path.read_bytes() == OLD


def test_links(path):
    folder = path.parent / "folder"
    folder.mkdir()
    target, link, second = folder / "target", path.parent / "link", path.parent / "second"
    link.symlink_to("folder/target")
    second.symlink_to(link)
    fastrnn.save(second, {"a": np.zeros(1)})  # the target is made, as open does
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.is_file()
    assert list(fastrnn.load(second)) == ["a"]
    os.link(target, folder / "hard")
    fastrnn.save(link, {"b": np.zeros(1)})
    assert link.is_symlink()
    assert not target.is_symlink()
    assert list(fastrnn.load(target)) == ["b"]
    assert list(fastrnn.load(folder / "hard")) == ["a"]
    assert sorted(os.listdir(folder)) == ["hard", "target"]
    loop = path.parent / "loop"
    loop.symlink_to(loop)
    for call in (fastrnn.load, lambda p: fastrnn.save(p, {})):
        with pytest.raises(OSError, match="symbolic links"):
            call(loop)
    assert loop.is_symlink()


def test_a_relative_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    fastrnn.save(path.name, everything())
    assert list(fastrnn.load(path)) == list(everything())
    assert os.listdir() == [path.name]
