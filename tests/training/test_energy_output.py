"""An energy that does not return one finite number a point is refused in one line, before anything is written."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gwg_dist import fit
from gwg_dist.energies import MLPEnergy
from tests.support.runs import SMALL, fails


class Column(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, None]


class OneForAll(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum()


class Whole(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).round().long()


class NotANumber(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Pair(MLPEnergy):
    def forward(self, x: Tensor):  # type: ignore[override]
        return super().forward(x), x


class Detached(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Constant(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


class SteepAtZero(MLPEnergy):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sqrt().sum(1)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Column, "must return one energy a point, shape (20,), got (20, 1): squeeze the last axis"),
        (OneForAll, "must return one energy a point, shape (20,), got ()"),
        (Whole, "must return floats, got torch.int64"),
        (NotANumber, "must return finite energies, got 20 of 20 that are not"),
        (Pair, "must return a tensor, one energy a point, got tuple"),
        (Detached, "must be differentiable in x"),
        (Constant, "its output does not depend on x"),
        (SteepAtZero, "must have a finite gradient in x"),
    ],
)
def test_refused(
    cls: type, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = [arg for arg in SMALL if not arg.startswith("--model.energy")]
    message = fails(fit.main, [*args, f"--model.energy={__name__}.{cls.__name__}"], capsys)
    assert f"model.energy {cls.__name__}" in message
    assert expected in message
    assert list(tmp_path.iterdir()) == []
