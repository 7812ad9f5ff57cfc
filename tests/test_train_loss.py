"""The contrastive loss, against sums worked out another way."""

from __future__ import annotations

import math

import pytest
import torch

from byheart.models.encoder import Encoder, load_encoder
from byheart.train import loss
from byheart.train.batches import Batch
from byheart.train.loss import TEMPERATURE, batch_loss, info_nce, mean_max_similarity
from training import tiny_bert


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    found = load_encoder(tiny_bert(tmp_path_factory.mktemp("base") / "bert"), precision="fp32")
    found.model.eval()
    return found


def test_info_nce_is_the_negative_log_share_of_the_right_passage() -> None:
    scores_Q_P = torch.tensor([[0.9, 0.3, 0.1]])
    shares = [math.exp(score / TEMPERATURE) for score in (0.9, 0.3, 0.1)]
    found = info_nce(scores_Q_P, torch.tensor([1]), torch.zeros(1, 3, dtype=torch.bool))
    assert found.item() == pytest.approx(-math.log(shares[1] / sum(shares)), rel=1e-5)


def test_an_excluded_passage_does_not_count() -> None:
    excluded_Q_P = torch.tensor([[True, False, False]])
    shares = [math.exp(score / TEMPERATURE) for score in (0.3, 0.1)]
    found = info_nce(torch.tensor([[0.9, 0.3, 0.1]]), torch.tensor([1]), excluded_Q_P)
    assert found.item() == pytest.approx(-math.log(shares[0] / sum(shares)), rel=1e-4)


def test_late_interaction_takes_each_question_tokens_best_match_and_skips_padding() -> None:
    question_1_2_2 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    passages_2_2_2 = torch.tensor([[[0.6, 0.8], [1.0, 0.0]], [[0.0, -1.0], [1.0, 0.0]]])
    mask_2_2 = torch.tensor([[1, 1], [1, 0]])
    found = mean_max_similarity(question_1_2_2, torch.tensor([[1, 1]]), passages_2_2_2, mask_2_2)
    assert found.tolist() == [[pytest.approx((1.0 + 0.8) / 2), pytest.approx((0.0 - 1.0) / 2)]]
    only_first_token = mean_max_similarity(question_1_2_2, torch.tensor([[1, 0]]), passages_2_2_2, mask_2_2)
    assert only_first_token[0, 0].item() == pytest.approx(1.0)


def test_encoding_passages_in_groups_changes_no_score(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = (
        "open",
        "find the menu for boards . and a menu of votes",
        "delete cards",
        "a b c",
        "votes > timers",
        "to",
    )
    batch = Batch(("find boards ?", "delete cards"), passages, (1, 2), ())
    grouped = batch_loss(encoder, batch, passage_tokens=64, late_interaction_weight=1.0)
    monkeypatch.setattr(loss, "_PASSAGES_PER_GROUP", 100)
    together = batch_loss(encoder, batch, passage_tokens=64, late_interaction_weight=1.0)
    assert grouped.loss.item() == pytest.approx(together.loss.item(), rel=1e-4)
    assert grouped.accuracy == together.accuracy


def test_the_late_interaction_weight_adds_its_part(encoder: Encoder) -> None:
    batch = Batch(("find boards", "delete cards"), ("open boards", "delete the cards"), (0, 1), ())
    parts = [batch_loss(encoder, batch, passage_tokens=64, late_interaction_weight=w).loss.item() for w in (0, 1, 2)]
    assert parts[2] - parts[1] == pytest.approx(parts[1] - parts[0], rel=1e-4)
    assert parts[1] > parts[0]


def test_the_score_of_a_batch_is_right_where_the_passage_is_the_question(encoder: Encoder) -> None:
    texts = ("open the boards menu", "delete cards", "votes")
    assert batch_loss(encoder, Batch(texts, texts, (0, 1, 2), ()), passage_tokens=64).accuracy == 1.0
    assert batch_loss(encoder, Batch(texts, texts, (1, 2, 0), ()), passage_tokens=64).accuracy == 0.0
    passed_over = Batch(texts, texts, (1, 2, 0), ((0, 0), (0, 2), (1, 1), (1, 0), (2, 2), (2, 1)))
    assert batch_loss(encoder, passed_over, passage_tokens=64).accuracy == 1.0
