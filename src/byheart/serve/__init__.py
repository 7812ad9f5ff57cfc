"""Serving the bot: the chat page, the manual's pages, and the OpenAI-compatible API."""
