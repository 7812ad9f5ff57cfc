"""byheart teaches a small open language model a product's manual by heart, proves what it knows, and serves it."""

__version__ = "0.1.0"
