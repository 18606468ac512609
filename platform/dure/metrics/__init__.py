"""What a model's output is worth: Korean-aware ROUGE, classification figures, paired comparisons, and scoring of files."""
