"""`edgehive completion SHELL`: a script made from the commands' own parsers."""

import argparse

from edgehive.cli.commands import COMMANDS

_BASH = """\
# edgehive completion for bash; load it with: source <(edgehive completion bash)
_edgehive() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
            *) words="" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [ "${{#COMPREPLY[@]}}" -eq 0 ]; then COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -F _edgehive edgehive
"""

_ZSH = """\
#compdef edgehive
# edgehive completion for zsh; load it with: source <(edgehive completion zsh)
_edgehive() {{
    local -a commands flags
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe 'command' commands
        return
    fi
    case "$words[2]" in
{cases}
    esac
    _describe 'flag' flags || _files
}}
compdef _edgehive edgehive
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](), end="")
    return 0


def _words(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Long flags and fixed choices of a command, each with its help."""
    found: list[tuple[str, str]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to list them
        text = (action.help or "").partition(" (")[0].replace("%%", "%")
        found += [(option, text) for option in action.option_strings if option.startswith("--")]
        if not action.option_strings and action.choices:
            found += [(str(choice), text) for choice in action.choices]
    return found


def _tables() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    return {
        command.name: (command.help, [] if command.passes_all else _words(command.parser("edgehive")))
        for command in COMMANDS
        if not command.hidden
    }


def _quote(text: str) -> str:
    return text.replace("'", "").replace(":", "").replace("`", "")


def _bash() -> str:
    tables = _tables()
    cases = "\n".join(
        f'            {name}) words="{" ".join(word for word, _ in words)}" ;;'
        for name, (_, words) in tables.items()
        if words
    )
    return _BASH.format(commands=" ".join(tables), cases=cases)


def _zsh() -> str:
    tables = _tables()
    commands = "\n".join(f"        '{name}:{_quote(text)}'" for name, (text, _) in tables.items())
    cases = "\n".join(
        f"        {name}) flags=({_zsh_list(words)}) ;;" for name, (_, words) in tables.items() if words
    )
    return _ZSH.format(commands=commands, cases=cases)


def _zsh_list(words: list[tuple[str, str]]) -> str:
    return " ".join(f"'{word}:{_quote(text)}'" for word, text in words)


def _fish() -> str:
    lines = ["# edgehive completion for fish; save it as ~/.config/fish/completions/edgehive.fish"]
    for name, (text, words) in _tables().items():
        lines.append(f"complete -c edgehive -n __fish_use_subcommand -f -a {name} -d '{_quote(text)}'")
        for word, help_text in words:
            kind = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            lines.append(
                f"complete -c edgehive -n '__fish_seen_subcommand_from {name}' {kind} -d '{_quote(help_text)}'"
            )
    return "\n".join(lines) + "\n"
