"""Files that are no settings are one line and exit code 2, before anything is built from them."""

from pathlib import Path

import pytest

from gwg_dist import evaluate, fit, launch, sample
from gwg_dist.tools.settings_files import check_settings_file
from gwg_dist.tools.shipped import FOLDER
from tests.support.runs import fails

BOMB = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n".encode() for n in range(1, 12)
)
NO_SETTINGS = [
    (b"", "is empty; see --print_config"),
    (b"# nothing but a remark\n---\n", "is empty"),
    ("seed: 1\nname: é\n".encode("latin-1"), "no text in UTF-8: line 2 holds the byte 0xe9"),
    (b"\x7fELF\x02\x01\x00\x00" * 99, "is no YAML of settings"),
    (b"\x89PNG\r\n\x1a\n", "no text in UTF-8: line 1 holds the byte 0x89"),
    (b"- seed: 1\n- seed: 2\n", "must hold settings as key: value, got a list"),
    (b"seed", "must hold settings as key: value, got a str"),
    (b"7", "must hold settings as key: value, got a int"),
    (b"seed: [1\n", "is no YAML of settings: line 2, column 1: did not find expected"),
    (b"seed: 1: 2\n", "is no YAML of settings: line 1, column 8: mapping values are not allowed"),
    (b"seed: 2020-99-99\n", "is no YAML of settings: month must be in 1..12"),
    (b"seed: !!python/object/apply:os.system [true]\n", "is no YAML of settings: line 1"),
    (b"[" * 500, "is nested more than 40 deep"),
    (b"[" * 5000, "is no YAML of settings"),
    (BOMB, "has more than 20 aliases"),
    (b"#" * (1 << 20) + b"\nseed: 1\n", "is longer than 1 MiB"),
    (b"seed: 1\n---\nseed: 2\n", "is no YAML of settings"),
]


@pytest.mark.parametrize(("contents", "expected"), NO_SETTINGS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_no_file_of_settings(
    contents: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(contents)
    message = fails(fit.main, ["--config", "config.yaml"], capsys)
    assert message.startswith("error: config: config.yaml ")
    assert expected in message
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("contents", [b"", BOMB, b"\xff\xfe"])
def test_in_every_place_that_takes_one(
    contents: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("run/config.yaml", "run/best.ckpt", "run/last.ckpt", "part.yaml"):
        (tmp_path / name).write_bytes(contents)
    for main, args in (
        (fit.main, ["--resume", "run"]),
        (fit.main, ["--model", "part.yaml"]),
        (fit.main, ["--evaluation=part.yaml"]),
        (evaluate.main, ["run"]),
        (sample.main, ["run"]),
        (launch.main, ["--submit=false", "--", "--config=part.yaml"]),
    ):
        assert ".yaml " in fails(main, args, capsys)


@pytest.mark.parametrize(
    ("main", "args"),
    [(fit.main, ["--config", "LONG"]), (fit.main, ["--config=LONG.yaml"]), (fit.main, ["--resume", "LONG"]),
     (fit.main, ["--run_dir=LONG"]), (fit.main, ["--ckpt_path=LONG"]), (fit.main, ["--model.sampler=LONG"]),
     (fit.main, ["--data=Arrays", "--data.path=LONG.npy"]), (evaluate.main, ["LONG"]), (sample.main, ["LONG"]),
     (launch.main, ["--submit=false", "--", "--run_dir=LONG"])],
    ids=lambda value: value.__module__ if callable(value) else str(value),
)  # fmt: skip
def test_paths_that_are_longer_than_paths_can_be(
    main, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = fails(main, [arg.replace("LONG", "a/" * 2500 + "b" * 300) for arg in args], capsys)
    assert len(message) < 6000
    assert list(tmp_path.iterdir()) == []


def test_what_ships_and_what_is_written_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in FOLDER.rglob("*.yaml"):
        check_settings_file(path, "--config", keys=True)
    with pytest.raises(SystemExit):
        fit.main(["--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    check_settings_file(tmp_path / "printed.yaml", "--config", keys=True)
