"""What a trial costs beside its training: dure against TorchTrainers nested in Tune as Ray documents it.

    python -m tests.benchmarks.trial_overhead [--trials 12]

Both run the same training function (a linear layer, a few steps, one report each) in 12 trials on the CPUs
of this machine, in one own Ray cluster each, one after the other: dure through the path of its trials
(in the trial's process, processes reused), the other as a Tune function that calls
``TorchTrainer(...).fit()`` with one worker and ``TuneReportCallback``. Starting the cluster is not counted.
The table goes to stderr and the JSON to stdout.
"""
