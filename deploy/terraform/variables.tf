# Where resources are created, and how the job runs. The parameters of the template are in parameters.tf.

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
  description = "Name of the job, topic, subscription, repository and alerts, and prefix of the names of the accounts."
  type        = string
  default     = "sensor-stream"

  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{1,19}[a-z0-9]$", var.name))
    error_message = "Expected 3 to 21 lower-case letters, digits or -, because the name of an account has at most 30 characters."
  }
}

variable "bucket" {
  description = "Name of the bucket of specs and sources; the bucket of staged files has the suffix -jobs. Default: PROJECT-NAME."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Delete the buckets with their contents on destroy, including earlier versions of specs."
  type        = bool
  default     = false
}

variable "dataset" {
  description = "Dataset of the tables."
  type        = string
  default     = "sensors"
}

variable "dataset_location" {
  description = "Location of the dataset: the region, or the multi-region that contains it, EU or US. Default: the region."
  type        = string
  default     = null
}

variable "labels" {
  description = "Labels of all resources that support labels. Bills can be broken down by them."
  type        = map(string)
  default     = {}
}

variable "template_version" {
  description = "Tag of the build to run, such as v1; its spec is templates/TAG.json in the bucket. Null: no job, before the first build."
  type        = string
  default     = null
}

variable "subscription_retention" {
  description = "How long the subscription keeps unacknowledged messages, 600s to 2678400s (31 days)."
  type        = string
  default     = "604800s"
}

variable "topic_retention" {
  description = "How long the topic keeps all messages, so that a subscription can be replayed; billed by volume. Null: it keeps none."
  type        = string
  default     = null
}

variable "machine_type" {
  description = "Machine type of the workers. Null: the default of the service."
  type        = string
  default     = null
}

variable "launcher_machine_type" {
  description = "Machine type of the launcher, which runs for a minute or two. Null: the default of the service."
  type        = string
  default     = null
}

variable "max_workers" {
  description = "Maximum number of workers, which limits the cost."
  type        = number
  default     = 3
}

variable "streaming_engine" {
  description = "Store state and timers in the service instead of on the disks of workers."
  type        = bool
  default     = true
}

variable "private_workers" {
  description = "Create workers without public addresses. The subnetwork needs Private Google Access."
  type        = bool
  default     = false
}

variable "network" {
  description = "Name of the network of the workers. Null: that of the subnetwork, or the network default."
  type        = string
  default     = null
}

variable "subnetwork" {
  description = "Subnetwork of the workers: regions/REGION/subnetworks/NAME, or the full URL of a shared one."
  type        = string
  default     = null
}

variable "kms_key" {
  description = "Key that encrypts the job's state, topic, dataset, buckets and images: projects/P/locations/REGION/keyRings/R/cryptoKeys/K. Two service agents must exist before; see docs/terraform.md."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "Expected projects/P/locations/L/keyRings/R/cryptoKeys/K with the region as L, because a key belongs to one location."
  }

  validation {
    condition     = var.kms_key == null || coalesce(var.dataset_location, var.region) == var.region
    error_message = "With kms_key the dataset must be in the region: remove dataset_location."
  }
}

variable "source_repository" {
  description = "Repository connected to Cloud Build, projects/P/locations/L/connections/C/repositories/R. Null: no trigger."
  type        = string
  default     = null
}

variable "publisher_arguments" {
  description = "Arguments of the simulated sensors, after publish --topic=TOPIC, such as [\"--rate=50\", \"--duration=1h\"]. Null: no publisher."
  type        = list(string)
  default     = null
}

variable "monitoring" {
  description = "Create alerts, dashboard and log-based metrics."
  type        = bool
  default     = true
}

variable "notification_channels" {
  description = "Notification channels of the alerts, each projects/P/notificationChannels/N."
  type        = list(string)
  default     = []
}

variable "runbook" {
  description = "Address of docs/runbook.md, to which the alerts link."
  type        = string
  default     = "docs/runbook.md"
}
