"""GPU profiles and how a reference becomes a card."""

from __future__ import annotations

import contextlib
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from advisor import api, devices, profiles
from advisor.devices import load_gpu, search_gpus
from advisor.errors import AdvisorError, InvalidInputError, UnknownNameError, UnsupportedError
from advisor.units import GIB, MIB

ROWS = profiles.read("gpus")

# (reference, card, usable bytes, words of the source)
GOLDEN = [
    ("rtx 4090", "GeForce RTX 4090", 24177 * MIB, "pinokiofactory/flux-webui/issues/11"),
    ("h100", "H100 SXM5 80GB", 81082 * MIB, "torch reports"),
    ("h100 pcie", "H100 PCIe", 81008 * MIB, "torch reports"),
    ("a100-80gb", "A100 SXM4 80GB", 81152 * MIB, "torch OOM message"),
    ("A100-PCIE-40GB", "A100 PCIe 40GB", 40326 * MIB, "torch reports"),
    ("rtx 3090", "GeForce RTX 3090", 24259 * MIB, "torch reports"),
    ("t4", "Tesla T4", 14912 * MIB, "Anassbzdd/fitcheck"),
    ("l40s", "L40S", 45589 * MIB, "torch reports"),
    ("rtx 4080", "GeForce RTX 4080", 16049 * MIB, "torch reports"),
    ("L4", "L4", 23034 * MIB, "driver's total"),
    ("rtx 2060", "GeForce RTX 2060", 6 * GIB, "marketed size"),
    ("h200 nvl", "H200 NVL", 143073 * MIB, "judgement"),
    ("mi250x", "Instinct MI250X", 65520 * MIB, "per GCD"),
    ("max 1550", "Data Center GPU Max 1550", 64 * GIB, "marketed size"),
    ("mi300x", "Instinct MI300X", 196592 * MIB, "torch reports"),
    ("m2 max 96gb", "Apple M2 Max 96GB", 72 * GIB, "75 % of 96 GB"),
    ("m1 16gb", "Apple M1 16GB", int(16 * GIB * 2 / 3), "67 % of 16 GB"),
    ("a800", "A800 SXM4 80GB", 81233 * MIB, "MoonshotAI/Kimi-VL/issues/51"),
    ("A800 40GB", "A800 PCIe 40GB", 40326 * MIB, "the same memory as the A100 PCIe 40GB"),
    ("h800", "H800 SXM5 80GB", 81082 * MIB, "the same memory as the H100 SXM5 80GB"),
    ("v100s", "Tesla V100S PCIe 32GB", 32502 * MIB, "the same memory as the Tesla V100 PCIe 32GB"),
    ("3050 8gb", "GeForce RTX 3050 8GB", 8 * GIB, "NVIDIA/cosmos/issues/47"),
    ("w7900", "Radeon PRO W7900", 45 * GIB, "unslothai/unsloth/issues/9551"),
    ("mi308x", "Instinct MI308X", 196592 * MIB, "the same memory as the Instinct MI300X"),
    ("4090 48gb", "GeForce RTX 4090 48GB", 49140 * MIB, "tinygrad/open-gpu-kernel-modules/issues/36"),
    ("jetson agx orin 64gb", "Jetson AGX Orin 64GB", 52736 * MIB, "ollama/ollama/issues/3406"),
]

# (reference, card): spelling, aliases, words in any order
SPELLINGS = [
    ("RTX-4090", "GeForce RTX 4090"),
    ("rtx4090", "GeForce RTX 4090"),
    ("4090", "GeForce RTX 4090"),
    ("4090 24gb", "GeForce RTX 4090"),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", "GeForce RTX 4090 Laptop GPU"),
    ("3080", "GeForce RTX 3080"),
    ("3080 ti", "GeForce RTX 3080 Ti"),
    ("RTX 4060 Ti", "GeForce RTX 4060 Ti 8GB"),
    ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
    ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
    ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
    ("h100 94gb", "H100 NVL"),
    ("NVIDIA H200", "H200 SXM"),
    ("Tesla V100-SXM2-32GB", "Tesla V100 SXM2 32GB"),
    ("rtx 6000 ada", "RTX 6000 Ada Generation"),
    ("a6000", "RTX A6000"),
    ("7900 XTX", "Radeon RX 7900 XTX"),
    ("arc a770", "Arc A770"),
    ("gaudi2", "Gaudi 2"),
    ("m3 max", "Apple M3 Max 36GB"),
    ("Apple M4 Pro 48GB", "Apple M4 Pro 48GB"),
    ("NVIDIA A800-SXM4-80GB", "A800 SXM4 80GB"),
    ("NVIDIA A800 80GB PCIe", "A800 PCIe 80GB"),
    ("NVIDIA H800", "H800 SXM5 80GB"),
    ("Tesla V100S-PCIE-32GB", "Tesla V100S PCIe 32GB"),
    ("Radeon Pro W7900 48GB", "Radeon PRO W7900"),
    ("AMD Instinct MI308X", "Instinct MI308X"),
    ("orin 64gb", "Jetson AGX Orin 64GB"),
]

# (reference, usable bytes, the card that gave it)
MARKETED = [
    ("80GB", 81008 * MIB, "H100 PCIe"),
    ("80 GB", 81008 * MIB, "H100 PCIe"),
    ("80g", 81008 * MIB, "H100 PCIe"),
    ("24GB", 22518 * MIB, "A10"),
    ("16GB", 14912 * MIB, "Tesla T4"),
    ("48GB", 45416 * MIB, "A40"),
    ("40gb", 40326 * MIB, "A100 PCIe 40GB"),
    ("11GB", 11018 * MIB, "GeForce RTX 2080 Ti"),
    ("141GB", 143073 * MIB, "H200 SXM"),
    ("192GB", 196592 * MIB, "Instinct MI300X"),
]

# (reference, error, words of its message)
REFUSED = [
    ("rtx 4099", UnknownNameError, "did you mean GeForce RTX 4090"),
    ("h1000", UnknownNameError, "did you mean"),
    ("banana", UnknownNameError, "advise gpus"),
    ("a100 pcie", UnknownNameError, "A100 PCIe 40GB, A100 PCIe 80GB"),
    ("rtx 6000", UnknownNameError, "Quadro RTX 6000, RTX 6000 Ada Generation"),
    ("", InvalidInputError, "empty"),
    ("75GB", InvalidInputError, "near: 64GB, 80GB, 94GB"),
    ("79.2GB", InvalidInputError, "a literal size is written 79.2GiB"),
    ("0GB", InvalidInputError, "not a positive size"),
    ("-80GB", InvalidInputError, "not a positive size"),
    ("0GiB", InvalidInputError, "not a positive size"),
    ("-1GiB", InvalidInputError, "not a positive size"),
    ("80", InvalidInputError, "has no unit"),
    ("12MiB", InvalidInputError, "between 1 GiB and 2,048 GiB"),
    ("999999GiB", InvalidInputError, "between 1 GiB and 2,048 GiB"),
    ("2x80GB", InvalidInputError, "--gpu '80GB' --gpus 2"),
    ("8*A100", InvalidInputError, "--gpu 'A100' --gpus 8"),
    ("h100:8", InvalidInputError, "--gpu 'h100' --gpus 8"),
    ("4090 x2", InvalidInputError, "--gpu '4090' --gpus 2"),
    ("rtx 4090x2", InvalidInputError, "--gpu 'rtx 4090' --gpus 2"),
    ("rtx 3050", UnknownNameError, "GeForce RTX 3050 6GB, GeForce RTX 3050 8GB; name one of them"),
    ("agx orin", UnknownNameError, "Jetson AGX Orin 64GB, Jetson AGX Orin 32GB; name one of them"),
    ("strix halo", UnsupportedError, "the nearest known card with memory of its own is Radeon PRO W7900"),
    ("Radeon 8060S", UnsupportedError, "give what torch.cuda.mem_get_info() says as a size"),
    ("orin nx", UnsupportedError, "the nearest known card is Jetson AGX Orin 64GB"),
    ("Jetson Orin Nano", UnsupportedError, "the nearest known card is Jetson AGX Orin 64GB"),
    ("910b", UnsupportedError, "Ascend 910B: its kernels and its allocator (torch_npu) are not those that are priced"),
    ("Huawei Ascend 910B", UnsupportedError, "--gpu 64GiB"),
    ("tpu v5e", UnsupportedError, "is no GPU"),
    ("g5.3xlarge", UnknownNameError, "did you mean g5.xlarge"),
    ("g6f.xlarge", UnknownNameError, "did you mean g6.xlarge"),
    ("Standard_NC24ads_A100_v5", UnknownNameError, "did you mean Standard_NC24ads_A100_v4"),
]


@pytest.mark.parametrize(("reference", "name", "usable_bytes", "source"), GOLDEN)
def test_known_cards(reference, name, usable_bytes, source):
    gpu = load_gpu(reference)
    assert (gpu.name, gpu.usable_bytes) == (name, usable_bytes)
    assert source in gpu.usable_source
    assert reference in gpu.resolved_from
    assert name in gpu.resolved_from


@pytest.mark.parametrize(("reference", "name"), SPELLINGS)
def test_spellings(reference, name):
    assert load_gpu(reference).name == name


@pytest.mark.parametrize(("reference", "usable_bytes", "card"), MARKETED)
def test_marketed_size_is_the_smallest_card_sold_so(reference, usable_bytes, card):
    gpu = load_gpu(reference)
    assert gpu.usable_bytes == usable_bytes
    assert card in gpu.usable_source
    assert card in gpu.resolved_from
    assert gpu.bf16_flop_per_s is None, "a size says nothing about speed"


@pytest.mark.parametrize(
    ("reference", "usable_bytes"),
    [("79.2GiB", round(79.2 * GIB)), ("81559MiB", 81559 * MIB), ("24576 mib", 24 * GIB), ("2TiB", 2048 * GIB)],
)
def test_literal_size(reference, usable_bytes):
    gpu = load_gpu(reference)
    assert gpu.usable_bytes == usable_bytes
    assert gpu.bandwidth_bytes_per_s is None
    assert not gpu.prices


@pytest.mark.parametrize(("reference", "error", "words"), REFUSED)
def test_refused_in_one_clear_line(reference, error, words):
    with pytest.raises(error, match=re.escape(words)) as caught:
        load_gpu(reference)
    assert "\n" not in str(caught.value)


# (a cloud's machine, its card, how many)
MACHINES = [
    ("g4dn.xlarge", "Tesla T4", 1),
    ("g4dn.12xlarge", "Tesla T4", 4),
    ("g5.xlarge", "A10G", 1),
    ("ml.g5.12xlarge", "A10G", 4),
    ("G5.48XLARGE", "A10G", 8),
    ("g6.12xlarge", "L4", 4),
    ("g6e.xlarge", "L40S", 1),
    ("p3.2xlarge", "Tesla V100 SXM2 16GB", 1),
    ("p3dn.24xlarge", "Tesla V100 SXM2 32GB", 8),
    ("p4d.24xlarge", "A100 SXM4 40GB", 8),
    ("p4de.24xlarge", "A100 SXM4 80GB", 8),
    ("p5.48xlarge", "H100 SXM5 80GB", 8),
    ("p5e.48xlarge", "H200 SXM", 8),
    ("p5en.48xlarge", "H200 SXM", 8),
    ("a2-highgpu-1g", "A100 SXM4 40GB", 1),
    ("a2-ultragpu-4g", "A100 SXM4 80GB", 4),
    ("a3-highgpu-8g", "H100 SXM5 80GB", 8),
    ("a3-ultragpu-8g", "H200 SXM", 8),
    ("g2-standard-24", "L4", 2),
    ("Standard_NC4as_T4_v3", "Tesla T4", 1),
    ("NC24s_v3", "Tesla V100 PCIe 16GB", 4),
    ("standard_nc48ads_a100_v4", "A100 PCIe 80GB", 2),
    ("NC80adis_H100_v5", "H100 NVL", 2),
    ("ND96asr_v4", "A100 SXM4 40GB", 8),
    ("Standard_ND96isr_H100_v5", "H100 SXM5 80GB", 8),
]


@pytest.mark.parametrize(("reference", "name", "count"), MACHINES)
def test_machines_of_a_cloud_are_their_cards(reference, name, count):
    gpu = load_gpu(reference)
    assert (gpu.name, gpu.gpus_of_machine) == (name, count)
    assert f"{count} × {name}" in gpu.resolved_from
    assert gpu.usable_bytes == load_gpu(name).usable_bytes


# (options, cards that are used, what is said of them)
USED = [
    ({}, 4, "several GPUs: all 4 of the machine (--gpus says otherwise)"),
    ({"gpus": 1}, 1, ""),
    ({"gpus": 2}, 2, "several GPUs: a replica on each first"),
]


@pytest.mark.parametrize(("options", "count", "said"), USED)
def test_all_cards_of_a_machine_are_used_unless_a_number_is_given(options, count, said):
    priced = api.price("llama-3.2-1b", "g5.12xlarge", method="lora", **options)
    assert priced.plan.n_gpus == count
    assert said in "; ".join(priced.assumptions)
    assert ("several GPUs" in "; ".join(priced.assumptions)) == bool(said)
    assert api.advise("llama-3.2-1b", "g5.12xlarge", **options).n_gpus == count


def test_candidates_travel_with_the_error():
    with pytest.raises(UnknownNameError) as caught:
        load_gpu("rtx 4099")
    assert caught.value.candidates[0] == "GeForce RTX 4090"


@given(st.text(max_size=30))
def test_any_text_gives_a_card_or_an_advisor_error(text):
    with contextlib.suppress(AdvisorError):
        assert load_gpu(text).usable_bytes > 0


@pytest.mark.parametrize("reference", ["t4", "v100", "p100", "rtx 2080 ti", "m1", "11GB"])
def test_no_bf16(reference):
    gpu = load_gpu(reference)
    assert not gpu.bf16_supported
    assert gpu.bf16_flop_per_s is None


def test_speeds_and_prices():
    gpu = load_gpu("h100")
    assert gpu.bandwidth_bytes_per_s == 3350 * 10**9
    assert gpu.bf16_flop_per_s == 989 * 10**12
    assert {price.provider for price in gpu.prices} >= {"runpod", "AWS"}
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", price.date) and price.source for price in gpu.prices)
    whole, half = next(row for row in ROWS if row["name"] == "Instinct MI250X"), load_gpu("mi250x")
    assert half.bandwidth_bytes_per_s == whole["bandwidth_gb_per_s"] * 10**9 // 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_row_is_sourced_and_sane(row):
    sourced = {field for fields in row["sources"] for field in fields.split(", ")}
    facts = {
        "name",
        "vendor",
        "class",
        "aliases",
        "release_date",
        "sold_with_gb",
        "devices_per_card",
        "nvlink_bridged",
        "unified_memory",
        "prices",
        "notes",
        "sources",
    }
    assert set(row) - facts <= sourced
    assert all(row["sources"].values())
    assert all(price["source"] and price["date"] and price["usd_per_gpu_hour"] > 0 for price in row.get("prices", ()))
    assert row["bf16_supported"] or row["vendor"] != "NVIDIA" or float(row["compute_capability"]) < 8.0


@pytest.mark.parametrize("gpu", search_gpus(), ids=lambda gpu: gpu.name)
def test_usable_memory_is_near_the_marketed_size(gpu):
    """Never above it by more than a rounding, at most a tenth below; unified memory and cards of two devices apart."""
    row = max((row for row in ROWS if gpu.name.startswith(row["name"])), key=lambda row: len(row["name"]))
    if gpu.unified_memory or "devices_per_card" in row:
        return
    if gpu.name == "H20":  # marketed as 96 GB, torch_total_mib 97285
        assert gpu.usable_bytes == 97285 * MIB
    assert 0.90 * row["marketed_gb"] * GIB <= gpu.usable_bytes <= 1.001 * row["marketed_gb"] * GIB


def test_files_are_sorted_and_names_and_aliases_are_unique():
    for vendor in ("AMD", "Apple", "Intel", "NVIDIA"):
        names = [row["name"] for row in ROWS if row["vendor"] == vendor]
        assert names == sorted(names, key=lambda name: [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in _parts(name)])
    keys = [key for card in devices.all_cards() for key in card.keys]
    assert len(keys) == len(set(keys))
    assert len(ROWS) == 138
    assert {row["vendor"] for row in ROWS} == {"AMD", "Apple", "Intel", "NVIDIA"}


def _parts(name):
    return re.findall(r"\d+|[^\d]+", name.lower())


def test_search():
    found = ["GeForce RTX 4090", "GeForce RTX 4090 48GB", "GeForce RTX 4090 D", "GeForce RTX 4090 Laptop GPU"]
    assert [gpu.name for gpu in search_gpus("rtx4090")] == found
    assert {gpu.vendor for gpu in search_gpus("amd")} == {"AMD"}
    assert search_gpus("no such card") == ()
    assert [(gpu.name, gpu.gpus_of_machine) for gpu in search_gpus("g5.12xlarge")] == [("A10G", 4)]
    assert len(search_gpus()) > len(ROWS)


class _FakeNvmlError(Exception):
    pass


def _fake_nvml(name, free, capability=(9, 0), error=None):
    def init():
        if error:
            raise _FakeNvmlError(error)

    return SimpleNamespace(
        NVMLError=_FakeNvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: ("index", index),
        nvmlDeviceGetHandleByUUID=lambda uuid: ("uuid", uuid),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=free, total=81559 * MIB),
        nvmlDeviceGetName=lambda handle: name,
        nvmlDeviceGetCudaComputeCapability=lambda handle: capability,
    )


@pytest.mark.parametrize("visible", ["", "0", "3", "GPU-1234", "MIG-5"])
def test_local_card_is_its_free_memory(monkeypatch, visible):
    monkeypatch.setitem(sys.modules, "pynvml", _fake_nvml("NVIDIA H100 80GB HBM3", 70 * GIB))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = load_gpu()
    assert (gpu.name, gpu.usable_bytes) == ("H100 SXM5 80GB", 70 * GIB)
    assert "70.0 GiB free of 79.6 GiB" in gpu.resolved_from
    assert (visible or "0") in gpu.resolved_from


def test_local_card_without_a_profile(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", _fake_nvml("NVIDIA Future 9000", 5 * GIB, (7, 5)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = load_gpu()
    assert (gpu.name, gpu.bf16_supported, gpu.bandwidth_bytes_per_s) == ("NVIDIA Future 9000", False, None)


@pytest.mark.parametrize(
    ("module", "visible"),
    [
        (_fake_nvml("", 0, error="Driver Not Loaded"), ""),
        (_fake_nvml("Tesla T4", 0), ""),
        (_fake_nvml("Tesla T4", GIB), "-1"),
        (None, ""),
    ],
)
def test_no_local_card_says_to_pass_gpu(monkeypatch, module, visible):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(InvalidInputError, match="--gpu"):
        load_gpu()
