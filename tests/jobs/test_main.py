"""The table of commands: each has its two functions, and what lists them or names a mistake imports none of them."""

import importlib
import subprocess
import sys

import pytest

from jobs.__main__ import COMMANDS, main, parser_of
from tests.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_arguments_and_work(name, capsys):
    job = importlib.import_module(COMMANDS[name][0])
    assert callable(job.run)
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert (
        ended.value.code == 0
        and out.startswith(f"usage: python -m jobs {name} [-h]")
        and COMMANDS[name][1] in " ".join(out.split())
    )


def test_help_lists_them_all(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    for name, (_, text) in COMMANDS.items():
        assert name in out and text.split()[0] in out


def test_no_command_lists_them_with_a_line_each(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    first, *listed = shown.err.splitlines()
    assert shown.out == "" and "python -m jobs COMMAND" in first
    assert [line.split(maxsplit=1) for line in listed] == [[name, text] for name, (_, text) in COMMANDS.items()]


def test_no_such_command_is_a_mistake(capsys):
    assert main(["bild", "a.yaml"]) == 2
    expected = f"error: unknown command 'bild'; did you mean 'build'? the commands are {', '.join(COMMANDS)}\n"
    assert capsys.readouterr().err == expected


def test_an_option_in_the_place_of_a_command_is_a_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--set", "a=b"])
    assert ended.value.code == 2 and "usage: python -m jobs" in capsys.readouterr().err


def test_only_the_command_that_is_called_is_imported():
    modules = sorted({module for module, _ in COMMANDS.values()})
    code = f"import sys, jobs.__main__ as m; m.parser_of('prune'); print([n for n in {modules!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['jobs.build.prune']"


def test_arguments_of_one_command_are_not_those_of_another():
    assert parser_of("plan").parse_args(["plan", "a.yaml", "--set", "run.on=ray", "--json"]).set == ["run.on=ray"]
    with pytest.raises(SystemExit):
        parser_of("build").parse_args(["build", "a.yaml", "--json"])
