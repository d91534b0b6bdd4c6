"""Files of sequences and of distances: what is read is what was written, and a file that does not fit is one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.data.distances import matrix_size, read_distances
from gwg_dist.data.sequences import Sequences, holds_sequences, read_sequences, write_fasta
from gwg_dist.tools.errors import InputError

FASTA = ">one first\nAC-\nDE\n; a remark\n\n>two\r\nac.DE\n"
STOCKHOLM = """# STOCKHOLM 1.0
#=GF ID x
one AC-
two ac.
#=GC SS ...

one DE
two DE
//
# STOCKHOLM 1.0
three A
//
"""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("text", "first"), [(FASTA, "one first"), (STOCKHOLM, "one")], ids=["FASTA", "Stockholm"])
def test_both_kinds_are_told_by_their_content(text: str, first: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert holds_sequences(path)
    assert read_sequences(path) == Sequences([first, "two"], ["AC-DE", "ac.DE"])


@pytest.mark.parametrize("file", ["a.fasta", "deep/a.fasta.gz"])
def test_fasta_is_read_back(file: str, tmp_path: Path) -> None:
    written = Sequences(["a b", "c"], ["AC-", "A" * 1000])
    write_fasta(tmp_path / file, *written)
    assert read_sequences(tmp_path / file) == written


def test_real_files(shared_data: Path) -> None:
    found = read_sequences(shared_data / "rf00379.fasta.gz")
    assert len(found.names) == 3827
    assert {len(string) for string in found.strings} == {136}
    assert not holds_sequences(shared_data / "soybean.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"ACDE\nACDE\n", "neither FASTA .* nor Stockholm, got 'ACDE'"),
        (b">a\nAC\n>b\n>c\nAC\n", "line 3: record 'b' has no sequence"),
        (b"# STOCKHOLM 1.0\na AC AC\n//\n", "line 2: expected a name and a sequence, got 'a AC AC'"),
        (b"# STOCKHOLM 1.0\n//\n", "holds no sequences"),
        (b">a\n\xff\xfe\n", "not text in UTF-8"),
        (gzip.compress(b">a\nAC\n" * 100, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_files_that_are_no_sequences(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.fasta"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^data.path: \S+my.fasta.*{message}") as error:
        read_sequences(path, "data.path")
    assert "\n" not in str(error.value)


MATRIX = np.array([[0, 3.5, np.nan], [3.5, 0, 7], [np.nan, 7, 0]])


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".tsv"])
def test_distances_of_a_matrix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    if suffix == ".npz":
        np.savez(path, dist_cb=MATRIX, dist_heavy=MATRIX - 0.5)
    elif suffix == ".npy":
        np.save(path, MATRIX.astype(np.float32))
    else:
        np.savetxt(path, MATRIX, delimiter="," if suffix == ".csv" else "\t")
    found = read_distances(path, 3)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.from_numpy(MATRIX), equal_nan=True)


def test_distances_of_a_family(shared_data: Path) -> None:
    found = read_distances(shared_data / "family_DHFR.npz", 156)
    far = torch.ones(156, 156).triu(6).bool()
    assert int((found[far] < 8).sum()) == 337
    heavy = read_distances(shared_data / "family_DHFR.npz", 156, kind="heavy")
    assert (heavy <= found).double().mean() > 0.99


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)), "must hold 3x3 distances, one for each pair of sites, got 4x4"),
        (np.zeros(9), "got 9"),
        (np.array(3.5), "must hold 3x3 distances, one for each pair of sites, got 1$"),
        (-np.ones((3, 3)), "negative"),
        (np.triu(np.ones((3, 3))), "must be symmetric, but 1 and 0 are between sites 0 and 1"),
        (np.full((3, 3), "a"), "must hold numbers"),
    ],
)
def test_distances_that_do_not_fit(matrix: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", matrix)
    with pytest.raises(InputError, match=f"^data.distances: .*{message}"):
        read_distances(tmp_path / "d.npy", 3, name="data.distances")


def test_files_without_a_matrix_have_no_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "number.npy", np.array(3.5))
    assert matrix_size(tmp_path / "none.npz") is None
    assert matrix_size(tmp_path / "number.npy") is None
    with pytest.raises(InputError, match=r"^distances: \S+none.npz holds no array$"):
        read_distances(tmp_path / "none.npz", 3)
