"""The arithmetic of `byheart plan`, from first principles, and what the command shows. No torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byheart import cli_plan
from byheart.catalog import MODELS, ModelEntry, find_model
from byheart.cli import app
from byheart.config import TrainConfig
from byheart.errors import ConfigError, ModelError
from byheart.memory import choose, estimate
from byheart.memory.estimate import Adapters, Batch, Memory
from byheart.memory.size import Size, size_of

OPENCHAT = "openchat/openchat_3.5"
SHORT, LONG = Batch(rows=1, tokens=512, learned=128), Batch(rows=1, tokens=2048, learned=512)
ADAPTERS = Adapters(rank=32)


def size(name: str = OPENCHAT) -> Size:
    entry = find_model(name)
    assert entry
    found = size_of(entry.architecture, entry.shape, parameters=entry.parameters)
    assert found
    return found


def machine(gpus: int, gb: float, *, in_bf16: bool = True) -> choose.Machine:
    return choose.Machine(gpus, gb * choose.GB, "as the test says", in_bf16)


def options(gpus: int, gb: float, batch: Batch = SHORT, name: str = OPENCHAT) -> dict[str, choose.Option]:
    work = choose.Work(batch=batch, adapters=ADAPTERS, window=4096)
    return {option.method: option for option in choose.options(size(name), work, machine(gpus, gb))}


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
def test_the_dimensions_of_a_row_make_its_number_of_weights(entry: ModelEntry) -> None:
    counted = size_of(entry.architecture, entry.shape)
    assert counted
    assert abs(counted.parameters / entry.parameters - 1) < 0.001
    names = {linear.name for block in counted.blocks for linear in block.linears}
    assert names == set(entry.attention_targets + entry.linear_targets)


def test_a_7b_answers_in_about_16_gb() -> None:
    found = options(1, 24)["inference"]
    weights = 7_241_748_480 * 2
    # Keys and values in bf16: 32 layers, each 8 heads of 128, for every token in sight.
    cache = 4096 * 32 * 2 * (8 * 128) * 2
    assert found.memory.weights == weights
    assert found.memory.activations == cache
    assert 15e9 < found.needed < 16.5e9
    assert found.fits


def test_fine_tuning_a_7b_with_lora_takes_24_to_32_gb_and_less_for_short_answers() -> None:
    attention = 2 * (4096 + 4096) + 2 * (4096 + 1024)
    inner = 3 * (4096 + 14336)
    assert size().adapter_weights(32, None) == 32 * 32 * (attention + inner)
    assert options(1, 80, Batch(rows=1, tokens=1024, learned=256))["lora"].needed / 1e9 == pytest.approx(24, abs=1)
    assert options(1, 80, LONG)["lora"].needed / 1e9 == pytest.approx(32, abs=1)
    assert options(1, 24, SHORT)["lora"].fits
    assert options(1, 24, LONG)["lora"].checkpointing  # what does not fit otherwise is computed twice


def test_qlora_of_a_7b_fits_one_24_gb_card_even_for_long_rows() -> None:
    found = options(1, 24, LONG)["qlora"]
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    # 4 bits, 8 bits for 64 weights, 32 bits for 256 of those: 4.127 bits a weight.
    packed = linear * (4 + 8 / 64 + 32 / (64 * 256)) / 8
    adapters = size().adapter_weights(32, None)
    assert found.memory.weights == pytest.approx(packed + (7_241_748_480 - linear) * 2 + adapters * (4 + 2))
    assert found.fits
    assert not found.checkpointing


def test_full_training_of_a_7b_takes_eight_80_gb_gpus_with_zero_3_and_not_one() -> None:
    alone, shared = options(1, 80)["full"], options(8, 80)["full"]
    assert not alone.fits
    assert alone.memory.weights + alone.memory.gradients + alone.memory.optimizer == 7_241_748_480 * (2 + 2 + 12)
    assert (shared.gpus, shared.fits) == (8, True)
    states = shared.memory.weights + shared.memory.gradients + shared.memory.optimizer
    assert states == pytest.approx(7_241_748_480 * 16 / 8)  # ZeRO: 16 bytes a weight, in eight shares
    block, table = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336, 2 * 32002 * 4096
    assert shared.memory.gathered == (2 * block + table) * 2
    assert shared.needed < 80e9


def test_activations_of_a_mistral_block_are_counted_tensor_by_tensor() -> None:
    block = size().blocks[0]
    hidden, queries, keys, inner, heads = 4096, 4096, 1024, 14336, 32
    norms = 2 * (4 * hidden + 2 * hidden + 4)
    attention = 2 * (2 * queries + 2 * keys) + 4 * heads
    gated = 2 * 3 * inner
    read = 2 * (2 * hidden + inner)
    kept = estimate.kept_per_token(size(), block, estimate.IN_BF16, None, rows=1, row_tokens=512)
    assert kept == norms + attention + gated + read
    adapted = estimate.kept_per_token(size(), block, estimate.IN_BF16, ADAPTERS, rows=1, row_tokens=512)
    copies = 2 * (3 * hidden + queries + 2 * hidden + inner) + 2 * 7 * 32  # each adapter its own copy, and its rank
    assert adapted == 2 * (4 * hidden + 4) + attention + gated + copies


def test_checkpointing_trades_activations_for_work_and_batches_scale_them() -> None:
    without = estimate.adapter_training(size(), LONG, estimate.IN_BF16, ADAPTERS)
    with_it = estimate.adapter_training(size(), LONG, estimate.IN_BF16, ADAPTERS, checkpointing=True)
    assert with_it.activations < without.activations / 10
    assert with_it.weights == without.weights
    four = estimate.adapter_training(size(), dataclasses.replace(LONG, rows=4), estimate.IN_BF16, ADAPTERS)
    assert four.activations == pytest.approx(4 * without.activations)


def test_the_peak_is_activations_or_gradients_whichever_is_more_and_both_where_gradients_add_up() -> None:
    assert Memory(weights=10, gradients=5, activations=7, logits=1).peak == 18
    assert Memory(weights=10, gradients=9, activations=7, logits=1).peak == 19
    alone = estimate.full_training(size("gpt2"), SHORT, estimate.IN_FP32)
    added = estimate.full_training(size("gpt2"), SHORT, estimate.IN_FP32, accumulated=True)
    assert added.peak == pytest.approx(alone.weights + alone.optimizer + alone.gradients + added.moving)


def test_scores_grow_with_the_square_of_a_row_where_attention_keeps_them() -> None:
    def kept(name: str, tokens: int) -> float:
        found = size(name)
        return estimate.kept_per_token(found, found.blocks[0], estimate.IN_FP32, None, rows=1, row_tokens=tokens)

    assert kept("gpt2", 1024) == kept("gpt2", 128)
    assert kept("bigscience/bloomz-560m", 1024) - kept("bigscience/bloomz-560m", 128) == 16 * (1024 - 128) * 4


@pytest.mark.parametrize(
    ("gpus", "gb", "expected", "why"),
    [
        (1, 24, "lora", "full fine-tuning would need 12"),
        (1, 16, "qlora", "LoRA over 16-bit weights would need"),
        (1, 8, "qlora", "with gradient checkpointing on one GPU"),
        (1, 5, "none", "such GPUs (LoRA, sharded); a smaller base_model"),
        (8, 80, "lora", "full fine-tuning would fit on each of 8"),
        (0, 16, "none", "a machine with a GPU"),
    ],
)
def test_what_is_recommended_comes_with_its_reason(gpus: int, gb: float, expected: str, why: str) -> None:
    work = choose.Work(batch=SHORT, adapters=ADAPTERS, window=4096)
    found = choose.options(size(), work, machine(gpus, gb))
    method, reason = choose.recommend(size(), work, machine(gpus, gb), found)
    assert method == expected
    assert why in reason


def test_the_starter_fits_a_laptop() -> None:
    found = {option.method: option for option in choose.options(
        size("starter"), choose.Work(Batch(80, 48, 0), ADAPTERS, 1024), machine(0, 8, in_bf16=False)
    )}  # fmt: skip
    assert found["lora"].fits
    assert found["lora"].needed < 2e9


def show(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_tells_for_a_model_without_a_bot() -> None:
    shown = show("--model", OPENCHAT, "--gpu-memory-gb", "24")
    assert "7.24 billion weights" in shown
    assert "Recommended: train.method: lora: it needs 20.1 GB" in shown
    lines = shown.splitlines()
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("GB ")) :][:5]
    assert table[4].split() == ["full*", "14.48", "14.48", "86.90", "0.25", *table[4].split()[5:7], "no"]
    assert max(map(len, table)) <= 80
    parsed = json.loads(show("--model", OPENCHAT, "--gpu-memory-gb", "80", "--gpus", "8", "--json"))
    assert [option["method"] for option in parsed["options"]] == ["inference", "qlora", "lora", "full"]
    assert parsed["options"][3]["gpus"] == 8


def test_a_folder_with_a_config_is_counted(tmp_path: Path) -> None:
    entry = find_model("Qwen/Qwen3-0.6B")
    assert entry
    values = {**entry.shape, "architectures": ["Qwen3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    found, said = cli_plan.find_size(str(tmp_path))
    assert found.parameters == pytest.approx(entry.parameters, rel=0.001)
    assert "counted from" in said["size"]


def test_what_cannot_be_planned_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither in byheart's catalogue"):
        cli_plan.find_size("nobody/nothing")
    (tmp_path / "config.json").write_text('{"architectures": ["RwkvForCausalLM"]}', encoding="utf-8")
    with pytest.raises(ModelError, match="none whose memory"):
        cli_plan.find_size(str(tmp_path))
    with pytest.raises(ConfigError, match="give both"):
        cli_plan.find_machine(cli_plan.Flags(gpus=2), TrainConfig(), lambda: [])


def test_gpus_that_are_found_are_planned_with_and_the_smallest_counts() -> None:
    found = cli_plan.find_machine(
        cli_plan.Flags(), TrainConfig(), lambda: [("H100", 85_000_000_000), ("L4", 24 * 10**9)]
    )
    assert (found.gpus, found.bytes_each, found.found) == (2, 24e9, "H100 and L4")
    assert cli_plan.find_machine(cli_plan.Flags(), TrainConfig(), lambda: []).gpus == 0


def test_what_is_learned_beside_the_questions_is_planned_with() -> None:
    def tokens(model: str, *, reads: bool = False, **train: float) -> tuple[int, int]:
        made = cli_plan.make_plan(
            model, TrainConfig(**train), cli_plan.Flags(), pairs=[], find_gpus=lambda: [], reads=reads  # type: ignore[arg-type]
        )  # fmt: skip
        return made.work.batch.tokens, made.work.batch.learned

    assert tokens("gpt2") == (512, 512)
    assert tokens("gpt2", mix_documents=0) == tokens("scratch:gpt2-10m") == (512, 128)
    assert tokens("scratch:gpt2-10m", mix_documents=0.2) == (512, 512)
    assert tokens("gpt2", reads=True) == tokens("gpt2", mix_passages=0.3) == (1024, 512)
    assert tokens("scratch:gpt2-10m", reads=True) == (512, 128)
