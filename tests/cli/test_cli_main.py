import errno
import json
import os
import subprocess
import sys

import pytest

from edgehive.cli import main as entry
from edgehive.cli.commands import COMMANDS
from edgehive.kit.errors import UserError


def run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgehive", *argv],
        capture_output=True,
        text=True,
        timeout=30,
        env=env,
        check=False,
    )


def test_without_a_command_the_commands_are_listed_and_it_is_a_usage_error(capsys):
    assert entry.main([]) == 2
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert (command.name in listed) == (not command.hidden)


def test_an_unknown_command_is_answered_with_the_nearest_one(capsys):
    assert entry.main(["stats"]) == 2
    assert "did you mean status?" in capsys.readouterr().err


def test_a_flag_that_does_not_exist_is_a_usage_error():
    done = run("up", "--no-such-flag")
    assert done.returncode == 2
    assert "--no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_in_both_forms(capsys):
    assert entry.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("edgehive ")
    assert entry.main(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"]


def test_a_persons_mistake_is_one_sentence_and_a_hint(capsys):
    def fail() -> int:
        raise UserError("the port is taken", hint="take another")

    assert entry._guarded("edgehive", fail) == 1
    assert capsys.readouterr().err == "edgehive: error: the port is taken\n  take another\n"


def test_a_bug_is_one_line_and_the_traceback_goes_to_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail() -> int:
        raise ZeroDivisionError("by zero")

    assert entry._guarded("edgehive", fail) == 1
    said = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: by zero" in said
    assert "Traceback" not in said
    (crash,) = tmp_path.iterdir()
    assert str(crash) in said
    assert "Traceback" in crash.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_the_flags_of_up(shell, capsys):
    assert entry.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert (command.name in script) == (not command.hidden)
    assert "ports-from" in script


def test_the_bash_completion_is_valid_and_completes():
    script = run("completion", "bash").stdout
    words = 'COMP_WORDS=(edgehive up --nod); COMP_CWORD=2; _edgehive; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script + words], capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout.split() == ["--node-name", "--nodes"]


def completed(script: str, *words: str) -> set[str]:
    line = " ".join(f"'{word}'" for word in words)
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _edgehive; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", script + ask], capture_output=True, text=True, timeout=10, check=True
    )
    return set(done.stdout.split("\n")) - {""}


def test_the_bash_completion_knows_values_subcommands_and_the_daemons(tmp_path):
    script = run("completion", "bash").stdout
    assert completed(script, "edgehive", "up", "--runtime", "") == {"auto", "cri", "process"}
    assert {"new", "run", "modbus"} <= completed(script, "edgehive", "mapper", "")
    assert completed(script, "edgehive", "cloudcore", "--work") == {"--workers"}
    (tmp_path / "with a space").mkdir()
    assert completed(script, "edgehive", "up", "--data-dir", f"{tmp_path}/w") == {f"{tmp_path}/with a space"}
    for shell in ("bash", "zsh", "fish"):
        assert "%(" not in run("completion", shell).stdout


def test_help_of_a_command_that_does_not_exist_is_an_error_and_that_of_parts_is_not(capsys):
    assert entry.main(["help", "stats"]) == 2
    assert "did you mean status?" in capsys.readouterr().err
    for argv in (["mapper", "run", "--help"], ["mapper", "run", "virtual", "--help"]):
        with pytest.raises(SystemExit) as ended:
            entry.main(argv)
        assert ended.value.code == 0
        assert "usage: edgehive mapper run" in capsys.readouterr().out


def test_kubectl_without_a_cluster_says_how_to_start_one(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert entry.main(["kubectl", f"--data-dir={tmp_path}/none", "get", "nodes"]) == 1
    said = capsys.readouterr().err
    assert f"nothing has been started in {tmp_path}/none" in said
    assert " up\n" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_machine_refuses_is_no_bug(number, capsys):
    def fail() -> int:
        raise ExceptionGroup("both", [OSError(number, os.strerror(number), "/some/file")])

    assert entry._guarded("edgehive", fail) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"edgehive: error: /some/file: {os.strerror(number)}\n  ")
    assert "bug" not in said


def test_a_refusal_without_a_place_stays_a_bug(capsys):
    def fail() -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    assert entry._guarded("edgehive", fail) == 1
    assert "this is a bug" in capsys.readouterr().err


def test_a_control_plane_whose_keys_cannot_be_written_says_so_in_one_line(tmp_path):
    (tmp_path / "pki").write_text("in the way")
    done = run("control-plane", "--data-dir", str(tmp_path), "--port", "0")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "certificates could not be made" in said
    assert "File exists" in said
    assert "Traceback" not in done.stderr


def test_without_kubeconfig_all_commands_ask_what_up_has_written(tmp_path):
    home = {"HOME": str(tmp_path), "PATH": os.defpath}
    for command in (["gettoken"], ["trace", "pod/x"], ["fleet", "--cloud", "127.0.0.1"]):
        assert f"{tmp_path}/.kube/config" in run(*command, env=home).stderr
    written = tmp_path / ".local" / "state" / "edgehive" / "kubeconfig"
    written.parent.mkdir(parents=True)
    written.write_text("kind: [")
    for command in (["gettoken"], ["trace", "pod/x"], ["fleet", "--cloud", "127.0.0.1"]):
        said = run(*command, env=home).stderr
        assert f"{written}: the kubeconfig is not YAML, line 1" in said
        assert "\\n" not in said
    both = home | {"KUBECONFIG": f"{tmp_path}/a:{written}"}
    assert str(written) in run("gettoken", env=both).stderr, "a list of files"


@pytest.mark.parametrize("program", ["cloudcore", "edgecore"])
class TestDaemons:
    def test_it_prints_configurations_that_it_accepts_itself(self, program, tmp_path):
        for flag in ("--minconfig", "--defaultconfig"):
            printed = run(program, flag)
            assert printed.returncode == 0
            assert "kind: " in printed.stdout
        assert run(program, "--version").stdout.startswith(program)

    def test_a_missing_file_is_named(self, program, tmp_path):
        done = run(program, "--config", str(tmp_path / "none.yaml"))
        assert done.returncode == 1
        assert str(tmp_path / "none.yaml") in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_wrong_type_is_named_by_its_key(self, program, tmp_path):
        module = {"cloudcore": "cloudHub", "edgecore": "edgeHub"}[program]
        key = {"cloudcore": "keepaliveInterval", "edgecore": "heartbeat"}[program]
        path = tmp_path / "config.yaml"
        path.write_text(f"modules:\n  {module}:\n    {key}: often\n")
        done = run(program, "--config", str(path))
        assert done.returncode == 1
        assert f"modules.{module}.{key}" in done.stderr
        assert "Traceback" not in done.stderr

    def test_logging_flags_of_the_original_are_taken_and_others_are_not(self, program, tmp_path):
        config = str(tmp_path / "none.yaml")
        flags = ["--logtostderr=true", "--log_dir", "/tmp", "--vmodule=a=1", "-v=4", "--v", "2"]
        assert run(program, *flags, "--config", config).returncode == 1
        assert run(program, "--loglevel=3", "--config", config).returncode == 2
