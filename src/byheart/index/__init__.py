"""The manual as an index of passages: dense vectors, late interaction and BM25. What supports this text?"""
