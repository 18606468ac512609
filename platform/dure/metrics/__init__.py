"""What a model's output is worth: Korean-aware ROUGE, classification figures, and scoring of files."""
