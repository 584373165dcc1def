# Where everything is, and how the job runs. What the job does is in parameters.tf.

variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the job, the bucket and the images."
  type        = string
  default     = "europe-west1"
}

variable "name" {
  description = "Name of the job, topic, subscription, repository and alerts, and what the accounts' names begin with."
  type        = string
  default     = "sensor-stream"

  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{1,19}[a-z0-9]$", var.name))
    error_message = "Expected 3 to 21 lower-case letters, digits or -, since an account's name has 30."
  }
}

variable "bucket" {
  description = "Name of the bucket of specs and sources; that of staged files has -jobs after it. Default: the project's id, - and the name."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Let a destroy delete the buckets with all that is in them, earlier versions of specs included."
  type        = bool
  default     = false
}

variable "dataset" {
  description = "Dataset of the tables."
  type        = string
  default     = "sensors"
}

variable "dataset_location" {
  description = "Where the dataset is: the region, or a multi-region that holds it, EU or US. Default: the region."
  type        = string
  default     = null
}

variable "labels" {
  description = "Labels of everything that takes some; bills can be broken down by them."
  type        = map(string)
  default     = {}
}

variable "template_version" {
  description = "Tag of the build to run, such as v1: its spec is templates/TAG.json in the bucket. Null: no job, for before the first build."
  type        = string
  default     = null
}

variable "subscription_retention" {
  description = "How long the subscription keeps what nobody has read, 600s to 2678400s (31 days)."
  type        = string
  default     = "604800s"
}

variable "topic_retention" {
  description = "How long the topic keeps what was read too, so that a subscription can be set back to redo it. Null: not at all; it is billed by volume."
  type        = string
  default     = null
}

variable "machine_type" {
  description = "Machine type of the workers. Null: the service's choice."
  type        = string
  default     = null
}

variable "launcher_machine_type" {
  description = "Machine type of the launcher, which runs at a launch only. Null: the service's choice."
  type        = string
  default     = null
}

variable "max_workers" {
  description = "Bounds the cost."
  type        = number
  default     = 3
}

variable "streaming_engine" {
  description = "Keep state and timers in the service, not on the workers' disks."
  type        = bool
  default     = true
}

variable "private_workers" {
  description = "Workers without public addresses. The subnetwork needs Private Google Access; nothing else is fetched."
  type        = bool
  default     = false
}

variable "network" {
  description = "Network of the workers, by name. Null: that of the subnetwork, or the one named default."
  type        = string
  default     = null
}

variable "subnetwork" {
  description = "Subnetwork of the workers: regions/REGION/subnetworks/NAME, or the full URL for a shared one."
  type        = string
  default     = null
}

variable "kms_key" {
  description = "Key of the job's state, topic, dataset, buckets and images: projects/P/locations/REGION/keyRings/R/cryptoKeys/K. Two of the services' agents must exist before; see docs/terraform.md."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "Expected projects/P/locations/L/keyRings/R/cryptoKeys/K with the region as L, since a key serves one location."
  }

  validation {
    condition     = var.kms_key == null || coalesce(var.dataset_location, var.region) == var.region
    error_message = "With a key the dataset must be in the region: leave dataset_location out."
  }
}

variable "source_repository" {
  description = "Repository connected to Cloud Build, projects/P/locations/L/connections/C/repositories/R. Null: no trigger."
  type        = string
  default     = null
}

variable "publisher_arguments" {
  description = "Arguments of the simulated sensors after publish --topic=TOPIC, such as [\"--rate=50\", \"--duration=1h\"]. Null: no publisher."
  type        = list(string)
  default     = null
}

variable "monitoring" {
  description = "Alerts, dashboard and log-based metrics."
  type        = bool
  default     = true
}

variable "notification_channels" {
  description = "Who is told by the alerts: projects/P/notificationChannels/N, each."
  type        = list(string)
  default     = []
}

variable "runbook" {
  description = "Address of docs/runbook.md, which the alerts link to."
  type        = string
  default     = "docs/runbook.md"
}
