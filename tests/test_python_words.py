"""Errors of the Python API name keywords; the command line's name options. They are the same errors."""

from __future__ import annotations

from typing import Any

import pytest

import advisor
from advisor import api
from advisor.errors import AdvisorError, InvalidInputError, UnknownNameError
from advisor.python_words import in_python_words

MESSAGES = [
    ("--rank 0: must be greater than 0", "rank=0: must be greater than 0"),
    ("--seq-len: there is no such option", "seq_len: there is no such option"),
    ("say how many there are with --gpus N", "say how many there are with gpus=N"),
    ("use --method qlora", "use method='qlora'"),
    ("pass --gpu, like --gpu 'rtx 4090', 24GB", "pass gpu, like gpu='rtx 4090', 24GB"),
    ("--epochs: say its size with --dataset-tokens", "epochs: say its size with dataset_tokens"),
    ("leave --no-padding out", "leave padding=False out"),
    ("--model is missing; for example: advise fit --model x --gpu 24GB", "model is missing; for example: advise fit --model x --gpu 24GB"),
    ("run `advise calibrate --preflight` first; --rank 8: no", "run `advise calibrate --preflight` first; rank=8: no"),
    ("a name with--dashes or a - sign", "a name with--dashes or a - sign"),
]


@pytest.mark.parametrize(("said", "expected"), MESSAGES)
def test_an_option_is_said_as_its_keyword(said: str, expected: str) -> None:
    assert in_python_words(said) == expected


REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("advise", ("llama-3.1-8b", "t4"), {"batchsize": 2}, "batchsize: there is no such option; did you mean batch_size?"),
    ("advise", ("llama-3.1-8b", "t4"), {"epochs": 2}, "epochs: hours and USD are those of a data set; say its size with dataset_tokens"),
    ("estimate", ("llama-3.1-8b",), {"rank": 0}, "rank=0: must be greater than 0"),
    ("estimate", ("llama-3.1-8b",), {"shard": "fsdp2"}, "shard='fsdp2': one GPU shares nothing; say how many there are with gpus=N"),
    ("estimate", ("llama-3.1-8b",), {"method": "lora", "quantization": "nf4"}, "use method='qlora'"),
    ("fit", (None,), {}, "give one of seq_len='max', batch_size='max'"),
]


@pytest.mark.parametrize(("name", "given", "options", "expected"), REFUSED)
def test_a_refusal_of_the_api_is_in_python_s_words(name: str, given: tuple[Any, ...], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidInputError) as python:
        getattr(advisor, name)(*given, **options)
    assert expected in str(python.value)
    with pytest.raises(InvalidInputError) as command_line:
        getattr(api, name)(*given, **options)
    assert "--" in str(command_line.value)


def test_what_an_error_carries_stays() -> None:
    with pytest.raises(UnknownNameError) as refused:
        advisor.advise("llama-3.1-80b", "t4")
    assert refused.value.candidates
    assert isinstance(refused.value, AdvisorError)


def test_a_public_function_is_one_object_with_its_own_name_and_docstring() -> None:
    assert advisor.advise is advisor.advise
    assert (advisor.advise.__name__, advisor.advise.__doc__) == ("advise", api.advise.__doc__)
