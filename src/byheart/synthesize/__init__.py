"""From facts to question-answer pairs: teachers, perspectives, filters, splits."""
