"""``gwg_dist report``: one page that asks no network, the verdict first, and its mistakes are one line."""

import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gwg_dist import report
from gwg_dist.report.collect import best_estimate, collect, read_metrics
from gwg_dist.report.outcome import outcome_of
from gwg_dist.report.points import nearest_rows
from tests.support.runs import SMALL, fails, run_fit

MAX_SIZE = 5_000_000
WITHOUT_MODEL = [option for option in SMALL if "RBM" not in option and "num_hidden" not in option]
LOADING = ("src", "href", "data", "poster", "srcset", "action")


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "path", "use", "image"):
            self.open.append(tag)
        for name, value in attrs:
            if name in LOADING and value:
                self.loads.append(value)
            if name == "id" and value:
                assert value not in self.names, value
                self.names.add(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "img", "br", "path", "use", "image"):
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if data.strip() and (not self.open or self.open[-1] != "style"):
            self.words.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model of pairs on letters."""
    folder = tmp_path_factory.mktemp("pairs")
    codes = torch.randint(3, (200, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    codes[:, 8] = codes[:, 0]
    np.save(folder / "x.npy", codes.numpy())
    return run_fit(folder / "run", f"{folder}/x.npy", *WITHOUT_MODEL, "--model.energy=PottsEnergy",
                   "--trainer.max_steps=60", "--trainer.log_every_n_steps=10", "--evaluation.every=20")  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on images, with an estimate from both sides."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    run_fit(folder, "--trainer.max_steps=40", "--trainer.log_every_n_steps=10", "--pictures_every=10",
            "--evaluation.every=20", "--evaluation.online=true")  # fmt: skip
    estimate = json.loads((folder / "results.json").read_text())
    test = {
        **estimate["likelihood"]["test"],
        "low_side": -26.21,
        "high_side": -25.84,
        "ceiling": -22.5,
        "bits_per_dim": 0.5,
    }
    link = {"begin": 0.0, "end": 0.5, "forward": 3.0, "reverse": 3.1, "bennett": 3.05, "stderr": 0.1, "slope": None}
    estimate["sides"] = {
        "standing": {"kind": "gap", "nats": 0.361, "reasons": ["the chains are not at equilibrium"]},
        "routes": {"forward AIS": {"log_z": 1.0, "stderr": 0.1, "label": "low on average"}},
        "checks": {"drift": None},
        "likelihood": {"test": test},
        "links": [link, {**link, "begin": 0.5, "end": 1.0}],
    }
    estimate["resample"] = {"pairs": {"chains": 0.91, "new": 0.42}, "out of equilibrium": True}
    metrics = next(folder.glob("metrics/*/metrics.csv"))
    header, *rows = metrics.read_text().splitlines()
    metrics.write_text("\n".join([f"{header},mine/number", *(f"{row},{n}" for n, row in enumerate(rows))]) + "\n")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "best.json").write_text(json.dumps(estimate))
    return folder


@pytest.fixture(scope="module")
def digits_page(digits: Path) -> Path:
    return report.report([str(digits)], device="cpu")


def page_of(path: Path) -> tuple[str, Page]:
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert len(text) < MAX_SIZE
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert [load for load in page.loads if not load.startswith(("data:image/png;base64,", "#"))] == []
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    return text, page


def test_a_run_on_one_page_the_verdict_first(digits: Path, digits_page: Path) -> None:
    assert digits_page == digits / "report.html"
    text, page = page_of(digits_page)
    assert "running estimate" in text
    assert "Pearson 0.91 in the run's chains, 0.42 in new ones" in " ".join(page.words)
    assert page.words[:2] == ["run", "run"]  # title and heading
    assert page.words[2] in ("Good", "Doubtful", "Bad")
    for name in ("Likelihood", "Training", "Chains over training", "Samples beside data", "All settings, config.yaml"):
        assert name in page.words
    assert page.words.index("test") < page.words.index("Likelihood")
    assert text.count("<svg") >= 8
    assert page.tags.count("img") > 3 * 12 + 4
    assert "prefers-color-scheme: dark" in text
    assert "#0a0" not in text, "a colour that stands for a variable is left"
    assert {"One site", "Two sites", "Three sites"} <= set(page.words)
    gap = "A gap of 0.37 nats lies between the sides of the likelihood. The chains are not at equilibrium."
    assert page.words.index(gap) < page.words.index("low side") < page.words.index("Training")
    assert {"−26.21", "−25.84", "−22.50", "forward AIS", "low on average"} <= set(page.words)
    assert "Links of the path, less Bennett’s estimate" in page.words
    assert {"Energy gap", "Lag of the chains", "Effective chains of the estimate", "mine/number"} <= set(page.words)


def test_runs_side_by_side_with_the_settings_that_differ(digits: Path, pairs: Path, tmp_path: Path) -> None:
    path = report.report([str(digits), str(pairs)], out=str(tmp_path / "both.html"), device="cpu")
    text, page = page_of(path)
    assert (
        page.words.index("2 runs side by side") < page.words.index("Settings that differ") < page.words.index("Curves")
    )
    settings = page.words[page.words.index("Settings that differ") : page.words.index("Curves")]
    assert "model.energy" in settings
    assert "model.num_steps" not in settings
    assert text.count("<details class") == 2
    place = page.words.index("Strongest pairs")  # of the second run, a model of pairs
    assert page.words[place + 4 : place + 6] == ["1", "9"]
    assert re.fullmatch("[012]{9}", page.words[page.words.index("sample 1") + 1])


def test_a_run_of_which_nothing_is_known_yet(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "begun"
    run.mkdir()
    shutil.copy(digits / "config.yaml", run)
    _, page = page_of(report.report([str(run)], device="cpu"))
    assert page.words[2] == "Not known yet"
    assert any("no checkpoint yet" in words for words in page.words)
    state = torch.load(digits / "last.ckpt", weights_only=True)  # a state, and no estimate
    state["callbacks"]["DivergenceGuard"]["returns"] = [[30, 10, 2]]
    torch.save(state, run / "last.ckpt")
    _, page = page_of(report.report([str(run)], device="cpu"))
    assert page.words[2] == "Not known yet"
    assert page.tags.count("img") > 3 * 12
    assert "training went back to a healthy state after iteration 30" in page.words
    assert any("no process goes on with it: no closing estimate after 40 iterations" in words for words in page.words)
    report.main([str(run), "--device=cpu", f"--out={tmp_path}/elsewhere.html"])
    assert "Not known yet".lower() in capsys.readouterr().err


def test_good_and_bad_runs_are_told_apart(digits: Path, tmp_path: Path) -> None:
    """The level follows the verdict, the sides and the state of the chains, each alone."""
    run = collect(digits)
    verdict = {"kind": "better", "split": "test", "gain": 9.0, "stderr": 0.1, "bits": 0.2, "spread": 4.0}
    ais = {"log_z": 1.0, "stderr": 0.1, "ess": 80.0, "collapsed": False, "num_chains": 100, "num_temperatures": 10}
    healthy = {"train/accept_prob": 0.9, "train/lag": 1.0, "train/energy_gap": 0.5, "train/energy_spread": 3.0}

    def level(*, metrics: dict[str, float] | None = None, returns: tuple[int, ...] = (), **estimate: object) -> str:
        values = {"verdict": verdict, "ais": ais, **estimate}
        (tmp_path / "results.json").write_text(json.dumps(values))
        (tmp_path / "config.yaml").write_text("{}")
        rows = {**healthy, **(metrics or {})}
        (tmp_path / "metrics" / "from_0000000").mkdir(parents=True, exist_ok=True)
        table = f"step,{','.join(rows)}\n9,{','.join(map(str, rows.values()))}\n"
        (tmp_path / "metrics" / "from_0000000" / "metrics.csv").write_text(table)
        return outcome_of(collect(tmp_path), None, returns).level

    def sides(kind: str, nats: float | None = 0.1) -> dict[str, object]:
        return {"standing": {"kind": kind, "nats": nats, "reasons": []}}

    assert run.has_ended
    assert level() == "good"
    assert level(sides=sides("agreed")) == "good"
    assert level(sides=sides("gap", 3.0)) == "doubtful"
    assert level(sides=sides("not to be quoted", None)) == "bad"
    assert level(verdict={**verdict, "kind": "worse"}) == "bad"
    assert level(verdict={**verdict, "kind": "no better", "spread": None}) == "doubtful"
    assert level(ais={**ais, "collapsed": True}) == "bad"
    assert level(ais={**ais, "ess": 7.0}) == "doubtful"
    assert level(metrics={"train/lag": 90.0}) == "doubtful"
    assert level(metrics={"train/lag": float("nan")}) == "doubtful"
    assert level(metrics={"train/accept_prob": 0.001}) == "doubtful"
    assert level(metrics={"train/energy_gap": -4.5}) == "doubtful"  # of a spread of 3, in which it counts itself
    assert level(metrics={"train/energy_gap": 2.0}) == "good"
    assert level(metrics={"symptom/refused": 1.0}) == "doubtful"
    assert level(returns=(300, 700)) == "good"


def test_metrics_of_all_starts_without_what_was_done_again(tmp_path: Path) -> None:
    for first, rows in ((0, "9,1\n19,2\n29,3\n"), (20, "29,4\n39,5\n")):
        (tmp_path / f"from_{first:07d}").mkdir()
        (tmp_path / f"from_{first:07d}" / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    found, num = read_metrics(tmp_path)
    assert found["train/loss"].iterations == [9, 19, 29, 39]
    assert found["train/loss"].values == [1.0, 2.0, 4.0, 5.0]
    assert num == 2


def test_the_nearest_point_is_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gwg_dist.report.points.COMPARED_AT_ONCE", 50)
    points = torch.randint(3, (7, 5), generator=torch.Generator().manual_seed(1))
    others = torch.randint(3, (40, 5), generator=torch.Generator().manual_seed(2))
    rows, distances = nearest_rows(points, others)
    every = (points[:, None] != others[None]).sum(2)
    assert torch.equal(distances, every.min(1).values)
    assert torch.equal(every[torch.arange(7), rows], distances)


def test_mistakes(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    assert "is no run folder" in fails(report.main, [str(tmp_path)], capsys)
    assert "there is no checkpoint" in fails(report.main, [str(run), "--checkpoint=other.ckpt"], capsys)
    assert "must end in .html" in fails(report.main, [str(run), "--out=x.txt"], capsys)
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    assert "is no report" in fails(report.main, [str(run), f"--out={tmp_path}/mine.html"], capsys)
    assert "device" in fails(report.main, [str(run), "--device=cuda:77"], capsys)
    metrics = next(run.glob("metrics/*/metrics.csv"))
    kept = metrics.read_text()
    metrics.write_text(kept.replace(kept.splitlines()[1], "not,a,number," * 4))
    assert "metrics.csv is damaged: line 2" in fails(report.main, [str(run)], capsys)
    metrics.write_text(kept)
    (run / "results.json").write_text("{")
    assert "results.json is damaged" in fails(report.main, [str(run)], capsys)
    (run / "results.json").unlink()
    (run / "last.ckpt").write_bytes(b"PK")
    (run / "previous.ckpt").unlink(missing_ok=True)
    assert "truncated or no checkpoint" in fails(report.main, [str(run), "--checkpoint=last"], capsys)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "pip install 'gwg_dist[plot]'" in fails(report.main, [str(run)], capsys)


def test_a_page_fits_a_phone_and_says_nothing_on_the_console(digits_page: Path, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("looking at a page needs chromium, and there is none")
    text = digits_page.read_text()
    measure = """<script>addEventListener("load", () => {
        const small = [...document.querySelectorAll("body *")].filter(e => e.textContent.trim() && !e.children.length
            && e.getClientRects().length && !e.closest("details:not([open])")
            && !["STYLE", "SCRIPT"].includes(e.tagName) && (e.closest("svg")
                ? e.getBoundingClientRect().height < 12 : parseFloat(getComputedStyle(e).fontSize) < 14));
        document.title = ["measured", document.documentElement.scrollWidth, innerWidth, small.length].join(" ");
    });</script>"""
    (tmp_path / "frame.html").write_text(text.replace("</body>", f"{measure}</body>"))
    for width in (500, 1400):  # chromium makes no narrower window; a frame of 400 is below
        found = measured(chromium, tmp_path / "frame.html", tmp_path, width)
        assert found[0] <= found[1]
        assert found[2] == 0
    frame = '<body style="margin:0"><iframe src="frame.html" style="width:400px;height:900px;border:0"></iframe>'
    frame += "<script>onload = () => setTimeout(() => document.title = frames[0].document.title, 50)</script>"
    (tmp_path / "phone.html").write_text(frame)
    found = measured(chromium, tmp_path / "phone.html", tmp_path, 500)
    assert found[0] <= found[1] == 400
    assert found[2] == 0


def measured(chromium: str, page: Path, folder: Path, width: int) -> list[int]:
    """What a page's script wrote in its title: widths of page and window, and how many texts are too small."""
    done = subprocess.run(
        [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--virtual-time-budget=3000", "--allow-file-access-from-files", f"--user-data-dir={folder}/profile",
         f"--window-size={width},900", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>measured ([\d ]+)</title>", done.stdout)
    assert title, done.stdout[:500]
    return [int(word) for word in title[1].split()]


def test_the_estimate_that_is_shown(tmp_path: Path) -> None:
    """Of the newest weights; of two of the same, the longer one; then the one to be believed; then the newer one."""
    (tmp_path / "evaluation").mkdir()

    def found(
        name: str, iteration: int, *, collapsed: bool = False, age: float = 0, temperatures: int = 50, **more: Any
    ) -> None:
        path = tmp_path / name
        ais = {"collapsed": collapsed, "num_chains": 100, "num_temperatures": temperatures}
        path.write_text(json.dumps({"iteration": iteration, "ais": ais, **more}))
        written = time.time() - age
        os.utime(path, (written, written))

    assert best_estimate(tmp_path) == ({}, "")
    found("evaluation/old.json", 100)
    found("results.json", 200, age=50)
    assert best_estimate(tmp_path)[1] == "results.json", "newer weights"
    found("evaluation/tried.json", 200, collapsed=True, temperatures=20)
    assert best_estimate(tmp_path)[1] == "results.json", "a run is no worse for a short try"
    found("evaluation/far.json", 200, sides={"standing": {"kind": "not to be quoted"}})
    assert best_estimate(tmp_path)[1] == "results.json"
    found("evaluation/near.json", 200, sides={"standing": {"kind": "agreed"}})
    assert best_estimate(tmp_path)[1] == "evaluation/near.json"
    found("evaluation/long.json", 200, age=20, temperatures=500, sides={"standing": {"kind": "not to be quoted"}})
    assert best_estimate(tmp_path)[1] == "evaluation/long.json", "what it shows the short one has not seen"
    found("evaluation/short.json", 200, temperatures=100, sides={"standing": {"kind": "agreed"}})
    assert best_estimate(tmp_path)[1] == "evaluation/long.json"
    found("evaluation/sum.json", 200, age=1000, exact={"log_z": 1.0})
    assert best_estimate(tmp_path)[1] == "evaluation/sum.json"
