"""Model families: one per file, each reached by its dotted name and importing only ``dure``."""
