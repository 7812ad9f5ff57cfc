"""THE client for a language model behind any OpenAI-compatible address (OpenAI, vLLM, Ollama, llama.cpp).

base.py     what is asked and answered, and the fake that tests use
cache.py    answered calls on disk
faults.py   what went wrong, and the way out
client.py   the client: concurrency, budget, back-off, formats
streaming.py  text while a customer waits: streamed, at most one more try
"""

from byheart.llm.base import Answer, Call, ChatModel, Failed, FakeChatModel, Message, read_answer
from byheart.llm.cache import CallCache
from byheart.llm.client import OpenAIChatModel, Timing, is_local
from byheart.llm.streaming import StreamedModel

__all__ = [
    "Answer",
    "Call",
    "CallCache",
    "ChatModel",
    "Failed",
    "FakeChatModel",
    "Message",
    "OpenAIChatModel",
    "StreamedModel",
    "Timing",
    "is_local",
    "read_answer",
]
