"""Families of models: how each is loaded, adapted and run."""
