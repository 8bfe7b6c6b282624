"""`advise check CONFIG`: the trainer's own file, read and priced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from advisor.bounded import exists, named, place
from advisor.config_files import looks_like_path
from advisor.configs.report import report_on
from advisor.devices import load_gpu
from advisor.dryrun import counted
from advisor.errors import InvalidInputError, UnknownNameError
from advisor.hub import as_named, load_model, model_of_folder
from advisor.ladder.request import options_as
from advisor.refusals import boundary
from advisor.stacks.detect import SHELL, Opened, open_file
from advisor.stacks.jobs import refuse_other_jobs
from advisor.stacks.launch import beside, read_accelerate
from advisor.stacks.overrides import parse_settings, with_settings
from advisor.stacks.places import is_below, project_of
from advisor.stacks.reading import Around, Launch, Reading, Remark, Way
from advisor.stacks.rooms import model_named, read_opened
from advisor.stacks.script import Start
from advisor.stacks.script.left_open import why_unnamed
from advisor.stacks.stored import expert_remarks
from advisor.stacks.towers import tower_remarks
from advisor.stacks.versions import Profile, profile_of, transformers_of
from advisor.values import GpuSpec, ModelSpec, Stack, Value
from advisor.values.check import CheckReport
from advisor.values.request import MAX_GPUS, Count, HostBytes, Length


class CheckOptions(Value):
    """What may be said beside the file. What is None is read from it, or taken as its framework would."""

    stack: Stack | None = None
    """Whose file it is, where it does not show."""
    stack_version: str | None = None
    """Release whose defaults count, instead of the installed one."""
    model: str | None = None
    """The model, where the file names none, or one that is not known."""
    gpus: Count | None = None
    seq_len: Length | None = None
    """Tokens of the longest sequence."""
    host_memory: HostBytes | None = None
    """Of each machine that holds the cards."""
    accelerate: str | None = None
    """An accelerate configuration."""
    set: tuple[str, ...] = ()
    """Settings as NAME=VALUE, in the file's own names: they count before the file's."""
    arguments: tuple[str, ...] = ()
    """What a script is started with."""


_LOADS_FIRST = Remark(
    "loads-first",
    "cpu_ram_efficient_loading",
    "the model is loaded before the trainer's arguments are made, which start the processes' group: each process reads a whole model",
    "make the arguments before the model",
)
"""transformers 5.23 distributed/fsdp.py `is_fsdp_enabled`, which asks for the group; training_args.py `_setup_devices` makes it."""


class Read(NamedTuple):
    """A file with everything that it was read with."""

    model: ModelSpec
    reading: Reading
    profile: Profile


def check(config: str | Path, gpu: str | GpuSpec | None = None, **options: Any) -> CheckReport:
    """Whether the training that `config` describes fits a card, and what is noticeable about it.

    `config` is a YAML or JSON file of axolotl, LLaMA-Factory, TRL, ms-swift, torchtune or transformers, a Python script or a notebook,
    which is followed and never run, or a shell script that starts one of them. `gpu` as in `advise`; left out, it is the local
    card, and without one the plan is priced and held against nothing. Options are the fields of `CheckOptions`: `gpus=2`,
    `model="llama-3-8b"`, `stack="axolotl"`, `stack_version="1.6"`, `seq_len=4096`, `accelerate="accelerate.yaml"`,
    `set=("r=64",)`, `arguments=("--batch_size", "4")`.

    Raises an AdvisorError, one clear line, for what cannot be read or priced.
    """
    path = place(config)
    card = card_of(gpu)
    said = options_as(CheckOptions, options)
    if card is not None and said.host_memory is not None:
        card = card.model_copy(update={"host_bytes": said.host_memory})
    with boundary(named(config)):
        read = read_config(path, card, said)
        return report_on(str(config), read.model, card, read.reading, read.profile)


def read_config(path: Path, gpu: GpuSpec | None, options: CheckOptions) -> Read:
    """The file as a plan for the model that it names."""
    start = Start(options.arguments or None, bf16=gpu is None or gpu.bf16_supported)
    opened = open_file(path, options.stack, start)
    if options.arguments and not opened.is_script:
        raise InvalidInputError(f"{path} is no script that takes arguments: say its settings with --set NAME=VALUE")
    return read_found(with_settings(opened, parse_settings(options.set)), path, gpu, options)


def read_found(opened: Opened, path: Path, gpu: GpuSpec | None, options: CheckOptions, spec: ModelSpec | None = None) -> Read:
    """An opened file as a plan, for `spec` where the model is known already."""
    if opened.stack is Stack.PLAIN:
        raise InvalidInputError("--stack plain: a hand-written loop has no configuration to read")
    if options.gpus is not None and options.gpus > MAX_GPUS:
        raise InvalidInputError(f"--gpus {options.gpus}: at most {MAX_GPUS:,}")
    where = str(path)
    refuse_other_jobs(opened.stack, opened.values, where)
    model = spec if spec is not None else _model_of(opened, options, where)
    profile = profile_of(opened.stack, options.stack_version, settings=_written_in(opened))
    launch, taken = _launch(path, opened, options)
    around = Around(model, gpu, profile.defaults, launch, options.seq_len, str(path.parent))
    reading = read_opened(opened, around, where)
    if opened.loads_first and reading.plan.loads_on_rank_0:
        plan = reading.plan.model_copy(update={"loads_on_rank_0": False})
        reading = reading._replace(plan=plan, remarks=(*reading.remarks, _LOADS_FIRST))
    experts = expert_remarks(model, reading.plan, transformers_of(profile))
    stored = reading.plan.quantization is not None or model.checkpoint_format is not None
    named = () if stored or spec is not None else _quantised_by_name(model_named(opened, where))
    reading = reading._replace(remarks=(*reading.remarks, *experts, *named, *tower_remarks(model, reading.plan)))
    return Read(model, reading._replace(taken=(*taken, *reading.taken)), profile)


def _written_in(opened: Opened) -> dict[str, Any]:
    """Settings that tell a release. Unsloth takes the older names whatever release of TRL it runs on (unsloth models/rl.py)."""
    return {} if any(remark.key == "unsloth" for remark in opened.remarks) else opened.values


_QUANTISED = re.compile(r"(?i)(?:^|[-_./])(aqlm|exl[23]|gguf|hqq|nvfp4|int[48]|[48]-?bit|w\d+a\d+)(?:$|[-_./])")
"""Marks of quantised weights beyond the formats that are read by their names (`advisor.names.format_of_name`)."""


def _quantised_by_name(stated: str | None) -> Iterator[Remark]:
    """The file names a checkpoint that is quantised, and neither the plan nor the model's storage says anything of it."""
    found = _QUANTISED.search(stated or "")
    if found:
        text = f"{stated} is a quantised checkpoint by its name ({found[1]}): priced with weights in 16 bit"
        yield Remark("not-priced", found[1], text, way=Way.DOWN)


def _model_of(opened: Opened, options: CheckOptions, where: str) -> ModelSpec:
    """The model that is said beside the file, stored as the file's own name for it says; else the one that the file names."""
    named = model_named(opened, where)
    if options.model is None:
        elsewhere = model_of_folder(named) if named is not None and _lies_elsewhere(named, where) else None
        if elsewhere is not None:
            return counted(elsewhere)
        _refuse_outside(named, where)
        return model_of_name(named, where, why_unnamed(opened.unknown))
    model = model_of_name(options.model, where)
    if not named or model.checkpoint_format is not None:
        return model
    stored = as_named(model, named)
    if stored.checkpoint_format is None:
        return model
    said = f"{model.resolved_from}; its weights as {stored.checkpoint_format.label}, by the file's name for it"
    return stored.model_copy(update={"resolved_from": said})


def _lies_elsewhere(named: str, where: str) -> bool:
    """A path outside of the file's project, which is not read, or one that is not there, as on the machine that was written for."""
    if not looks_like_path(named) and not _FOLDERS.search(named):
        return False
    return not is_below(place(named), project_of(Path(where).parent)) or not exists(place(named))


_FOLDERS = re.compile(r"^[A-Za-z]:[/\\]|[/\\].*[^/\\][/\\]+[^/\\]")
"""A drive, or more folders than a Hub id has."""


def _refuse_outside(named: str | None, where: str) -> None:
    """The file may be anyone's, a pull request's: it does not decide what is read outside of its project, nor learn what is there."""
    if named is not None and looks_like_path(named) and not is_below(place(named), project_of(Path(where).parent)):
        raise InvalidInputError(f"{where} names the model {named}, a path outside of its project: if it is to be read, say --model {named}")


def card_of(gpu: str | GpuSpec | None) -> GpuSpec | None:
    """The named card, or the local one if there is one: a continuous integration has none, and the price is still worth having."""
    if gpu is not None:
        return gpu if isinstance(gpu, GpuSpec) else load_gpu(gpu)
    try:
        return load_gpu(None)
    except InvalidInputError:
        return None


def model_of_name(named: str | None, where: str, why: str = "") -> ModelSpec:
    """The model by the file's name for it; its `resolved_from` says what of the name was left out."""
    if named is None and why:
        raise InvalidInputError(f"{where}: which model is trained is not known, as {why}; say it with --model")
    if named is None:
        raise InvalidInputError(f"{where} names no model; say it with --model")
    try:
        return counted(load_model(named))
    except UnknownNameError as error:
        raise UnknownNameError(f"{where}: {error}; or say another with --model", error.candidates) from None


def _launch(path: Path, opened: Opened, options: CheckOptions) -> tuple[Launch, tuple[str, ...]]:
    """The user's word, a launcher's configuration, one that lies beside the file, the file's own launch line."""
    launch = opened.launch
    taken: tuple[str, ...] = ()
    if opened.lost and not options.accelerate:
        raise InvalidInputError(f"{path}: the launcher takes {opened.lost}, and there is no such file; give it as --accelerate FILE")
    near = None if path.suffix in SHELL else beside(path)  # a script says itself what it starts
    found = place(options.accelerate) if options.accelerate else near
    if found is not None:
        launch = read_accelerate(found)
        taken = (f"launch: {found}, which lies beside the file",) if not options.accelerate else ()
    if options.gpus is not None:
        launch = launch._replace(n_gpus=options.gpus, source="--gpus")
    return launch, taken
