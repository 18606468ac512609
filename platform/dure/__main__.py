"""``python -m dure``: the command line where the program itself is not on the path."""

import sys

# Python puts the working folder before everything else, where a random.py of the user would be taken for Python's.
if not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from dure.cli import main

main()
