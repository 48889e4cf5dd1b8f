"""What bitsandbytes quantizes of a model, and how it is told to."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from millm.records import Quantization

OUT_BLOCK, IN_BLOCK = 32, 64  # other matrices make the 4-bit kernels of bitsandbytes for the CPU fail
NOT_IN_INT8 = (".kv_b_proj", ".dt_proj")  # called with four dimensions, or their weight is used without the layer


def quantized_layers(model: transformers.PreTrainedModel, form: Quantization) -> dict[str, int]:
    """The names of the layers that a form quantizes, with the output features of each. The model may be empty.

    transformers leaves out the embedding, the output head, what is tied to them and what has to stay in float32;
    bitsandbytes knows only plain linear layers, so neither the experts of a mixture nor a model's own kind of layer.
    """
    skipped = [
        *get_keys_to_not_convert(model),
        *(model._keep_in_fp32_modules or ()),
        *(model._keep_in_fp32_modules_strict or ()),
    ]
    found = {}
    for name, module in model.named_modules():
        if not (type(module) is nn.Linear or isinstance(module, Conv1D)) or not should_convert_module(name, skipped):
            continue
        inputs, outputs = _features(module)
        whole = outputs % OUT_BLOCK == 0 and inputs % IN_BLOCK == 0
        if whole and not (form is Quantization.Q8 and f".{name}".endswith(NOT_IN_INT8)):
            found[name] = outputs
    return found


def bitsandbytes_config(
    model: transformers.PreTrainedModel, form: Quantization, compute: torch.dtype
) -> transformers.BitsAndBytesConfig:
    """The settings for a form: NF4 with double quantization, or LLM.int8.

    compute: the number format that 4-bit weights are multiplied in.
    """
    chosen = quantized_layers(model, form)
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    kept = [name for name in linear if name not in chosen]  # replaces the list that transformers would make
    if form is Quantization.Q8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )


def _features(module: Any) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)
