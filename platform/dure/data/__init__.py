"""Reading, checking, tokenising and batching tables, and the embedded sample corpora."""
