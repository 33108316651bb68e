"""The errata page counts a correction as checked only when its check holds."""

import pytest

from lab import figures
from lab.book.errata import Checks
from lab.datasets import thesis
from lab.utils.errors import LabError


def test_every_correction_is_shown_or_named_elsewhere(monkeypatch, capsys):
    tables = []
    monkeypatch.setattr(figures, "table", lambda frame, words: tables.append(frame))
    checks = Checks()
    with pytest.raises(LabError, match="no correction is called 'lemma-99'"):
        checks.shown("lemma-99", "nothing", True)
    with pytest.raises(AssertionError, match="lemma-51: a finding"):
        checks.shown("lemma-51", "a finding", False)
    for name in checks.corrections.index.drop(["lemma-51", "independent-z"]):
        checks.shown(name, "a finding", True)
    with pytest.raises(LabError, match="no cell checks lemma-51$"):
        checks.tables(elsewhere={"independent-z"})
    checks.tables(elsewhere={"lemma-51", "independent-z"})
    assert "Chapter 6: 20 corrections; on another page: independent-z" in capsys.readouterr().out
    assert sum(map(len, tables)) == len(thesis.corrections())
