"""params.dat: what is written is read to a bit, letters in their order, both triangles, mistakes by their line."""

from pathlib import Path

import numpy as np
import pytest

from gwg_dist.data import params_dat
from gwg_dist.data.params_dat import Parameters, read_params, write_params
from gwg_dist.tools.errors import InputError


def random_parameters(num: int = 5, alphabet: str = "-ACGU") -> Parameters:
    rng, size = np.random.default_rng(0), len(alphabet)
    couplings = rng.normal(size=(num, num, size, size)).astype(np.float32)
    couplings = couplings + couplings.transpose(1, 0, 3, 2)
    couplings[np.arange(num), np.arange(num)] = 0
    return Parameters(couplings, rng.normal(size=(num, size)).astype(np.float32), alphabet)


@pytest.mark.parametrize("name", ["params.dat", "params.dat.gz"])
@pytest.mark.parametrize("chunk", [2**24, 97])
def test_what_is_written_is_read(name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params_dat, "CHUNK", chunk)
    given = random_parameters()
    write_params(tmp_path / name, given)
    found = read_params(tmp_path / name)
    assert found.alphabet == "-ACGU"
    np.testing.assert_array_equal(found.couplings, given.couplings)
    np.testing.assert_array_equal(found.fields, given.fields)


def test_letters_of_ones_own_keep_the_order_of_the_file(tmp_path: Path) -> None:
    given = random_parameters(3, "zyx!")
    write_params(tmp_path / "p.dat", given)
    assert read_params(tmp_path / "p.dat").alphabet == "zyx!"
    other = read_params(tmp_path / "p.dat", "!xyz")
    np.testing.assert_array_equal(other.couplings, given.couplings[:, :, ::-1, ::-1])
    with pytest.raises(InputError, match="not in the alphabet abcd: !, x, y, z"):
        read_params(tmp_path / "p.dat", "abcd")


def test_pairs_in_both_orders_add_up_and_a_site_with_itself_is_a_field(tmp_path: Path) -> None:
    path = tmp_path / "p.dat"
    path.write_text("# a comment\nJ 0 1 A C 1.5\nJ 1 0 C A .25\nh 0 A 1\nh 0 C -2e0\nh 1 G 0\n\nJ 1 1 C C 4\n")
    couplings, fields, alphabet = read_params(path)
    a, c = alphabet.index("A"), alphabet.index("C")
    assert (couplings[0, 1, a, c], couplings[1, 0, c, a]) == (1.75, 1.75)
    assert np.count_nonzero(couplings) == 2
    assert (fields[0, a], fields[0, c], fields[1, c]) == (1, -2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no fields"),
        ("J 0 1 A C 1\n", "holds no fields"),
        ("h 0 A 1\nh 0 C\n", "line 2: 'h 0 C' is none of"),
        ("h 0 A 1\nh 0 C x\n", "line 2: 'h 0 C x'"),
        ("h 0 A 1\nh 0 C nan\n", "line 2"),
        ("h 0 A 1\nJ -1 1 A C 2\n", "line 2"),
        ("h 0 A 1\nJ 0 1 12 4 2\n", "line 2"),
        ("h 0 A 1\nk 0 1\n", "line 2: 'k 0 1'"),
        ("h 0 A 1\nJ 0 1 A C 2 3\nJ 0 1 A C\n", "line 2"),
        ("h 0 a 1\nh 0 b 2\n", "at least three"),
    ],
)
def test_strange_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.dat").write_text(text)
    with pytest.raises(InputError, match=message):
        read_params(tmp_path / "p.dat")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.dat.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="is damaged"):
        read_params(tmp_path / "p.dat.gz")
    with pytest.raises(InputError, match="there is no file"):
        read_params(tmp_path / "q.dat")
