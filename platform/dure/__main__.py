"""``python -m dure``: the command line where the program itself is not on the path."""

from dure.cli import main

main()
