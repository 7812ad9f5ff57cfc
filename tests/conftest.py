"""What holds for every test: small thread pools (cores are shared), and no call to a model hub."""

from __future__ import annotations

import os

# Before any test imports torch or transformers, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
