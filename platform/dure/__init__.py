"""dure: distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models."""
