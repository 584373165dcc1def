# Written by `make metadata` from pipeline/launch/parameters.py. Null: the default of the template.

locals {
  template_parameters = {
    input_subscription  = var.input_subscription
    input_topic         = var.input_topic
    timestamp_attribute = var.timestamp_attribute
    id_attribute        = var.id_attribute
    sensors             = var.sensors
    format              = var.format
    csv_columns         = var.csv_columns
    timestamp           = var.timestamp
    device              = var.device
    sensor_name         = var.sensor_name
    sensor_value        = var.sensor_value
    values              = var.values
    time_zone           = var.time_zone
    no_reading          = var.no_reading
    statistics          = var.statistics
    group_by_device     = var.group_by_device
    max_future_skew     = var.max_future_skew
    window              = var.window
    interval            = var.interval
    hop                 = var.hop
    session_gap         = var.session_gap
    grace_period        = var.grace_period
    allowed_lateness    = var.allowed_lateness
    on_late             = var.on_late
    rows_since          = var.rows_since
    silence_after       = var.silence_after
    silence_topic       = var.silence_topic
    output_table        = var.output_table
    write_method        = var.write_method
    fill_gaps           = var.fill_gaps
    dead_letter_table   = var.dead_letter_table
    dead_letter_topic   = var.dead_letter_topic
    keep_attributes     = var.keep_attributes
    check_before_launch = var.check_before_launch
  }
}

variable "input_subscription" {
  description = "Subscription to read, projects/PROJECT/subscriptions/NAME. Give either this or a topic, not both."
  type        = string
  default     = null

  validation {
    condition     = var.input_subscription == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/subscriptions/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.input_subscription))
    error_message = "Expected projects/PROJECT/subscriptions/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "input_topic" {
  description = "Topic to read, projects/PROJECT/topics/NAME, through a subscription that is created for the job. Give either this or a subscription, not both."
  type        = string
  default     = null

  validation {
    condition     = var.input_topic == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.input_topic))
    error_message = "Expected projects/PROJECT/topics/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "timestamp_attribute" {
  description = "Message attribute that holds the event time (RFC 3339 or epoch milliseconds) and drives the watermark. If empty, the publish time drives it. The Timestamp of a reading always decides its window."
  type        = string
  default     = null

  validation {
    condition     = var.timestamp_attribute == null || can(regex("^([^ \"']+)$", var.timestamp_attribute))
    error_message = "Expected an attribute name without spaces or quotes."
  }
}

variable "id_attribute" {
  description = "Message attribute that identifies a message. Of several messages with the same value within ten minutes, only the first counts."
  type        = string
  default     = null

  validation {
    condition     = var.id_attribute == null || can(regex("^([^ \"']+)$", var.id_attribute))
    error_message = "Expected an attribute name without spaces or quotes."
  }
}

variable "sensors" {
  description = "Sensor columns, comma-separated, in table order; COLUMN=PATH where the path in the message differs. Default: Airtight,AtmP,H2OC,Temp."
  type        = string
  default     = null

  validation {
    condition     = var.sensors == null || can(regex("^( *[A-Za-z_][A-Za-z0-9_]* *(=([^,'\"]|'[^']*'|\"[^\"]*\")+)?(, *[A-Za-z_][A-Za-z0-9_]* *(=([^,'\"]|'[^']*'|\"[^\"]*\")+)?)*)$", var.sensors))
    error_message = "Expected comma-separated column names of letters A to Z, digits and _, each with = and a path if that differs, such as Temp,AtmP=payload.pressure."
  }
}

variable "format" {
  description = "How the bytes of a message become documents. json: an object, an array of objects, or either per line. influx: line protocol. senml: RFC 8428. csv: columns named by csv_columns. form: URL-encoded. text: the text is the document. avro: records of the topic's schema. Default: json."
  type        = string
  default     = null

  validation {
    condition     = var.format == null || can(regex("^(json|influx|senml|csv|form|text|avro)$", var.format))
    error_message = "Expected one of json, influx, senml, csv, form, text, avro."
  }
}

variable "csv_columns" {
  description = "Names of the columns of CSV, comma-separated. Needed with the format csv."
  type        = string
  default     = null

  validation {
    condition     = var.csv_columns == null || can(regex("^([^\"']*[^ ,\"'][^\"']*)$", var.csv_columns))
    error_message = "Expected comma-separated column names, without quotes."
  }
}

variable "timestamp" {
  description = "Path of a reading's event time, such as uplink.received_at, attribute:ts or message:time. Default: Timestamp."
  type        = string
  default     = null

  validation {
    condition     = var.timestamp == null || can(regex("^([^ '\"].*)$", var.timestamp))
    error_message = "Expected a path, such as payload.time."
  }
}

variable "device" {
  description = "Path of a reading's device, such as end_device_ids.device_id or attribute:topic/1. Default: Device."
  type        = string
  default     = null

  validation {
    condition     = var.device == null || can(regex("^([^ '\"].*)$", var.device))
    error_message = "Expected a path, such as payload.time."
  }
}

variable "sensor_name" {
  description = "Path of the sensor's name in documents that list names and values, such as data[*].name. Needs sensor_value; sensors then says COLUMN=NAME."
  type        = string
  default     = null

  validation {
    condition     = var.sensor_name == null || can(regex("^([^ '\"].*)$", var.sensor_name))
    error_message = "Expected a path, such as payload.time."
  }
}

variable "sensor_value" {
  description = "Path of the value that belongs to sensor_name, such as data[*].value."
  type        = string
  default     = null

  validation {
    condition     = var.sensor_value == null || can(regex("^([^ '\"].*)$", var.sensor_value))
    error_message = "Expected a path, such as payload.time."
  }
}

variable "values" {
  description = "strict: JSON numbers only. lenient: also numbers in text, with or without a unit, and booleans as 0 and 1; empty text, nan, null, unknown and unavailable are absent. Default: strict."
  type        = string
  default     = null

  validation {
    condition     = var.values == null || can(regex("^(strict|lenient)$", var.values))
    error_message = "Expected one of strict, lenient."
  }
}

variable "time_zone" {
  description = "IANA zone of timestamps without an offset, such as Europe/Berlin. Default: UTC."
  type        = string
  default     = null

  validation {
    condition     = var.time_zone == null || can(regex("^([A-Za-z][A-Za-z0-9_+/-]*)$", var.time_zone))
    error_message = "Expected an IANA name, such as Europe/Berlin."
  }
}

variable "no_reading" {
  description = "What happens to a document in which no sensor was found. dead_letter: it is a dead letter. ignore: it is only counted, as for status messages on the same topic. Default: dead_letter."
  type        = string
  default     = null

  validation {
    condition     = var.no_reading == null || can(regex("^(dead_letter|ignore)$", var.no_reading))
    error_message = "Expected one of dead_letter, ignore."
  }
}

variable "statistics" {
  description = "Statistics of each sensor, comma-separated: mean, count, min, max, sum, stddev, first, last. The column of the mean is named as the sensor, the others SENSOR_STATISTIC, such as Temp_max. Default: mean."
  type        = string
  default     = null

  validation {
    condition     = var.statistics == null || can(regex("^( *(mean|count|min|max|sum|stddev|first|last) *(, *(mean|count|min|max|sum|stddev|first|last) *)*)$", var.statistics))
    error_message = "Expected comma-separated names from mean, count, min, max, sum, stddev, first, last."
  }
}

variable "group_by_device" {
  description = "Write one row per device and interval, with the column Device. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.group_by_device == null || can(regex("^(true|false)$", var.group_by_device))
    error_message = "Expected true or false."
  }
}

variable "max_future_skew" {
  description = "Refuse readings whose Timestamp is further ahead of the clock than this. Default: 10m."
  type        = string
  default     = null

  validation {
    condition     = var.max_future_skew == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.max_future_skew))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "window" {
  description = "fixed: intervals of one length, stamped with their start. hopping: intervals of one length that start every hop, so they overlap. session: bursts of readings, stamped with their end (last reading + session_gap). Default: fixed."
  type        = string
  default     = null

  validation {
    condition     = var.window == null || can(regex("^(fixed|hopping|session)$", var.window))
    error_message = "Expected one of fixed, hopping, session."
  }
}

variable "interval" {
  description = "Length of a fixed or hopping window, such as 15s, 5m or 1h. Default: 15s."
  type        = string
  default     = null

  validation {
    condition     = var.interval == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.interval))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "hop" {
  description = "Time from the start of one hopping window to the start of the next, such as 5s. Required for hopping windows. The interval must be a multiple of it, at most 1,440 times as long."
  type        = string
  default     = null

  validation {
    condition     = var.hop == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.hop))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "session_gap" {
  description = "Time without readings that ends a session. Default: 60s."
  type        = string
  default     = null

  validation {
    condition     = var.session_gap == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.session_gap))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "grace_period" {
  description = "How long a window stays open after its end for stragglers. Default: 5s."
  type        = string
  default     = null

  validation {
    condition     = var.grace_period == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.grace_period))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "allowed_lateness" {
  description = "How long after the grace period a reading counts as late. A reading that arrives after that is expired and becomes a dead letter. Default: 1h."
  type        = string
  default     = null

  validation {
    condition     = var.allowed_lateness == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.allowed_lateness))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "on_late" {
  description = "What happens to late readings. dead_letter: rows are final, and the late sums go to the dead-letter table. revise: the corrected row is written again, with Revision and WrittenAt, and the view OUTPUT_TABLE_latest shows the newest revision. With write_method=upsert it replaces the earlier row. Default: dead_letter."
  type        = string
  default     = null

  validation {
    condition     = var.on_late == null || can(regex("^(dead_letter|revise)$", var.on_late))
    error_message = "Expected one of dead_letter, revise."
  }
}

variable "rows_since" {
  description = "For a replay: intervals that begin before this time, such as 2026-11-22T13:00:00Z, are counted and not written. Seek the subscription to a little before this time."
  type        = string
  default     = null

  validation {
    condition     = var.rows_since == null || can(regex("^([0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9]))$", var.rows_since))
    error_message = "Expected a time with its offset from UTC, such as 2026-11-22T13:00:00Z."
  }
}

variable "silence_after" {
  description = "Write a row to OUTPUT_TABLE_silences when a device or the whole stream has sent nothing for this long, such as 5m, and when it resumes. Disabled if empty."
  type        = string
  default     = null

  validation {
    condition     = var.silence_after == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.silence_after))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "silence_topic" {
  description = "Topic to publish silences to as well, for example to page somebody: the row as JSON, with the attributes device and event (silent or back). Requires silence_after."
  type        = string
  default     = null

  validation {
    condition     = var.silence_topic == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.silence_topic))
    error_message = "Expected projects/PROJECT/topics/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "output_table" {
  description = "Table for the rows, project:dataset.table. Required on Dataflow; a local run without it prints the rows."
  type        = string
  default     = null

  validation {
    condition     = var.output_table == null || can(regex("^(([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9][:.][A-Za-z0-9_]+[.][-A-Za-z0-9_]+)$", var.output_table))
    error_message = "Expected project:dataset.table, for example my-project:sensors.readings."
  }
}

variable "write_method" {
  description = "streaming_inserts: BigQuery's older API. storage_write: append through the Storage Write API, at least once, so a row may be stored twice. upsert: write through the same API by primary key, so that each interval has one row, also after retries, revisions and replays. Default: streaming_inserts."
  type        = string
  default     = null

  validation {
    condition     = var.write_method == null || can(regex("^(streaming_inserts|storage_write|upsert)$", var.write_method))
    error_message = "Expected one of streaming_inserts, storage_write, upsert."
  }
}

variable "fill_gaps" {
  description = "Create the view OUTPUT_TABLE_filled, which has a row for every interval of the last 30 days and carries values forward for up to 20 intervals. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.fill_gaps == null || can(regex("^(true|false)$", var.fill_gaps))
    error_message = "Expected true or false."
  }
}

variable "dead_letter_table" {
  description = "Table for what cannot become a row. Default: the name of the output table with _dead_letters appended."
  type        = string
  default     = null

  validation {
    condition     = var.dead_letter_table == null || can(regex("^(([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9][:.][A-Za-z0-9_]+[.][-A-Za-z0-9_]+)$", var.dead_letter_table))
    error_message = "Expected project:dataset.table, for example my-project:sensors.readings."
  }
}

variable "dead_letter_topic" {
  description = "Topic to publish dead letters to as well: the payload as data, the other columns as attributes."
  type        = string
  default     = null

  validation {
    condition     = var.dead_letter_topic == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.dead_letter_topic))
    error_message = "Expected projects/PROJECT/topics/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "keep_attributes" {
  description = "Keep the attributes and ids of messages in dead letters. Costs CPU for every message. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.keep_attributes == null || can(regex("^(true|false)$", var.keep_attributes))
    error_message = "Expected true or false."
  }
}

variable "check_before_launch" {
  description = "Check topics, subscription, permissions and tables before the job starts, and create missing tables. If false, nothing is checked or created, and all tables must exist. Default: true."
  type        = string
  default     = null

  validation {
    condition     = var.check_before_launch == null || can(regex("^(true|false)$", var.check_before_launch))
    error_message = "Expected true or false."
  }
}
