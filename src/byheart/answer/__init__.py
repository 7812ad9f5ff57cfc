"""From question to answer: search, decide whether the manual says it, compose, cite."""

from byheart.answer.bot import System, load, load_grounds, systems

__all__ = ["System", "load", "load_grounds", "systems"]
