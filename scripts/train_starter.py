"""Makes the starter's adapter: what the starter knows of customers' language before it reads any manual.

    python scripts/train_starter.py OUT [--epochs 3]

Fine-tunes all-MiniLM-L6-v2 (LoRA on attention and linear layers) on the invented help centres in
src/byheart/synthesize/help_centres: one help centre a step, each question against all its sections, by the vectors of
whole texts and by late interaction together, the two as search adds them up. Questions that the help centre does not
answer are to match nothing: the best score of each question is told from theirs by a logistic loss. Four help centres
are held out; their figures are printed before and after each epoch. Takes about half an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, softplus

from byheart.catalog import STARTER, find_model
from byheart.ingest.plain import plain_text
from byheart.models.encoder import Encoder, load_encoder
from byheart.synthesize.help_centres import HelpCentre, help_centres

RANK = 8  # in half precision the adapter stays well under 1 MB
HELD_OUT_EVERY = 15  # 4 of 60 help centres
QUESTIONS_A_STEP = 85  # half of a help centre's
OPEN_QUESTIONS_A_STEP = 9
SCALE = 20.0  # of cosines in the softmax (InfoNCE), as in Sentence-BERT's multiple negatives loss
LATE_WEIGHT = 2.0  # as in byheart.index
OPEN_SCALE = 10.0  # log odds a unit of score
REFUSED_OF_ANSWERED = 0.08  # where the printed share of refused open questions is read off
PASSAGE_TOKENS, QUESTION_TOKENS = 176, 48


def passages_of(centre: HelpCentre) -> list[str]:
    """Return the sections' texts as byheart indexes them: headings first."""
    passages = []
    for section in centre.sections:
        heads = dict.fromkeys((section.title, section.heading))
        lines = (line.strip(" |") for line in section.text.splitlines() if line.strip(" |:-"))
        passages.append(f"{' > '.join(heads)}. " + plain_text(" ".join(line.replace("|", " ") for line in lines)))
    return passages


def questions_of(centre: HelpCentre) -> list[tuple[str, int]]:
    """Return (question, number of the section that answers it)."""
    return [(ask, number) for number, section in enumerate(centre.sections) for ask, _ in section.questions]


def scores(encoder: Encoder, questions: Sequence[str], passages: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return dense_Q_P (cosines of whole texts) and late_Q_P (MaxSim over tokens; Khattab & Zaharia 2020)."""
    vectors_P_D, tokens_P_S_D, mask_P_S = encoder.forward(passages, max_tokens=PASSAGE_TOKENS)
    vectors_Q_D, tokens_Q_T_D, mask_Q_T = encoder.forward(questions, max_tokens=QUESTION_TOKENS)
    (P, S, D), (Q, T, _) = tokens_P_S_D.shape, tokens_Q_T_D.shape
    similar = (tokens_Q_T_D.reshape(-1, D) @ tokens_P_S_D.reshape(-1, D).T).view(Q, T, P, S)
    best_Q_T_P = (similar + 10.0 * (mask_P_S - 1.0)).amax(-1)  # padding never matches
    late_Q_P = (best_Q_T_P * mask_Q_T.unsqueeze(-1)).sum(1) / mask_Q_T.sum(1, keepdim=True).clamp(min=1)
    return vectors_Q_D @ vectors_P_D.T, late_Q_P


def loss_of(
    encoder: Encoder, centre: HelpCentre, asked: Sequence[tuple[str, int]], open_: Sequence[str], edge: torch.Tensor
) -> torch.Tensor:
    """Return the loss of some of a help centre's questions. `edge`: the score that tells answered from open."""
    dense, late = scores(encoder, [question for question, _ in asked] + list(open_), passages_of(centre))
    both, count = dense + LATE_WEIGHT * late, len(asked)
    right = torch.tensor([number for _, number in asked])
    found = (
        cross_entropy(SCALE * both[:count] / 1.5, right)
        + 0.3 * cross_entropy(SCALE * dense[:count], right)
        + 0.3 * cross_entropy(2 * SCALE * late[:count], right)
    )
    log_odds = OPEN_SCALE * (torch.logsumexp(SCALE * both, 1) / SCALE - edge)
    return found + 0.3 * (softplus(-log_odds[:count]).mean() + softplus(log_odds[count:]).mean())


def steps(centres: Sequence[HelpCentre], chance: random.Random) -> Iterator[tuple[HelpCentre, list[tuple[str, int]]]]:
    """Yield one epoch: every question of every help centre once, a part of one help centre at a time."""
    left = {centre.product: chance.sample(questions_of(centre), len(questions_of(centre))) for centre in centres}
    while any(left.values()):
        for centre in chance.sample(list(centres), len(centres)):
            part = left[centre.product][:QUESTIONS_A_STEP]
            left[centre.product] = left[centre.product][QUESTIONS_A_STEP:]
            if part:
                yield centre, part


@torch.no_grad()
def figures(encoder: Encoder, centres: Sequence[HelpCentre]) -> str:
    """Return the shares of questions whose section comes first, and of open ones refused, on help centres held out."""
    right, answered, open_ = np.zeros(3), [], []
    for centre in centres:
        passages, asked = passages_of(centre), questions_of(centre)
        dense, late = scores(encoder, [question for question, _ in asked], passages)
        both, numbers = dense + LATE_WEIGHT * late, torch.tensor([number for _, number in asked])
        right += [int((view.argmax(1) == numbers).sum()) for view in (dense, late, both)]
        answered += both.amax(1).tolist()
        dense, late = scores(encoder, centre.not_answered, passages)
        open_ += (dense + LATE_WEIGHT * late).amax(1).tolist()
    dense_share, late_share, both_share = right / len(answered)
    refused = np.mean(np.array(open_) < np.quantile(answered, REFUSED_OF_ANSWERED))
    return (
        f"right section first: vectors {dense_share:.1%}, late interaction {late_share:.1%}, both {both_share:.1%}; "
        f"open questions refused where {REFUSED_OF_ANSWERED:.0%} of the answered are: {refused:.1%}"
    )


def train(encoder: Encoder, centres: Sequence[HelpCentre], *, epochs: float, peak: float, seed: int) -> Iterator[str]:
    """Train the adapter in place, and yield what to print."""
    chance = random.Random(seed)
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    edge = torch.nn.Parameter(torch.tensor(1.9))
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": [edge], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak)
    total = int(epochs * sum(1 for _ in steps(centres, random.Random(seed))))
    recent: list[float] = []
    encoder.model.eval()  # dropout only costs time here, as in byheart.train
    for epoch in range(math.ceil(epochs)):
        for centre, asked in steps(centres, chance):
            if len(recent) >= total:
                return
            rate = peak * min(1.0, (len(recent) + 1) / (0.1 * total), 1.0 - len(recent) / total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            open_ = chance.sample(centre.not_answered, OPEN_QUESTIONS_A_STEP)
            loss = loss_of(encoder, centre, asked, open_, edge)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            recent.append(loss.item())
            if len(recent) % 20 == 0:
                yield f"step {len(recent)} of {total}: loss {np.mean(recent[-20:]):.3f}"
        yield f"epoch {epoch + 1} ends"


def save(encoder: Encoder, out: Path) -> None:
    """Write the adapter in half precision; its config names no path of this machine."""
    model = encoder.model
    model.peft_config["default"].inference_mode = True
    model.peft_config["default"].base_model_name_or_path = find_model(STARTER).hub_id
    model.save_pretrained(str(out))
    (out / "README.md").unlink()
    file = out / "adapter_model.safetensors"
    halved = {name: weight.half() for name, weight in load_file(file).items()}
    save_file(halved, file, metadata={"format": "pt"})


def main() -> None:
    """Train, print how well it goes, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    encoder = load_encoder(STARTER, precision="fp32", starter_adapter=False)
    entry = find_model(STARTER)
    targets = [*entry.attention_targets, *entry.linear_targets]
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    encoder.model = peft.get_peft_model(encoder.model, config)
    held_out = help_centres()[::HELD_OUT_EVERY]
    taught = [centre for centre in help_centres() if centre not in held_out]
    print(f"{len(taught)} help centres; before: {figures(encoder, held_out)}", flush=True)
    for said in train(encoder, taught, epochs=arguments.epochs, peak=arguments.rate, seed=arguments.seed):
        print(said, figures(encoder, held_out) if said.startswith("epoch") else "", flush=True)
    print(f"after: {figures(encoder, held_out)}")
    save(encoder, arguments.out)


if __name__ == "__main__":
    main()
