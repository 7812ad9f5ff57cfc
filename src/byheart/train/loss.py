"""The loss: a question's vector must lie nearer to its passage's than to any other passage's of the batch.

InfoNCE (van den Oord et al. 2018) over cosines, for the texts' vectors and, where it has a weight, for late interaction
over their tokens' vectors (ColBERT).
"""

from __future__ import annotations

import dataclasses

import torch

from byheart.models.encoder import Encoder
from byheart.train.batches import Batch

TEMPERATURE = 0.05  # SimCSE (Gao et al. 2021); E5 and GTE use 0.01 to 0.05
LATE_INTERACTION_WEIGHT = 0.0  # beside 1.0 for the texts' vectors; 0 leaves it out, and its cost with it
QUESTION_TOKENS = 32  # longer questions are cut; customers' have 15 on average
PASSAGE_TOKENS = 96  # headings and the first sentences: a step on whole passages took a third longer
# Passages of like length run together, so that short ones are not padded to the longest: with groups of four, sections
# of 20 to 200 words take 30 % fewer tokens. A GPU would rather have one large product than few tokens.
_PASSAGES_PER_GROUP = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """A batch's loss, with gradients, and the share of its questions whose own passage came first."""

    loss: torch.Tensor
    accuracy: float


def batch_loss(
    encoder: Encoder, batch: Batch, *, passage_tokens: int, late_interaction_weight: float = LATE_INTERACTION_WEIGHT
) -> Scored:
    """Encode a batch and return its loss."""
    questions_Q_D, question_tokens_Q_T_D, question_mask_Q_T = encoder.forward(
        batch.questions, max_tokens=QUESTION_TOKENS
    )
    passages_P_D, passage_tokens_P_T_D, passage_mask_P_T = _encode_passages(encoder, batch.passages, passage_tokens)
    device = questions_Q_D.device
    positives_Q = torch.tensor(batch.positives, device=device)
    excluded_Q_P = torch.zeros(len(batch.questions), len(batch.passages), dtype=torch.bool, device=device)
    if batch.excluded:
        rows, columns = torch.tensor(batch.excluded, device=device).unbind(1)
        excluded_Q_P[rows, columns] = True
    cosines_Q_P = questions_Q_D @ passages_P_D.T
    loss = info_nce(cosines_Q_P, positives_Q, excluded_Q_P)
    if late_interaction_weight:
        matches_Q_P = mean_max_similarity(
            question_tokens_Q_T_D, question_mask_Q_T, passage_tokens_P_T_D, passage_mask_P_T
        )
        loss = loss + late_interaction_weight * info_nce(matches_Q_P, positives_Q, excluded_Q_P)
    first_Q = cosines_Q_P.detach().masked_fill(excluded_Q_P, -2.0).argmax(dim=1)
    return Scored(loss, (first_Q == positives_Q).float().mean().item())


def info_nce(scores_Q_P: torch.Tensor, positives_Q: torch.Tensor, excluded_Q_P: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of every question's own passage among those not excluded; scores in -1..1."""
    logits_Q_P = (scores_Q_P / TEMPERATURE).masked_fill(excluded_Q_P, float("-inf"))
    return torch.nn.functional.cross_entropy(logits_Q_P, positives_Q)


def mean_max_similarity(
    question_tokens_Q_T_D: torch.Tensor,
    question_mask_Q_T: torch.Tensor,
    passage_tokens_P_T_D: torch.Tensor,
    passage_mask_P_T: torch.Tensor,
) -> torch.Tensor:
    """Return scores_Q_P: for every question token its most similar passage token, averaged over the question."""
    similarity_Q_P_I_J = torch.einsum("qid,pjd->qpij", question_tokens_Q_T_D, passage_tokens_P_T_D)
    similarity_Q_P_I_J = similarity_Q_P_I_J.masked_fill(~passage_mask_P_T.bool()[None, :, None, :], -1.0)
    best_Q_P_I = similarity_Q_P_I_J.amax(-1) * question_mask_Q_T[:, None, :]
    counts_Q: torch.Tensor = question_mask_Q_T.sum(1).clamp(min=1)
    return best_Q_P_I.sum(-1) / counts_Q[:, None]


def _encode_passages(
    encoder: Encoder, passages: tuple[str, ...], max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what Encoder.forward does, for passages in their order, with little padding on a CPU."""
    if encoder.device.type != "cpu":
        return encoder.forward(passages, max_tokens=max_tokens)
    order = sorted(range(len(passages)), key=lambda number: len(passages[number]))
    groups = [order[start : start + _PASSAGES_PER_GROUP] for start in range(0, len(order), _PASSAGES_PER_GROUP)]
    encoded = [encoder.forward([passages[number] for number in group], max_tokens=max_tokens) for group in groups]
    longest = max(mask_B_T.shape[1] for _, _, mask_B_T in encoded)
    back = torch.tensor(order).argsort()
    pad = torch.nn.functional.pad
    return (
        torch.cat([vectors_B_D for vectors_B_D, _, _ in encoded])[back],
        torch.cat([pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for _, tokens, _ in encoded])[back],
        torch.cat([pad(mask, (0, longest - mask.shape[1])) for _, _, mask in encoded])[back],
    )
