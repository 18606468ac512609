"""Sample corpora that dure writes itself, so that a run needs no download."""
