"""The verbs, one file each: a file here is a verb of the command line."""
