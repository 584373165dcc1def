# Made by `make metadata` from pipeline/launch/parameters.py. Null: the template's default.

locals {
  template_parameters = {
    input_subscription  = var.input_subscription
    input_topic         = var.input_topic
    timestamp_attribute = var.timestamp_attribute
    id_attribute        = var.id_attribute
    sensors             = var.sensors
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
  description = "Topic to read, projects/PROJECT/topics/NAME, through a subscription made for the job. Give either this or a subscription, not both."
  type        = string
  default     = null

  validation {
    condition     = var.input_topic == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.input_topic))
    error_message = "Expected projects/PROJECT/topics/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "timestamp_attribute" {
  description = "Message attribute with the event time (RFC 3339 or epoch milliseconds) that drives the watermark; without it the publish time does. A reading's own Timestamp always decides its window."
  type        = string
  default     = null

  validation {
    condition     = var.timestamp_attribute == null || can(regex("^([^ \"']+)$", var.timestamp_attribute))
    error_message = "Expected an attribute's name, without blanks or quotes."
  }
}

variable "id_attribute" {
  description = "Message attribute that identifies a message; of those with the same one, the first in ten minutes counts."
  type        = string
  default     = null

  validation {
    condition     = var.id_attribute == null || can(regex("^([^ \"']+)$", var.id_attribute))
    error_message = "Expected an attribute's name, without blanks or quotes."
  }
}

variable "sensors" {
  description = "Sensor columns, comma-separated, in table order. Default: Airtight,AtmP,H2OC,Temp."
  type        = string
  default     = null

  validation {
    condition     = var.sensors == null || can(regex("^( *[A-Za-z_][A-Za-z0-9_]* *(, *[A-Za-z_][A-Za-z0-9_]* *)*)$", var.sensors))
    error_message = "Expected comma-separated column names of letters A to Z, digits and _, such as Temp,AtmP."
  }
}

variable "statistics" {
  description = "What a row says of each sensor, comma-separated: mean, count, min, max, sum, stddev, first, last. The mean has the sensor's name for a column, the others SENSOR_STATISTIC, such as Temp_max. Default: mean."
  type        = string
  default     = null

  validation {
    condition     = var.statistics == null || can(regex("^( *(mean|count|min|max|sum|stddev|first|last) *(, *(mean|count|min|max|sum|stddev|first|last) *)*)$", var.statistics))
    error_message = "Expected comma-separated names out of mean, count, min, max, sum, stddev, first, last."
  }
}

variable "group_by_device" {
  description = "One row per device and interval, with the column Device. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.group_by_device == null || can(regex("^(true|false)$", var.group_by_device))
    error_message = "Expected true or false."
  }
}

variable "max_future_skew" {
  description = "A reading further ahead of the clock than this is refused. Default: 10m."
  type        = string
  default     = null

  validation {
    condition     = var.max_future_skew == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.max_future_skew))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "window" {
  description = "fixed: intervals of one length, stamped with their start. hopping: the same, but one starts every hop, so that they overlap. session: bursts of readings, stamped with their end (last reading + session_gap). Default: fixed."
  type        = string
  default     = null

  validation {
    condition     = var.window == null || can(regex("^(fixed|hopping|session)$", var.window))
    error_message = "Expected fixed or hopping or session."
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
  description = "How often a hopping window starts, such as 5s. Needed for hopping windows; the interval must be a multiple of it, at most 1,440 times as long."
  type        = string
  default     = null

  validation {
    condition     = var.hop == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.hop))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "session_gap" {
  description = "Silence that ends a session. Default: 60s."
  type        = string
  default     = null

  validation {
    condition     = var.session_gap == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.session_gap))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "grace_period" {
  description = "How long a window is held open after its end for stragglers. Default: 5s."
  type        = string
  default     = null

  validation {
    condition     = var.grace_period == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.grace_period))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "allowed_lateness" {
  description = "How long after that late readings are still accounted for. Default: 1h."
  type        = string
  default     = null

  validation {
    condition     = var.allowed_lateness == null || can(regex("^(0[smh]|[1-9][0-9]{0,8}[smh])$", var.allowed_lateness))
    error_message = "Expected a whole number with s, m or h, such as 0s, 5m or 1h."
  }
}

variable "on_late" {
  description = "What becomes of late readings. dead_letter: rows are final, the late sums go to the dead-letter table. revise: the whole corrected row is written again, with Revision and WrittenAt; the view OUTPUT_TABLE_latest shows the newest. With write_method=upsert it takes the place of the one before. Default: dead_letter."
  type        = string
  default     = null

  validation {
    condition     = var.on_late == null || can(regex("^(dead_letter|revise)$", var.on_late))
    error_message = "Expected dead_letter or revise."
  }
}

variable "rows_since" {
  description = "Intervals that begin before this time, such as 2026-11-22T13:00:00Z, are only counted. For a replay: seek the subscription to a little before it."
  type        = string
  default     = null

  validation {
    condition     = var.rows_since == null || can(regex("^([0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9]))$", var.rows_since))
    error_message = "Expected a time with its offset, such as 2026-11-22T13:00:00Z."
  }
}

variable "silence_after" {
  description = "Note in the table OUTPUT_TABLE_silences when no reading of a device, or none at all, came for this long, such as 5m, and when it is back. Without it nobody watches."
  type        = string
  default     = null

  validation {
    condition     = var.silence_after == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.silence_after))
    error_message = "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."
  }
}

variable "silence_topic" {
  description = "Topic to publish silences to as well, to be paged: the row as JSON, with the attributes device and event (silent or back). Needs silence_after."
  type        = string
  default     = null

  validation {
    condition     = var.silence_topic == null || can(regex("^(projects/([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]/topics/[A-Za-z][-A-Za-z0-9_.~+%]{2,254})$", var.silence_topic))
    error_message = "Expected projects/PROJECT/topics/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning with a letter."
  }
}

variable "output_table" {
  description = "Table for the rows, project:dataset.table. Required on Dataflow; a local run without it prints rows."
  type        = string
  default     = null

  validation {
    condition     = var.output_table == null || can(regex("^(([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9][:.][A-Za-z0-9_]+[.][-A-Za-z0-9_]+)$", var.output_table))
    error_message = "Expected project:dataset.table, for example my-project:sensors.readings."
  }
}

variable "write_method" {
  description = "streaming_inserts: BigQuery's older API. storage_write: appended through the Storage Write API, at least once, so a row may be there twice. upsert: through the same API by primary key, so that each interval has one row whatever is retried, revised or replayed. Default: streaming_inserts."
  type        = string
  default     = null

  validation {
    condition     = var.write_method == null || can(regex("^(streaming_inserts|storage_write|upsert)$", var.write_method))
    error_message = "Expected streaming_inserts or storage_write or upsert."
  }
}

variable "fill_gaps" {
  description = "Create the view OUTPUT_TABLE_filled: a row for every interval of the last 30 days, values carried forward for up to 20 intervals. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.fill_gaps == null || can(regex("^(true|false)$", var.fill_gaps))
    error_message = "Expected true or false."
  }
}

variable "dead_letter_table" {
  description = "Table for what cannot become a row. Default: the output table's name with _dead_letters appended."
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
  description = "Keep message attributes and ids in dead letters. Costs CPU for every message. Default: false."
  type        = string
  default     = null

  validation {
    condition     = var.keep_attributes == null || can(regex("^(true|false)$", var.keep_attributes))
    error_message = "Expected true or false."
  }
}

variable "check_before_launch" {
  description = "Check topics, subscription, permissions and tables before the job starts, and create missing tables. With false nothing is looked up or created; all tables must be there. Default: true."
  type        = string
  default     = null

  validation {
    condition     = var.check_before_launch == null || can(regex("^(true|false)$", var.check_before_launch))
    error_message = "Expected true or false."
  }
}
