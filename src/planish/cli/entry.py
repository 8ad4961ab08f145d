"""Where the command starts: arguments in, exit code out.

0  done                1  a PlanishError, told on stderr, or a comparison that failed
2  wrong usage         130  interrupted
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_JSON = "--json"
_NOT_A_REPORT = (".onnx", ".plan")  # what follows --json with such an end is the verb's argument


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code.

    Args:
        argv: Arguments; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from planish import __version__

        print(f"planish {__version__}")
        sys.exit(0)
    # Late, so that --version is quick and a broken terminal library cannot hide an error.
    from planish.base.errors import PlanishError
    from planish.cli.app import app

    try:
        app(spell_out_json(arguments), prog_name="planish")
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe left
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def spell_out_json(arguments: Sequence[str]) -> list[str]:
    """`--json` with nothing to write to means standard output: `--json=-`."""
    if arguments and arguments[0] == "cache":  # its arguments end in .json themselves
        return [f"{_JSON}=-" if word == _JSON else word for word in arguments]
    made = []
    for number, word in enumerate(arguments):
        after = arguments[number + 1] if number + 1 < len(arguments) else "-q"
        alone = (after.startswith("-") and after != "-") or after.endswith(_NOT_A_REPORT)
        made.append(f"{_JSON}=-" if word == _JSON and alone else word)
    return made
