"""What a model takes in memory, from first principles and without torch: for inference and for every way to train"""
