"""What is kept to be run or shown later is whole, and the user's own."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gwg_dist.samplers.fast import native
from gwg_dist.tools import cache
from gwg_dist.tools.cache import cache_folder, is_private, keeping
from gwg_dist.tools.help import show_help
from tests.conftest import ROOT

needs_a_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of another user are made by root")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a folder for temporary files of this test's own."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(native, "FLAGS", ["-O0", "-march=native", "-fPIC", "-shared", "-std=gnu11"])  # quicker
    cache._of_this_process.cache_clear()
    return tmp_path


def test_the_folder_is_the_users_alone(home: Path) -> None:
    folder = cache_folder()
    assert folder == home / "home/.cache/gwg_dist"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_folder_for_the_user_where_the_home_is_read_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert cache_folder() == cache_folder() == home / f"tmp/gwg_dist-{os.geteuid()}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder() == home / f"tmp/gwg_dist-{os.geteuid()}"
    assert len(list((home / "tmp").iterdir())) == 1


def test_a_folder_that_others_may_write_to_is_not_used(home: Path) -> None:
    shared = home / "home/.cache/gwg_dist"
    shared.mkdir(parents=True)
    shared.chmod(0o770)
    own = cache_folder()
    assert own == home / f"tmp/gwg_dist-{os.geteuid()}"
    own.chmod(0o777)
    assert cache_folder().name.startswith("gwg_dist_"), "one for this process"
    assert cache_folder() == cache_folder()


def test_a_link_is_not_followed(home: Path) -> None:
    (home / "home/.cache").mkdir()
    (home / "theirs").mkdir(mode=0o700)
    (home / "home/.cache/gwg_dist").symlink_to(home / "theirs")
    assert cache_folder() == home / f"tmp/gwg_dist-{os.geteuid()}"


@needs_root
def test_another_users_files_are_not_private(tmp_path: Path) -> None:
    path = tmp_path / "kernels.so"
    path.touch(mode=0o600)
    assert is_private(path)
    os.chown(path, 12345, 12345)
    assert not is_private(path)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with keeping(tmp_path / "a.so") as beside:
            beside.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def built(home: Path) -> Path:
    return native._built(native.compiler() or "", "key")


@needs_a_compiler
@pytest.mark.parametrize("damage", ["truncated", "a byte", "no sum", "another's", "group"])
def test_a_damaged_library_is_compiled_again(damage: str, home: Path) -> None:
    """Loading one that is truncated ends the process with a bus error."""
    path = built(home)
    whole = path.read_bytes()
    time = path.stat().st_mtime_ns
    assert built(home).stat().st_mtime_ns == time, "a whole one is taken as it is"
    if damage == "truncated":
        os.truncate(path, len(whole) // 2)
    elif damage == "a byte":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif damage == "no sum":
        path.with_suffix(".sum").unlink()
    elif damage == "group":
        path.chmod(0o660)
    elif os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        pytest.skip("root alone gives files to others")
    assert built(home).read_bytes() == whole
    assert is_private(path)
    assert native._is_whole(path)
    assert {file.suffix for file in path.parent.iterdir()} == {".so", ".sum"}


@pytest.mark.slow
@needs_a_compiler
def test_a_truncated_library_ends_no_run(home: Path) -> None:
    """For real, in processes of their own: the second finds what a power loss left of the first one's."""
    code = "from gwg_dist.samplers.fast import native; print(native.library() is not None)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CC": f"{shutil.which('cc') or native.compiler()} -O2"}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
        (path,) = (home / "home/.cache/gwg_dist").glob("kernels-*.so")
        os.truncate(path, 5000)


def test_help_is_shown_from_ones_own_page_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_help("python -m test", lambda: "the page\n")
    (page,) = (cache_folder() / "help").iterdir()
    show_help("python -m test", lambda: "made anew\n")
    page.chmod(0o666)
    show_help("python -m test", lambda: "not theirs\n")
    os.truncate(page, 0)
    show_help("python -m test", lambda: "not empty\n")
    assert capsys.readouterr().out == "the page\nthe page\nnot theirs\nnot empty\n"
