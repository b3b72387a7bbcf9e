"""`python -m initbench` and the command `initbench`: handle signals first, then load the command line.

Nothing is imported from the working directory, as under `python -P`.
"""

import os
import sys


def leave_working_directory_out() -> None:
    """Remove the working directory, which `python -m` puts first, from the path, also of child processes."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if sys.flags.safe_path:
        return
    try:
        working_directory = os.getcwd()  # noqa: PTH109  # pathlib would be imported from that directory
    except OSError:
        working_directory = ""
    if sys.path[:1] in ([working_directory], [""]):
        del sys.path[0]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    if root not in sys.path:  # a checkout that is not installed comes last, so that it shadows no package
        sys.path.append(root)


if __name__ == "__main__":
    leave_working_directory_out()

from initbench.interrupts import install_signal_handlers  # noqa: E402


def main() -> None:
    """Run the command line and exit."""
    os.environ["PYTHONSAFEPATH"] = "1"
    install_signal_handlers()
    from initbench.cli.main import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
