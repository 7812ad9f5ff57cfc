"""Fine-tuning the encoder on the pairs."""
