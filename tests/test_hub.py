"""What a model reference is taken to mean: names, paths, and repositories in a cache made by hand. Nothing here needs the network."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from hypothesis import given, strategies as st

from advisor import config_files, profiles
from advisor.errors import AdvisorError, InvalidInputError, UnknownNameError, UnsupportedError
from advisor.hub import ModelRow, load_model, search_models
from advisor.hub.rows import all_rows, released, spelt_row
from advisor.names import contains, format_of_name, keeps_size, tokens, without_format

ROWS = search_models()
TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}
TINY_PARAMS = 2 * 320 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64)

# (what was typed, the id it means)
NAMES = [
    ("llama-70b", "meta-llama/Llama-3.1-70B"),
    ("Llama 70B", "meta-llama/Llama-3.1-70B"),
    ("llama_8b", "meta-llama/Llama-3.1-8B"),
    ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
    ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ("llama-3-8b", "meta-llama/Meta-Llama-3-8B"),
    ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
    ("Llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf"),
    ("unsloth/Llama-3.2-1B", "unsloth/Llama-3.2-1B"),
    ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
    ("mistral 7b instruct", "mistralai/Mistral-7B-v0.1"),
    ("Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
    ("zephyr-7b", "HuggingFaceH4/zephyr-7b-beta"),
    ("mixtral", "mistralai/Mixtral-8x7B-v0.1"),
    ("mixtral 8x22b", "mistralai/Mixtral-8x22B-v0.1"),
    ("qwen2.5-7b", "Qwen/Qwen2.5-7B"),
    ("qwen2_5 7b", "Qwen/Qwen2.5-7B"),
    ("Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen2.5-Coder-7B-Instruct"),
    ("qwen3 8b", "Qwen/Qwen3-8B"),
    ("qwen3-30b", "Qwen/Qwen3-30B-A3B"),
    ("gemma 2 9b it", "google/gemma-2-9b-it"),
    ("phi 1.5", "microsoft/phi-1_5"),
    ("phi-1_5", "microsoft/phi-1_5"),
    ("phi4 mini", "microsoft/Phi-4-mini-instruct"),
    ("gpt oss 120b", "openai/gpt-oss-120b"),
    ("deepseek r1", "deepseek-ai/DeepSeek-R1"),
    ("r1 distill llama 8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ("gpt2", "openai-community/gpt2"),
    ("pythia 1.4b", "EleutherAI/pythia-1.4b"),
    ("bloom-7b1", "bigscience/bloom-7b1"),
    ("bert-base-uncased", "google-bert/bert-base-uncased"),
]


@pytest.mark.parametrize(("typed", "id"), NAMES)
def test_names_resolve_and_say_so(typed: str, id: str) -> None:
    spec = load_model(typed)
    assert spec.id == id
    assert repr(typed) in spec.resolved_from
    assert f"→ {id} (" in spec.resolved_from


# (what was typed, ids that the error must list)
AMBIGUOUS = [
    ("llama", {"meta-llama/Llama-3.1-8B", "huggyllama/llama-7b"}),
    ("mistral", {"mistralai/Mistral-7B-v0.1", "mistralai/Mistral-Large-Instruct-2407"}),
    ("gemma 27b", {"google/gemma-2-27b", "google/gemma-3-27b-it"}),
    ("distill qwen", {"deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"}),
]


@pytest.mark.parametrize(("typed", "expected"), AMBIGUOUS)
def test_ambiguous_names_list_the_candidates(typed: str, expected: set[str]) -> None:
    with pytest.raises(UnknownNameError, match="fits several") as caught:
        load_model(typed)
    assert expected <= set(caught.value.candidates)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("typed", ["qwen3", "llama", "gpt"])
def test_candidates_that_begin_so_come_first(typed: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_model(typed)
    assert all(name.rpartition("/")[2].lower().startswith(typed) for name in caught.value.candidates[:8])


@pytest.mark.parametrize("typed", ["gpt-4", "gpt-4o", "claude-3", "o1", "human", "error"])
def test_words_inside_the_names_of_others_finetunes_mean_no_model(typed: str) -> None:
    """They stand in repositories of the same shape as a known model, such as "…-p1-GPT-4o-human-error-mix-…"."""
    with pytest.raises(UnknownNameError, match="is not known"):
        load_model(typed)


# (misspelt, a name that must be offered)
MISSPELT = [
    ("lama-70b", "llama-70b"),
    ("llama-3.1-7b", "llama-3.1-8b"),
    ("mistrall-7b", "mistral-7b"),
    ("qwen-2.5-8b", "qwen2.5-7b"),
    ("gema-2-9b", "gemma-2-9b"),
    ("falcn-7b", "falcon-7b"),
]


@pytest.mark.parametrize(("typed", "offered"), MISSPELT)
def test_misspelt_names_are_offered(typed: str, offered: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean") as caught:
        load_model(typed)
    assert offered in caught.value.candidates


# (what was typed, sizes of the family that are known, why it must not be taken for one of them)
SIZES = [
    ("bge-tiny", "bge-small", "a size that nobody knows"),
    ("bge-micro-en-v1.5", "bge-small-en-v1.5", "the same, by its whole name"),
    ("whisper-nano", "whisper-tiny", "a size that nobody knows"),
    ("deberta-v3-small", "deberta-v3-base", "141 M, not 184 M"),
    ("t5gemma-2b", "gemma-2b", "an encoder-decoder of another size"),
    ("qwen3.5-14b", "qwen3.5-9b", "a size that there is not"),
    ("roberta-tiny", "roberta-base", "a size that nobody knows"),
    ("qwen3-9b", "qwen3-8b", "sizes in parameters"),
    ("pythia-medium-1.4b", "pythia-1.4b", "a size beside a known one"),
]


@pytest.mark.parametrize(("typed", "known", "why"), SIZES, ids=[typed for typed, _, _ in SIZES])
def test_a_size_is_never_dropped(typed: str, known: str, why: str) -> None:
    with pytest.raises(UnknownNameError, match="is not known"):
        load_model(typed)


# (what was typed, the id it means): "base" is no size where another size stands, or none
BASES = [
    ("qwen3-8b-base", "Qwen/Qwen3-8B-Base"),
    ("gemma-2-9b-base", "google/gemma-2-9b"),
    ("deepseek-v3-base", "deepseek-ai/DeepSeek-V3-Base"),
    ("llama-2-7b-base", "meta-llama/Llama-2-7b-hf"),
]


@pytest.mark.parametrize(("typed", "id"), BASES)
def test_base_is_a_variant_where_the_size_is_said_otherwise(typed: str, id: str) -> None:
    assert load_model(typed).id == id


SIZE_WORDS = ["tiny", "mini", "small", "base", "medium", "large", "xl", "3b", "70m", "8x7b"]


@given(st.sampled_from(SIZE_WORDS), st.lists(st.sampled_from(["llama", "chat", "v3", "2.5"]), max_size=3), st.sampled_from(SIZE_WORDS))
def test_a_size_that_was_asked_for_stands_in_what_was_found(size: str, others: list[str], other_size: str) -> None:
    asked, found = (size, *others), (other_size, *others)
    assert keeps_size(asked, found) == (size == other_size)


# (the end of a name, what it says)
FORMATS = [
    ("-bnb-4bit", ("bnb-4bit", 4)),
    ("-unsloth-bnb-4bit", ("bnb-4bit", 4)),
    ("-bnb-8bit", ("bnb-8bit", 8)),
    ("-BNB-NF4-BF16", ("bnb-4bit", 4)),
    ("-AWQ", ("awq", 4)),
    ("-AWQ-INT4", ("awq", 4)),
    ("-GPTQ", ("gptq", 4)),
    ("-GPTQ-Int4", ("gptq", 4)),
    ("-GPTQ-Int8", ("gptq", 8)),
    ("-gptq-4bit", ("gptq", 4)),
    ("-GPTQ-4bit-128g", ("gptq", 4)),
    ("-FP8", ("fp8", 8)),
    ("-FP8-dynamic", ("fp8", 8)),
    ("-MXFP4", ("mxfp4", 4)),
    ("-unsloth", None),
    ("-BF16", None),
    ("-hf", None),
]


@pytest.mark.parametrize(("end", "stored"), FORMATS)
def test_what_the_end_of_a_name_says_of_the_weights(end: str, stored: tuple[str, int] | None) -> None:
    assert format_of_name(f"org/Llama-3.1-8B{end}") == stored
    assert without_format(f"org/Llama-3.1-8B{end}") == "org/Llama-3.1-8B"


@pytest.mark.parametrize("name", ["llama-3.1-8b", "Qwen/Qwen3-8B", "awq", "-AWQ", "gpt-oss-20b", "phi-3-mini-4k", "x-GGUF", "x-4bit"])
def test_names_that_say_nothing_of_the_weights(name: str) -> None:
    assert (format_of_name(name), without_format(name)) == (None, name)


# (what was typed, the id it means, words that say what was left out)
FORMATTED = [
    ("llama-3.1-8b-bnb-4bit", "meta-llama/Llama-3.1-8B", "its weights as bitsandbytes 4-bit, by the name"),
    ("Llama 3.1 8B bnb 4bit", "meta-llama/Llama-3.1-8B", "its weights as bitsandbytes 4-bit, by the name"),
    ("Qwen2.5-7B-Instruct-GPTQ-Int8", "Qwen/Qwen2.5-7B-Instruct", "its weights as GPTQ 8-bit, by the name"),
    ("qwen3-8b-fp8", "Qwen/Qwen3-8B", "its weights as FP8, by the name"),
    ("gpt-oss-20b-bf16", "openai/gpt-oss-20b", "without '-bf16' at the end"),
    ("mistral-7b-v0.3-unsloth", "mistralai/Mistral-7B-v0.3", "without '-unsloth' at the end"),
]


@pytest.mark.parametrize(("typed", "id", "words"), FORMATTED)
def test_a_format_in_the_name_is_said(typed: str, id: str, words: str) -> None:
    spec = load_model(typed)
    assert spec.id == id
    assert words in spec.resolved_from


# (reference, words of the reason)
REFUSED = [
    ("vit-base", "is a vision model"),
    ("kimi-k2", "its own repository"),
    ("internlm2-7b", "its own repository"),
    ("qwen-7b", "its own repository"),
]


@pytest.mark.parametrize(("typed", "reason"), REFUSED)
def test_known_models_that_are_not_covered_say_why(typed: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason.replace("its own", "(its own|of its own)")) as caught:
        load_model(typed)
    assert "\n" not in str(caught.value)


def test_a_refusal_names_covered_models_of_the_same_words() -> None:
    with pytest.raises(UnsupportedError, match=r"covered and near in name: .*Qwen/Qwen2\.5-7B"):
        load_model("qwen-7b")


@pytest.mark.parametrize("empty", ["", "   ", "x" * 2000])
def test_no_name_at_all(empty: str) -> None:
    with pytest.raises(InvalidInputError, match="model: needs a name"):
        load_model(empty)


# ------------------------------------------------------------------------------------------------ laws over all names

ALL_NAMES = [(row, name) for row in all_rows() for name in row.names]


def test_names_are_unique() -> None:
    counts = Counter(name.lower() for _, name in ALL_NAMES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_the_quick_way_finds_every_covered_name() -> None:
    missed = [name for row, name in ALL_NAMES if row.covered and spelt_row(name.upper()) != (row, name)]
    assert missed == []


def test_profiles_are_sorted_and_tell_their_source() -> None:
    for path in (*sorted((profiles.ROOT / "models").glob("*.json")), profiles.ROOT / "not_covered" / "models.json"):
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text)
        ids = [row["id"] for row in rows]
        assert ids == sorted(ids, key=str.lower), path.name
        assert text == json.dumps(rows, indent=1, ensure_ascii=False) + "\n", path.name
    for row in all_rows():
        assert row.source
        assert row.source_date[:2] == "20"


@given(st.sampled_from(ALL_NAMES), st.data())
def test_every_name_finds_its_row_in_any_spelling(entry: tuple[ModelRow, str], data: st.DataObject) -> None:
    row, name = entry
    organisation, slash, plain = name.rpartition("/")
    mark = data.draw(st.sampled_from([" ", "-", "_-"]))
    typed = organisation + slash + plain.replace("-", mark)
    typed = data.draw(st.sampled_from([typed, typed.upper(), typed.lower()]))
    if not row.covered:
        with pytest.raises(UnsupportedError):
            load_model(typed)
    else:
        assert load_model(typed).id == (name if "/" in name else row.id)


def assert_one_clear_line(text: str) -> None:
    try:
        params, line = load_model(text).params, ""
    except AdvisorError as error:
        params, line = 0, str(error)
    assert params > 0 or line
    assert "\n" not in line
    assert len(line) < 600


@given(st.text(max_size=60))
def test_any_text_is_a_model_or_one_clear_line(text: str) -> None:
    if "/" in text or text.startswith((".", "~")):
        return  # paths and repositories are tested below
    assert_one_clear_line(text)


@given(st.lists(st.sampled_from(["llama", "3.1", "8b", "70b", "instruct", "qwen", "7b"]), max_size=4))
def test_tokens_survive_punctuation(words: list[str]) -> None:
    assert tokens("-".join(words)) == tokens(" ".join(words)) == tokens("/".join(words)) == tuple(words)
    assert contains(tuple(words), tuple(words))


# (id, when its name says it was released)
RELEASES = [
    ("Qwen/Qwen3-4B-Instruct-2507", "2025-07"),
    ("CohereLabs/c4ai-command-r-08-2024", "2024-08"),
    ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "2025-03"),
    ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", ""),
    ("openlm-research/open_llama_3b_v2", ""),
    ("allenai/OLMo-2-1124-7B", ""),
]


@pytest.mark.parametrize(("name", "when"), RELEASES)
def test_releases_are_read_off_names(name: str, when: str) -> None:
    assert released(name) == when


# (what was typed, where it leads): names of the public lists that only end otherwise
RESOLVED_2026 = [
    ("unsloth/Qwen3.5-4B", "Qwen/Qwen3.5-4B"),
    ("nvidia/Qwen3-30B-A3B-NVFP4", "Qwen/Qwen3-30B-A3B"),
    ("axolotl-ai-co/gpt-oss-120b-dequantized", "openai/gpt-oss-120b"),
    ("axolotl-quants/Llama-4-Scout-17B-16E-Linearized-bnb-nf4-bf16", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
    ("mistralai/Magistral-Small-2507", "mistralai/Mistral-Small-24B-Base-2501"),
    ("Qwen/Qwen3.6-27B", "Qwen/Qwen3.6-27B"),
]


@pytest.mark.parametrize(("typed", "shape_of"), RESOLVED_2026)
def test_ids_of_2026_have_the_parameters_of_their_shape(typed: str, shape_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_model(typed).params == load_model(shape_of).params


def test_search() -> None:
    assert [row.id for row in search_models("llama 3.1")] == [
        "meta-llama/Llama-3.1-405B",
        "meta-llama/Llama-3.1-70B",
        "meta-llama/Llama-3.1-8B",
        "nvidia/Llama-3.1-Nemotron-Nano-8B-v1",
    ]
    assert {row.model_type for row in search_models("gemma 2")} == {"gemma2"}
    assert search_models("no such model") == ()
    assert len(search_models()) == len(ROWS) >= 100


# ------------------------------------------------------------------------------------------------ paths


def write_config(directory: Path, config: object = TINY) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def test_a_directory_and_its_config_are_the_same_model(tmp_path: Path) -> None:
    file = write_config(tmp_path / "my-model")
    for reference in (str(file), str(tmp_path / "my-model"), str(tmp_path / "my-model") + "/"):
        spec = load_model(reference)
        assert (spec.id, spec.params) == ("my-model", TINY_PARAMS)
        assert str(file) in spec.resolved_from
        assert spec.config_json == file.read_text(encoding="utf-8")


def test_a_config_under_another_name(tmp_path: Path) -> None:
    file = write_config(tmp_path).rename(tmp_path / "tiny.json")
    assert load_model(str(file)).id == "tiny"


def test_paths_may_be_relative_or_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path / "sub" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in ("./sub/model", "sub/model", "~/sub/model"):
        assert load_model(reference).params == TINY_PARAMS


def test_a_bare_word_is_a_path_only_if_a_config_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama-70b").mkdir()
    assert load_model("llama-70b").id == "meta-llama/Llama-3.1-70B"
    write_config(tmp_path / "llama-70b")
    assert load_model("llama-70b").params == TINY_PARAMS


# (files of the directory, words of the error)
NO_CONFIG = [
    ((), "holds no config.json: give the directory of a saved Hugging Face model"),
    (("adapter_config.json", "adapter_model.safetensors"), "holds an adapter, not a model"),
    (("model-Q4_K_M.gguf",), "holds GGUF files"),
]


@pytest.mark.parametrize(("files", "words"), NO_CONFIG)
def test_a_directory_without_config(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=words):
        load_model(str(tmp_path))


def test_an_unknown_bare_word_that_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    with pytest.raises(InvalidInputError, match=r"holds no config\.json"):
        load_model("outputs")


@pytest.mark.parametrize("missing", ["./nothing", "/no/such/place", "missing.json", "~/nowhere-at-all"])
def test_a_missing_path(missing: str) -> None:
    with pytest.raises(InvalidInputError, match="no such file or directory"):
        load_model(missing)


# ------------------------------------------------------------------------------------------------ the Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_averysecrettoken"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(config_files, "_reachable", lambda endpoint: False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return tmp_path


def put_in_cache(cache: Path, repository: str, config: object = TINY) -> None:
    """The layout of huggingface_hub: refs/main names a commit, whose files lie in snapshots/<commit>/."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    write_config(folder / "snapshots" / COMMIT, config)


def test_a_cached_repository_needs_no_network(cache: Path) -> None:
    put_in_cache(cache, "someone/tiny")
    spec = load_model("someone/tiny")
    assert (spec.id, spec.params) == ("someone/tiny", TINY_PARAMS)
    assert spec.resolved_from == f"model 'someone/tiny' → Hugging Face Hub, someone/tiny at {COMMIT[:12]}"


def test_a_cached_repository_works_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache(cache, "someone/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("someone/tiny").params == TINY_PARAMS


def test_a_broken_config_in_the_cache_names_the_field(cache: Path) -> None:
    put_in_cache(cache, "someone/tiny", TINY | {"hidden_size": 0})
    with pytest.raises(InvalidInputError, match=r"^someone/tiny: hidden_size must be positive, not 0$"):
        load_model("someone/tiny")


def test_a_repository_that_is_not_cached_when_the_hub_is_switched_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownNameError, match=r"HF_HUB_OFFLINE.*hf download someone/tiny config\.json"):
        load_model("someone/tiny")


@pytest.mark.usefixtures("cache")
def test_a_repository_without_network() -> None:
    with pytest.raises(UnknownNameError, match=r"neither known nor in the local cache.*hf download someone/tiny config\.json"):
        load_model("someone/tiny")


BARE = "by the name without the organisation, as that repository cannot be read here"

# (a repository that cannot be read, the known model of that name, words that say so)
BY_BARE_NAME = [
    ("somebody/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B", BARE),
    ("unsloth/Qwen2.5-72B-bnb-4bit", "Qwen/Qwen2.5-72B", "its weights as bitsandbytes 4-bit, by the name"),
    ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "unsloth/Llama-3.2-1B", "known name; "),
    ("TheBloke/Mistral-7B-v0.1-AWQ", "mistralai/Mistral-7B-v0.1", "its weights as AWQ 4-bit, by the name"),
    ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct", "its weights as GPTQ 4-bit, by the name"),
    ("unsloth/gpt-oss-20b-BF16", "openai/gpt-oss-20b", "without '-BF16' at the end"),
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("repository", "id", "words"), BY_BARE_NAME)
def test_a_repository_that_cannot_be_read_is_taken_by_its_bare_name(repository: str, id: str, words: str) -> None:
    spec = load_model(repository)
    assert spec.id == (repository if spec.checkpoint_format and spec.checkpoint_format.assumed else id)  # what would be loaded
    assert f"→ {id} (" in spec.resolved_from
    assert words in spec.resolved_from


def test_a_repository_that_can_be_read_is_never_taken_by_its_bare_name(cache: Path) -> None:
    put_in_cache(cache, "someone/Meta-Llama-3-8B")
    assert load_model("someone/Meta-Llama-3-8B").params == TINY_PARAMS


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("repository", ["someone/r1-distill-qwen", "someone/llama", "someone/bge-tiny-en-v1.5", "someone/Qwen2.5-7B-GGUF"])
def test_a_bare_name_is_no_loose_name(repository: str) -> None:
    with pytest.raises(UnknownNameError, match="neither known nor in the local cache"):
        load_model(repository)


@pytest.mark.usefixtures("cache")
def test_a_misspelt_repository_is_offered_its_right_name() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_model("meta-llama/Llama-3.1-8")
    assert "meta-llama/Llama-3.1-8B" in caught.value.candidates


def answer(status: int) -> Any:
    """A response of whatever HTTP library this huggingface_hub uses: requests before 1.0, then httpx."""
    module = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0]]
    if module.__name__ == "requests":
        made = module.Response()
        made.status_code = status
        return made
    request = module.Request("GET", "https://hub.example/x")
    return module.Response(status, request=request)


# huggingface_hub before 1.0 raises the base class of a file that the Hub lacks.
no_such_entry = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
# (what the library raises, class of ours, words of the line)
HUB_ERRORS = [
    (lambda: errors.GatedRepoError("gated", response=answer(403)), InvalidInputError, r"is gated: accept its terms .*hf auth login"),
    (lambda: errors.RepositoryNotFoundError("404", response=answer(404)), UnknownNameError, "not on the Hub, or it is private"),
    (lambda: no_such_entry("no", response=answer(404)), InvalidInputError, "holds no config.json"),
    (lambda: errors.LocalEntryNotFoundError("offline"), UnknownNameError, "the Hub cannot be reached"),
    (lambda: errors.HfHubHTTPError("oops", response=answer(503)), InvalidInputError, "the Hub answered 503"),
    (lambda: OSError("disk full"), InvalidInputError, "cannot be fetched from the Hub"),
    (lambda: TimeoutError("slow"), InvalidInputError, r"cannot be fetched from the Hub \(TimeoutError\)"),
    (lambda: RuntimeError("something new"), InvalidInputError, r"cannot be fetched from the Hub \(RuntimeError\)"),
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("make", "expected", "words"), HUB_ERRORS)
def test_what_the_hub_refuses_is_one_clear_line(
    make: Any, expected: type[AdvisorError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        error: Exception = make()
        raise error

    monkeypatch.setattr(config_files, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(expected, match=words) as caught:
        load_model("someone/tiny")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_repository_on_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(repository: str, name: str, **options: object) -> str:
        put_in_cache(cache, repository)
        return str(cache / "models--someone--tiny" / "snapshots" / COMMIT / name)

    monkeypatch.setattr(config_files, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert load_model("someone/tiny").params == TINY_PARAMS


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("bad", ["some one/tiny", "a/b/c", "some..one/tiny", "-x/tiny"])
def test_what_is_no_repository_id(bad: str) -> None:
    with pytest.raises(InvalidInputError):
        load_model(bad)


def test_a_closed_port_is_not_reachable() -> None:
    start = time.perf_counter()
    assert not config_files._reachable("http://127.0.0.1:9")
    assert time.perf_counter() - start < 5
