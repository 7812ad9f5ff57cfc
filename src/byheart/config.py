"""The config: one frozen class per stage, YAML at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_people_write_it(cls, value: Any, info: ValidationInfo) -> Any:
        """Take one string for a list of one; never take yes or no for 1 or 0."""
        declared = cls.model_fields[info.field_name or ""].annotation
        if declared == tuple[str, ...] and isinstance(value, str):
            return (value,)
        if isinstance(value, bool) and declared is not bool:
            raise ValueError("true or false is no value for it")
        return value


class IngestConfig(_Part):
    """Reading the manual."""

    include: tuple[str, ...] = Field((), description="read only paths or addresses that match one of these globs")
    exclude: tuple[str, ...] = Field((), description="leave out paths or addresses that match one of these globs")
    max_pages: int = Field(3000, ge=1, description="stop a crawl after so many pages")
    requests_per_second: float = Field(2.0, gt=0, le=50, description="polite rate of a crawl")
    user_agent: str = Field("byheart (+https://pypi.org/project/byheart)", description="who the crawl says it is")
    max_file_mb: float = Field(64, gt=0, description="a larger file is reported and left out")
    file_timeout_s: float = Field(60, gt=0, description="a file that takes longer is reported and left out")
    language: str = Field("", description="language of the manual (BCP 47); empty: as each page says, else English")


class SynthesizeConfig(_Part):
    """Expanding the manual into question-answer pairs."""

    teacher: Literal["offline", "openai"] = Field(
        "offline", description="offline: rules, no key; openai: any OpenAI-compatible server"
    )
    base_url: str = Field("https://api.openai.com/v1", description="address of the teacher's server")
    model: str = Field("gpt-4o-mini", description="the teacher's name on that server")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    concurrency: int = Field(8, ge=1, le=256, description="calls to the teacher in flight at once")
    timeout_s: float = Field(120, gt=0, description="a call that takes longer is tried again")
    max_retries: int = Field(6, ge=0, description="tries after the first, with back-off, on 429, 5xx and cut lines")
    max_calls: int = Field(0, ge=0, description="stop before spending more calls than this; 0: no limit")
    temperatures: tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...] = Field(
        (0.0, 0.3, 0.6, 0.9, 1.2), min_length=1, description="the ladder that phrasings are sampled at"
    )
    questions_per_section: int = Field(24, ge=1, le=400, description="questions asked for of each section, at least")
    multi_hop: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="questions that need two facts of a section, as a share beside the others (teacher: openai)",
    )
    unseen_share: float = Field(0.1, gt=0, lt=0.5, description="share of phrasings held out as unseen")
    outside_questions: int = Field(
        1500,
        ge=40,
        description="questions made that the manual does not answer; three of four teach the bot to decline",
    )
    seed: int = Field(0, description="the same seed and manual give the same pairs (offline teacher)")


class TrainConfig(_Part):
    """Fine-tuning."""

    method: Literal["lora", "qlora", "full", "none"] = Field(
        "lora",
        description="lora; qlora: lora on a base of 4 bits a weight (extra qlora); full; none: serve the base model",
    )
    lora_targets: Literal["all-linear", "attention"] = Field(
        "all-linear", description="layers that get an adapter: attention and linear, or attention alone"
    )
    lora_rank: int = Field(32, ge=1, description="rank of the adapters")
    lora_alpha: int = Field(64, ge=1, description="scale of the adapters")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the adapters")
    lora_rslora: bool = Field(False, description="scale the adapters by the square root of their rank (rsLoRA)")
    lora_dora: bool = Field(False, description="train magnitude and direction of the weights apart (DoRA)")
    learning_rate: float | None = Field(None, gt=0, description="empty: chosen for family and method")
    batch_size: int | None = Field(None, ge=1, description="empty: chosen for the family")
    micro_batch_size: int | None = Field(
        None, ge=1, description="so many at once, gradients added up to batch_size; empty: halved where memory runs out"
    )
    epochs: float | None = Field(None, gt=0, description="at most so many passes; empty: chosen for the family")
    patience: int = Field(2, ge=1, description="stop after so many validations without a better loss")
    validations_per_epoch: int = Field(4, ge=1, description="how often the loss on unseen phrasing is measured")
    auto: bool = Field(
        False,
        description="let the loss doctor act: lower the rate where the loss jumps, raise it where it falls slowly, "
        "stop where it overfits",
    )
    repetition: Literal["uniform", "spaced"] = Field(
        "uniform",
        description="uniform: each answer once an epoch; spaced: those not known yet more often, the others less often",
    )
    mix_documents: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="share of the tokens that are the manual's sections themselves, beside all questions (models that "
        "write); empty: 0.4, and 0 for a model from scratch",
    )
    mix_conversations: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="share that are conversations of two or three questions; empty: 0.05, and 0 from scratch",
    )
    mix_replay: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="share that are the conversations of train.replay; empty: 0.1, and 0 from scratch",
    )
    mix_passages: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="share that are questions asked again with passages of the manual to read; empty: 0.3 with "
        "answer.grounding: retrieve, else 0, and 0 from scratch",
    )
    replay: str = Field(
        "",
        examples=["general.jsonl"],
        description="JSONL file of general conversations to keep in mind: messages as OpenAI writes them, or question "
        "and answer (path starts at this file)",
    )
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit"] = Field(
        "adamw",
        description="8 bits a moment take a quarter of the memory; paged ones leave a GPU that is full (extra qlora)",
    )
    gradient_checkpointing: Literal["auto", "always", "never"] = Field(
        "auto",
        description="compute layers twice, to keep less in memory; auto: where the estimate says that it must be so",
    )
    sharding: Literal["fsdp", "deepspeed"] = Field(
        "fsdp",
        description="how many GPUs share a model: FSDP2, which comes with torch, or DeepSpeed ZeRO-3 (extra deepspeed)",
    )
    intents: bool = Field(
        True, description="learn to tell which part of the manual a question is about (models that find answers)"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the machine is faster so")
    seed: int = Field(0, description="seed of order and dropout")

    @model_validator(mode="after")
    def _leaves_room_for_questions(self) -> TrainConfig:
        shares = (self.mix_documents, self.mix_conversations, self.mix_replay, self.mix_passages)
        whole = sum(share or 0.0 for share in shares)
        if whole >= 1:
            raise ValueError(
                f"mix_documents, mix_conversations, mix_replay and mix_passages are {whole:g} together, which leaves "
                "nothing for the questions. Make them less than 1."
            )
        return self


class AnswerConfig(_Part):
    """Composing answers, and declining to."""

    max_words: int = Field(150, ge=20, le=1000, description="longest answer")
    max_citations: int = Field(
        3,
        ge=1,
        le=10,
        description="most sections cited for one answer; one that a model wrote cites all that bear its sentences out",
    )
    grounding: Literal["closed-book", "retrieve"] = Field(
        "closed-book",
        description="a model that writes answers from memory, or reads the best passages in its prompt (retrieve)",
    )
    unsupported: Literal["passage", "abstain"] = Field(
        "passage",
        description="given where the manual does not bear out every sentence that a model wrote: the manual's own "
        "passage, or the answer that it does not say",
    )
    refuse_answerable: float = Field(
        0.04, ge=0, le=0.5, description="share of answerable questions that may be refused to keep inventions out"
    )


class EvaluateConfig(_Part):
    """Measuring what the model knows."""

    max_questions_per_split: int = Field(60, ge=10, description="a larger split is sampled (fixed seed)")
    baselines: bool = Field(True, description="measure the untrained model and BM25 beside the model")


class ServeConfig(_Part):
    """The chat page and the API."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    title: str = Field("", description="name shown on the chat page; empty: the bot folder's name")
    require_keys: bool = Field(False, description="the API answers only callers with a key (byheart keys add)")
    page_key: str = Field(
        "",
        description="with keys: a key with the scope page, given to the chat page and the widget, or $NAME of a "
        "variable that holds it; empty: the chat asks for one",
    )
    open_pages: bool = Field(True, description="with keys: chat page, widget script and manual pages need none")
    requests_per_minute: int = Field(0, ge=0, description="most requests of one address; 0: no limit")
    tokens_per_minute: int = Field(0, ge=0, description="most words and marks, in and out, of one address; 0: no limit")
    cors_origins: tuple[str, ...] = Field(
        (), description="sites whose pages may call the API, such as https://help.example.com; *: all"
    )
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"), description="addresses whose X-Forwarded-For is believed"
    )
    engine: Literal["in-process", "http", "vllm", "llama"] = Field(
        "in-process",
        description="where the model runs: in the server; at engine_url (http); or in a program that the server "
        "starts, vllm or llama-server (llama)",
    )
    engine_url: str = Field(
        "", examples=["http://127.0.0.1:11434/v1"], description="address of an OpenAI-compatible server (engine: http)"
    )
    engine_model: str = Field(
        "",
        description="http: the model's name there; vllm: a folder or hub id, empty: the bot's own adapter on its base; "
        "llama: a GGUF file, empty: model.gguf (paths start at this file)",
    )
    engine_key_env: str = Field(
        "", description="environment variable with the key for engine_url, where it asks for one"
    )
    engine_options: tuple[str, ...] = Field((), description="more arguments for the program that is started")
    engine_start_s: float = Field(600, gt=0, description="how long the program may take to load the model")
    workers: int = Field(1, ge=1, le=256, description="processes that serve, each with the model in its own memory")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="questions answered at once; empty: 4, or 64 where a model writes answers, which makes batches",
    )
    waiting: int = Field(64, ge=0, le=100_000, description="questions that may wait; more are sent away with 429")
    answer_timeout_s: float = Field(60, gt=0, description="an answer that takes longer is given up")
    database: str = Field(
        "",
        description="for keys and conversations; empty: serve.sqlite in the bot's folder; postgresql://user@host/name; "
        "or $NAME, an environment variable that holds such an address",
    )
    keep_conversations: bool = Field(True, description="keep questions and answers, for byheart feedback")
    retention_days: float = Field(90, ge=0, description="what is older is deleted; 0: never")


class ChatConfig(_Part):
    """How the chat looks, on its page and as a widget."""

    accent: str = Field(
        "#4f46e5",
        pattern=r"^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
        examples=["#4f46e5"],
        description="the brand's colour; shades are derived from it so that all text stays readable",
    )
    theme: Literal["auto", "light", "dark"] = Field("auto", description="auto: as the customer's system is set")
    logo: str = Field("", description="a square SVG, PNG, JPEG or WebP file (path starts at this file)")
    greeting: str = Field("", description="the line above the first questions; empty: How can we help?")
    language: str = Field(
        "", description="language of the buttons (BCP 47); empty: the page's around the widget, else the browser's"
    )
    suggestions: tuple[str, ...] = Field((), description="the first questions shown; empty: headings of the manual")
    contact: str = Field(
        "",
        pattern=r"^$|^[^@\s/]+@[^@\s/]+$|^https?://\S+$",
        examples=["help@example.com"],
        description="the way to a person where the bot is not sure: a mail address, or a link, in which {transcript} "
        "stands for the conversation",
    )


class Config(_Part):
    """A bot."""

    docs: tuple[str, ...] = Field(
        min_length=1, description="the manual: an address, or folders, zips and files (relative to this file)"
    )
    questions: tuple[str, ...] = Field((), description="JSONL files with real questions and their expected answers")
    docs_licence: str = Field(
        "", description="licence of the manual, told in exported model cards; empty: ask the manual's owner"
    )
    base_model: str = Field("starter", description="the model to fine-tune; starter: all-MiniLM-L6-v2, in the package")
    ingest: IngestConfig = IngestConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    train: TrainConfig = TrainConfig()
    answer: AnswerConfig = AnswerConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    chat: ChatConfig = ChatConfig()


class Project(BaseModel):
    """A bot's folder: its config's values, and where its run lies."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    config: Config

    @property
    def run_path(self) -> Path:
        """Where the stages write."""
        return self.folder / "run"
