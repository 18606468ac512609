"""The depth of every parameter in the models that people fine-tune."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MT5Config,
    T5Config,
)

from dure.errors import UserError
from dure.modeling.depth import distances_from_head

_ENCODER = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
_BART = {
    **{f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in
       (("layers", 2), ("attention_heads", 2), ("ffn_dim", 16))},
    "d_model": 16,
}  # fmt: skip
_T5 = {"num_layers": 2, "num_decoder_layers": 2, "d_model": 16, "d_ff": 16, "num_heads": 2, "d_kv": 8}
_PLACES = {
    "bert": (
        BertConfig(**_ENCODER, vocab_size=50),
        {
            "bert.embeddings.word_embeddings.weight": 4,
            "bert.embeddings.LayerNorm.bias": 4,
            "bert.encoder.layer.0.output.dense.weight": 3,
            "bert.encoder.layer.2.output.dense.weight": 1,
            "bert.pooler.dense.weight": 0,
            "classifier.weight": 0,
        },
    ),
    "distilbert": (
        DistilBertConfig(n_layers=2, dim=16, n_heads=2, hidden_dim=16, vocab_size=50),
        {
            "distilbert.embeddings.position_embeddings.weight": 3,
            "distilbert.transformer.layer.0.ffn.lin1.weight": 2,
            "distilbert.transformer.layer.1.ffn.lin1.weight": 1,
            "pre_classifier.weight": 0,
        },
    ),
    "electra": (
        ElectraConfig(**_ENCODER, embedding_size=8, vocab_size=50),
        {"electra.embeddings_project.weight": 4, "electra.encoder.layer.0.output.dense.weight": 3},
    ),
    "t5": (
        T5Config(**_T5, vocab_size=50),
        {
            "shared.weight": 3,
            "encoder.block.0.layer.0.SelfAttention.q.weight": 2,
            "encoder.block.1.layer.0.SelfAttention.q.weight": 1,
            "decoder.block.0.layer.1.EncDecAttention.q.weight": 2,
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": 2,
            "decoder.final_layer_norm.weight": 0,
        },
    ),
    "more decoder than encoder": (
        MT5Config(**_T5 | {"num_layers": 1, "num_decoder_layers": 3}, vocab_size=50),
        {
            "shared.weight": 4,
            "encoder.block.0.layer.0.SelfAttention.q.weight": 1,
            "decoder.block.0.layer.0.SelfAttention.q.weight": 3,
        },
    ),
    "bart": (
        BartConfig(**_BART, vocab_size=50),
        {
            "model.shared.weight": 3,
            "model.decoder.embed_positions.weight": 3,
            "model.encoder.layernorm_embedding.weight": 3,
            "model.encoder.layers.0.fc1.weight": 2,
            "model.decoder.layers.1.fc1.weight": 1,
        },
    ),
}


@pytest.mark.parametrize("name", _PLACES)
def test_depth_falls_from_the_head_to_the_embeddings(name) -> None:
    config, places = _PLACES[name]
    seq2seq = config.is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForSequenceClassification
    model = kind.from_config(config)
    found = distances_from_head(model)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert {name: found[name] for name in places} == places


def test_any_model_goes_by_its_largest_list_of_layers() -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(5, 4)
            self.heads = torch.nn.ModuleList([torch.nn.Linear(4, 1)] * 2)
            self.body = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])

    found = distances_from_head(Own())
    assert {found[f"body.{place}.weight"] for place in range(3)} == {1, 2, 3}
    assert found["words.weight"] == 4
    assert found["heads.0.weight"] == 0


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no list of layers") as caught:
        distances_from_head(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert caught.value.where == "training.layer_lr_decay"
