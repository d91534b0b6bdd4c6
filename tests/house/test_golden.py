"""Every number is what it was; see golden.py."""

import copy
import json

import pytest

from gwg_dist.samplers.fast import native
from tests import golden

EXPECTED = json.loads(golden.FILE.read_text())
PARTS = [part for part in golden.PARTS if part is not golden.sweep]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_number_is_what_it_was(part) -> None:
    found = golden.record(part)
    assert found
    if native.library() is None:  # kernels in C draw otherwise than their twins in torch
        pytest.skip("the numbers were recorded with a C compiler, and there is none")
    assert golden.differences({name: EXPECTED[name] for name in found if name in EXPECTED}, found) == []


@pytest.mark.slow
def test_a_sweep_chooses_what_it_chose() -> None:
    pytest.importorskip("ray", reason="sweeps need Ray: pip install 'gwg-dist[tune]'")
    found = golden.record(golden.sweep)
    assert golden.differences({name: EXPECTED[name] for name in found}, found) == []


def test_a_number_that_moved_is_seen() -> None:
    name = "rbm, gwg, plain, float64"
    changed = copy.deepcopy(EXPECTED[name])
    changed["f"][3] *= 1 + 1e-5
    assert len(golden.differences({name: EXPECTED[name]}, {name: changed})) == 1
    assert golden.differences({name: EXPECTED[name]}, {}) == [f"{name}: gone"]
