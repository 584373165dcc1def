# Made by `make metadata` from pipeline/parameters.py. Null: the template's default.

locals {
  template_parameters = {
    input_subscription  = var.input_subscription
    input_topic         = var.input_topic
    timestamp_attribute = var.timestamp_attribute
    id_attribute        = var.id_attribute
    sensors             = var.sensors
    group_by_device     = var.group_by_device
    max_future_skew     = var.max_future_skew
    window              = var.window
    interval            = var.interval
    session_gap         = var.session_gap
    grace_period        = var.grace_period
    allowed_lateness    = var.allowed_lateness
    on_late             = var.on_late
    output_table        = var.output_table
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
  description = "fixed: intervals of one length, stamped with their start. session: bursts of readings, stamped with their end (last reading + session_gap). Default: fixed."
  type        = string
  default     = null

  validation {
    condition     = var.window == null || can(regex("^(fixed|session)$", var.window))
    error_message = "Expected fixed or session."
  }
}

variable "interval" {
  description = "Length of a fixed window, such as 15s, 5m or 1h. Default: 15s."
  type        = string
  default     = null

  validation {
    condition     = var.interval == null || can(regex("^([1-9][0-9]{0,8}[smh])$", var.interval))
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
  description = "What becomes of late readings. dead_letter: rows are final, the late sums go to the dead-letter table. revise: the whole corrected row is written again, with Revision and WrittenAt; the view OUTPUT_TABLE_latest shows the newest. Default: dead_letter."
  type        = string
  default     = null

  validation {
    condition     = var.on_late == null || can(regex("^(dead_letter|revise)$", var.on_late))
    error_message = "Expected dead_letter or revise."
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
  description = "Check topics, subscription, permissions and tables before the job starts, and create missing tables. With false nothing is looked up or created; both tables must be there. Default: true."
  type        = string
  default     = null

  validation {
    condition     = var.check_before_launch == null || can(regex("^(true|false)$", var.check_before_launch))
    error_message = "Expected true or false."
  }
}
