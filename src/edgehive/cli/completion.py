"""`edgehive completion SHELL`: a script made from the commands' own parsers."""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from edgehive.cli.commands import COMMANDS

_BASH = """\
# edgehive completion for bash; load it with: source <(edgehive completion bash)
_edgehive() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
            *)
                case "${{COMP_WORDS[1]}}" in
{cases}
                esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ "${{#COMPREPLY[@]}}" -eq 0 ]; then
        compopt -o filenames 2>/dev/null
        local IFS=$'\\n'
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -F _edgehive edgehive
"""

_ZSH = """\
#compdef edgehive
# edgehive completion for zsh: a file named _edgehive in a directory of $fpath, or: source <(edgehive completion zsh)
_edgehive() {{
    local -a commands flags values
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe 'command' commands
        return
    fi
    case "$words[2] $words[CURRENT-1]" in
{values}
        *)
            case "$words[2]" in
{cases}
            esac ;;
    esac
    if (( $#values )); then
        compadd -a values
    else
        _describe 'flag' flags || _files
    fi
}}
if [ "$funcstack[1]" = "_edgehive" ]; then
    _edgehive "$@"
else
    (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
    compdef _edgehive edgehive
fi
"""

_NO_VALUE = "-"


class _Word(NamedTuple):
    text: str
    help: str
    values: str
    """What may follow a flag: a list of words, a file for an empty string, nothing for ``-``."""

    @property
    def flag(self) -> bool:
        return self.text.startswith("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](), end="")
    return 0


def _words(parser: argparse.ArgumentParser) -> Iterator[_Word]:
    """Long flags, fixed choices and subcommands of a command, each with its help."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to list them
        if action.help == argparse.SUPPRESS:
            continue
        text = ((action.help or "") % {"default": action.default, "prog": parser.prog}).partition(" (")[0]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from (_Word(str(name), "", _NO_VALUE) for name in action.choices)
        elif not action.option_strings:
            yield from (_Word(str(choice), "", _NO_VALUE) for choice in action.choices or ())
        else:
            values = _NO_VALUE if action.nargs == 0 else " ".join(map(str, action.choices or ()))
            long = [option for option in action.option_strings if len(option) > 3 and option[1] == "-"]
            yield from (_Word(option, text, values) for option in long)


def _tables() -> dict[str, tuple[str, list[_Word]]]:
    return {
        command.name: (
            command.help,
            list({word.text: word for one in command.parsers("edgehive") for word in _words(one)}.values()),
        )
        for command in COMMANDS
        if not command.hidden
    }


def _quote(text: str) -> str:
    """For single quotes, in a list whose items end at a colon."""
    return text.replace("'", "\u2019").replace(":", ";").replace("`", "")


def _bash() -> str:
    tables = _tables()
    cases = [
        f'                    {name}) words="{" ".join(word.text for word in words)}" ;;'
        for name, (_, words) in tables.items()
        if words
    ]
    values = [
        f'            "{name} {word.text}") words="{word.values}" ;;'
        for name, (_, words) in tables.items()
        for word in words
        if word.flag and word.values != _NO_VALUE
    ]
    return _BASH.format(commands=" ".join(tables), cases="\n".join(cases), values="\n".join(values))


def _zsh() -> str:
    tables = _tables()
    commands = [f"        '{name}:{_quote(text)}'" for name, (text, _) in tables.items()]
    cases = [
        f"                {name}) flags=({' '.join(_zsh_item(word) for word in words)}) ;;"
        for name, (_, words) in tables.items()
        if words
    ]
    values = [
        f"        '{name} {word.text}') "
        + (f"values=({word.values})" if word.values else "_files; return")
        + " ;;"
        for name, (_, words) in tables.items()
        for word in words
        if word.flag and word.values != _NO_VALUE
    ]
    return _ZSH.format(commands="\n".join(commands), cases="\n".join(cases), values="\n".join(values))


def _zsh_item(word: _Word) -> str:
    return f"'{word.text}:{_quote(word.help)}'" if word.help else f"'{word.text}'"


def _fish() -> str:
    lines = ["# edgehive completion for fish; save it as ~/.config/fish/completions/edgehive.fish"]
    for name, (text, words) in _tables().items():
        lines.append(f"complete -c edgehive -n __fish_use_subcommand -f -a {name} -d '{_quote(text)}'")
        for word in words:
            if not word.flag:
                kind = f"-f -a {word.text}"
            elif word.values == _NO_VALUE:
                kind = f"-l {word.text[2:]}"
            else:
                kind = f"-l {word.text[2:]} " + (f"-x -a '{word.values}'" if word.values else "-r")
            shown = f" -d '{_quote(word.help)}'" if word.help else ""
            lines.append(f"complete -c edgehive -n '__fish_seen_subcommand_from {name}' {kind}{shown}")
    return "\n".join(lines) + "\n"
