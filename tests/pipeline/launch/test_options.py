"""The command line: defaults, valid and invalid values, Beam's flags, and the two entry points."""

import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline.launch import options
from pipeline.launch.job import Job
from pipeline.launch.parameters import PARAMETERS
from pipeline.launch.tables import TableId
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.hopping import PanedIntervals

TOPIC = "--input_topic=projects/test-project/topics/readings"
TABLE = "--output_table=my-project:d.t"
ROOT = Path(__file__).parents[3]


def parse(*flags: str) -> Job:
    return options.parse([TOPIC, *flags])[0]


class TestDefaults:
    def test_are_those_of_the_contract(self):
        job = parse()
        assert (job.sensors, job.group_by_device, job.window) == (("Airtight", "AtmP", "H2OC", "Temp"), False, "fixed")
        assert (job.interval, job.session_gap, job.grace_period, job.allowed_lateness) == (15, 60, 5, 3600)
        assert (job.on_late, job.max_future_skew, job.keep_attributes) == ("dead_letter", 600, False)
        assert (job.input_subscription, job.timestamp_attribute, job.id_attribute) == (None, None, None)
        assert (job.output_table, job.dead_letter_table) == (None, None)
        assert (job.silence_after, job.silence_topic, job.silence_table, job.fill_gaps) == (None, None, None, False)
        assert (job.write_method, job.rows_since) == ("streaming_inserts", None)

    def test_apply_to_empty_text(self):
        assert parse("--interval=", "--output_table=", "--timestamp_attribute=") == parse()

    def test_name_dead_letter_table_after_output_table(self):
        assert parse("--output_table=my-project.d.t").dead_letter_table == TableId("my-project", "d", "t_dead_letters")

    def test_name_silence_table_after_output_table_with_silence_after(self):
        assert parse(TABLE).silence_table is None
        assert parse(TABLE, "--silence_after=5m").silence_table == TableId("my-project", "d", "t_silences")

    def test_use_local_runner_unless_another_is_named(self):
        for flags, runner in [([], "BundleBasedDirectRunner"), (["--runner=DataflowRunner"], "DataflowRunner")]:
            standard = options.parse([TOPIC, TABLE, *flags])[1].view_as(StandardOptions)
            assert (standard.runner, standard.streaming) == (runner, True)


class TestStreamingMode:
    @pytest.mark.parametrize(
        "flags",
        [
            ["--dataflow_service_options=streaming_mode_at_least_once"],
            ["--dataflow_service_option=streaming_mode_at_least_once"],
            ["--dataflow_service_options", "streaming_mode_at_least_once"],
            ["--dataflow_service_options=enable_prime,streaming_mode_at_least_once"],
            ["--dataflow_service_options=enable_prime", "--dataflow_service_options=streaming_mode_at_least_once=true"],
            ["--experiments=streaming_mode_at_least_once"],
            ["--experiment=enable_streaming_engine,streaming_mode_at_least_once"],
        ],
    )
    def test_refuses_at_least_once_in_every_spelling(self, flags):
        with pytest.raises(options.UsageError, match=r"^streaming_mode_at_least_once.* would count twice"):
            parse(*flags)

    def test_passes_on_exactly_once_and_other_options(self):
        flags = ["--dataflow_service_options=streaming_mode_exactly_once,enable_prime", "--experiments=use_runner_v2"]
        google = options.parse([TOPIC, *flags])[1].view_as(GoogleCloudOptions)
        assert google.dataflow_service_options == ["streaming_mode_exactly_once", "enable_prime"]


class TestWorkerImage:
    """Workers run the image of the template unless another is named."""

    @pytest.mark.parametrize(
        ("in_image", "flags", "expected"),
        [
            ("ours:1", [], "ours:1"),
            ("ours:1", ["--sdk_container_image="], "ours:1"),
            ("ours:1", ["--sdk_container_image=theirs:2"], "theirs:2"),
            ("", [], None),
            (None, [], None),
        ],
    )
    def test_is_that_of_the_template_by_default(self, monkeypatch, in_image, flags, expected):
        monkeypatch.delenv(options.IMAGE_VARIABLE, raising=False)
        if in_image is not None:
            monkeypatch.setenv(options.IMAGE_VARIABLE, in_image)
        workers = options.parse([TOPIC, *flags])[1].view_as(WorkerOptions)
        assert (workers.sdk_container_image or None) == expected


class TestValidValues:
    def test_are_read(self):
        job = parse(
            "--interval=5m", "--session_gap=1h", "--grace_period=0s", "--sensors=b, a_1", "--group_by_device=true"
        )
        assert (job.interval, job.session_gap, job.grace_period) == (300, 3600, 0)
        job = parse("--sensors=b, a_1", "--group_by_device=true")
        assert (job.sensors, job.group_by_device) == (("b", "a_1"), True)

    def test_keep_the_order_of_statistics(self):
        assert parse().statistics.names == ("mean",)
        assert parse("--statistics=max, mean ,first").statistics.names == ("max", "mean", "first")

    def test_select_fixed_intervals_for_hopping_windows_without_overlap(self):
        assert parse("--window=hopping", "--interval=15s", "--hop=15s").intervals == parse().intervals
        assert parse("--window=hopping", "--interval=15s", "--hop=5s").intervals == PanedIntervals(
            15, 5, 3600, False, hop=5, pane=5
        )

    @pytest.mark.parametrize(
        ("interval", "pane"), [("16m", 480), ("1h", 900), ("2h", 900), ("24h", 900), ("7220s", 722), ("168h", 900)]
    )
    def test_select_panes_for_intervals_of_more_than_15_minutes(self, interval, pane):
        intervals = parse(f"--interval={interval}").intervals
        assert intervals == PanedIntervals(intervals.interval, 5, 3600, False, hop=intervals.interval, pane=pane)
        assert intervals.interval % pane == 0

    # 3,607 is a prime number, and 901 is 17 times 53.
    @pytest.mark.parametrize("interval", ["15s", "15m", "901s", "3607s"])
    def test_select_no_panes_for_shorter_or_indivisible_intervals(self, interval):
        intervals = parse(f"--interval={interval}").intervals
        assert intervals == FixedIntervals(intervals.interval, 5, 3600, False)

    @pytest.mark.parametrize(("hop", "pane"), [("15m", 900), ("20m", 600), ("2h", 900)])
    def test_select_shorter_panes_for_a_hop_of_more_than_15_minutes(self, hop, pane):
        intervals = parse("--window=hopping", "--interval=24h", f"--hop={hop}").intervals
        assert getattr(intervals, "panes", intervals).interval == pane

    @pytest.mark.parametrize(
        "text", ["1970-01-01T00:01:00Z", "1970-01-01T01:01:00+01:00", "1969-12-31T23:01:00.000000-01:00"]
    )
    def test_of_a_time_are_microseconds_since_the_epoch(self, text):
        assert parse(f"--rows_since={text}").rows_since == 60_000_000

    @pytest.mark.parametrize("text", ["my-project:d.t", "my-project.d.t"])
    def test_of_a_table_may_separate_the_project_by_colon_or_dot(self, text):
        assert parse(f"--output_table={text}").output_table == TableId("my-project", "d", "t")

    def test_of_a_table_may_have_a_domain_scoped_project(self):
        assert parse("--output_table=example.com:my-proj:d.t").output_table == TableId("example.com:my-proj", "d", "t")


class TestRules:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("--window=hopping --hop=4s", "--interval=15s is not a multiple of it"),
            ("--window=hopping --hop=30s", "--interval=15s is not a multiple of it"),
            (
                "--window=hopping --hop=1s --interval=1h",
                "each reading would be in 3,600 rows, and at most 1,440 are allowed",
            ),
            ("--sensors=Temp,Temp_max --statistics=mean,max", "Temp_max would be a column of Temp and of Temp_max"),
            ("--sensors=temp_MAX,Temp --statistics=mean,max", "Temp_max would be a column of temp_MAX and of Temp"),
            (f"--sensors={'a' * 299} --statistics=sum", "longer than 300 characters; rename the sensor"),
            ("--statistics=stddev --on_late=revise", "retracts the earlier row; add count"),
        ],
    )
    def test_report_the_conflict_on_one_line(self, flags, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(*flags.split())
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_accept_columns_that_only_look_alike(self):
        job = parse("--sensors=Temp,Temp_max", "--statistics=max")
        assert [name for sensor in job.sensors for name, _ in job.statistics.columns(sensor)] == [
            "Temp_max",
            "Temp_max_max",
        ]


class TestInvalidFlags:
    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("--interval=0s", "a whole number above 0"),
            ("--interval=15", "15s, 5m or 1h"),
            ("--interval='15s'", "15s, 5m or 1h"),
            ("--interval=-5s", "15s, 5m or 1h"),
            ("--interval=1.5m", "15s, 5m or 1h"),
            ("--interval=999999999h", "at most 8784h, a year"),
            ("--session_gap=0s", "a whole number above 0"),
            ("--group_by_device=True", "expected true or false"),
            ("--group_by_device=yes", "expected true or false"),
            ("--keep_attributes=1", "expected true or false"),
            ("--window=sliding", "expected one of fixed, hopping, session"),
            ("--window=hopping", "requires --hop"),
            ("--hop=5s", "add --window=hopping"),
            ("--statistics=median", "from mean, count, min, max, sum, stddev, first, last"),
            ("--statistics=mean,max,mean", "name each statistic once"),
            ("--statistics=mean;max", "comma-separated names"),
            ("--on_late=drop", "expected one of dead_letter, revise"),
            ("--sensors=Temp,", "comma-separated column names"),
            ("--sensors=Temp;AtmP", "comma-separated column names"),
            ("--sensors=2Temp", "comma-separated column names"),
            ("--sensors=Température", "letters A to Z"),
            ("--sensors=" + "a" * 301, "at most 300 characters"),
            ("--sensors=Temp,temp", "name each sensor once"),
            ("--sensors=Timestamp", "is already the name"),
            ("--sensors=_PARTITIONTIME", "rename the sensor"),
            ("--sensors=_table", "rename the sensor"),  # for _table_max
            ("--output_table=readings", "expected project:dataset.table"),
            ("--output_table=my-project:readings", "expected project:dataset.table"),
            ("--output_table=my-project/d/t", "expected project:dataset.table"),
            ("--output_table=my-project:d.t.u", "expected project:dataset.table"),
            ("--output_table=my-project:" + "d" * 1025 + ".t", "expected project:dataset.table"),
            ("--input_subscription=projects/test-project/topics/t-1", "expected projects/PROJECT/subscriptions/NAME"),
            ("--input_subscription=projects/test-project/subscriptions/sub", "both are given"),
            ("--input_subscription=projects/test-project/subscriptions/s", "a name of 3 to 255"),
            ("--dead_letter_topic=projects/short/topics/letters", "a project id of 6 to 63 characters"),
            ("--silence_after=0s", "expected a whole number above 0"),
            ("--silence_topic=projects/test-project/topics/silences", "--silence_topic requires --silence_after"),
            ("--timestamp_attribute=" + "a" * 257, "at most 256 bytes"),
            ("--id_attribute='reading_id'", "without spaces or quotes"),
            ("--intervall=15s", "did you mean --interval?"),
            ("--interva=15s", "did you mean --interval?"),
            ("--keep=true", "did you mean --keep_attributes?"),
            ("--input=x", "--input=x: no such parameter; did you mean --input_subscription?"),
            ("--input-topic=x", "did you mean --input_topic?"),
            ("--Sensors=a", "did you mean --sensors?"),
            ("-window=fixed", "did you mean --window?"),
            ("sensors=a", "did you mean --sensors?"),
            ("--window", "expected one argument"),
        ],
    )
    def test_are_reported_with_flag_and_fix_on_one_line(self, flag, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(flag)
        message = str(caught.value)
        assert expected in message
        assert "\n" not in message

    def test_include_a_missing_output_table_on_dataflow(self):
        with pytest.raises(options.UsageError, match="--output_table is missing; only a local run works without it"):
            parse("--runner=DataflowRunner")

    @pytest.mark.parametrize(
        "runner",
        [
            "dataflow",
            "DATAFLOW",
            "dataflowrunner",
            "apache_beam.runners.DataflowRunner",
            "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner",
        ],
    )
    def test_include_a_missing_output_table_for_every_spelling_of_dataflow(self, runner):
        with pytest.raises(options.UsageError, match="--output_table is missing"):
            parse(f"--runner={runner}")
        beam_options = options.parse([TOPIC, TABLE, "--runner", runner])[1]
        assert beam_options.view_as(StandardOptions).runner == "DataflowRunner"
        assert options.runs_on_dataflow(beam_options)

    def test_include_a_runner_unknown_to_beam_unless_it_has_a_package(self):
        with pytest.raises(options.UsageError, match="--runner=datafow: expected one of DataflowRunner, "):
            parse("--runner=datafow")
        beam_options = options.parse([TOPIC, "--runner=ours.DataflowRunner"])[1]
        assert beam_options.view_as(StandardOptions).runner == "ours.DataflowRunner"

    def test_do_not_include_a_blank_runner(self):
        assert options.parse([TOPIC, "--runner="])[1].view_as(StandardOptions).runner == options.LOCAL_RUNNER

    def test_include_a_missing_input(self):
        with pytest.raises(options.UsageError, match=r"exactly one of .* neither is given"):
            options.parse([])

    def test_include_a_dead_letter_topic_that_is_the_input(self):
        with pytest.raises(options.UsageError, match="the job would read its own dead letters in an endless loop"):
            parse(TOPIC.replace("input", "dead_letter"))

    def test_include_a_silence_topic_that_is_the_input(self):
        with pytest.raises(options.UsageError, match="the job would read silences as if they were readings"):
            parse(TOPIC.replace("input", "silence"), "--silence_after=5m")

    def test_include_fill_gaps_for_sessions(self):
        with pytest.raises(options.UsageError, match="sessions have no intervals to fill; use --window=fixed"):
            parse("--fill_gaps=true", "--window=session")

    def test_do_not_include_fill_gaps_for_hopping_windows(self):
        assert parse("--fill_gaps=true", "--window=hopping", "--interval=1m", "--hop=15s").fill_gaps

    @pytest.mark.parametrize("flags", [("--sensors=Temp,FILLED",), ("--sensors=Temp,filled", "--statistics=mean,max")])
    def test_include_a_column_named_filled_with_fill_gaps(self, flags):
        assert parse(*flags)
        with pytest.raises(options.UsageError, match="the view adds a column Filled; rename the sensor"):
            parse("--fill_gaps=true", *flags)

    def test_do_not_include_a_sensor_named_filled_without_such_a_column(self):
        assert parse("--fill_gaps=true", "--sensors=Filled", "--statistics=max").fill_gaps


class TestEqualTables:
    @pytest.mark.parametrize(
        ("flags", "name", "other"),
        [
            ("--dead_letter_table=my-project.d.t", "--output_table", "--dead_letter_table"),
            (
                "--dead_letter_table=my-project:d.t_silences --silence_after=5m",
                "--dead_letter_table",
                "the table of silences",
            ),
            (
                "--dead_letter_table=my-project.d.t_latest --on_late=revise",
                "--dead_letter_table",
                "the view of the newest revisions",
            ),
            (
                "--dead_letter_table=my-project:d.t_filled --fill_gaps=true",
                "--dead_letter_table",
                "the view without gaps",
            ),
        ],
    )
    def test_are_refused_in_either_spelling(self, flags, name, other):
        with pytest.raises(options.UsageError, match=f"is both {name} and {other}; name another table"):
            parse("--output_table=my-project:d.t", *flags.split())

    @pytest.mark.parametrize(
        "flag",
        [
            "--dead_letter_table=my-project:d.T",  # tables differ by case
            "--dead_letter_table=my-project:d.t_silences",
            "--dead_letter_table=my-project:d.t_latest",
            "--dead_letter_table=my-project:e.t",
        ],
    )
    def test_are_accepted_if_the_job_uses_only_one(self, flag):
        assert parse("--output_table=my-project:d.t", flag).dead_letter_table

    def test_are_refused_if_too_long_with_their_suffix(self):
        table = "t" * 1015
        assert parse(f"--output_table=my-project:d.{table}", "--dead_letter_table=my-project:d.x")
        with pytest.raises(options.UsageError, match=r"--dead_letter_table would be .* at most 1,024 characters"):
            parse(f"--output_table=my-project:d.{table}")


class TestBeamFlags:
    @pytest.mark.parametrize(
        "flags",
        [
            ("--labels", "window=short"),
            ("--labels=windows=short",),
            ("--experiments=interval=1",),
            ("--unknown_to_beam", "window=short"),
            ("--unknown_to_beam=window=short",),
        ],
    )
    def test_may_have_values_like_misspelt_parameters(self, flags):
        assert parse(*flags) == parse()

    def test_share_no_name_with_a_parameter(self):
        # Beam would refuse to add a parameter of the same name.
        assert PARAMETERS.keys() <= PipelineOptions([]).get_all_options().keys()

    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("--num_workers=abc", "--num_workers: invalid int value: 'abc'"),
            ("--num_workers", "--num_workers: expected one argument"),
            ("--flexrs_goal=fast", "--flexrs_goal: invalid choice: 'fast' (choose from"),
            ("--streaming=maybe", "--streaming: ignored explicit argument 'maybe'"),
            ("--gcs_custom_audit_entries=x", "a flag of Apache Beam has a wrong value: Expecting value"),
            ("--max_num_workers=" + "9x\n" * 5_000, "--max_num_workers: invalid int value: '9x\\n9x"),
        ],
    )
    def test_with_a_wrong_value_are_reported_on_one_short_line(self, flag, expected, capfd):
        with pytest.raises(options.UsageError) as caught:
            parse(flag)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert capfd.readouterr() == ("", "")

    def test_of_the_launcher_are_accepted(self):
        _, beam_options = options.parse(
            [TOPIC, TABLE, "--runner=DataflowRunner", "--project=test-project", "--region=europe-west1"]
        )
        assert beam_options.get_all_options()["region"] == "europe-west1"


class TestValuesInMessages:
    # Every parameter but those that take almost any text.
    NAMES = sorted(PARAMETERS.keys() - {"timestamp_attribute", "id_attribute"})

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("text", ["x" * 5_000, "\x1b[31m\r\n\u202e" * 1_000, "\udc80"])
    def test_are_escaped_and_shortened(self, name, text):
        with pytest.raises(options.UsageError) as caught:
            parse(f"--{name}={text}")
        message = str(caught.value)
        assert f"--{name}=" in message
        assert message.isprintable()
        assert len(message) < 500

    def test_are_escaped_and_shortened_for_misspelt_parameters(self):
        with pytest.raises(options.UsageError) as caught:
            parse("--intervall=\x1b" + "x" * 5_000)
        assert str(caught.value).startswith("--intervall=\\x1bxxx")
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("name", ["timestamp_attribute", "id_attribute"])
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("reading\nid", "without control characters"),
            ("reading\x00id", "without control characters"),
            ("reading\u2028id", "without control characters"),
            ("googclient_id", "names that begin with goog are reserved"),
            ("\udc80", "in UTF-8"),
            ("a" * 5_000, "at most 256 bytes"),
            ("µ" * 129, "at most 256 bytes"),
        ],
    )
    def test_of_attributes_name_the_rule_that_is_broken(self, name, text, expected):
        with pytest.raises(options.UsageError, match=expected) as caught:
            parse(f"--{name}={text}")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


class TestRowsSince:
    def test_is_refused_in_the_future(self):
        with pytest.raises(
            options.UsageError,
            match=r"--rows_since=2062-11-22T13:00:00.000000Z: this is [0-9]{5} days, .* in the future",
        ):
            parse("--rows_since=2062-11-22T13:00:00Z")

    def test_is_accepted_from_the_current_second_on(self, monkeypatch):
        monkeypatch.setattr("time.time", lambda: 1_732_280_400.5)  # 2024-11-22T13:00:00.5Z
        assert parse("--rows_since=2024-11-22T13:00:00Z").rows_since == 1_732_280_400_000_000
        with pytest.raises(options.UsageError, match=r"this is 1:00:00 \(h:mm:ss\) in the future"):
            parse("--rows_since=2024-11-22T14:00:00Z")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2024-11-22T13:00:00+00:99", "a time with its offset"),
            ("2024-11-22T13:00:00+24:00", "a time with its offset"),
            ("2024-11-22T24:00:00Z", "a time with its offset"),
            ("2024-11-22T13:00:60Z", "a time with its offset"),
            ("2024-13-22T13:00:00Z", "no such date: month must be in 1..12"),
            ("2023-02-29T13:00:00Z", "no such date: day "),
            ("0000-01-01T00:00:00Z", "no such date: year "),
        ],
    )
    def test_is_refused_if_it_is_no_time(self, text, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(f"--rows_since={text}")
        assert expected in str(caught.value)


class TestMain:
    @pytest.mark.parametrize("start", [["-m", "pipeline.main"], ["pipeline/main.py"]])
    def test_ends_with_one_line_and_exit_code_2_for_bad_input(self, start):
        run = subprocess.run(
            [sys.executable, *start, TOPIC, "--interval=0s"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert (
            run.stderr
            == "error: --interval=0s: expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h\n"
        )
