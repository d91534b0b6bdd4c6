"""Distances of a solved structure: at the right sites, of the right chain, and one line where it does not fit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.data import Alignment
from gwg_dist.data.distances import read_distances
from gwg_dist.tools.errors import InputError

gemmi = pytest.importorskip("gemmi", reason="structures are read by gemmi: pip install 'gwg_dist[structures]'")

RNG = np.random.default_rng(0)
NAMES = {"A": "ALA", "C": "CYS", "D": "ASP", "E": "GLU", "F": "PHE", "G": "GLY", "M": "MET", "W": "TRP", "m": "MSE"}
CHAINS = {"A": "WWWDDDEEEWW", "B": "MmACDEFGWW"}
ATOMS = (("N", "N"), ("CA", "C"), ("CB", "C"), ("HA", "H"))
PLACES = {chain: RNG.normal(size=(len(letters), len(ATOMS), 3)) * 9 for chain, letters in CHAINS.items()}


def saved(path: Path) -> Path:
    """The chains as PDB or mmCIF; a glycine has no Cβ, and a hydrogen is at each."""
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for name, letters in CHAINS.items():
        chain = gemmi.Chain(name)
        for number, letter in enumerate(letters):
            residue = gemmi.Residue()
            residue.name, residue.seqid = NAMES[letter], gemmi.SeqId(number + 7, " ")
            for (atom_name, element), place in zip(ATOMS, PLACES[name][number], strict=True):
                if (letter, atom_name) != ("G", "CB"):
                    atom = gemmi.Atom()
                    atom.name, atom.element, atom.pos = atom_name, gemmi.Element(element), gemmi.Position(*place)
                    residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    if path.name.endswith(".cif"):
        structure.make_mmcif_document().write_file(str(path))
    else:
        structure.write_pdb(str(path))
    return path


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".ent"])
def test_distances_are_at_the_sites_of_the_sequence(suffix: str, tmp_path: Path) -> None:
    """The family's row starts later, has a gap, one other letter, and a letter that the chain lacks."""
    path = saved(tmp_path / f"x{suffix}")
    sequence, residues = "AC-WEFGA", [2, 3, None, 4, 5, 6, 7, None]
    found = read_distances(path, 8, sequence=sequence[:7] + "-")
    heavy = read_distances(path, 8, sequence=sequence[:7] + "-", kind="heavy")
    for i, a in enumerate(residues):
        for j, b in enumerate(residues):
            if a is None or b is None:
                assert torch.isnan(found[i, j])
                continue
            atoms = [PLACES["B"][r][[0, 1] if CHAINS["B"][r] == "G" else [0, 1, 2]] for r in (a, b)]
            expected = np.linalg.norm(atoms[0][-1] - atoms[1][-1])
            assert abs(float(found[i, j]) - expected) < 0.01
            nearest = np.linalg.norm(atoms[0][:, None] - atoms[1], axis=-1).min()
            assert abs(float(heavy[i, j]) - nearest) < 0.01


def test_a_chain_can_be_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pdb")
    found = read_distances(path, 6, sequence="DDDEEE", chain="A")
    assert abs(float(found[0, 1]) - np.linalg.norm(PLACES["A"][3][2] - PLACES["A"][4][2])) < 0.01
    selenium = read_distances(path, 5, sequence="MMACD")
    assert not torch.isnan(selenium).any(), "selenomethionine is a methionine"
    with pytest.raises(InputError, match="has no chain 'C' of residues; it has A, B"):
        read_distances(path, 6, sequence="DDDEEE", chain="C")
    with pytest.raises(InputError, match=r"chain \w of \S+x.pdb is equal to the reference at \d+% of its letters"):
        read_distances(path, 6, sequence="KRKRKR")
    with pytest.raises(InputError, match="needs a sequence"):
        read_distances(path, 6)


def test_files_that_are_no_structures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("x.pdb", "hello\n"), ("x.cif", "hello\n"), ("x.what", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=rf"^distances: .*{name}") as error:
            read_distances(tmp_path / name, 6, sequence="DDDEEE")
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(InputError, match=r"pip install 'gwg_dist\[structures\]'"):
        read_distances(tmp_path / "x.pdb", 6, sequence="DDDEEE")


def test_an_alignment_takes_distances(tmp_path: Path) -> None:
    rows = ["WWDDDEEEWW", "WW-DDEEEWW", "MWACDEFG-W", "ADDDDDDDDD"]
    text = "".join(f">r{number} some protein\n{row}\n" for number, row in enumerate(rows))
    (tmp_path / "my.fasta").write_text(text)
    path, structure = str(tmp_path / "my.fasta"), str(saved(tmp_path / "x.pdb"))
    first = Alignment(path, distances=structure).distances
    assert first is not None
    assert abs(float(first[2, 3]) - np.linalg.norm(PLACES["A"][3][2] - PLACES["A"][4][2])) < 0.01
    third = Alignment(path, distances=structure, reference="r2", max_column_gaps=0.2)
    assert third.columns.tolist() == [0, 1, 3, 4, 5, 6, 7, 9]
    assert third.reference == "MWCDEFGW"
    assert third.distances is not None
    assert abs(float(third.distances[2, 3]) - np.linalg.norm(PLACES["B"][3][2] - PLACES["B"][4][2])) < 0.01
    matrix = np.add.outer(np.arange(10), np.arange(10)).astype(float)
    np.save(tmp_path / "d.npy", matrix)
    of_columns = Alignment(path, distances=str(tmp_path / "d.npy"), max_column_gaps=0.2).distances
    assert of_columns is not None
    assert of_columns[0].tolist() == [0, 1, 3, 4, 5, 6, 7, 9]
    np.save(tmp_path / "d.npy", matrix[:9])
    with pytest.raises(InputError, match=r"^data.distances: \S+d.npy must hold 10x10 distances"):
        Alignment(path, distances=str(tmp_path / "d.npy"))


def test_a_family_brings_its_own(shared_data: Path) -> None:
    data = Alignment(str(shared_data / "family_DHFR.npz"))
    assert data.distances is not None
    far = torch.ones(156, 156).triu(6).bool()
    assert int((data.distances[far] < 8).sum()) == 337
