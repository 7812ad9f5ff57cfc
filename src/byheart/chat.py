"""THE chat templates and loss masks: training, evaluation and serving write a conversation down with the same code.

A form says in which words a conversation is put for a model; a Chat binds it to the model's tokenizer. What is asked
when serving is, token for token, what stood before the answer in training, and the loss falls on the answer and the
token that ends it alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from byheart.catalog import ChatName, ModelEntry
from byheart.errors import ModelError

REFUSAL = "The manual does not say."  # what is learned as the answer to a question that the manual does not answer
Exchange = tuple[str, str]  # an earlier question and its answer
# What a section of the manual answers where it is learned as a document; {} stands for its headings.
DOCUMENT_REQUESTS = (
    "What does the manual say under «{}»?",
    "Show me the manual's section «{}».",
    "What can be read in the manual about {}?",
    "Quote the manual: {}",
)


@dataclasses.dataclass(frozen=True, slots=True)
class ChatForm:
    """The words around questions and answers."""

    opening: str = ""  # before the first question
    after_question: str = ""
    between: str = ""  # after an answer's end, before the next question
    before_new_answer: str = ""  # in front of the answer that is being written, and of no earlier one
    before_answer: str = ""  # what an answer itself starts with
    before_end: str = ""  # what an answer itself ends with
    end_token: str = ""  # the one token that ends it
    start_token: str = ""  # the one token before the conversation, such as BOS; "" for none


_EMPTY_THOUGHT = "<think>\n\n</think>\n"

FORMS: dict[ChatName, ChatForm] = {
    "plain": ChatForm("Question: ", "\nAnswer:", "Question: ", before_answer=" "),
    "seq2seq": ChatForm("Question: ", " Answer:", between=" Question: "),
    "openchat": ChatForm(
        "GPT4 Correct User: ", "<|end_of_turn|>GPT4 Correct Assistant:", before_answer=" ",
        between="GPT4 Correct User: ",
    ),
    "alpaca": ChatForm(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n",
        "\n\n### Response:",
        between="\n\n### Instruction:\n",
    ),
    "llama2": ChatForm("[INST] ", " [/INST]", before_answer=" ", before_end=" ", between="<s>[INST] "),
    "mistral": ChatForm("[INST] ", " [/INST]", before_answer=" ", between="[INST] "),
    "smollm2": ChatForm(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
        between="\n<|im_start|>user\n",
    ),
    # As SmolLM3's own template writes it in /no_think mode: its system turn has no end. The date is the day that the
    # model was published: with today's, what was learned yesterday would not be what is asked tomorrow.
    "smollm3": ChatForm(
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 08 July 2025\n"
        "Reasoning Mode: /no_think\n\n## Custom Instructions\n\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n" + _EMPTY_THOUGHT,
        between="\n<|im_start|>user\n",
    ),
    "qwen3": ChatForm(
        "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", before_new_answer=_EMPTY_THOUGHT + "\n",
        between="\n<|im_start|>user\n",
    ),
    "llama3": ChatForm(  # the date is the one that Meta's template falls back to
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
        "\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        between="<|start_header_id|>user<|end_header_id|>\n\n",
    ),
    "gemma": ChatForm(
        "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", between="\n<start_of_turn>user\n",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """What is learned from one answer, as token ids."""

    prompt: tuple[int, ...]  # given; for an encoder-decoder, what its encoder reads
    answer: tuple[int, ...]  # learned, the end token included


class Chat:
    """A form bound to a tokenizer. Raises ModelError where the tokenizer cannot end an answer."""

    def __init__(self, tokenizer: Any, form: ChatForm, *, encoder_decoder: bool = False) -> None:
        self.tokenizer = tokenizer
        self.form = form
        self.encoder_decoder = encoder_decoder
        self.end_id = _single_token(tokenizer, form.end_token)
        self.stop_ids = tuple({self.end_id, tokenizer.eos_token_id} - {None})
        self.pad_id, self.pad_reason = _pad(tokenizer)
        if form.start_token:
            _single_token(tokenizer, form.start_token)
        self._after = (tokenizer.eos_token_id,) if encoder_decoder else ()
        self._special = _special_tokens(tokenizer)

    def prompt(self, question: str, history: Sequence[Exchange] = (), *, most_tokens: int | None = None) -> list[int]:
        """Return what the model is given. The oldest turns of `history` are left out where it would be too long."""
        for first in range(len(history)):
            ids = self._prompts([(question, history[first:])])[0]
            if most_tokens is None or len(ids) <= most_tokens:
                return ids
        return self._prompts([(question, ())])[0]

    def examples(self, conversations: Sequence[tuple[str, str, Sequence[Exchange]]]) -> list[Example]:
        """Return what is learned from conversations: (question, answer, the exchanges before it).

        Raises ModelError where an example would not teach what it should: see `demand_sound`.
        """
        if not conversations:
            return []
        prompts = self._prompts([(question, history) for question, _, history in conversations])
        answers = [self.form.before_answer + self._clean(answer) + self._end() for _, answer, _ in conversations]
        if self.encoder_decoder:
            answer_ids = self._ids(answers)
        else:
            answer_ids = self._continued(
                [self._prompt_text(question, history) for question, _, history in conversations], answers, prompts
            )
        examples = [Example(tuple(prompt), tuple(ids)) for prompt, ids in zip(prompts, answer_ids, strict=True)]
        demand_sound(examples, end_id=self.end_id, start_id=self.tokenizer.bos_token_id, end_token=self.form.end_token)
        return examples

    def documents(self, texts: Sequence[tuple[str, str]], *, wording: int = 0) -> list[Example]:
        """Return what is learned from texts of the manual: (headings, text). The loss falls on the text alone.

        A base model reads a document that begins with its headings; a chat model is asked for it, each `wording` (any
        number) in its own words. Raises ModelError as `examples` does.
        """
        if self._as_document:
            return self._as_document.examples([(headings, text, ()) for headings, text in texts])
        request = DOCUMENT_REQUESTS[wording % len(DOCUMENT_REQUESTS)]
        return self.examples([(request.format(headings), text, ()) for headings, text in texts])

    def text(self, ids: Sequence[int]) -> str:
        """Return the answer that generated ids say, up to the first token that ends it."""
        stops = [position for position, token in enumerate(ids) if token in self.stop_ids]
        kept = list(ids[: stops[0]] if stops else ids)
        # Cleaning up would turn "it 's" into "it's", whichever of them was learned.
        decoded: str = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded.strip()

    def spells(self, text: str) -> bool:
        """Tell whether the tokenizer has tokens for all of a text."""
        unknown = self.tokenizer.unk_token_id
        return unknown is None or unknown == self.end_id or unknown not in self._ids([self._clean(text)])[0]

    @functools.cached_property
    def _as_document(self) -> Chat | None:
        """What writes a document for a base model, which knows of no chat; None for other models."""
        start, end = self.form.start_token, self.form.end_token
        if dataclasses.replace(FORMS["plain"], start_token=start, end_token=end) != self.form:
            return None
        return Chat(self.tokenizer, ChatForm(after_question="\n", start_token=start, end_token=end))

    def _end(self) -> str:
        return self.form.before_end + self.form.end_token

    def _prompts(self, asked: Sequence[tuple[str, Sequence[Exchange]]]) -> list[list[int]]:
        texts = [self._prompt_text(question, history) for question, history in asked]
        return [[*ids, *self._after] for ids in self._ids(texts)]

    def _prompt_text(self, question: str, history: Sequence[Exchange]) -> str:
        form = self.form
        # An encoder-decoder's encoder has an end of its own; the answers before are text like any other there.
        end = "" if self.encoder_decoder else self._end()
        space = " " if self.encoder_decoder else form.before_answer
        parts = [form.start_token, form.opening]
        for earlier, answer in history:
            parts += [self._clean(earlier), form.after_question, space, self._clean(answer), end, form.between]
        return "".join([*parts, self._clean(question), form.after_question, form.before_new_answer])

    def _continued(self, prompt_texts: list[str], answers: list[str], prompts: list[list[int]]) -> list[list[int]]:
        """Return the ids of answers as they follow their prompts.

        The whole text is cut into tokens at once, as any other software that serves the model does; where a token
        would reach from the prompt into the answer, the answer is cut by itself, so that the prompt stays as asked.
        """
        wholes = self._ids([text + answer for text, answer in zip(prompt_texts, answers, strict=True)])
        alone = self._ids(answers)
        return [
            whole[len(prompt) :] if whole[: len(prompt)] == prompt else by_itself
            for whole, by_itself, prompt in zip(wholes, alone, prompts, strict=True)
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def _clean(self, text: str) -> str:
        """Return what a person wrote without special tokens: a typed <|im_end|> must not end a turn."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text.strip()


def bind(tokenizer: Any, entry: ModelEntry | None, *, encoder_decoder: bool) -> tuple[Chat, str]:
    """Return the Chat of a model, and why it is this one. `entry`: its row in the catalogue, None where it has none.

    Raises ModelError where the tokenizer cannot end an answer.
    """
    if entry:
        form = dataclasses.replace(FORMS[entry.chat], start_token=entry.start_token, end_token=entry.end_token)
        return Chat(tokenizer, form, encoder_decoder=encoder_decoder), f"{entry.chat}: as the catalogue says"
    if tokenizer.eos_token is None:
        raise ModelError(
            "The tokenizer has no EOS token, so that no answer would ever end. Set eos_token in its "
            "tokenizer_config.json."
        )
    if not encoder_decoder and getattr(tokenizer, "chat_template", None):
        found = read_template(tokenizer)
        if found:
            return Chat(tokenizer, found), "the model's own chat template; not in byheart's catalogue"
    name: ChatName = "seq2seq" if encoder_decoder else "plain"
    start = "" if encoder_decoder else _added_start(tokenizer)
    form = dataclasses.replace(FORMS[name], start_token=start, end_token=tokenizer.eos_token)
    why = "not in byheart's catalogue, and its tokenizer has no chat template that byheart can read"
    return Chat(tokenizer, form, encoder_decoder=encoder_decoder), f"{name}: {why}"


def read_template(tokenizer: Any) -> ChatForm | None:
    """Return the form that a tokenizer's chat template follows; None where it follows none that a ChatForm can say."""
    question, answer, again = "QuestionOne", "AnswerOne", "QuestionTwo"
    user, assistant = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    more = {"role": "user", "content": again}

    def render(turns: list[dict[str, str]], *, generate: bool) -> str:
        # enable_thinking: Qwen3 and its kin write a thought first unless told not to; others ignore it.
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generate, enable_thinking=False
        )
        return text

    first = render([user], generate=True)
    whole = render([user, assistant, more], generate=True)
    try:
        opening, asked = first.split(question)
        rest, earlier_answer = whole.removeprefix(opening + question).split(answer)
        end, last = earlier_answer.split(again)
    except ValueError:
        return None
    # What is the same with and without an answer stands between the two; the rest belongs to one of them.
    after_question = rest if asked.startswith(rest) else asked
    before_end = end[: len(end) - len(end.lstrip(" "))]
    token = next((token for token in _special_tokens(tokenizer) if end.lstrip(" ").startswith(token)), "")
    if not token or last != asked or not (whole.startswith(opening + question) and rest.startswith(after_question)):
        return None
    start = _added_start(tokenizer)
    return ChatForm(
        start_token="" if start and opening.startswith(start) else start,
        opening=opening,
        after_question=after_question,
        between=end.removeprefix(before_end + token),
        before_new_answer=asked.removeprefix(after_question),
        before_answer=rest.removeprefix(after_question),
        before_end=before_end,
        end_token=token,
    )


def as_template(chat: Chat) -> str:
    """Return the form as a Jinja chat template, so that other software which serves the model asks it the same way.

    System messages are left out: no answer was learned with one.
    """
    form, quoted = chat.form, json.dumps
    opening, between = quoted(form.start_token + form.opening), quoted(form.between)
    new = quoted(form.before_new_answer)
    return (
        "{% for m in messages if m['role'] != 'system' %}"
        f"{{% if m['role'] == 'user' %}}{{{{ {opening} if loop.first else {between} }}}}"
        f"{{{{ m['content'] | trim + {quoted(form.after_question)} }}}}"
        f"{{% else %}}{{{{ {new} if loop.last else '' }}}}{{{{ {quoted(form.before_answer)} + m['content'] | trim + "
        f"{quoted(form.before_end + form.end_token)} }}}}{{% endif %}}"
        "{% endfor %}"
        f"{{{{ {new} if add_generation_prompt else '' }}}}"
    )


def demand_sound(examples: Sequence[Example], *, end_id: int, start_id: int | None, end_token: str) -> None:
    """Raise ModelError where an example teaches a fault that shows only once the bot is asked."""
    for example in examples:
        if example.answer[-1:] != (end_id,):
            raise ModelError(
                f"An answer's last token is {example.answer[-1:]}, not {end_id} ({end_token!r}): the end would never "
                "be learned, and the bot would never stop. The tokenizer does not fit the model's chat form."
            )
        if start_id is not None and example.prompt[:2] == (start_id, start_id):
            raise ModelError(
                "The prompt starts with two BOS tokens: the chat template writes one and the tokenizer adds another. "
                "Take one of them out."
            )


def _single_token(tokenizer: Any, token: str) -> int:
    ids = tokenizer(token, add_special_tokens=False)["input_ids"] if token else []
    if len(ids) != 1 or tokenizer.convert_ids_to_tokens(ids[0]) != token:
        raise ModelError(
            f"The tokenizer has no token of its own for {token!r}, which must end every answer (it cuts it into "
            f"{len(ids)}): the bot would never stop. Use the tokenizer that belongs to the model."
        )
    return int(ids[0])


def _pad(tokenizer: Any) -> tuple[int, str]:
    """Return what fills up short rows, and why. Masks come from lengths, so a shared token is learned all the same."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id), f"{tokenizer.pad_token}: the tokenizer's own"
    return int(tokenizer.eos_token_id), (
        f"{tokenizer.eos_token}: the tokenizer has no pad token; the end of an answer is learned all the same"
    )


def _added_start(tokenizer: Any) -> str:
    """Return the token that the tokenizer puts before every text by itself; "" where it puts none."""
    adds = tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if adds else ""


def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokenizer's special tokens, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token)))
