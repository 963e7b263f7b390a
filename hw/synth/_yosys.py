"""The child process that runs Yosys: ``python _yosys.py SCRIPT``.

A process of its own, so that neither Yosys's log nor its way of ending a program reaches the user's. A script is
Yosys's own, one command a line, with one addition: ``repeat COMMAND; COMMAND ...`` runs the commands again for as long
as the first one, a techmap, finds something to do.
"""

import sys

from pyosys import libyosys


def main(path: str) -> None:
    """Run the script at ``path``."""
    design = libyosys.Design()
    with open(path, encoding="utf-8") as script:
        lines = [line.strip() for line in script]
    for line in lines:
        word, _, rest = line.partition(" ")
        if word != "repeat":
            if line:
                libyosys.run_pass(line, design)
            continue
        first, *others = [command.strip() for command in rest.split(";")]
        while True:
            design.scratchpad_unset("techmap.did_something")
            libyosys.run_pass(first, design)
            if not design.scratchpad_get_bool("techmap.did_something"):
                break
            for command in others:
                libyosys.run_pass(command, design)


if __name__ == "__main__":
    main(sys.argv[1])
