"""The verbs of the command line: every file here is imported when the program starts."""
