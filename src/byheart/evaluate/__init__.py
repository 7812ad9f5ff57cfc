"""Evaluate: ask the model and its baselines, grade the answers, and write the report."""
