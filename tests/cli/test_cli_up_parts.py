import argparse
import contextlib
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgehive.cli.console import Console
from edgehive.cli.mapper import run_mapper_command
from edgehive.cli.notify import Notifier, parse_notification
from edgehive.cli.up import check_free, choose_runtime
from edgehive.cli.up_configs import (
    cloudcore_config,
    dmi_directory,
    edgecore_config,
    make_private,
    remove_if_elsewhere,
    to_yaml,
    write_private,
)
from edgehive.cli.up_layout import Layout, Ports, PortUse, default_data_dir, node_names
from edgehive.cli.up_lock import (
    ProcessId,
    boot_id,
    end_leftovers,
    hold_lock,
    lock_holder,
    record_processes,
    recorded_processes,
    start_time,
)
from edgehive.cli.up_options import UpOptions, add_up_arguments, remember_options, resolve_options
from edgehive.cli.up_process import Child, describe_exit
from edgehive.cli.up_supervisor import Supervisor
from edgehive.cloud.config_load import parse_config as parse_cloud
from edgehive.edge.config_load import parse_config as parse_edge
from edgehive.kit.errors import UserError


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "data")
    made.make()
    return made


class TestLayout:
    def test_the_data_dir_follows_the_environment(self):
        assert default_data_dir({"HOME": "/h"}) == Path("/h/.local/state/edgehive")
        assert default_data_dir({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/edgehive")
        assert default_data_dir({"HOME": "/h", "EDGEHIVE_DATA_DIR": "/d"}) == Path("/d")

    def test_others_cannot_look_into_it(self, layout):
        assert layout.root.stat().st_mode & 0o077 == 0

    def test_a_place_that_cannot_be_used_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="file/data"):
            Layout(tmp_path / "file" / "data").make()

    @pytest.mark.parametrize(
        ("api", "base", "nodes"),
        [(0, 10000, 1), (70000, 10000, 1), (6443, 65500, 1), (10050, 10000, 1), (6443, 0, 1)],
    )
    def test_impossible_ports_are_refused(self, api, base, nodes):
        with pytest.raises(UserError):
            Ports(api, base).check(nodes)

    def test_no_port_is_used_twice(self):
        numbers = [use.number for use in Ports(6443, 10000).uses(20)]
        assert len(numbers) == len(set(numbers))

    def test_names_of_nodes(self):
        assert node_names("edge-1", 1) == ["edge-1"]
        assert node_names("shop", 3) == ["shop-1", "shop-2", "shop-3"]
        for bad in ("Edge", "-a", "a_b", "", "a" * 254):
            with pytest.raises(UserError):
                node_names(bad, 1)
        with pytest.raises(UserError):
            node_names("a", 0)


class TestConfigs:
    # Small ones: PyYAML reads a few KiB a second on a busy machine.
    text = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=20)
    scalars = st.one_of(text, st.integers(), st.booleans(), st.none(), st.lists(text, max_size=3))
    keys = st.from_regex(r"[a-zA-Z][a-zA-Z0-9]{0,8}x", fullmatch=True)

    @given(
        st.recursive(
            st.dictionaries(keys, scalars, min_size=1, max_size=3),
            lambda d: st.dictionaries(
                st.from_regex(r"[a-z]{2,5}x", fullmatch=True), d, min_size=1, max_size=3
            ),
            max_leaves=4,
        )
    )
    def test_what_is_printed_reads_back(self, data):
        assert yaml.safe_load(to_yaml(data)) == data

    def test_cloudcore_accepts_its_file_without_a_warning(self, layout):
        (layout.cloud / "kubeconfig").touch()
        loaded = parse_cloud(to_yaml(cloudcore_config(layout, Ports(6443, 20000))))
        assert loaded.warnings == ()
        assert loaded.config.modules.cloud_hub.websocket.port == 20000

    @pytest.mark.parametrize("endpoint", ["process:///x", "unix:///run/c.sock"])
    def test_edgecore_accepts_its_file_without_a_warning(self, layout, endpoint):
        data = edgecore_config(layout, Ports(6443, 20000), "edge-2", 1, runtime_endpoint=endpoint)
        loaded = parse_edge(to_yaml(data))
        assert loaded.warnings == ()
        assert loaded.config.modules.edged.hostname_override == "edge-2"
        assert loaded.config.modules.edged.tailored_kubelet_config.read_only_port == 20110

    def test_sockets_of_devices_have_a_usable_path_of_their_own(self, layout, tmp_path):
        deep = Layout(tmp_path / ("x" * 100))
        for where, node in ((layout, "edge-1"), (deep, "edge-1"), (deep, "edge-2"), (layout, "n" * 240)):
            data = edgecore_config(where, Ports(6443, 20000), node, 0, runtime_endpoint="process:///x")
            directory = data["modules"]["deviceTwin"]["dmiSockPath"]
            assert len(os.fsencode(directory)) <= 80
            assert directory == str(dmi_directory(where, node))
        assert dmi_directory(Layout(Path("/d")), "edge-1") == Path("/d/edge/edge-1/dmi")
        assert dmi_directory(deep, "edge-1") != dmi_directory(deep, "edge-2")

    def test_nothing_stays_outside_of_the_data_directory(self, layout, tmp_path):
        deep = Layout(tmp_path / ("x" * 100))
        for where in (layout, deep):
            directory = dmi_directory(where, "edge-1")
            make_private(directory)
            (directory / "mapper.sock").touch()
            remove_if_elsewhere(where, "edge-1")
            assert directory.exists()
            (directory / "mapper.sock").unlink()
            remove_if_elsewhere(where, "edge-1")
            assert directory.exists() is directory.is_relative_to(where.root)
            remove_if_elsewhere(where, "edge-1")

    def test_a_directory_that_others_can_write_is_not_used(self, tmp_path):
        made = tmp_path / "a" / "b"
        make_private(made)
        make_private(made)
        assert made.stat().st_mode & 0o777 == 0o700
        made.chmod(0o777)
        (tmp_path / "link").symlink_to(tmp_path)
        (tmp_path / "file").touch()
        for bad in (made, tmp_path / "link", tmp_path / "file"):
            with pytest.raises(UserError, match="cannot be used"):
                make_private(bad)

    def test_private_files_are_private_and_whole(self, tmp_path):
        path = tmp_path / "secret"
        path.write_text("old")
        path.chmod(0o644)
        write_private(path, "new")
        assert path.read_text() == "new"
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.iterdir()) == [path]


class TestOptions:
    def parse(self, layout, *argv):
        parser = argparse.ArgumentParser()
        add_up_arguments(parser)
        return resolve_options(layout, parser.parse_args(["--data-dir", str(layout.root), *argv]))

    def test_a_second_start_without_flags_is_like_the_first(self, layout):
        first = self.parse(layout, "--api-port", "7443", "--node-name", "shop", "--runtime", "process")
        remember_options(layout, first)
        assert self.parse(layout) == first
        assert self.parse(layout, "--nodes", "2").names == ["shop-1", "shop-2"]

    def test_one_node_and_many_share_the_first_name(self):
        assert UpOptions().names == ["edge-1"]
        assert UpOptions(nodes=2).names == ["edge-1", "edge-2"]

    def test_a_damaged_memory_means_the_defaults(self, layout):
        for text in ("", "[]", "{", '{"api_port": "x", "nodes": true, "unknown": 1}'):
            (layout.root / "up.json").write_text(text)
            assert self.parse(layout) == UpOptions()


class TestPorts:
    def test_a_taken_port_is_named_with_its_flag(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            with pytest.raises(UserError) as caught:
                check_free([PortUse(number, "the API server", "--api-port")], patience=0)
        assert str(number) in caught.value.message
        assert "--api-port" in caught.value.hint
        check_free([PortUse(number, "the API server", "--api-port")])


class TestRuntime:
    def test_a_socket_that_only_others_may_reach_is_a_reason_and_no_error(self, tmp_path):
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        tmp_path.chmod(0o711)
        seen, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                closed.chmod(0)
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setegid(65534)
                    os.seteuid(65534)
                options = UpOptions(cri_socket=str(closed / "containerd.sock"))
                with contextlib.suppress(PermissionError):
                    next(closed.iterdir())
                    os._exit(2)
                choose_runtime(options, Console(io.StringIO()), {})
            except UserError as exc:
                os.write(write, str(exc).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(seen, encoding="utf-8") as said:
            text = said.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        closed.chmod(0o700)
        assert f"{closed}/containerd.sock: Permission denied" in text
        assert "--runtime process" in text


class TestNewMapper:
    def test_it_is_for_the_edgecore_that_runs_here(self, layout, tmp_path, capsys):
        edge = layout.edge("edge-7")
        edge.mkdir(parents=True)
        twin = {"enable": True, "dmiSockPath": "/run/there"}
        (edge / "edgecore.yaml").write_text(yaml.safe_dump({"modules": {"deviceTwin": twin}}))
        new = ["new", "my-sensor", "--data-dir", str(layout.root), "--directory"]
        with hold_lock(layout):
            assert run_mapper_command([*new, str(tmp_path / "p")]) == 0
        assert "node edge-7: /run/there/dmi.sock" in capsys.readouterr().out
        config = yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())
        assert config["common"]["edgecore_sock"] == "/run/there/dmi.sock"
        assert config["grpc_server"]["socket_path"] == "/run/there/my-sensor.sock"
        _, device = yaml.safe_load_all((tmp_path / "p" / "devices.yaml").read_text())
        assert device["spec"]["nodeName"] == "edge-7"

    def test_it_is_for_a_machine_with_an_edgecore_otherwise(self, layout, tmp_path):
        new = ["new", "my-sensor", "--data-dir", str(layout.root), "--directory", str(tmp_path / "q")]
        assert run_mapper_command([*new, "--node", "n"]) == 0
        assert "edgecore_sock: /etc/kubeedge/dmi.sock" in (tmp_path / "q" / "config.yaml").read_text()
        assert "nodeName: n\n" in (tmp_path / "q" / "devices.yaml").read_text()


class TestLock:
    def test_two_cannot_run_in_one_place(self, layout):
        assert lock_holder(layout) == 0
        with hold_lock(layout):
            assert lock_holder(layout) == os.getpid()
            with pytest.raises(UserError, match=str(os.getpid())), hold_lock(layout):
                pass
        assert lock_holder(layout) == 0

    def test_leftovers_are_ended_and_a_reused_pid_is_not_touched(self, layout):
        sleeper = subprocess.Popen(["sleep", "60"])
        other = subprocess.Popen(["sleep", "60"])
        try:
            mine = ProcessId("mine", sleeper.pid, start_time(sleeper.pid), boot_id())
            reused = ProcessId("reused", other.pid, start_time(other.pid) - 1)
            of_another_boot = ProcessId("rebooted", other.pid, start_time(other.pid), "of-another-boot")
            record_processes(layout, [mine, reused, of_another_boot])
            assert recorded_processes(layout) == [mine]
            end_leftovers([mine, reused, of_another_boot])
            assert sleeper.wait(5) == -signal.SIGTERM
            assert other.poll() is None
        finally:
            for process in (sleeper, other):
                process.kill()
                process.wait()

    def test_one_that_ignores_the_polite_signal_is_killed(self, layout):
        stubborn = subprocess.Popen(
            ["sh", "-c", "trap '' TERM; echo; sleep 60 & wait"], stdout=subprocess.PIPE
        )
        assert stubborn.stdout.readline()
        end_leftovers([ProcessId("stubborn", stubborn.pid, start_time(stubborn.pid))], patience=0.2)
        assert stubborn.wait(5) == -signal.SIGKILL
        stubborn.stdout.close()

    @pytest.mark.parametrize("text", ["", "{", "[1]", '[{"pid": "x"}]', "{}", "[[]]", "null"])
    def test_a_damaged_record_is_no_record(self, layout, text):
        (layout.run / "processes.json").write_text(text)
        assert recorded_processes(layout) == []


class TestChild:
    def child(self, layout, script, **env) -> Child:
        return Child(
            "worker",
            command=[sys.executable, "-c", script],
            log=layout.log("worker"),
            environment=dict(os.environ) | env,
        )

    def wait(self, child: Child) -> int:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            code = child.reap()
            if code is not None:
                return code
            time.sleep(0.01)
        raise AssertionError("it did not end")

    def test_what_it_said_last_is_known_and_only_of_this_run(self, layout):
        layout.log("worker").write_text("an older run\n")
        child = self.child(layout, "import sys; sys.exit('what went wrong')")
        child.start()
        assert self.wait(child) == 1
        assert child.last_lines() == ["what went wrong"]
        assert child.due is not None

    def test_it_comes_back_later_and_later(self, layout):
        child = self.child(layout, "pass")
        delays = []
        for _ in range(3):
            child.start()
            self.wait(child)
            delays.append(child.due - time.monotonic())
        assert 0 < delays[0] < delays[1] < delays[2]
        child.due = time.monotonic()
        assert child.start_if_due()
        assert child.restarts == 1
        self.wait(child)

    def test_a_signal_stops_it_for_good(self, layout):
        child = self.child(layout, "import time; time.sleep(60)")
        child.start()
        child.signal(signal.SIGTERM)
        assert describe_exit(self.wait(child)) == "was ended by SIGTERM"

    def test_a_huge_log_is_cut_while_it_is_written(self, layout, monkeypatch):
        monkeypatch.setattr("edgehive.cli.up_process._LOG_LIMIT", 1000)
        child = self.child(layout, "print('x' * 2000)")
        child.start()
        self.wait(child)
        child.trim_log()
        assert layout.log("worker").stat().st_size == 0
        assert layout.log("worker").with_name("worker.log.1").stat().st_size == 2001


class TestSupervisor:
    def test_a_full_disk_and_a_child_that_cannot_be_started_end_nothing(self, layout, monkeypatch):
        out = io.StringIO()
        supervisor = Supervisor(layout=layout, console=Console(out))
        child = Child(
            "worker",
            command=[sys.executable, "-c", "import time; time.sleep(60)"],
            log=layout.log("worker"),
            environment=dict(os.environ),
        )

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with supervisor.listening():
            supervisor.start(child)
            try:
                first = child.pid
                assert [one.pid for one in recorded_processes(layout)] == [first]
                with monkeypatch.context() as full:
                    full.setattr("edgehive.cli.up_supervisor.record_processes", refuse)
                    full.setattr(Child, "start", refuse)
                    os.kill(first, signal.SIGKILL)
                    said = "worker cannot be started: No space left on device; trying again"
                    assert supervisor.wait_for(lambda: said in out.getvalue(), seconds=20)
                assert out.getvalue().count("cannot be written") == 1
                assert supervisor.wait_for(lambda: child.pid not in (0, first), seconds=20)
                assert supervisor.wait_for(
                    lambda: [one.pid for one in recorded_processes(layout)] == [child.pid], seconds=20
                )
            finally:
                supervisor.stop()


class TestNotify:
    def test_a_daemon_tells_its_manager(self, tmp_path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
            inbox.bind(str(tmp_path / "n"))
            Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")}).ready("serving\nwell")
            assert parse_notification(inbox.recv(4096)) == {
                "PID": str(os.getpid()),
                "READY": "1",
                "STATUS": "serving well",
            }

    def test_without_a_manager_or_with_a_dead_one_nothing_happens(self, tmp_path):
        Notifier({}).ready("x")
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("x")

    @given(st.binary(max_size=200))
    def test_any_datagram_is_read(self, data):
        parse_notification(data)


def test_state_files_are_json(layout):
    remember_options(layout, UpOptions())
    assert json.loads((layout.root / "up.json").read_text())["api_port"] == 6443
