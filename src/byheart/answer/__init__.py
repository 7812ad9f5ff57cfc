"""From question to answer: search, decide whether the manual says it, compose, cite."""
