"""Vocabulary shared by everything: errors, ids, back-off, text that is safe to log. Pure; imports nothing of ours."""
