"""Parameters: defaults, every wrong form, and the two ways to start."""

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

    def test_empty_text_means_not_given(self):
        assert parse("--interval=", "--output_table=", "--timestamp_attribute=") == parse()

    def test_the_dead_letter_table_is_named_after_the_output_table(self):
        assert parse("--output_table=my-project.d.t").dead_letter_table == TableId("my-project", "d", "t_dead_letters")

    def test_silences_have_a_table_named_after_the_output_table_when_they_are_watched_for(self):
        assert parse(TABLE).silence_table is None
        assert parse(TABLE, "--silence_after=5m").silence_table == TableId("my-project", "d", "t_silences")

    def test_the_local_runner_is_used_unless_another_is_named(self):
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
    def test_at_least_once_is_refused_in_every_spelling(self, flags):
        with pytest.raises(options.UsageError, match=r"^streaming_mode_at_least_once.* would count twice"):
            parse(*flags)

    def test_exactly_once_and_other_options_are_passed_on(self):
        flags = ["--dataflow_service_options=streaming_mode_exactly_once,enable_prime", "--experiments=use_runner_v2"]
        google = options.parse([TOPIC, *flags])[1].view_as(GoogleCloudOptions)
        assert google.dataflow_service_options == ["streaming_mode_exactly_once", "enable_prime"]


class TestWorkerImage:
    """Workers run the template's own image, whose name it knows, unless told otherwise."""

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
    def test_is_the_templates_own_by_default(self, monkeypatch, in_image, flags, expected):
        monkeypatch.delenv(options.IMAGE_VARIABLE, raising=False)
        if in_image is not None:
            monkeypatch.setenv(options.IMAGE_VARIABLE, in_image)
        workers = options.parse([TOPIC, *flags])[1].view_as(WorkerOptions)
        assert (workers.sdk_container_image or None) == expected


class TestGoodForms:
    def test_values_are_read(self):
        job = parse(
            "--interval=5m", "--session_gap=1h", "--grace_period=0s", "--sensors=b, a_1", "--group_by_device=true"
        )
        assert (job.interval, job.session_gap, job.grace_period) == (300, 3600, 0)
        job = parse("--sensors=b, a_1", "--group_by_device=true")
        assert (job.sensors, job.group_by_device) == (("b", "a_1"), True)

    def test_statistics_keep_their_order(self):
        assert parse().statistics.names == ("mean",)
        assert parse("--statistics=max, mean ,first").statistics.names == ("max", "mean", "first")

    def test_hopping_windows_that_do_not_overlap_are_fixed_ones(self):
        assert parse("--window=hopping", "--interval=15s", "--hop=15s").intervals == parse().intervals
        assert parse("--window=hopping", "--interval=15s", "--hop=5s").intervals == PanedIntervals(
            15, 5, 3600, False, hop=5, pane=5
        )

    @pytest.mark.parametrize(
        ("interval", "pane"), [("16m", 480), ("1h", 900), ("2h", 900), ("24h", 900), ("7220s", 722), ("168h", 900)]
    )
    def test_intervals_of_more_than_15_minutes_are_put_together_from_panes(self, interval, pane):
        intervals = parse(f"--interval={interval}").intervals
        assert intervals == PanedIntervals(intervals.interval, 5, 3600, False, hop=intervals.interval, pane=pane)
        assert intervals.interval % pane == 0

    # 3,607 is a prime number, and 901 is 17 times 53.
    @pytest.mark.parametrize("interval", ["15s", "15m", "901s", "3607s"])
    def test_other_intervals_are_not(self, interval):
        intervals = parse(f"--interval={interval}").intervals
        assert intervals == FixedIntervals(intervals.interval, 5, 3600, False)

    @pytest.mark.parametrize(("hop", "pane"), [("15m", 900), ("20m", 600), ("2h", 900)])
    def test_a_hop_of_more_than_15_minutes_has_shorter_panes(self, hop, pane):
        intervals = parse("--window=hopping", "--interval=24h", f"--hop={hop}").intervals
        assert getattr(intervals, "panes", intervals).interval == pane

    @pytest.mark.parametrize(
        "text", ["1970-01-01T00:01:00Z", "1970-01-01T01:01:00+01:00", "1969-12-31T23:01:00.000000-01:00"]
    )
    def test_a_time_is_read_in_microseconds_since_the_epoch(self, text):
        assert parse(f"--rows_since={text}").rows_since == 60_000_000

    @pytest.mark.parametrize("text", ["my-project:d.t", "my-project.d.t"])
    def test_both_forms_of_a_table(self, text):
        assert parse(f"--output_table={text}").output_table == TableId("my-project", "d", "t")

    def test_a_domain_scoped_project(self):
        assert parse("--output_table=example.com:my-proj:d.t").output_table == TableId("example.com:my-proj", "d", "t")


class TestWrongTogether:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("--window=hopping --hop=4s", "--interval=15s is not a multiple of it"),
            ("--window=hopping --hop=30s", "--interval=15s is not a multiple of it"),
            ("--window=hopping --hop=1s --interval=1h", "each reading would be in 3,600 rows, of at most 1,440"),
            ("--sensors=Temp,Temp_max --statistics=mean,max", "Temp_max would be a column of Temp and of Temp_max"),
            ("--sensors=temp_MAX,Temp --statistics=mean,max", "Temp_max would be a column of temp_MAX and of Temp"),
            (f"--sensors={'a' * 299} --statistics=sum", "longer than 300 characters; rename the sensor"),
            ("--statistics=stddev --on_late=revise", "ask for count as well"),
        ],
    )
    def test_the_message_says_what_does_not_fit(self, flags, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(*flags.split())
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_names_that_only_look_alike_are_no_clash(self):
        job = parse("--sensors=Temp,Temp_max", "--statistics=max")
        assert [name for sensor in job.sensors for name, _ in job.statistics.columns(sensor)] == [
            "Temp_max",
            "Temp_max_max",
        ]


class TestWrongForms:
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
            ("--window=sliding", "expected fixed or hopping or session"),
            ("--window=hopping", "needs --hop"),
            ("--hop=5s", "give --window=hopping too"),
            ("--statistics=median", "out of mean, count, min, max, sum, stddev, first, last"),
            ("--statistics=mean,max,mean", "name each statistic once"),
            ("--statistics=mean;max", "comma-separated names"),
            ("--on_late=drop", "expected dead_letter or revise"),
            ("--sensors=Temp,", "comma-separated column names"),
            ("--sensors=Temp;AtmP", "comma-separated column names"),
            ("--sensors=2Temp", "comma-separated column names"),
            ("--sensors=Température", "letters A to Z"),
            ("--sensors=" + "a" * 301, "at most 300 characters"),
            ("--sensors=Temp,temp", "name each sensor once"),
            ("--sensors=Timestamp", "is taken"),
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
            ("--silence_topic=projects/test-project/topics/silences", "--silence_topic needs --silence_after"),
            ("--timestamp_attribute=" + "a" * 257, "at most 256 bytes"),
            ("--id_attribute='reading_id'", "without blanks or quotes"),
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
    def test_the_message_names_the_flag_and_the_fix_on_one_line(self, flag, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(flag)
        message = str(caught.value)
        assert expected in message
        assert "\n" not in message

    def test_on_dataflow_rows_need_a_table(self):
        with pytest.raises(options.UsageError, match="--output_table is missing; only a local run may go without"):
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
    def test_dataflow_is_known_by_every_spelling_that_beam_takes(self, runner):
        with pytest.raises(options.UsageError, match="--output_table is missing"):
            parse(f"--runner={runner}")
        beam_options = options.parse([TOPIC, TABLE, "--runner", runner])[1]
        assert beam_options.view_as(StandardOptions).runner == "DataflowRunner"
        assert options.runs_on_dataflow(beam_options)

    def test_a_runner_that_beam_does_not_know_is_refused_and_one_of_another_package_is_not(self):
        with pytest.raises(options.UsageError, match="--runner=datafow: expected one of DataflowRunner, "):
            parse("--runner=datafow")
        beam_options = options.parse([TOPIC, "--runner=ours.DataflowRunner"])[1]
        assert beam_options.view_as(StandardOptions).runner == "ours.DataflowRunner"

    def test_a_blank_runner_is_the_local_one(self):
        assert options.parse([TOPIC, "--runner="])[1].view_as(StandardOptions).runner == options.LOCAL_RUNNER

    def test_neither_topic_nor_subscription(self):
        with pytest.raises(options.UsageError, match=r"exactly one of .* neither is given"):
            options.parse([])

    def test_dead_letters_into_the_input_topic(self):
        with pytest.raises(options.UsageError, match="would come back for ever"):
            parse(TOPIC.replace("input", "dead_letter"))

    def test_silences_into_the_input_topic(self):
        with pytest.raises(options.UsageError, match="would be taken for readings"):
            parse(TOPIC.replace("input", "silence"), "--silence_after=5m")

    def test_sessions_have_no_gaps_to_fill(self):
        with pytest.raises(options.UsageError, match="sessions have no intervals to fill; use --window=fixed"):
            parse("--fill_gaps=true", "--window=session")

    def test_hopping_windows_have_gaps_to_fill(self):
        assert parse("--fill_gaps=true", "--window=hopping", "--interval=1m", "--hop=15s").fill_gaps

    @pytest.mark.parametrize("flags", [("--sensors=Temp,FILLED",), ("--sensors=Temp,filled", "--statistics=mean,max")])
    def test_a_column_named_as_that_of_the_view_without_gaps(self, flags):
        assert parse(*flags)
        with pytest.raises(options.UsageError, match="the view has a column Filled of its own; rename the sensor"):
            parse("--fill_gaps=true", *flags)

    def test_a_sensor_without_a_column_of_its_name_is_no_clash(self):
        assert parse("--fill_gaps=true", "--sensors=Filled", "--statistics=max").fill_gaps


class TestTablesOfOneName:
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
    def test_are_refused_however_they_are_written(self, flags, name, other):
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
    def test_are_accepted_when_the_job_uses_one_only(self, flag):
        assert parse("--output_table=my-project:d.t", flag).dead_letter_table

    def test_a_name_that_would_be_too_long_with_its_suffix_is_refused(self):
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
    def test_their_values_are_not_taken_for_misspelt_parameters(self, flags):
        assert parse(*flags) == parse()

    def test_none_of_them_has_the_name_of_a_parameter(self):
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
    def test_a_wrong_value_is_one_short_line_with_the_name_of_the_flag(self, flag, expected, capfd):
        with pytest.raises(options.UsageError) as caught:
            parse(flag)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert capfd.readouterr() == ("", "")

    def test_those_the_launcher_passes_are_accepted(self):
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

    def test_of_a_misspelt_parameter_too(self):
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
    def test_attributes_are_those_that_a_publisher_may_set(self, name, text, expected):
        with pytest.raises(options.UsageError, match=expected) as caught:
            parse(f"--{name}={text}")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


class TestRowsSince:
    def test_in_the_future_is_refused_with_how_far(self):
        with pytest.raises(
            options.UsageError,
            match=r"--rows_since=2062-11-22T13:00:00.000000Z: this is [0-9]{5} days, .* in the future",
        ):
            parse("--rows_since=2062-11-22T13:00:00Z")

    def test_one_second_ago_is_accepted_and_an_hour_ahead_is_not(self, monkeypatch):
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
    def test_that_is_no_time_is_refused(self, text, expected):
        with pytest.raises(options.UsageError) as caught:
            parse(f"--rows_since={text}")
        assert expected in str(caught.value)


class TestEntryPoints:
    @pytest.mark.parametrize("start", [["-m", "pipeline.main"], ["pipeline/main.py"]])
    def test_bad_input_ends_with_one_line_and_exit_code_2(self, start):
        run = subprocess.run(
            [sys.executable, *start, TOPIC, "--interval=0s"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert (
            run.stderr
            == "error: --interval=0s: expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h\n"
        )
