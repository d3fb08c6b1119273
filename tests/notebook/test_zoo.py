"""`%grym zoo`: what is there, how large it is and how well it does, as text and as HTML."""

from __future__ import annotations

import pytest

from grym_nb.audio.zoo import models
from grym_nb.errors import ValidationError
from grym_nb.notebook.zoo import zoo
from grym_nb.render import size


def test_every_model_is_shown_with_its_size_and_its_score() -> None:
    shown = zoo()
    there = models()
    assert there
    for text in (shown.text(), shown._repr_html_()):
        for model in there:
            assert f"zoo:{model.name}" in text
            assert model.summary in text
            assert size(model.bytes) in text
            assert f"{model.measure} {model.score:.1%} at {model.at}" in text
        assert text.count("kept") == sum(model.holds for model in there)
        assert text.count("NOT reached") == sum(not model.holds for model in there)


def test_a_name_shows_its_card() -> None:
    for model in models():
        assert zoo(model.name).text() == zoo(f"zoo:{model.name}").text() == model.card


def test_an_installation_without_models_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grym_nb.notebook.zoo.models", list)
    assert zoo().text() == "There is no model in this installation."


def test_an_unknown_model_is_an_error_that_names_the_closest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'dtmf'"):
        zoo("dtfm")
