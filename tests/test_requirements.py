"""What a model needs, against what the machine has: every shortage a sentence."""

import pytest
from fakes import CONFIG

from millm.devices import Device
from millm.estimate import Estimator
from millm.records import ModelRecord, ModelType, Quantization, Source
from millm.requirements import PACKAGES, Compatibility, compatibility, config_warnings, is_installed, requirements_of

ROUGH = Estimator(())
GB = 10**9
KNOWN = frozenset({"llama"})
RECORD = ModelRecord(name="one", repo_id="acme/one", config=CONFIG, param_count=GB, size_bytes=2 * GB)
CODE = {"auto_map": {"AutoModelForCausalLM": "modeling.One"}}


def ram(free: int, kind: str = "cpu") -> tuple[Device, ...]:
    return (Device(kind, "x", 1 << 50, free),)


def judged(
    record: ModelRecord = RECORD, *, memory: int = 1 << 40, disk: int = 1 << 40, **more: object
) -> Compatibility:
    given: dict[str, object] = {"installed": lambda name: True, "known": KNOWN, "on_disk": False, **more}
    return compatibility(record, ram(memory), disk, 0, ROUGH, **given)  # type: ignore[arg-type]


def test_what_a_model_needs() -> None:
    needed = requirements_of(RECORD, ram(0), ROUGH, on_disk=False, context_length=100)
    assert needed.memory.weights == 2 * GB
    assert (needed.memory.context_length, needed.memory.overhead) == (100, 0)
    assert (needed.disk_bytes, needed.missing_bytes) == (2 * GB, 2 * GB)
    assert needed.packages == PACKAGES[ModelType.LLM]
    assert requirements_of(RECORD, ram(0, "cuda"), ROUGH, on_disk=False).memory.overhead > 0


def test_what_is_on_disk_is_not_needed_again() -> None:
    half = RECORD.with_(downloaded_bytes=GB)
    assert requirements_of(half, ram(0), ROUGH, on_disk=False).missing_bytes == GB
    assert requirements_of(half, ram(0), ROUGH, on_disk=True).missing_bytes == 0
    local = requirements_of(RECORD.with_(source=Source.LOCAL), ram(0), ROUGH, on_disk=False)
    assert (local.disk_bytes, local.missing_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "packages"),
    [
        ({"quantization": Quantization.Q4}, (*PACKAGES[ModelType.LLM], "bitsandbytes")),
        ({"model_type": ModelType.IMAGE_GEN}, PACKAGES[ModelType.IMAGE_GEN]),
        ({"model_type": ModelType.IMAGE_GEN, "quantization": Quantization.Q4}, PACKAGES[ModelType.IMAGE_GEN]),
        ({"source": Source.OLLAMA, "quantization": Quantization.Q4}, ("ollama",)),
        ({"source": Source.REMOTE}, ("openai",)),
    ],
)
def test_packages_follow_from_type_source_and_quantization(changes, packages: tuple[str, ...]) -> None:
    assert requirements_of(RECORD.with_(**changes), ram(0), ROUGH, on_disk=True).packages == packages


@pytest.mark.parametrize("model_type", ModelType)
def test_every_type_has_its_needs(model_type: ModelType) -> None:
    assert requirements_of(RECORD.with_(model_type=model_type, config={}), ram(0), ROUGH, on_disk=True).packages


def test_nothing_in_the_way() -> None:
    found = judged()
    assert (found.fits, found.warnings) == (True, ())
    assert found.requirements == requirements_of(RECORD, ram(0), ROUGH, on_disk=False)


def test_too_little_memory_or_disk_does_not_fit_and_says_so() -> None:
    found = judged(memory=GB, disk=GB)
    assert not found.fits
    disk, memory = found.warnings
    assert disk == "Insufficient disk space. Need 2.0 GB, only 1.0 GB available."
    assert memory.startswith("Warning: Model requires ~2.0 GB memory, only 1.0 GB available.")
    assert judged(disk=GB, on_disk=True).fits
    assert compatibility(RECORD, ram(GB), 1 << 40, 2 * GB, ROUGH, lambda name: True, known=KNOWN, on_disk=True).fits
    assert not judged(memory=2 * GB).fits, "weights alone are not all"


def test_an_architecture_that_cannot_be_loaded_is_named() -> None:
    config = {**CONFIG, "model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    found = judged(RECORD.with_(config=config))
    assert found.fits
    assert found.warnings == (
        "Architecture 'T5ForConditionalGeneration' is not a causal language model that the installed "
        "transformers knows. It cannot be loaded here.",
    )
    assert judged(RECORD.with_(config=config), known=frozenset()).warnings == (), "nothing is known"


def test_an_embedding_model_need_be_no_language_model() -> None:
    config = {**CONFIG, "model_type": "bert", "architectures": ["BertModel"]}
    assert judged(RECORD.with_(config=config, model_type=ModelType.EMBEDDING)).warnings == ()


def test_own_code_is_warned_of_where_it_is_needed_and_not_allowed() -> None:
    strange = RECORD.with_(config={**CONFIG, **CODE, "model_type": "strange"})
    (warning,) = judged(strange).warnings
    assert warning == "This model runs Python code from its repository. Allow that only if you trust its author."
    assert judged(strange.with_(trust_remote_code=True)).warnings == ()
    assert judged(RECORD.with_(config={**CONFIG, **CODE})).warnings == (), "transformers has taken it over"


def test_weights_that_are_quantized_already_are_said_to_be() -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "mxfp4"}}
    assert list(config_warnings(config, False, KNOWN)) == [
        "The weights are quantized already (mxfp4): the memory estimate is rough."
    ]


def test_missing_packages_are_named() -> None:
    def without(*names: str):
        return lambda name: name not in names

    assert judged(installed=without("torch")).warnings == ("Not installed here: torch. Loading it needs this.",)
    kept, missing = judged(
        RECORD.with_(model_type=ModelType.IMAGE_GEN), installed=without("diffusers", "accelerate")
    ).warnings
    assert kept == "A model of type 'image_gen' is kept for other programs; it cannot be loaded here."
    assert missing == "Not installed here: diffusers, accelerate. A program that uses it needs these."


def test_an_ollama_model_needs_no_architecture() -> None:
    assert judged(RECORD.with_(source=Source.OLLAMA, config={})).warnings == ()


def test_packages_are_looked_up_by_the_names_of_the_index() -> None:
    assert is_installed("pytest")
    assert is_installed("huggingface_hub") and is_installed("huggingface-hub")
    assert not is_installed("no-such-package-anywhere")
