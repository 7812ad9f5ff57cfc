"""Fine-tuning on the pairs: an encoder that finds answers, or a model that writes them"""
