"""Texts and embedded assets: corpora, their windows of tokens, and how assets are fetched and converted."""
