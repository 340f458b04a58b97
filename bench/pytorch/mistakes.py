"""What becomes of a user's mistake: one sentence on the standard error and exit code 2."""
import argparse
import sys


class UserError(Exception):
    """One sentence: where, what is wrong, what was expected."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; --help lists the options")


def run(main):
    """Runs main(); a UserError ends the program. Anything else is a fault of this program and keeps its traceback."""
    try:
        main()
    except UserError as e:
        print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:        # whoever read the output has gone
        sys.exit(1)
