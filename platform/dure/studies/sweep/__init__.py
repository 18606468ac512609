"""The sweep: which settings an experiment does best with."""
