import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import grpc
import pytest

from local.stack import emulators
from publisher import progress as progress_module
from publisher.cli import main
from publisher.progress import progress
from publisher.publish import Publishing

ROOT = Path(__file__).parents[2]
TOPIC = "projects/sensor-stream-test/topics/some-topic"
SUMMARY = re.compile(r"Published (\d+) readings in \d+\.\d s \(\d+\.\d/s\), (\d+) failed\.")


def summary_of(out):
    published, failed = SUMMARY.fullmatch(out.splitlines()[-1]).groups()
    return int(published), int(failed)


class TestParser:
    @pytest.fixture(autouse=True)
    def _bare_environment(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        for name in ("PROJECT_ID", "TOPIC_NAME", "SUBSCRIPTION_NAME"):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ("", "publish | listen"),
            ("send", "invalid choice: 'send'"),
            ("publish", "write --topic projects/PROJECT/topics/NAME, or set PROJECT_ID and TOPIC_NAME"),
            ("publish --topic readings", "'readings' is not projects/PROJECT/topics/NAME"),
            ("publish --topic projects/p1/topics/x", "a name is 3 to 255 letters"),
            ("publish --topic projects/p1/subscriptions/abc", "is not projects/PROJECT/topics/NAME"),
            ("listen", "write --subscription projects/PROJECT/subscriptions/NAME, or set PROJECT_ID and SUBSCRIPTION"),
            (f"listen --subscription {TOPIC}", "is not projects/PROJECT/subscriptions/NAME"),
            (f"publish --topic {TOPIC} --rate 0", "--rate: '0' is not a number of readings per second above 0"),
            (f"publish --topic {TOPIC} --rate -1", "--rate: '-1' is not"),
            (f"publish --topic {TOPIC} --rate nan", "--rate: 'nan' is not"),
            (f"publish --topic {TOPIC} --rate inf", "--rate: 'inf' is not"),
            (f"publish --topic {TOPIC} --rate fast", "--rate: 'fast' is not"),
            (f"publish --topic {TOPIC} --duration 5x", "write seconds, or with a unit: 90s, 5m, 1h"),
            (f"publish --topic {TOPIC} --duration 0s", "'0s' is not a time above 0"),
            (f"publish --topic {TOPIC} --duration 999999999h", "is not a time above 0"),
            (f"publish --topic {TOPIC} --messages 0", "'0' is not a whole number above 0"),
            (f"publish --topic {TOPIC} --messages 1.5", "'1.5' is not a whole number above 0"),
            (f"publish --topic {TOPIC} --devices 0", "'0' is not a whole number above 0"),
            (f"publish --topic {TOPIC} --pack 0", "--pack: '0' is not a whole number of readings from 1 to 1000"),
            (f"publish --topic {TOPIC} --pack 1001", "--pack: '1001' is not a whole number of readings"),
            (f"publish --topic {TOPIC} --seed x", "--seed: invalid int value: 'x'"),
            (f"publish --topic {TOPIC} --sensors Temp,2nd", "'2nd' is not a sensor name; use letters, digits and _"),
            (f"publish --topic {TOPIC} --sensors Temp,", "'' is not a sensor name"),
            (f"publish --topic {TOPIC} --sensors Temp,CO2,temp", "is given twice (case does not count)"),
            (f"publish --topic {TOPIC} --sensors timestamp", "'timestamp' is a field of every message"),
            (f"publish --topic {TOPIC} --start yesterday", "such as 2026-11-22T13:00:00Z"),
            (f"publish --topic {TOPIC} --start 2020-01-01T00:00:00", "is not an RFC 3339 time with its offset"),
            (f"publish --topic {TOPIC} --start 9999-01-01T00:00:00Z", "is in the future"),
            (f"publish --topic {TOPIC} --start 1999-12-31T23:00:00Z", "is before the year 2000"),
            (f"publish --topic {TOPIC} --faults lost=0.1", "--faults: 'lost' is not a fault; choose from late, dupl"),
            (f"publish --topic {TOPIC} --faults late=2", "--faults: late=2 is not a probability from 0 to 1"),
            (f"publish --topic {TOPIC} --late-by 0", "--late-by: '0' is not a time above 0"),
            (f"publish --topic {TOPIC} --dropout-for 0", "--dropout-for: '0' is not a time above 0"),
            (f"publish --topic {TOPIC} --manifest no/such/folder", "cannot write to 'no/such/folder': No such file"),
            (f"publish --topic {TOPIC} --rat 5", "unrecognized arguments: --rat 5"),
        ],
    )
    def test_prints_one_line_and_exits_with_2_for_wrong_flags(self, arguments, expected, capsys):
        with pytest.raises(SystemExit) as exit_info:
            main(arguments.split())
        out, err = capsys.readouterr()
        assert exit_info.value.code == 2
        assert out == ""
        assert err.count("\n") == 1
        assert expected in err

    @pytest.mark.parametrize("value", ["projects\n/p", "x" * 5_000, "\x1b[2J\r" * 1_000, "\u2028" * 5_000])
    @pytest.mark.parametrize(
        ("flag", "fix"),
        [
            ("--topic", "starts with a letter"),
            ("--sensors", "use letters, digits and _, not starting with a digit"),
            ("--messages", "is not a whole number above 0"),
            ("--start", "such as 2026-11-22T13:00:00Z"),
            ("--seed", ""),
            ("--faults", "choose from late, duplicate, malformed, out_of_order, skew, dropout and burst"),
            ("--faults=late", "is not a probability from 0 to 1"),
            ("--faults=burst", "is not a whole number of readings from 1 to 1000000"),
            ("--unknown", ""),
        ],
    )
    def test_prints_one_short_line_with_flag_and_fix_for_a_long_or_unprintable_value(self, flag, fix, value, capsys):
        with pytest.raises(SystemExit):
            main(["publish", f"--topic={TOPIC}", f"{flag}={value}"])
        err = capsys.readouterr().err
        assert err.endswith(" (see python -m publisher publish --help)\n") or flag == "--unknown"
        assert err[:-1].isprintable()
        assert len(err) < 600
        assert flag.partition("=")[0] in err
        assert fix in err


class TestDefaults:
    def test_come_from_a_dotenv_file_unless_the_environment_sets_them(self, start, service, tmp_path):
        (tmp_path / ".env").write_text(
            f"PROJECT_ID=from-file\nTOPIC_NAME=from-file\nPUBSUB_EMULATOR_HOST={service.host}\n"
        )
        service.always = grpc.StatusCode.NOT_FOUND
        _, err = start("publish", "--messages", "1", TOPIC_NAME="from-environment").communicate(timeout=20)
        assert "projects/from-file/topics/from-environment was not found" in err

    def test_are_the_four_sensors_of_one_device(self, start, service):
        process = start(
            "publish", "--topic", TOPIC, "--messages", "8", "--rate", "100", PUBSUB_EMULATOR_HOST=service.host
        )
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, summary_of(out)) == (0, (8, 0))
        readings = [json.loads(message.data) for message in service.published]
        assert [list(reading) for reading in readings] == [
            ["Timestamp", "Device", sensor] for sensor in ("Airtight", "AtmP", "H2OC", "Temp") * 2
        ]
        assert {reading["Device"] for reading in readings} == {"device-1"}

    @pytest.mark.parametrize("content", [b"TOPIC_NAME=caf\xe9\n", b"TOPIC_NAME='a\0b'\n"])
    def test_unreadable_dotenv_file_is_one_line(self, content, start, tmp_path):
        (tmp_path / ".env").write_bytes(content)
        process = start("publish")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err.count("\n")) == (2, "", 1)
        assert ".env cannot be read" in err


class TestRepeatedRun:
    def test_publishes_equal_messages_with_the_printed_flags(self, start, server):
        publish = ("publish", "--topic", server.topic, "--rate", "200", "--messages", "150", "--devices", "3")
        faults = "late=0.05,duplicate=0.05,malformed=0.05,out_of_order=0.1,skew=0.05,dropout=0.01"
        publish += ("--faults", faults, "--late-by", "1", "--dropout-for", "0.2")
        flags, runs = (), []
        for _ in range(2):
            before = len(server.pull())
            process = start(*publish, *flags, PUBSUB_EMULATOR_HOST=server.server.host)
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            flags = tuple(out.splitlines()[0].removeprefix("The same readings again: ").split())
            assert [flag.partition("=")[0] for flag in flags] == ["--seed", "--start"]
            runs.append(
                sorted(
                    (message.data, message.attributes["timestamp"], message.attributes["reading_id"].partition("-")[2])
                    for message in server.pull()[before:]
                )
            )
        assert len(runs[0]) > 100
        assert runs[0] == runs[1]


class TestPublishEnd:
    @pytest.mark.parametrize(
        ("arguments", "count"),
        [
            ("--rate 10 --duration 3", 30),
            ("--rate 10 --duration 3s", 30),
            ("--rate 0.1 --duration 1m", 6),
            ("--rate 3 --duration 0.5", 2),
            ("--rate 10 --duration 1h --messages 7", 7),
            ("--rate 10 --duration 0.7s --messages 100", 7),
        ],
    )
    def test_is_at_the_duration_or_the_number_of_messages_whichever_comes_first(
        self, arguments, count, service, monkeypatch, capsys, tmp_path
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
        monkeypatch.setattr("publisher.cli._on_signals", lambda stop: None)
        assert main(["publish", "--topic", TOPIC, "--start", "2024-01-01T00:00:00Z", *arguments.split()]) == 0
        assert summary_of(capsys.readouterr().out) == (count, 0)
        assert len(service.published) == count


class TestBackfill:
    def test_timestamps_are_exactly_spaced_and_values_reproducible(self, start, topic):
        arguments = ("publish", "--topic", topic.path, "--start", "2026-03-01T09:59:59.5+01:00", "--rate", "20")
        arguments += ("--messages", "200", "--devices", "2", "--seed", "42")
        for _ in range(2):
            process = start(*arguments, PUBSUB_EMULATOR_HOST=topic.host)
            out, _ = process.communicate(timeout=20)
            assert summary_of(out) == (200, 0)
        messages = topic.pull(400)
        first = datetime(2026, 3, 1, 8, 59, 59, 500_000, tzinfo=UTC)
        expected = [
            (first + timedelta(milliseconds=50) * number).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            for number in range(200)
        ]
        assert sorted(message.attributes["timestamp"] for message in messages) == sorted(expected * 2)
        # The two runs sent the same 200 readings, under 400 different ids.
        assert len({message.data for message in messages}) == 200
        assert len({message.attributes["reading_id"] for message in messages}) == 400

    def test_goes_live_when_it_reaches_the_present(self, start, service):
        begin = datetime.now(UTC) - timedelta(seconds=30)
        process = start(
            *("publish", "--topic", TOPIC, "--start", begin.isoformat(), "--rate", "100", "--duration", "33"),
            PUBSUB_EMULATOR_HOST=service.host,
        )
        out, _ = process.communicate(timeout=30)
        # 30 s of readings at once; the last 3 s by the clock, less what starting Python took.
        assert summary_of(out) == (3300, 0)
        assert timedelta(seconds=32.5) < datetime.now(UTC) - begin < timedelta(seconds=45)


class TestPack:
    def test_summary_and_manifest_count_readings(self, start, topic, tmp_path):
        process = start(
            *("publish", "--topic", topic.path, "--start", "2026-03-01T10:00:00Z", "--rate", "20", "--messages", "45"),
            *("--devices", "2", "--pack", "20", "--manifest", "manifest"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, summary_of(out)) == (0, (45, 0))
        messages = topic.pull(3)
        assert sorted(message.attributes["timestamp"] for message in messages) == [
            "2026-03-01T10:00:00.000Z",
            "2026-03-01T10:00:01.000Z",
            "2026-03-01T10:00:02.000Z",
        ]
        readings = [json.dumps(reading) for message in messages for reading in json.loads(message.data)]
        recorded = [json.loads(line)["data"] for line in (tmp_path / "manifest").read_text().splitlines()]
        assert sorted(readings) == sorted(recorded)
        assert len(set(readings)) == 45


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_publishes_everything_that_was_accepted(self, number, start, topic):
        process = start("publish", "--topic", topic.path, "--rate", "2000", PUBSUB_EMULATOR_HOST=topic.host)
        before = topic.pull(500)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        published, failed = summary_of(out)
        messages = before + topic.pull(published - len(before))
        assert (process.returncode, failed, err) == (0, 0, "")
        assert len(messages) == published >= 500
        assert len({message.attributes["reading_id"] for message in messages}) == published

    def test_waits_for_outstanding_requests(self, start, service):
        service.hold = True
        process = start("publish", "--topic", TOPIC, "--rate", "100", PUBSUB_EMULATOR_HOST=service.host)
        assert service.called.wait(20)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        service.release.set()
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert summary_of(out) == (len(service.published), 0)

    def test_ends_in_nine_seconds_and_counts_unconfirmed_readings_when_pubsub_hangs(self, start, server, until):
        server.stall()
        process = start("publish", "--topic", server.topic, "--rate", "50000", PUBSUB_EMULATOR_HOST=server.server.host)
        process.stdout.readline()
        time.sleep(1)  # until it has sent all that may be outstanding
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert time.monotonic() - stopped < 9
        assert process.returncode == 1
        failed = re.search(r"Published 0 readings in .*, (\d+) failed\. Last error: (.*)", out.splitlines()[-1])
        assert int(failed[1]) > 0
        assert failed[2] == f"{server.topic}: {failed[1]} readings were not confirmed 7 s after the stop"

    @pytest.mark.parametrize("command", ["publish", "listen"])
    def test_ends_in_ten_seconds_when_the_service_is_frozen(self, command, start, tmp_path):
        with emulators.own_pubsub_server(log_dir=tmp_path) as frozen:
            topic = emulators.create_topic(frozen.host, "test-project", "readings")
            subscription = emulators.create_subscription(frozen.host, "test-project", "readings", "readings-sub")
            resource = ("--topic", topic) if command == "publish" else ("--subscription", subscription)
            process = start(command, *resource, PUBSUB_EMULATOR_HOST=frozen.host)
            (process.stdout if command == "publish" else process.stderr).readline()
            frozen.child.process.send_signal(signal.SIGSTOP)
            try:
                stopped = time.monotonic()
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=20)
                assert time.monotonic() - stopped < 10
            finally:
                frozen.child.process.send_signal(signal.SIGCONT)

    def test_prints_nothing_during_imports(self, start, tmp_path):
        (tmp_path / "dotenv.py").write_text("import pathlib, time; pathlib.Path('importing').touch(); time.sleep(20)")
        process = start("publish", "--topic", TOPIC)
        while not (tmp_path / "importing").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=5) == ("", "")
        assert process.returncode == -signal.SIGINT

    def test_ends_immediately_on_a_second_signal(self, start, service):
        service.hold = True
        process = start("publish", "--topic", TOPIC, "--rate", "100", PUBSUB_EMULATOR_HOST=service.host)
        assert service.called.wait(20)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 128 + signal.SIGINT
        assert process.stderr.read() == ""


class TestServiceErrors:
    def test_missing_topic_is_one_line_with_a_working_fix(self, start, pubsub_server, project):
        path = f"projects/{project}/topics/missing-{os.urandom(6).hex()}"
        publish = ("publish", "--topic", path, "--messages", "1")
        process = start(*publish, PUBSUB_EMULATOR_HOST=pubsub_server)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out.count("\n"), err.count("\n")) == (1, 1, 1)
        subprocess.run(err.partition("create it with: ")[2], shell=True, check=True, timeout=30)
        assert start(*publish, PUBSUB_EMULATOR_HOST=pubsub_server).wait(20) == 0

    def test_unreachable_emulator_is_one_line(self, start, monkeypatch):
        process = start("publish", "--topic", TOPIC, PUBSUB_EMULATOR_HOST="127.0.0.1:1")
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err.count("\n")) == (1, 1)
        assert "gcloud beta emulators pubsub start --host-port=127.0.0.1:1" in err

    def test_missing_credentials_are_one_line(self, start, tmp_path):
        environment = {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
        process = start("publish", "--topic", TOPIC, CLOUDSDK_CONFIG=str(tmp_path), **environment)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err.count("\n")) == (1, 1)
        assert "run: gcloud auth application-default login" in err


class TestProgress:
    def test_is_a_bar_on_a_terminal_and_the_summary_comes_last(self, service, tmp_path):
        master, slave = pty.openpty()
        environment = {"PUBSUB_EMULATOR_HOST": service.host, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(
            [sys.executable, "-m", "publisher", "publish", "--topic", TOPIC, "--rate", "50", "--duration", "1.5"],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=slave,
        )
        os.close(slave)
        output = b""
        try:
            while chunk := os.read(master, 65536):
                output += chunk
        except OSError:  # Linux says so at the end of a terminal's output
            pass
        os.close(master)
        assert process.wait(20) == 0
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
        assert re.search(r"Publishing .*\d+ published .*\d+\.\d/s \d:\d\d:\d\d", text)
        assert summary_of(text) == (75, 0)

    def test_is_a_plain_line_at_intervals_without_a_terminal(self, monkeypatch, until):
        monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.05)
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdout", output)
        run = Publishing(TOPIC)
        run.published = 20
        with progress(run, 60):
            until(lambda: output.getvalue().count("\n") >= 2)
        assert output.getvalue().splitlines()[:2] == [
            "20 of 60 readings published, 400.0/s, 0 s",
            "20 of 60 readings published, 0.0/s, 0 s",
        ]


class TestPackage:
    def test_imports_neither_beam_nor_the_pipeline(self):
        code = "import json, sys, publisher.cli; print(json.dumps(list(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert not {name.split(".")[0] for name in json.loads(done.stdout)} & {"apache_beam", "pipeline", "local"}

    def test_runs_with_nothing_but_what_its_container_installs(self, service, tmp_path):
        site = tmp_path / "site"
        requirements = (ROOT / "publisher/requirements.txt").read_text()
        for name in re.findall(r"^([A-Za-z0-9._-]+)==", requirements, re.MULTILINE):
            for file in metadata.files(name):
                if ".." not in file.parts:
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    (site / file).symlink_to(file.locate())
        shutil.copytree(ROOT / "publisher", site / "publisher")
        done = subprocess.run(
            # -S leaves the environment's own packages out.
            [sys.executable, "-S", "-m", "publisher", "publish", "--topic", TOPIC, "--messages", "3", "--rate", "100"],
            env={"PYTHONPATH": str(site), "PUBSUB_EMULATOR_HOST": service.host},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert summary_of(done.stdout) == (3, 0)
